//! `assertctl config check`: is the configuration correct, and is it wise? Loading it is what
//! assertd does at start; the findings here are about configurations that load. Asks nobody.

mod files;
mod findings;

use super::CONFIG;
use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::out::{Out, count};
use crate::audit::Sha256;
use crate::config::Config;
use files::FileCount;
pub use findings::{Severity, findings};

use findings::Finding;
use keystore::Clock;
use serde::Serialize;
use std::path::Path;

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

/// Checks the configuration. Warnings alone are no failure.
pub fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let path = args.config.as_deref().unwrap_or(Path::new(CONFIG));
    let loaded = args.load_config().and_then(|config| {
        let counts = files::count(path)
            .map_err(|diagnostic| Failure::new(Exit::Configuration, diagnostic.to_string()))?;
        Ok((config, counts))
    });
    let (config, counts) = match loaded {
        Ok(loaded) => loaded,
        Err(failure) => {
            if args.format == Format::Json {
                let error = Some(failure.message.as_str());
                let (files, findings) = (&[][..], &[][..]);
                let ok = false;
                out.json(&CheckJson {
                    format: 1,
                    ok,
                    error,
                    sha256: None,
                    files,
                    findings,
                })?;
            }
            return Err(failure);
        }
    };
    let found = findings(&config, Clock::new().read());
    let bad = found
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    match args.format {
        Format::Json => out.json(&CheckJson {
            format: 1,
            ok: !bad,
            error: None,
            sha256: Some(config.sha256),
            files: &counts,
            findings: &found,
        })?,
        Format::Text => print(&config, &counts, &found, out),
    }
    Ok(if bad { Exit::Refused } else { Exit::Done })
}

fn print(config: &Config, counts: &[FileCount], found: &[Finding], out: &mut Out) {
    let mut rows = Vec::new();
    for file in counts {
        rows.push(vec!["ok".to_owned(), file.path.clone(), file.words()]);
    }
    out.table(&rows);
    for finding in found {
        let sign = match finding.severity {
            Severity::Error => "FAIL",
            Severity::Warning => "warn",
        };
        out.line(&format!(
            "{sign}  {} {}: {}",
            finding.id, finding.object, finding.text
        ));
        out.line(&format!("      {}", finding.remedy));
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
        "{}, {}, {}; {}, {}",
        count(config.workloads.len(), "workload"),
        count(targets, "target"),
        count(config.wanted_keys().len(), "key"),
        count(number(Severity::Error), "error"),
        count(number(Severity::Warning), "warning"),
    ));
}
