//! From files as written to a [`Config`] that holds together: names exist, profiles get what they
//! need and nothing else, users are numbers, lifetimes fit, subjects have one owner.

use super::file::{
    AttestSection, AuditSection, BoundsSection, CourierSection, DenySection, DropIn, LimitsSection,
    MainFile, PcrBank, PublicationSection, ServerSection,
};
use super::many::OneOrMany;
use super::spanned::Spanned;
use super::*;
use crate::denylist;
use bounds::Bounds;
use issuer::issuers;
use keystore::claims::{CLAIM_LEN_MAX, is_claim};
use keystore::config::suggest;
use keystore::evidence::bundle::{Bank, PcrIndex};
use keystore::keyid::check_part;
use matching::Accounts;
pub use matching::NameService;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::Range;
use workload::Known;

mod bounds;
mod canary;
mod certificate;
mod expiry;
mod issuer;
mod local;
mod matching;
mod own_key;
mod profile;
mod rotation;
mod target;
mod workload;

/// Smallest and largest audit segment in bytes: one batch of records must fit, and preparing it
/// must stay a matter of a second.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;

/// The PCRs that are quoted if nothing is said: of firmware and boot loader (PC Client Platform Firmware
/// Profile §2.3.4).
const PCRS_QUOTED: std::ops::RangeInclusive<u8> = 0..=7;

/// What a team's file cannot have.
const MAIN_ALONE: [&str; 11] = [
    "server",
    "audit",
    "publication",
    "limits",
    "keystore",
    "issuer",
    "courier",
    "attest",
    "profile",
    "deny",
    "bounds",
];

type Result<T> = std::result::Result<T, Diagnostic>;

/// One file's text, to cite it.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
    shared_path: Arc<Path>,
    /// Where its lines begin, once somebody has asked.
    lines: OnceCell<Vec<usize>>,
}

impl<'a> File<'a> {
    fn of(source: &'a Source) -> File<'a> {
        File {
            path: &source.path,
            text: &source.text,
            shared_path: source.path.as_path().into(),
            lines: OnceCell::new(),
        }
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let lines = self.lines.get_or_init(|| {
            let ends = self.text.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(ends).collect()
        });
        Place {
            file: self.shared_path.clone(),
            line: lines.partition_point(|start| *start <= span.start),
        }
    }

    fn error<T>(&self, span: Range<usize>, message: impl Into<String>) -> Result<T> {
        Err(Diagnostic::at(self.path, self.text, span, message, None))
    }

    fn unknown<T>(&self, what: &str, name: &Spanned<String>, known: &[&str]) -> Result<T> {
        let message = format!("there is no {what} `{}`", name.as_ref());
        let help = Some(suggest(name.as_ref(), known));
        Err(Diagnostic::at(
            self.path,
            self.text,
            name.span(),
            message,
            help,
        ))
    }

    fn name(&self, name: &Spanned<String>) -> Result<()> {
        let text = name.as_ref();
        check_part(text).or_else(|error| self.error(name.span(), format!("`{text}`: {error}")))
    }

    fn positive(&self, key: &str, value: &Spanned<u32>) -> Result<u32> {
        match *value.as_ref() {
            0 => {
                let message = format!("`{key}` must be at least 1; leave it out for the default");
                self.error(value.span(), message)
            }
            value => Ok(value),
        }
    }

    fn weight(&self, weight: &Spanned<u32>) -> Result<u32> {
        match *weight.as_ref() {
            weight @ 1..=WEIGHT_MAX => Ok(weight),
            _ => {
                let message = format!("`weight` must be 1 to {WEIGHT_MAX}; left out it is 1");
                self.error(weight.span(), message)
            }
        }
    }

    fn absolute(&self, key: &str, path: Option<Spanned<PathBuf>>) -> Result<Option<PathBuf>> {
        match path {
            Some(path) if !path.as_ref().is_absolute() => {
                self.error(path.span(), format!("`{key}` must be an absolute path"))
            }
            path => Ok(path.map(Spanned::into_inner)),
        }
    }

    fn claim(&self, key: &str, value: &Spanned<String>) -> Result<String> {
        let text = value.as_ref();
        if is_claim(text) {
            return Ok(text.clone());
        }
        let message = if text.is_empty() {
            format!("`{key}` is empty")
        } else if text.chars().any(char::is_control) {
            format!("`{key}` has a control character in it, such as a line end")
        } else {
            format!(
                "`{key}` has {CLAIM_LEN_MAX} bytes at most; a quotation mark or a backslash counts \
                 twice"
            )
        };
        self.error(value.span(), message)
    }
}

pub fn resolve(sources: Vec<Source>, names: NameService) -> Result<Config> {
    let texts = sources.iter().map(|source| Some(source.text.as_str()));
    let sha256 = Sha256::of_texts(texts);
    let (main, drop_ins) = sources.split_first().expect("the main file is always read");
    let file = File::of(main);
    let parsed: MainFile = parse(&file)?;

    let keystores = keystores(&file, parsed.keystore)?;
    let issuers = issuers(&file, parsed.issuer, &keystores)?;
    let mut accounts = Accounts::of(names);
    let written_bounds = written(&file, &parsed.bounds);
    let there = bounds::There {
        issuers: issuers.keys().map(String::as_str).collect(),
        keystores: keystores.keys().map(String::as_str).collect(),
    };
    let bounds = bounds::bounds(&file, &mut accounts, &there, parsed.bounds)?;
    let mut known = Known {
        keystores,
        issuers,
        profiles: profile::profiles(&file, parsed.profile)?,
        limits: limits(&file, &parsed.limits)?,
        accounts,
        sections: BTreeMap::new(),
        owners: HashMap::new(),
    };
    known.add(&file, None, parsed.workload)?;
    for source in drop_ins {
        let file = File::of(source);
        let bounds = bounds::of_file(&bounds, file.path)?;
        let drop_in: DropIn =
            toml::from_str(file.text).map_err(|error| of_drop_in(&file, &error))?;
        known.add(&file, bounds, drop_in.workload)?;
    }

    let (server, audit) = places(&file, parsed.server, parsed.audit)?;
    let publication = publication(&file, parsed.publication, [&server.state_dir, &audit.dir])?;
    Ok(Config {
        path: main.path.clone(),
        files: sources.iter().map(|source| source.path.clone()).collect(),
        sha256,
        server,
        audit,
        publication,
        deny: deny(&file, parsed.deny)?,
        keystores: known.keystores,
        issuers: known.issuers,
        courier: courier(&file, parsed.courier)?,
        attest: attest(&file, parsed.attest)?,
        profiles: known.profiles,
        workloads: known.sections.into_values().collect(),
        bounds: written_bounds,
    })
}

fn places(file: &File, server: ServerSection, audit: AuditSection) -> Result<(Server, Audit)> {
    let runtime_dir = file.absolute("runtime_dir", server.runtime_dir)?;
    let state_dir = file.absolute("state_dir", server.state_dir)?;
    let state_dir = state_dir.unwrap_or_else(|| "/var/lib/assertd".into());
    let dir = file.absolute("dir", audit.dir)?;
    if let Some(bytes) = &audit.segment_bytes
        && !SEGMENT_BYTES.contains(bytes.as_ref())
    {
        let (least, most) = (SEGMENT_BYTES.start(), SEGMENT_BYTES.end());
        let message = format!("`segment_bytes` must be {least} to {most} (64 KiB to 1 GiB)");
        return file.error(bytes.span(), message);
    }
    let audit = Audit {
        dir: dir.unwrap_or_else(|| state_dir.join("audit")),
        segment_bytes: audit.segment_bytes.map(Spanned::into_inner),
    };
    let server = Server {
        runtime_dir: runtime_dir.unwrap_or_else(|| "/run/assertd".into()),
        state_dir,
    };
    Ok((server, audit))
}

/// What everybody reads is neither in a directory that nobody else may enter, nor above one.
fn publication(
    file: &File,
    section: PublicationSection,
    private: [&PathBuf; 2],
) -> Result<Option<Publication>> {
    let span = section.directory.as_ref().map(Spanned::span);
    let directory = file.absolute("directory", section.directory)?;
    let (Some(span), Some(directory)) = (span, directory) else {
        return Ok(None);
    };
    let meets = |it: &&PathBuf| directory.starts_with(it) || it.starts_with(&directory);
    if let Some(private) = private.into_iter().find(meets) {
        let message = format!(
            "`directory` is for everybody to read, and {} is for assertd alone: neither may lie in \
             the other",
            private.display()
        );
        return file.error(span, message);
    }
    Ok(Some(Publication { directory }))
}

fn written(
    file: &File,
    sections: &BTreeMap<Spanned<String>, Spanned<BoundsSection>>,
) -> Vec<WrittenBounds> {
    let texts = |given: &OneOrMany<String>| given.0.iter().map(|it| it.as_ref().clone()).collect();
    let one = |(name, section): (&Spanned<String>, &Spanned<BoundsSection>)| WrittenBounds {
        name: name.as_ref().clone(),
        place: file.place(&name.span()),
        files: texts(&section.as_ref().files),
        units: section.as_ref().units.as_ref().map(texts),
        users: section.as_ref().users.as_ref().map(texts),
    };
    sections.iter().map(one).collect()
}

/// A section of the main file in a team's is no typing error.
fn of_drop_in(file: &File, error: &toml::de::Error) -> Diagnostic {
    let name = error.message().strip_prefix("unknown field `");
    let name = name.and_then(|rest| rest.split('`').next());
    match (name, error.span()) {
        (Some(name), Some(span)) if MAIN_ALONE.contains(&name) => {
            let message = format!("`{name}` is for the main file alone");
            let help = Some("a file in conf.d holds [workload.NAME] sections".to_owned());
            Diagnostic::at(file.path, file.text, span, message, help)
        }
        _ => misspelt(file, error, &["workload"])
            .unwrap_or_else(|| Diagnostic::from_toml(file.path, file.text, error)),
    }
}

fn parse(file: &File) -> Result<MainFile> {
    let failed = |error| {
        let known = [&MAIN_ALONE[..], &["workload"]].concat();
        misspelt(file, &error, &known)
            .unwrap_or_else(|| Diagnostic::from_toml(file.path, file.text, &error))
    };
    toml::from_str(file.text).map_err(failed)
}

/// Of `[workloads.a]` and a `[workload.a.target.b]` the second comes first, by its name, and lacks a
/// `match`: what is misspelt is the reason, and not what is missing.
fn misspelt(file: &File, error: &toml::de::Error, known: &[&str]) -> Option<Diagnostic> {
    if !error.message().starts_with("missing field") {
        return None;
    }
    let names: BTreeMap<Spanned<String>, serde::de::IgnoredAny> = toml::from_str(file.text).ok()?;
    let is_known = |name: &str| known.contains(&name) || MAIN_ALONE.contains(&name);
    let name = names.keys().find(|name| !is_known(name.as_ref()))?;
    let message = format!("unknown key `{}`", name.as_ref());
    let help = Some(suggest(name.as_ref(), known));
    Some(Diagnostic::at(
        file.path,
        file.text,
        name.span(),
        message,
        help,
    ))
}

fn courier(file: &File, section: CourierSection) -> Result<Courier> {
    let ca = file.absolute("ca", section.ca)?;
    Ok(Courier { ca })
}

fn attest(file: &File, section: AttestSection) -> Result<Attest> {
    let host = section.host.map(|host| {
        let parsed = host.as_ref().parse::<Host>();
        parsed.or_else(|wrong| file.error(host.span(), format!("`host`: {wrong}")))
    });
    let bank = match section.bank {
        None | Some(PcrBank::Sha256) => Bank::Sha256,
        Some(PcrBank::Sha384) => Bank::Sha384,
        Some(PcrBank::Sha512) => Bank::Sha512,
    };
    let indices = match section.pcrs {
        None => PCRS_QUOTED.filter_map(PcrIndex::new).collect(),
        Some(pcrs) if pcrs.as_ref().is_empty() => {
            let message = "`pcrs` is empty; leave it out for 0 to 7";
            return file.error(pcrs.span(), message);
        }
        Some(pcrs) => pcrs
            .into_inner()
            .into_iter()
            .map(|number| {
                let message = "a PCR is a number from 0 to 23";
                let index = PcrIndex::new(*number.as_ref());
                index.map_or_else(|| file.error(number.span(), message), Ok)
            })
            .collect::<Result<_>>()?,
    };
    Ok(Attest {
        host: host.transpose()?,
        selection: Selection::from([(bank, indices)]),
    })
}

fn deny(file: &File, section: DenySection) -> Result<denylist::Files> {
    Ok(denylist::Files {
        executables: file.absolute("executables", section.executables)?,
        units: file.absolute("units", section.units)?,
        users: file.absolute("users", section.users)?,
    })
}

fn limits(file: &File, limits: &LimitsSection) -> Result<(u32, u32)> {
    let rate = limits
        .workload_rate
        .as_ref()
        .map_or(Ok(RATE_PER_S), |rate| file.positive("workload_rate", rate))?;
    let burst = limits
        .workload_burst
        .as_ref()
        .map_or(Ok(BURST), |burst| file.positive("workload_burst", burst))?;
    Ok((rate, burst))
}

fn keystores(
    file: &File,
    sections: BTreeMap<Spanned<String>, Spanned<KeystoreSection>>,
) -> Result<BTreeMap<String, KeystoreSection>> {
    let mut keystores = BTreeMap::new();
    for (name, section) in sections {
        file.name(&name)?;
        if let Err(mistake) = section.as_ref().check() {
            return Err(mistake.at(file.path, file.text, name.as_ref()));
        }
        keystores.insert(name.into_inner(), section.into_inner());
    }
    Ok(keystores)
}
