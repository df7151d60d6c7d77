//! A configuration against a host's facts: units that are not there, users that units do not have,
//! programs that nobody starts, and what the host lacks. What the facts do not say is not judged.

use super::super::finding::{
    DYNAMIC_UNIT, Finding, NO_MODULE, NO_PEER_PIDFD, NO_SOCKET, NO_UNIT, NO_USER, NO_WITNESS,
    OTHER_PROGRAM, OTHER_SLICE, OTHER_USER, RUNS_AS_ROOT,
};
use super::section::DYNAMIC_UIDS;
use super::{named, slice_of, unit_of, user_of};
use crate::config::{Config, Facts, Section, UnitFacts};
use crate::selector::{Pattern, Selector, Source, unit_name};
use keystore::config::suggest;
use std::collections::HashSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// Most units for which the nearest name is looked for: each is held against all of the host's.
const SUGGESTIONS_MAX: usize = 20;

/// A host's facts, with what is looked up in them for every section.
pub struct Host<'a> {
    facts: &'a Facts,
    uids: HashSet<u32>,
    programs: HashSet<&'a Path>,
    suggestions: usize,
}

impl<'a> Host<'a> {
    pub fn of(facts: &'a Facts) -> Host<'a> {
        let units = facts.units.iter().flatten();
        Host {
            facts,
            uids: facts.users.values().copied().collect(),
            programs: units
                .flat_map(|(_, unit)| &unit.exec)
                .map(|path| path.as_path())
                .collect(),
            suggestions: 0,
        }
    }

    /// What it says against one section.
    pub fn section(&mut self, section: &Section, found: &mut Vec<Finding>) {
        let excluded = section
            .unless
            .iter()
            .flatten()
            .filter_map(|selector| match selector {
                Selector::Unit(unit) => Some(unit),
                _ => None,
            });
        for unit in unit_of(section).into_iter().chain(excluded) {
            found.extend(self.missing(section, unit));
        }
        let unit = unit_of(section).and_then(|pattern| {
            let text = pattern.to_string();
            let name = unit_name(&text);
            // Of a pattern one that fits it: it has the template's file.
            let unit = self.facts.unit(&name.replace('*', "1"))?;
            Some((name.to_owned(), unit))
        });
        if let Some((name, unit)) = &unit {
            found.extend(self.user(section, name, unit));
            found.extend(slice(section, name, unit));
        }
        found.extend(self.program(section, unit));
        found.extend(self.no_user(section));
        found.extend(self.witness(section));
    }

    /// What it says against the configuration as a whole.
    pub fn config(&self, config: &Config, found: &mut Vec<Finding>) {
        let mut unproved = config
            .workloads
            .iter()
            .filter(|section| !section.allow_pid_fallback);
        if let (Some(false), Some(first)) = (self.facts.peer_pidfd, unproved.next()) {
            let object = match unproved.count() {
                0 => named(first),
                others => format!("{} and {others} more", named(first)),
            };
            found.push(NO_PEER_PIDFD.at(
                object,
                &first.place,
                "this host's kernel has no SO_PEERPIDFD (Linux 6.5), so that every request of it is \
                 denied there, as weak_proof",
                "boot Linux 6.5 or later; or write allow_pid_fallback = true, after reading in \
                 assertd.toml(5) what that costs",
            ));
        }
        if config.deny.executables.is_some() && self.facts.witness == Some(false) {
            found.push(Finding {
                object: "[deny]".to_owned(),
                ..NO_WITNESS.of_all(
                    &config.path,
                    "a list of executables needs assertd's witness, which reads what workloads run, \
                     and on this host it does not run: assertd refuses the whole configuration there",
                    "run `systemctl enable --now assertd-witness.socket` there, or remove `executables`",
                )
            });
        }
        for (name, keystore) in &config.keystores {
            let lacks = |known: &Option<Vec<PathBuf>>, path: &Option<PathBuf>| match (known, path) {
                (Some(known), Some(path)) if !known.contains(path) => Some(path.clone()),
                _ => None,
            };
            let object = format!("[keystore.{name}]");
            let at = |check: &super::super::finding::Check, text: String, remedy: &str| Finding {
                object: object.clone(),
                ..check.of_all(&config.path, text, remedy)
            };
            if let Some(path) = lacks(&self.facts.modules, &keystore.module) {
                found.push(at(
                    &NO_MODULE,
                    format!(
                        "this host has no module {}: no key of it can sign",
                        path.display()
                    ),
                    "install the module's package there, or correct `module`",
                ));
            }
            if let Some(path) = lacks(&self.facts.sockets, &keystore.socket) {
                found.push(at(
                    &NO_SOCKET,
                    format!(
                        "this host has no socket {}: the keystore's unit does not listen",
                        path.display()
                    ),
                    &format!(
                        "run `systemctl enable --now {}` there, or correct `socket`",
                        keystore.backend.unit(name, "socket")
                    ),
                ));
            }
        }
    }

    fn missing(&mut self, section: &Section, unit: &Pattern) -> Option<Finding> {
        let units = self.facts.units.as_ref()?;
        let shown = unit.to_string();
        // Scopes are made while the host runs, and are no files.
        if shown.ends_with(".scope") || self.has_unit(unit) {
            return None;
        }
        let is_match = unit_of(section) == Some(unit);
        let effect = match is_match {
            true => "nothing matches",
            false => "this `unless` excludes nobody",
        };
        let name = unit_name(&shown);
        self.suggestions += 1;
        let nearest = (self.suggestions <= SUGGESTIONS_MAX)
            .then(|| nearest(name, units.keys()))
            .flatten();
        let remedy = "install the unit there, or correct its name";
        let remedy = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`? If not, {remedy}"),
            None => remedy.to_owned(),
        };
        let text = format!("this host has no unit `{name}`, so that {effect} there");
        Some(NO_UNIT.at(named(section), &section.place, text, remedy))
    }

    fn has_unit(&self, unit: &Pattern) -> bool {
        let Some(units) = &self.facts.units else {
            return false;
        };
        let text = unit.to_string();
        let name = unit_name(&text);
        if self.facts.unit(name).is_some() {
            return true;
        }
        let Ok(pattern) = Pattern::new(name) else {
            return true; // `/…/*.service`, which names none
        };
        if pattern.exact().is_some() {
            return false;
        }
        // A template's instances have its name up to the `@`.
        let template = pattern
            .before()
            .split_inclusive('@')
            .next()
            .unwrap_or_default();
        let from = (Bound::Included(template), Bound::Unbounded);
        let mut near = units.range::<str, _>(from).map(|(name, _)| name);
        let fits = |name: &String| {
            let instances = name
                .split_once("@.")
                .map(|(before, after)| format!("{before}@*.{after}"));
            let instances = instances.and_then(|instances| Pattern::new(&instances).ok());
            pattern.matches(name) || instances.is_some_and(|instances| instances.meets(&pattern))
        };
        near.by_ref()
            .take_while(|name| name.starts_with(template))
            .any(fits)
    }

    fn user(&self, section: &Section, name: &str, unit: &UnitFacts) -> Option<Finding> {
        let wanted = user_of(section)?;
        let at = |check: &super::super::finding::Check, text: String, remedy: String| {
            Some(check.at(named(section), &section.place, text, remedy))
        };
        if unit.dynamic_user {
            return at(
                &DYNAMIC_UNIT,
                format!(
                    "{name} has DynamicUser=, which gives it a uid of systemd's at every start, and \
                     this section demands uid {wanted}"
                ),
                "match the unit alone: remove `user`".to_owned(),
            );
        }
        let user = unit.user.as_deref()?;
        let uid = self.facts.uid(user)?;
        if uid == wanted {
            return None;
        }
        let wanted = match self.facts.users.iter().find(|(_, uid)| **uid == wanted) {
            Some((name, _)) => format!("user {name}"),
            None => format!("uid {wanted}"),
        };
        if uid == 0 {
            return at(
                &RUNS_AS_ROOT,
                format!(
                    "{name} is started as root, and this section demands {wanted}: it matches only \
                     what becomes that user by itself"
                ),
                "write User= in the unit; or leave it so, if its program changes its user"
                    .to_owned(),
            );
        }
        at(
            &OTHER_USER,
            format!(
                "{name} runs as user {user}, and this section demands {wanted}: no process of it \
                 matches"
            ),
            format!("write user = \"{user}\", or correct User= of the unit"),
        )
    }

    fn program(&self, section: &Section, unit: Option<(String, &UnitFacts)>) -> Option<Finding> {
        let path = section.matches.iter().find_map(|selector| match selector {
            Selector::Executable(path) => Some(path),
            _ => None,
        })?;
        let remedy = "write the path that `readlink /proc/PID/exe` shows: of a script it is the \
                      interpreter, of a link the file it leads to";
        let text = match unit {
            Some((_, unit)) if unit.exec.is_empty() => return None,
            Some((_, unit)) if unit.exec.iter().any(|exec| exec == Path::new(path)) => return None,
            Some((name, unit)) => {
                let exec: Vec<String> = unit
                    .exec
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect();
                format!("{name} starts {}, not {path}", exec.join(", "))
            }
            None if self.programs.is_empty() || self.programs.contains(Path::new(path)) => {
                return None;
            }
            None => format!("no unit of this host starts {path}"),
        };
        Some(OTHER_PROGRAM.at(named(section), &section.place, text, remedy))
    }

    fn no_user(&self, section: &Section) -> Option<Finding> {
        let uid = user_of(section)?;
        if self.uids.is_empty()
            || uid == 0
            || self.uids.contains(&uid)
            || DYNAMIC_UIDS.contains(&uid)
        {
            return None;
        }
        Some(NO_USER.at(
            named(section),
            &section.place,
            format!("this host has no user of uid {uid}: whoever is given it next will match"),
            "make the user there, or write its name: user = \"NAME\"",
        ))
    }

    fn witness(&self, section: &Section) -> Option<Finding> {
        if self.facts.witness != Some(false) {
            return None;
        }
        let key = section
            .selectors()
            .find(|it| it.source() == Source::Program)?
            .key();
        Some(NO_WITNESS.at(
            named(section),
            &section.place,
            format!(
                "`{key}` needs assertd's witness, which reads executables, and on this host it does \
                 not run: assertd refuses the whole configuration there"
            ),
            format!(
                "run `systemctl enable --now assertd-witness.socket` there, or remove `{key}`"
            ),
        ))
    }
}

/// The unit whose name is nearly this one; that both are services makes them no more alike.
fn nearest<'a>(name: &str, units: impl Iterator<Item = &'a String>) -> Option<String> {
    let stem = |name: &'a str| name.strip_suffix(".service").unwrap_or(name);
    let known: Vec<&str> = units.map(|unit| stem(unit)).collect();
    let wanted = name
        .strip_suffix(".service")
        .unwrap_or(name)
        .replace('*', "");
    let said = suggest(&wanted, &known);
    let found = said.strip_prefix("did you mean `")?.strip_suffix("`?")?;
    Some(format!("{found}.service"))
}

/// Whether the slice that the section demands, or its unit's path, is the unit's.
fn slice(section: &Section, name: &str, unit: &UnitFacts) -> Option<Finding> {
    let slice = unit.slice.as_deref()?;
    let is_in = Selector::Slice(slice.to_owned());
    let wanted = slice_of(section).map(str::to_owned);
    let wrong = wanted.filter(|wanted| !is_in.implies(&Selector::Slice(wanted.clone())));
    let path = unit_of(section)?.to_string();
    let (above, _) = path.rsplit_once('/').unwrap_or_default();
    let last = above
        .rsplit('/')
        .next()
        .filter(|last| !last.is_empty() && !last.contains('*'));
    let wrong = wrong.or(last.filter(|last| *last != slice).map(str::to_owned))?;
    Some(OTHER_SLICE.at(
        named(section),
        &section.place,
        format!("{name} is in {slice}, and this section demands {wrong}: no process of it matches"),
        format!("write slice = \"{slice}\", or correct Slice= of the unit"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_suggested_for_its_name_and_not_because_it_is_a_service_too() {
        let units = ["polkit", "getty@", "dbus", "payment"].map(|stem| format!("{stem}.service"));
        let nearest = |name| nearest(name, units.iter());
        for name in ["payroll.service", "reports@*.service", "p.service"] {
            assert_eq!(nearest(name), None, "{name}");
        }
        assert_eq!(nearest("payments.service").unwrap(), "payment.service");
        assert_eq!(nearest("gety@*.service").unwrap(), "getty@.service");
    }
}
