//! `assertctl config check --explain ID`: what a finding means, a configuration that has it, and the
//! same without. The texts are data, in explain.toml; a test holds each example to its finding.

use super::finding::{ALL, Check};
use crate::ctl::args::{Args, Format};
use crate::ctl::failure::{Exit, Failure};
use crate::ctl::out::Out;
use keystore::config::suggest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const TEXTS: &str = include_str!("explain.toml");

/// What is said about one check.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// In one line.
    title: String,
    /// What it means, in paragraphs.
    means: String,
    /// A configuration that has it; of `conf.d/…` what follows a line that says so.
    example: String,
    /// The same without it.
    fix: String,
    /// The host's facts, for what is found by them.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<String>,
    /// The facts without it, where it is the host that is to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts_fix: Option<String>,
}

/// `config check --explain ID --json`
#[derive(Serialize)]
struct ExplainJson<'a> {
    format: u32,
    id: &'static str,
    severity: super::Severity,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

/// Prints what is said about one.
pub fn run(args: &Args, id: &str, out: &mut Out) -> Result<Exit, Failure> {
    let Some(check) = Check::named(id) else {
        let known: Vec<&str> = ALL.iter().map(|check| check.id).collect();
        let text = format!(
            "--explain: no finding has the id `{id}`; there are: {}",
            known.join(", ")
        );
        let nearest = suggest(&id.to_ascii_uppercase(), &known);
        let text = match nearest.starts_with("did you mean") && id.len() > 2 {
            true => format!("--explain: no finding has the id `{id}`; {nearest}"),
            false => text,
        };
        return Err(Failure::new(Exit::Usage, text));
    };
    let all = all();
    let explanation = &all[check.id];
    if args.format == Format::Json {
        let (id, severity) = (check.id, check.severity);
        out.json(&ExplainJson {
            format: 1,
            id,
            severity,
            explanation,
        })?;
        return Ok(Exit::Done);
    }
    out.line(&format!(
        "{} ({}): {}",
        check.id, check.severity, explanation.title
    ));
    out.line("");
    out.line(explanation.means.trim_end());
    let parts = [
        ("for example, a host with", explanation.facts.as_ref()),
        ("a configuration that has it", Some(&explanation.example)),
        ("a host without it", explanation.facts_fix.as_ref()),
        (
            "the same without it",
            Some(&explanation.fix).filter(|fix| **fix != explanation.example),
        ),
    ];
    for (title, text) in parts {
        if let Some(text) = text {
            out.line(&format!("\n{title}:\n"));
            text.trim_end().lines().for_each(|line| {
                out.line(&match line {
                    "" => String::new(),
                    line => format!("    {line}"),
                });
            });
        }
    }
    Ok(Exit::Done)
}

fn all() -> BTreeMap<String, Explanation> {
    toml::from_str(TEXTS).expect("explain.toml is read by the tests of this file")
}

#[cfg(test)]
mod tests;
