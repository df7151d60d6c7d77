//! `assertctl verify`: holds evidence against a policy, and prints every verdict. Runs on any machine: it links
//! no TPM library and asks nobody.

use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::given::{read, refused};
use super::out::{Out, clean, count};
use super::place::put;
use super::relying::{Held, Relying};
use keystore::evidence::bundle::{BUNDLE_LEN_MAX, Nonce};
use keystore::evidence::eat::{VerifierKey, claims};
use keystore::evidence::enrolment::registry::Registry;
use keystore::evidence::nonces::{NonceUse, Nonces};
use keystore::evidence::policy::Policy;
use keystore::evidence::verdict::{Outcome, Overall, Report};
use keystore::evidence::verify::{Question, verify};
use keystore::keyfile::KEY_FILE_LEN_MAX;
use keystore::{Clock, KeyFile, bounded};
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Permissions of somebody else than the owner.
const OTHERS: u32 = 0o077;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Wish {
    /// The bundle.
    pub evidence: PathBuf,
    /// The nonce that it is to answer.
    pub nonce: Nonce,
    /// `--policy`
    pub policy: PathBuf,
    /// `--record`
    pub record: Record,
    /// `--eat` and `--eat-key`
    pub eat: Option<Eat>,
}

/// Whether what was accepted is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// What is beside the policy stays as it is.
    No,
    /// The nonce is one that was made there, and is used up; the TPM's counters go into the registry.
    Accepted,
}

/// A result for others.
#[derive(Debug, PartialEq, Eq)]
pub struct Eat {
    /// Where to.
    pub path: PathBuf,
    /// The verifier's key.
    pub key: PathBuf,
}

/// `--json`
#[derive(Serialize)]
struct ReportJson<'a> {
    format: u32,
    result: Overall,
    policy: String,
    #[serde(flatten)]
    report: &'a Report,
}

/// Does it.
pub fn run(args: &Args, wish: &Wish, out: &mut Out) -> Result<Exit, Failure> {
    let relying = Relying::load(&wish.policy)?;
    // Before anything is printed: a token that cannot be made is not found out at the end.
    let key = wish.eat.as_ref().map(|eat| verifier_key(&eat.key));
    let key = key.transpose()?;
    let evidence = read(&wish.evidence, BUNDLE_LEN_MAX + 1)?;
    if let Some(path) = relying.absent_registry() {
        let path = clean(&path.display().to_string());
        eprintln!(
            "assertctl: warn: {path}, which the policy names, is not there: nobody is enrolled (`assertctl enroll \
             finish` makes it)"
        );
    }
    // Until it is recorded what came of it, nobody else has the same nonce answered, or changes the registry.
    let mut held = match wish.record {
        Record::No => None,
        Record::Accepted => Some(relying.hold_registry()?),
    };
    let nonces = held.as_ref().map(|held| held.beside.nonces()).transpose()?;
    let unheld = match held {
        Some(_) => Registry::new(),
        None => relying.registry()?,
    };
    let question = Question {
        evidence: &evidence,
        nonce: &wish.nonce,
        nonce_use: nonces
            .as_ref()
            .map_or(NonceUse::NotKept, |nonces| nonces.find(&wish.nonce)),
        policy: &relying.policy,
        roots: &relying.roots,
        registry: held.as_ref().map_or(&unheld, |held| &held.registry),
        now: Clock::new().read().unix_s(),
    };
    let report = verify(&question);
    let overall = report.overall();
    let token = key.map(|key| key.sign(&claims(&question, &relying.text, &report)));
    let token = token.transpose();
    let token = token.map_err(|error| Failure::from_keystore(&error))?;
    // Before anybody learns that it was accepted: no crash lets a nonce be answered again.
    if let (Some(held), Some(nonces), Overall::Passed) = (&mut held, nonces, overall) {
        record(held, nonces, &wish.nonce, &report)?;
    }
    if let (Some(eat), Some(token)) = (&wish.eat, token) {
        put(&eat.path, token.as_bytes())?;
    }
    match args.format {
        Format::Json => out.json(&ReportJson {
            format: 1,
            result: overall,
            policy: keystore::evidence::bundle::to_hex(&Policy::digest(&relying.text)),
            report: &report,
        })?,
        Format::Text => show(&report, out),
    }
    match overall {
        Overall::Passed => Ok(Exit::Done),
        Overall::Failed => Ok(Exit::Refused),
    }
}

fn show(report: &Report, out: &mut Out) {
    let row = |it: &keystore::evidence::verdict::Verdict| {
        let about = match it.about.as_str() {
            "" => "-".to_owned(),
            about => about.to_owned(),
        };
        let reason = it.outcome.reason().unwrap_or_default();
        let outcome = it.outcome.name().to_owned();
        vec![outcome, it.check.to_string(), about, reason]
    };
    out.table(&report.verdicts.iter().map(row).collect::<Vec<_>>());
    out.line("");
    let keys = report.keys.iter().map(|it| {
        let imported = if it.imported { "imported" } else { "" };
        let id = it.key.to_string();
        let (level, kid) = (it.level.to_string(), it.jwk.kid().to_string());
        let use_by = it.use_by.map(|by| format!("by {by}")).unwrap_or_default();
        vec![id, level, use_by, kid, imported.to_owned()]
    });
    out.table(&keys.collect::<Vec<_>>());
    let number =
        |is: fn(&Outcome) -> bool| report.verdicts.iter().filter(|it| is(&it.outcome)).count();
    let failed = number(|it| matches!(it, Outcome::Failed { .. }));
    let unreachable = number(|it| matches!(it, Outcome::Unreachable { .. }));
    let skipped = number(|it| matches!(it, Outcome::Skipped { .. }));
    let host = report.host.as_ref().map_or("-", |host| host.as_str());
    out.line(&match report.overall() {
        Overall::Passed => format!(
            "{host}: passed: {}, {skipped} skipped",
            count(report.verdicts.len() - skipped, "check")
        ),
        Overall::Failed => format!(
            "{host}: failed: {failed} of {} failed, {unreachable} unreachable, {skipped} skipped",
            count(report.verdicts.len(), "check")
        ),
    });
}

/// The nonce first: without it nothing is accepted.
fn record(
    held: &mut Held,
    mut nonces: Nonces,
    nonce: &Nonce,
    report: &Report,
) -> Result<(), Failure> {
    nonces.close(nonce);
    held.beside.write_nonces(&nonces)?;
    let Some(host) = &report.host else {
        return Ok(());
    };
    for counted in &report.counted {
        held.registry
            .count(host, &counted.keystore, counted.counters);
    }
    held.write()
}

/// A key that others can read is everybody's.
fn verifier_key(path: &Path) -> Result<VerifierKey, Failure> {
    let (bytes, metadata) =
        bounded::read(path, KEY_FILE_LEN_MAX).map_err(|why| refused(path, &why))?;
    let file = KeyFile::new(bytes.into());
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        let why = format!(
            "others can read the verifier's key (mode {mode:04o}): make a new one with mode 0600"
        );
        return Err(refused(path, &why));
    }
    let key = file.and_then(|file| file.private_key());
    let key = key.and_then(|key| VerifierKey::new(&key));
    key.map_err(|error| refused(path, &error))
}

#[cfg(test)]
mod tests {
    use keystore::evidence::verdict::Check;

    #[test]
    fn every_check_has_a_line_in_the_manual() {
        let manual = include_str!("../../../docs/man/assertctl.1.md");
        // serde knows all of them, and says so to whom it does not know.
        let wrong = serde_json::from_str::<Check>("\"\"")
            .unwrap_err()
            .to_string();
        let (_, all) = wrong.split_once("expected one of ").unwrap();
        let (all, _) = all.split_once(" at line").unwrap();
        let rows: Vec<&str> = manual.lines().filter(|it| it.starts_with("| `")).collect();
        for name in all.split(", ") {
            let is_its = |row: &&&str| row.starts_with(&format!("| {name} |"));
            assert_eq!(rows.iter().filter(is_its).count(), 1, "{name}");
        }
        assert!(all.contains("`certify-context`"), "{all}");
    }
}
