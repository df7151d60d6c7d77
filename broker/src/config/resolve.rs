//! From files as written to a [`Config`] that holds together: names exist, profiles get what they
//! need and nothing else, users are numbers, lifetimes fit, subjects have one owner.

use super::file::{BoundsSection, DenySection, DropIn, LimitsSection, MainFile};
use super::many::OneOrMany;
use super::*;
use crate::denylist;
use bounds::Bounds;
use issuer::issuers;
use keystore::claims::{CLAIM_LEN_MAX, is_claim};
use keystore::config::suggest;
use keystore::keyid::check_part;
use matching::Accounts;
pub use matching::NameService;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::Range;
use toml::Spanned;
use workload::Known;

mod bounds;
mod expiry;
mod issuer;
mod local;
mod matching;
mod target;
mod workload;

/// Smallest and largest audit segment in bytes: one batch of records must fit, and preparing it
/// must stay a matter of a second.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;

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
        check_part(name.as_ref()).or_else(|e| self.error(name.span(), e.to_string()))
    }

    fn positive(&self, value: &Spanned<u32>) -> Result<u32> {
        match *value.as_ref() {
            0 => self.error(value.span(), "must be at least 1"),
            value => Ok(value),
        }
    }

    fn claim(&self, value: &Spanned<String>) -> Result<String> {
        let text = value.as_ref();
        if !is_claim(text) {
            let message =
                format!("must be 1 to {CLAIM_LEN_MAX} bytes of JSON without control characters");
            return self.error(value.span(), message);
        }
        Ok(text.clone())
    }
}

pub fn resolve(sources: Vec<Source>, names: NameService) -> Result<Config> {
    let sha256 = digest(&sources);
    let (main, drop_ins) = sources.split_first().expect("the main file is always read");
    let file = File::of(main);
    let parsed: MainFile = parse(&file)?;

    let keystores = keystores(&file, parsed.keystore)?;
    let issuers = issuers(&file, parsed.issuer, &keystores)?;
    let mut accounts = Accounts::of(names);
    let written_bounds = written(&file, &parsed.bounds);
    let bounds = bounds::bounds(&file, &mut accounts, parsed.bounds)?;
    let mut known = Known {
        keystores,
        issuers,
        limits: limits(&file, &parsed.limits)?,
        accounts,
        sections: BTreeMap::new(),
    };
    known.add(&file, None, parsed.workload)?;
    for source in drop_ins {
        let file = File::of(source);
        let bounds = bounds::of_file(&bounds, file.path)?;
        let drop_in: DropIn = parse(&file)?;
        known.add(&file, bounds, drop_in.workload)?;
    }
    known.subjects_have_one_owner(&main.path)?;

    let state_dir = parsed
        .server
        .state_dir
        .unwrap_or_else(|| "/var/lib/assertd".into());
    if let Some(bytes) = &parsed.audit.segment_bytes
        && !SEGMENT_BYTES.contains(bytes.as_ref())
    {
        let (least, most) = (SEGMENT_BYTES.start(), SEGMENT_BYTES.end());
        return file.error(bytes.span(), format!("must be {least} to {most} bytes"));
    }
    Ok(Config {
        path: main.path.clone(),
        files: sources.iter().map(|source| source.path.clone()).collect(),
        sha256,
        audit: Audit {
            dir: parsed.audit.dir.unwrap_or_else(|| state_dir.join("audit")),
            segment_bytes: parsed.audit.segment_bytes.map(Spanned::into_inner),
        },
        server: Server {
            runtime_dir: parsed
                .server
                .runtime_dir
                .unwrap_or_else(|| "/run/assertd".into()),
            state_dir,
        },
        deny: deny(&file, parsed.deny)?,
        keystores: known.keystores,
        issuers: known.issuers,
        workloads: known.sections.into_values().collect(),
        bounds: written_bounds,
    })
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

fn parse<T: serde::de::DeserializeOwned>(file: &File) -> Result<T> {
    toml::from_str(file.text).map_err(|error| Diagnostic::from_toml(file.path, file.text, &error))
}

fn digest(sources: &[Source]) -> Sha256 {
    use aws_lc_rs::digest;
    let mut context = digest::Context::new(&digest::SHA256);
    for source in sources {
        // Length first: two files cannot be told apart from one otherwise.
        context.update(&(source.text.len() as u64).to_be_bytes());
        context.update(source.text.as_bytes());
    }
    Sha256::from_digest(&context.finish())
}

fn deny(file: &File, section: DenySection) -> Result<denylist::Files> {
    let absolute = |path: Option<Spanned<PathBuf>>| match path {
        Some(path) if !path.as_ref().is_absolute() => {
            file.error(path.span(), "must be an absolute path")
        }
        path => Ok(path.map(Spanned::into_inner)),
    };
    Ok(denylist::Files {
        executables: absolute(section.executables)?,
        units: absolute(section.units)?,
        users: absolute(section.users)?,
    })
}

fn limits(file: &File, limits: &LimitsSection) -> Result<(u32, u32)> {
    let rate = limits
        .workload_rate
        .as_ref()
        .map_or(Ok(RATE_PER_S), |rate| file.positive(rate))?;
    let burst = limits
        .workload_burst
        .as_ref()
        .map_or(Ok(BURST), |burst| file.positive(burst))?;
    Ok((rate, burst))
}

fn keystores(
    file: &File,
    sections: BTreeMap<Spanned<String>, Spanned<KeystoreSection>>,
) -> Result<BTreeMap<String, KeystoreSection>> {
    let mut keystores = BTreeMap::new();
    for (name, section) in sections {
        file.name(&name)?;
        if let Err(message) = section.as_ref().check() {
            return file.error(
                name.span(),
                format!("keystore `{}`: {message}", name.as_ref()),
            );
        }
        keystores.insert(name.into_inner(), section.into_inner());
    }
    Ok(keystores)
}
