//! `assertctl status`: one screen. What is degraded stands first, with its remedy; below it, the
//! facts. Pure but for the asking.

use super::{connect, failed, names_key, sign};
use crate::ctl::args::{Args, Format};
use crate::ctl::failure::{Exit, Failure};
use crate::ctl::out::{Out, bytes, count, duration};
use assertd_client::api::{KeyStatus, KeystoreStatus, Status};

/// Seconds within which a keystore that was started should have answered.
const STARTING_S: u64 = 5;

/// A name of a configuration is told by so many digits of its SHA-256.
const SHA256_SHOWN: usize = 12;

/// Prints assertd at a glance. Exits with 0 whenever assertd answers.
pub fn status(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let mut client = connect(args)?;
    let status = client.status().map_err(|error| failed(&error))?;
    match args.format {
        Format::Json => out.json(&status)?,
        Format::Text => {
            let keys = client.keys().map_err(|error| failed(&error))?.keys;
            out.line(&headline(&status));
            out.line("");
            let degraded = degraded(&status, &keys);
            if !degraded.is_empty() {
                out.table(&degraded);
                out.line("");
            }
            out.table(&facts(&status, &keys));
        }
    }
    Ok(Exit::Done)
}

fn headline(status: &Status) -> String {
    format!(
        "assertd {}, pid {}, up {}, isolation {}, peer proof {}",
        status.version,
        status.pid,
        duration(status.uptime_s),
        status.isolation,
        status.peer_proof
    )
}

/// What somebody should do something about: worst first.
fn degraded(status: &Status, keys: &[KeyStatus]) -> Vec<Vec<String>> {
    let (mut fails, mut warns) = (Vec::new(), Vec::new());
    let row = |sign: &str, object: String, text: String| vec![sign.to_owned(), object, text];
    if let Some(why) = &status.clock.why {
        let why = why.strip_prefix("clock: ").unwrap_or(why);
        fails.push(row("FAIL", "clock".into(), why.to_owned()));
    }
    let audit = &status.audit;
    if audit.state != "ok" {
        let why = audit
            .why
            .clone()
            .unwrap_or_else(|| "assertd does not say why".to_owned());
        match audit.state.as_str() {
            "failed" => fails.push(row("FAIL", "audit".into(), why)),
            _ => warns.push(row("warn", "audit".into(), why)),
        }
    }
    if let Some(why) = &status.witness.why {
        fails.push(row("FAIL", "witness".into(), why.clone()));
    }
    if let Some(why) = &status.deny.why {
        let why = why.strip_prefix("deny lists: ").unwrap_or(why);
        fails.push(row("FAIL", "deny lists".into(), why.to_owned()));
    }
    for keystore in &status.keystores {
        let object = format!("keystore {}", keystore.name);
        if keystore.state != "usable" {
            let why = keystore
                .why
                .clone()
                .unwrap_or_else(|| "no answer yet".to_owned());
            let by_itself = match keystore.state.as_str() {
                "degraded" => ", tries by itself",
                _ => "",
            };
            let text = format!(
                "{} for {}{by_itself}: {why}",
                keystore.state,
                duration(keystore.since_s)
            );
            if is_starting(keystore) {
                warns.push(row("warn", object.clone(), text));
            } else {
                fails.push(row("FAIL", object.clone(), text));
            }
        }
        if !keystore.strange.is_empty() {
            let text = format!(
                "objects that look like ours and have no record: {}; was an older state restored? \
                 They are never touched",
                keystore.strange.join(", ")
            );
            warns.push(row("warn", object, text));
        }
    }
    for key in keys.iter().filter(|key| key.used) {
        if let Some(why) = &key.why {
            let text = match names_key(why, key) {
                true => why.clone(),
                false => format!("{}: {why}", key.state),
            };
            let list = if sign(key) == "FAIL" {
                &mut fails
            } else {
                &mut warns
            };
            list.push(row(sign(key), format!("key {}", key.key), text));
        }
        if let Some(why) = &key.blocked {
            let text = format!("does not go on, and is tried again: {why}");
            warns.push(row("warn", format!("key {}", key.key), text));
        }
    }
    if status.peer_proof == "pid" {
        let text = "this kernel has no SO_PEERPIDFD (Linux 6.5): only workloads that say \
                    allow_pid_fallback = true are served, the others denied as weak_proof";
        warns.push(row("warn", "peer proof".into(), text.into()));
    }
    if status.isolation == "none" {
        let text = "assertd started the keystores itself, under its own user; in production make \
                    them units of their own: socket = … in [keystore.NAME]";
        warns.push(row("warn", "isolation".into(), text.into()));
    }
    fails.append(&mut warns);
    fails
}

fn facts(status: &Status, keys: &[KeyStatus]) -> Vec<Vec<String>> {
    let row = |name: &str, text: String| vec![name.to_owned(), text];
    let (config, audit, requests) = (&status.config, &status.audit, &status.requests);
    let sha256: String = config.sha256.chars().take(SHA256_SHOWN).collect();
    let mut rows = vec![
        row(
            "config",
            format!(
                "{}, {}, {}, sha256 {sha256}…",
                config.path,
                count(config.workloads, "workload"),
                count(config.targets, "target")
            ),
        ),
        row(
            "audit",
            format!(
                "{}, last record {}, {} in {}, {} denials counted",
                audit.state,
                audit.seq,
                bytes(audit.bytes),
                audit.directory,
                audit.denials_counted
            ),
        ),
        row("keys", key_states(keys)),
        row(
            "requests",
            format!(
                "{} released ({} of them again), {} denied, {} invalid, {} unavailable, {} peers gone; {} open now",
                requests.released,
                requests.reused,
                requests.denied,
                requests.invalid,
                requests.unavailable,
                requests.peer_gone,
                count(status.connections, "connection")
            ),
        ),
    ];
    for keystore in &status.keystores {
        let name = format!("keystore {}", keystore.name);
        let names = [name.as_str(), "", ""];
        rows.extend(
            names
                .iter()
                .zip(keystore_facts(keystore))
                .map(|(name, text)| row(name, text)),
        );
    }
    rows
}

/// `3 active, 1 failed`.
fn key_states(keys: &[KeyStatus]) -> String {
    let number = |state: &str| keys.iter().filter(|key| key.state == state).count();
    let states: Vec<String> = ["active", "failed", "suspended", "unknown"]
        .into_iter()
        .map(|state| (number(state), state))
        .filter(|(number, _)| *number > 0)
        .map(|(number, state)| format!("{number} {state}"))
        .collect();
    match states.is_empty() {
        true => "none yet: `assertctl apply` makes them".to_owned(),
        false => states.join(", "),
    }
}

fn keystore_facts(keystore: &KeystoreStatus) -> [String; 3] {
    let pid = keystore
        .pid
        .map_or_else(|| "no process".to_owned(), |pid| format!("pid {pid}"));
    let known = |text: &str| {
        if text.is_empty() {
            "not known yet"
        } else {
            text
        }
        .to_owned()
    };
    [
        format!("{}, {}", keystore.state, known(&keystore.algs.join(" "))),
        known(&keystore.token),
        format!(
            "{pid}, {}, {}, {} queued{}, {} in flight, {} minted",
            count(
                usize::try_from(keystore.restarts).unwrap_or(usize::MAX),
                "restart"
            ),
            count(keystore.signers, "signer"),
            keystore.queued,
            waited(keystore),
            keystore.in_flight,
            keystore.minted
        ),
    ]
}

/// How long the first of those that wait has waited.
fn waited(keystore: &KeystoreStatus) -> String {
    match keystore.queued {
        0 => String::new(),
        _ => format!(" (the first for {} ms)", keystore.oldest_ms),
    }
}

/// A token takes its time to open; one that takes longer has a reason that somebody should look at.
fn is_starting(keystore: &KeystoreStatus) -> bool {
    keystore.state == "starting" && keystore.since_s < STARTING_S
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::fixtures::{key, status};

    #[test]
    fn what_fails_stands_before_what_warns() {
        let mut status = status();
        status.isolation = "none".into();
        status.peer_proof = "pid".into();
        status.keystores[0].strange = vec!["0xab".into()];
        status.keystores[0].state = "failed".into();
        status.keystores[0].why = Some("PIN is locked".into());
        status.audit.state = "failed".into();
        status.audit.why = Some("disk is full".into());
        let keys = [key("a/x.1", "failed"), key("a/y.1", "unknown")];
        let rows = degraded(&status, &keys);
        let signs: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(
            signs,
            ["FAIL", "FAIL", "FAIL", "warn", "warn", "warn", "warn"]
        );
        assert_eq!(rows[1][2], "failed for 60 s: PIN is locked");
    }

    #[test]
    fn a_keystore_that_was_started_a_moment_ago_has_not_failed() {
        let mut status = status();
        status.keystores[0].state = "starting".into();
        for (since_s, sign) in [(0, "warn"), (STARTING_S, "FAIL")] {
            status.keystores[0].since_s = since_s;
            assert_eq!(degraded(&status, &[])[0][0], sign);
        }
    }

    #[test]
    fn one_that_comes_back_by_itself_is_told_from_one_that_needs_somebody() {
        let mut status = status();
        status.keystores[0].why = Some("the TPM cannot be reached".into());
        for (state, text) in [
            (
                "degraded",
                "degraded for 60 s, tries by itself: the TPM cannot be reached",
            ),
            ("failed", "failed for 60 s: the TPM cannot be reached"),
        ] {
            status.keystores[0].state = state.into();
            assert_eq!(degraded(&status, &[])[0][2], text);
        }
    }

    #[test]
    fn a_healthy_assertd_has_nothing_above_the_facts() {
        assert_eq!(
            degraded(&status(), &[key("a/x.1", "active")]),
            Vec::<Vec<String>>::new()
        );
    }

    #[test]
    fn a_witness_that_is_away_and_a_broken_deny_list_are_faults() {
        let mut status = status();
        status.witness.why = Some("it does not answer".into());
        status.deny.why = Some("deny lists: the old ones stay in force: a.list:1:1: …".into());
        assert_eq!(
            degraded(&status, &[]),
            [
                ["FAIL", "witness", "it does not answer"],
                [
                    "FAIL",
                    "deny lists",
                    "the old ones stay in force: a.list:1:1: …"
                ],
            ]
        );
    }

    #[test]
    fn a_clock_that_is_not_trusted_stands_first() {
        let mut status = status();
        status.clock.state = "suspect".into();
        status.clock.why = Some("clock: went back 3 s".into());
        let rows = degraded(&status, &[key("a/x.1", "failed")]);
        assert_eq!(rows[0], ["FAIL", "clock", "went back 3 s"]);
    }

    #[test]
    fn a_failed_key_that_nothing_uses_degrades_nothing() {
        let mut unused = key("a/x.1", "failed");
        unused.used = false;
        assert_eq!(degraded(&status(), &[unused]), Vec::<Vec<String>>::new());
    }
}
