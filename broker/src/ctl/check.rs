//! `assertctl config check`: is the configuration correct, and is it wise? Loading it is what
//! assertd does at start; the findings here are about configurations that load. Asks nobody: with a
//! host's facts in a file it need not even run on that host.

pub mod explain;
mod files;
mod finding;
mod findings;

use super::CONFIG;
use super::args::{Args, Format, Strictness};
use super::failure::{Exit, Failure};
use super::out::{Out, count};
use crate::audit::Sha256;
use crate::config::{self, Config, Facts};
use files::FileCount;
pub use finding::Severity;
pub use findings::findings;

use finding::Finding;
use keystore::Clock;
use keystore::config::Diagnostic;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Of what is in `conf.d` beside the drop-ins.
const NOT_READ: &str = "not read: a drop-in's name ends in .toml and begins with no dot";

/// `config check --json`. `error` is there when the configuration cannot be loaded.
#[derive(Serialize)]
struct CheckJson<'a> {
    format: u32,
    ok: bool,
    error: Option<&'a str>,
    sha256: Option<Sha256>,
    files: &'a [FileCount],
    findings: &'a [Finding],
}

/// Checks the configuration. Warnings alone are no failure, unless that is wished.
pub fn run(
    args: &Args,
    host_facts: Option<&Path>,
    strictness: Strictness,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let path = args.config.as_deref().unwrap_or(Path::new(CONFIG));
    let loaded = load(path, host_facts);
    let (config, facts, counts) = match loaded {
        Ok(loaded) => loaded,
        Err(diagnostic) => {
            let failure = Failure::new(Exit::Configuration, diagnostic.to_string());
            if args.format == Format::Json {
                out.json(&CheckJson {
                    format: 1,
                    ok: false,
                    error: Some(failure.message.as_str()),
                    sha256: None,
                    files: &[],
                    findings: &[],
                })?;
            }
            return Err(failure);
        }
    };
    let found = findings(&config, facts.as_ref(), Clock::new().read());
    let exit = exit(&found, strictness);
    match args.format {
        Format::Json => out.json(&CheckJson {
            format: 1,
            ok: exit == Exit::Done,
            error: None,
            sha256: Some(config.sha256),
            files: &counts,
            findings: &found,
        })?,
        Format::Text => {
            let others = config::passed_by(path).unwrap_or_default();
            print(&config, &counts, &others, &found, out);
        }
    }
    Ok(exit)
}

type Loaded = (Config, Option<Facts>, Vec<FileCount>);

/// The facts first: a mistake in them would look like one of the configuration.
fn load(path: &Path, facts: Option<&Path>) -> Result<Loaded, Diagnostic> {
    let facts = facts.map(Facts::load).transpose()?;
    let config = match &facts {
        None => {
            // assertd does not start without them. Another host's are not here.
            let config = Config::load(path)?;
            config.deny.read()?;
            config
        }
        Some(facts) => Config::load_with(path, facts)?,
    };
    let counts = files::count(path)?;
    Ok((config, facts, counts))
}

fn exit(found: &[Finding], strictness: Strictness) -> Exit {
    let fails = |finding: &Finding| match finding.severity {
        Severity::Error => true,
        Severity::Warning => strictness == Strictness::WarningsFail,
        Severity::Info => false,
    };
    if found.iter().any(fails) {
        Exit::Refused
    } else {
        Exit::Done
    }
}

fn print(
    config: &Config,
    counts: &[FileCount],
    others: &[PathBuf],
    found: &[Finding],
    out: &mut Out,
) {
    let mut rows = Vec::new();
    for file in counts {
        rows.push(vec!["ok".to_owned(), file.path.clone(), file.words()]);
    }
    for path in others {
        let path = path.display().to_string();
        rows.push(vec!["skip".to_owned(), path, NOT_READ.to_owned()]);
    }
    out.table(&rows);
    for finding in found {
        let sign = match finding.severity {
            Severity::Error => "FAIL",
            Severity::Warning => "warn",
            Severity::Info => "note",
        };
        out.line(&format!(
            "{sign}  {:<3}  {}  {}",
            finding.id, finding.place, finding.object
        ));
        out.line(&format!("           {}", finding.text));
        out.line(&format!("           → {}", finding.remedy));
    }
    let targets: usize = config
        .workloads
        .iter()
        .map(|section| section.targets.len())
        .sum();
    let number = |severity| {
        found
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    out.line(&format!(
        "{}, {}, {}; {}, {}, {}",
        count(config.workloads.len(), "workload"),
        count(targets, "target"),
        count(config.wanted_keys().len(), "key"),
        count(number(Severity::Error), "error"),
        count(number(Severity::Warning), "warning"),
        count(number(Severity::Info), "note"),
    ));
    let worst = found
        .iter()
        .find(|finding| finding.severity != Severity::Info);
    if let Some(finding) = worst {
        let id = finding.id;
        out.line(&format!(
            "`assertctl config check --explain {id}` says more about {id}"
        ));
    }
}
