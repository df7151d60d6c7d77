//! `[bounds.NAME]`: what an administrator lets the drop-in files of a team do. A file that is bound
//! matches only what its bounds hold and uses only what they name, so that one team's file cannot
//! reach another's unit, subject, issuer or keystore. Once there are bounds, every file needs some.

use super::super::file::{BoundsSection, MatchSection, TargetSection, WorkloadSection};
use super::super::many::OneOrMany;
use super::matching::{pattern, unit_pattern};
use super::*;
use crate::selector::{Pattern, Selector, unit_name};

/// What some files may do.
pub struct Bounds {
    name: String,
    files: Vec<Pattern>,
    workloads: Vec<Pattern>,
    units: Option<Vec<Pattern>>,
    users: Option<Vec<(String, u32)>>,
    issuers: Vec<Pattern>,
    subjects: Vec<Pattern>,
    keystores: Vec<Pattern>,
    weight: u32,
}

/// What bounds may name: a name that is none is told where it is written, not to the team that is
/// refused for it.
pub struct There<'a> {
    /// Names of issuers.
    pub issuers: Vec<&'a str>,
    /// Names of keystores.
    pub keystores: Vec<&'a str>,
}

/// All of a configuration.
pub fn bounds(
    file: &File,
    accounts: &mut Accounts,
    there: &There,
    sections: BTreeMap<Spanned<String>, Spanned<BoundsSection>>,
) -> Result<Vec<Bounds>> {
    let mut all = Vec::new();
    for (name, section) in sections {
        file.name(&name)?;
        all.push(one(file, accounts, there, &name, section.as_ref())?);
    }
    Ok(all)
}

fn one(
    file: &File,
    accounts: &mut Accounts,
    there: &There,
    name: &Spanned<String>,
    section: &BoundsSection,
) -> Result<Bounds> {
    if section.units.is_none() && section.users.is_none() {
        let message = format!(
            "bounds `{}` need `units` or `users`: whom the files may match",
            name.as_ref()
        );
        return file.error(name.span(), message);
    }
    let users = match &section.users {
        None => None,
        Some(OneOrMany(names)) => {
            let uid = |name: &Spanned<String>| {
                accounts
                    .user(file, name)
                    .map(|uid| (name.as_ref().clone(), uid))
            };
            Some(names.iter().map(uid).collect::<Result<_>>()?)
        }
    };
    Ok(Bounds {
        name: name.as_ref().clone(),
        files: file_names(file, &section.files)?,
        workloads: patterns(file, &section.workloads)?,
        units: section
            .units
            .as_ref()
            .map(|units| unit_patterns(file, units))
            .transpose()?,
        users,
        issuers: names(file, "issuer", &there.issuers, &section.issuers)?,
        subjects: patterns(file, &section.subjects)?,
        keystores: names(file, "keystore", &there.keystores, &section.keystores)?,
        weight: match &section.weight {
            None => 1,
            Some(weight) => file.weight(weight)?,
        },
    })
}

fn patterns(file: &File, texts: &OneOrMany<String>) -> Result<Vec<Pattern>> {
    let all = |text: &Spanned<String>| match text.as_ref().as_str() {
        "*" => Ok(Pattern::everything()), // an administrator may mean it
        _ => pattern(file, text),
    };
    texts.0.iter().map(all).collect()
}

fn unit_patterns(file: &File, texts: &OneOrMany<String>) -> Result<Vec<Pattern>> {
    let all = |text: &Spanned<String>| match text.as_ref().as_str() {
        "*" => Ok(Pattern::everything()),
        open if open.ends_with('*') => pattern(file, text), // services and scopes
        _ => unit_pattern(file, text),
    };
    texts.0.iter().map(all).collect()
}

/// Names of files, without their directory.
fn file_names(file: &File, texts: &OneOrMany<String>) -> Result<Vec<Pattern>> {
    for text in &texts.0 {
        let name = text.as_ref();
        if name != "*" && (name.contains('/') || !name.ends_with(".toml")) {
            let message = "names files of conf.d, as in \"payments.toml\": without their directory, \
                           and with .toml";
            return file.error(text.span(), message);
        }
    }
    patterns(file, texts)
}

/// Names of what is in the main file; a pattern may be of what is yet to come.
fn names(
    file: &File,
    what: &str,
    there: &[&str],
    texts: &OneOrMany<String>,
) -> Result<Vec<Pattern>> {
    for text in &texts.0 {
        let name = text.as_ref().as_str();
        if !name.contains('*') && !there.contains(&name) {
            return file.unknown(what, text, there);
        }
    }
    patterns(file, texts)
}

/// The bounds of a drop-in file; none if the configuration has no bounds at all.
pub fn of_file<'a>(all: &'a [Bounds], path: &Path) -> Result<Option<&'a Bounds>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let names = |bounds: &&Bounds| bounds.files.iter().any(|file| file.matches(&name));
    let mut found = all.iter().filter(names);
    match (found.next(), found.next()) {
        (Some(bounds), None) => Ok(Some(bounds)),
        (None, _) if all.is_empty() => Ok(None),
        (None, _) => Err(Diagnostic::file(
            path,
            "no [bounds.…] of the main file names this file, and once there are bounds every file needs \
             some; an administrator adds it to the `files` of its team's",
        )),
        (Some(one), Some(other)) => Err(Diagnostic::file(
            path,
            format!(
                "[bounds.{}] and [bounds.{}] of the main file both name this file; an administrator \
                 takes it out of the `files` of one",
                one.name, other.name
            ),
        )),
    }
}

impl Bounds {
    /// Whether a section stays inside.
    pub fn check(
        &self,
        file: &File,
        name: &Spanned<String>,
        section: &WorkloadSection,
        matches: &[Selector],
    ) -> Result<()> {
        self.text(file, Kind::Workload, name, &self.workloads)?;
        self.whom(file, &section.r#match, matches)?;
        if let Some(weight) = section
            .weight
            .as_ref()
            .filter(|it| *it.as_ref() > self.weight)
        {
            let message = format!(
                "weight {} is outside of [bounds.{}]",
                weight.as_ref(),
                self.name
            );
            let most = self.weight;
            let help = format!("its `weight` is {most}; only an administrator may raise it");
            return Err(Diagnostic::at(
                file.path,
                file.text,
                weight.span(),
                message,
                Some(help),
            ));
        }
        for target in section.target.values() {
            self.target(file, target.as_ref())?;
        }
        Ok(())
    }

    /// Whether it matches only whom it may.
    fn whom(
        &self,
        file: &File,
        section: &Spanned<MatchSection>,
        matches: &[Selector],
    ) -> Result<()> {
        if let Some(units) = &self.units {
            self.unit(file, section, matches, units)?;
        }
        match &self.users {
            Some(users) => self.user(file, section, matches, users),
            None => Ok(()),
        }
    }

    fn unit(
        &self,
        file: &File,
        section: &Spanned<MatchSection>,
        matches: &[Selector],
        units: &[Pattern],
    ) -> Result<()> {
        let unit = matches.iter().find_map(|selector| match selector {
            Selector::Unit(pattern) => Some(pattern),
            _ => None,
        });
        let (Some(unit), Some(given)) = (unit, &section.as_ref().unit) else {
            return self.missing(file, section.span(), Kind::Unit, shown(units));
        };
        if units.iter().any(|bound| holds(bound, unit)) {
            return Ok(());
        }
        let how = match units.iter().any(|bound| bound.meets(unit)) {
            true => "fits more units than",
            false => "is outside of",
        };
        self.outside(
            file,
            given.span(),
            Kind::Unit,
            &format!("unit `{unit}` {how}"),
            shown_to(units, &unit.to_string()),
        )
    }

    fn user(
        &self,
        file: &File,
        section: &Spanned<MatchSection>,
        matches: &[Selector],
        users: &[(String, u32)],
    ) -> Result<()> {
        let uid = matches.iter().find_map(|selector| match selector {
            Selector::User(uid) => Some(*uid),
            _ => None,
        });
        let names: Vec<String> = users
            .iter()
            .map(|(name, uid)| format!("{name} ({uid})"))
            .collect();
        let names = names.join(", ");
        let given = section.as_ref();
        let (Some(uid), Some(span)) = (
            uid,
            given
                .user
                .as_ref()
                .map(Spanned::span)
                .or(given.uid.as_ref().map(Spanned::span)),
        ) else {
            return self.missing(file, section.span(), Kind::User, names);
        };
        if users.iter().any(|(_, bound)| *bound == uid) {
            return Ok(());
        }
        let what = match &given.user {
            Some(name) => format!("user `{}` is outside of", name.as_ref()),
            None => format!("uid {uid} is outside of"),
        };
        self.outside(file, span, Kind::User, &what, names)
    }

    fn target(&self, file: &File, target: &TargetSection) -> Result<()> {
        let used = [
            (Kind::Issuer, &target.issuer, &self.issuers),
            (Kind::Subject, &target.subject, &self.subjects),
            (Kind::Keystore, &target.keystore, &self.keystores),
        ];
        for (kind, name, allowed) in used {
            if let Some(name) = name {
                self.text(file, kind, name, allowed)?;
            }
        }
        Ok(())
    }

    /// The keystore of a target that names none: there is only one.
    pub fn only_keystore(&self, file: &File, span: Range<usize>, keystore: &str) -> Result<()> {
        match self.keystores.iter().any(|bound| bound.matches(keystore)) {
            true => Ok(()),
            false => {
                let what = format!("keystore `{keystore}`, the only one, is outside of");
                self.outside(file, span, Kind::Keystore, &what, shown(&self.keystores))
            }
        }
    }

    fn text(
        &self,
        file: &File,
        kind: Kind,
        name: &Spanned<String>,
        allowed: &[Pattern],
    ) -> Result<()> {
        match allowed.iter().any(|bound| bound.matches(name.as_ref())) {
            true => Ok(()),
            false => {
                let what = format!("{} `{}` is outside of", kind.word(), name.as_ref());
                self.outside(
                    file,
                    name.span(),
                    kind,
                    &what,
                    shown_to(allowed, name.as_ref()),
                )
            }
        }
    }

    fn missing(&self, file: &File, span: Range<usize>, kind: Kind, allowed: String) -> Result<()> {
        let (word, name) = (kind.word(), &self.name);
        let message = format!("no `{word}` in this match: [bounds.{name}] demands one");
        let help = Some(kind.help(&allowed));
        Err(Diagnostic::at(file.path, file.text, span, message, help))
    }

    fn outside(
        &self,
        file: &File,
        span: Range<usize>,
        kind: Kind,
        what: &str,
        allowed: String,
    ) -> Result<()> {
        let message = format!("{what} [bounds.{}]", self.name);
        let help = Some(kind.help(&allowed));
        Err(Diagnostic::at(file.path, file.text, span, message, help))
    }
}

/// What bounds are about.
#[derive(Clone, Copy)]
enum Kind {
    Workload,
    Unit,
    User,
    Issuer,
    Subject,
    Keystore,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Workload => "workload",
            Kind::Unit => "unit",
            Kind::User => "user",
            Kind::Issuer => "issuer",
            Kind::Subject => "subject",
            Kind::Keystore => "keystore",
        }
    }

    /// What there is instead, and who can change that: not the team.
    fn help(self, allowed: &str) -> String {
        let word = self.word();
        match allowed {
            "" => format!("its `{word}s` name none; only an administrator may add to them"),
            _ => format!("its `{word}s` are {allowed}; only an administrator may add to them"),
        }
    }
}

fn shown(patterns: &[Pattern]) -> String {
    let texts: Vec<String> = patterns.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// The same to somebody who may have read a star as nothing at all.
fn shown_to(patterns: &[Pattern], text: &str) -> String {
    let nearly = |pattern: &Pattern| {
        pattern.exact().is_none() && format!("{}{}", pattern.before(), pattern.after()) == text
    };
    let note = match patterns.iter().any(nearly) {
        true => ", where `*` stands for one character at least",
        false => "",
    };
    format!("{}{note}", shown(patterns))
}

/// Whether a bound holds all of a pattern of units. A path is one unit of its name, wherever that is.
fn holds(bound: &Pattern, unit: &Pattern) -> bool {
    if *bound == Pattern::everything() {
        return true;
    }
    if bound.is_path() || !unit.is_path() {
        return bound.covers(unit);
    }
    let text = unit.to_string();
    Pattern::new(unit_name(&text)).is_ok_and(|name| bound.covers(&name))
}
