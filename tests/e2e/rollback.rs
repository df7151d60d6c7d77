//! A state directory that is restored from a copy does not bring back what was revoked since: refused where
//! a TPM counts, warned about where only the keystore's own state does (standards §5.4, I7).

use crate::world::{BANK, bank, serves, with_bank};
use harness::daemon::Site;
use harness::process::Process;
use harness::token::{KEYSTORE, Kind, Token};
use harness::{DEADLINE, Daemon, wait_until};
use std::path::Path;
use std::process::Command;

/// The files of the broker's records.
const RECORDS: [&str; 2] = ["keyring.v1", "keyring.v1.prev"];

fn copy(from: &Path, to: &Path) {
    for name in RECORDS {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn done(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.assertctl(arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}{why}");
    said
}

fn state(daemon: &Daemon, key: &str) -> String {
    let keys = daemon.keys();
    let key = keys.iter().find(|it| it.key == key);
    key.map_or_else(String::new, |key| key.state.clone())
}

fn assertctl(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(site.programs().assertctl());
    command.arg("-c").arg(site.config()).args(arguments);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said + &why)
}

/// A daemon whose key was revoked after a copy was made, stopped, with the copy in place.
fn restored() -> (Site, Token) {
    let token = Token::new();
    let mut daemon = Daemon::with_keys(bank(&token));
    let published = daemon.site().state_dir().with_file_name("published");
    let section = format!("[publication]\ndirectory = \"{}\"\n", published.display());
    daemon.site().configure(bank(&token).with(&section).text());
    let mut daemon = {
        assert_eq!(daemon.stop(), Some(0));
        Daemon::start_at(daemon.into_site())
    };
    daemon.wait_usable();
    assert_eq!(published_keys(daemon.site()), 1);
    serves(&mut daemon);
    let counted = || daemon.status().keystores[0].counter.as_ref()?.value;
    assert!(
        wait_until(DEADLINE, || counted().is_some()),
        "{}",
        daemon.stderr()
    );
    let before = tempfile::tempdir().unwrap();
    copy(&daemon.site().state_dir(), before.path());
    done(
        &daemon,
        &["keys", "revoke", "ours/bank", "--compromised", "--yes"],
    );
    let is_gone = || published_keys(daemon.site()) == 0;
    assert!(wait_until(DEADLINE, is_gone), "{}", daemon.stderr());
    assert_eq!(daemon.stop(), Some(0));
    let site = daemon.into_site();
    copy(before.path(), &site.state_dir());
    (site, token)
}

/// Keys in the set of the client.
fn published_keys(site: &Site) -> usize {
    let published = site.state_dir().with_file_name("published");
    let set = std::fs::read(published.join("client/ours/bank/jwks.json")).unwrap();
    let set: serde_json::Value = serde_json::from_slice(&set).unwrap();
    set["keys"].as_array().unwrap().len()
}

#[test]
fn a_restored_state_brings_no_revoked_key_back_unnoticed() {
    let (site, token) = restored();
    match token.kind() {
        Kind::Tpm => {
            for _again in 0..2 {
                let mut process = Process::start(&mut site.command());
                let ended = process.wait(DEADLINE);
                let said = process.stderr();
                assert_eq!(ended.code(), Some(78), "{said}");
                assert!(said.contains("assertctl state accept-rollback"), "{said}");
                assert!(!said.contains("assertd: ready:"), "{said}");
                assert_eq!(
                    published_keys(&site),
                    0,
                    "the revoked key is published again"
                );
            }
        }
        Kind::Pkcs11 => {
            let mut daemon = Daemon::start_at(site);
            let warned = || done(&daemon, &["status"]).contains("assertctl state accept-rollback");
            assert!(wait_until(DEADLINE, warned), "{}", daemon.stderr());
            assert_eq!(daemon.stop(), Some(0));
            return accepted(daemon.into_site());
        }
    }
    accepted(site);
}

/// It is meant: what the copy says holds, and everything after is counted again.
fn accepted(site: Site) {
    let (code, said) = assertctl(&site, &["state", "accept-rollback"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Nothing was done"), "{said}");
    let (code, said) = assertctl(&site, &["state", "accept-rollback", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("ours/bank.1") && said.contains("active"),
        "{said}"
    );
    let mut daemon = Daemon::start_at(site);
    daemon.wait_usable();
    serves(&mut daemon);
    let restored = |record: &serde_json::Value| {
        record["action"] == "restored" && record["key"] == "ours/bank.1"
    };
    assert!(wait_until(DEADLINE, || daemon
        .audit_records()
        .iter()
        .any(restored)));
    assert!(!done(&daemon, &["status"]).contains("accept-rollback"));
    // The word was for those records alone.
    let before = tempfile::tempdir().unwrap();
    copy(&daemon.site().state_dir(), before.path());
    done(
        &daemon,
        &["keys", "revoke", "ours/bank", "--compromised", "--yes"],
    );
    assert_eq!(daemon.stop(), Some(0));
    let site = daemon.into_site();
    copy(before.path(), &site.state_dir());
    let process = Process::start(&mut site.command());
    process.wait_for_stderr("assertctl state accept-rollback");
    drop(process);
}

#[test]
fn a_kill_at_any_time_is_no_rollback() {
    let (mut daemon, _token) = with_bank();
    for round in 0..4 {
        serves(&mut daemon);
        done(&daemon, &["keys", "hold", "ours/bank"]);
        assert_eq!(daemon.ask(BANK).status, 503);
        done(&daemon, &["keys", "resume", "ours/bank"]);
        done(&daemon, &["keys", "rotate", "ours/bank"]);
        daemon.signal(nix::sys::signal::Signal::SIGKILL);
        assert!(wait_until(DEADLINE, || !daemon.lives()));
        daemon = Daemon::start_at(daemon.into_site());
        daemon.wait_usable();
        let keystore = &daemon.status().keystores[0];
        let counter = keystore.counter.clone().unwrap();
        assert_eq!(counter.why, None, "{}", daemon.stderr());
        let made = || state(&daemon, &format!("ours/bank.{}", round + 2)) == "published";
        assert!(wait_until(DEADLINE, made), "{:?}", daemon.keys());
        done(&daemon, &["keys", "abandon", "ours/bank"]);
    }
}

#[test]
fn a_counter_that_is_gone_is_noticed() {
    let (mut daemon, token) = with_bank();
    serves(&mut daemon);
    let counted = || daemon.status().keystores[0].counter.as_ref()?.value;
    assert!(
        wait_until(DEADLINE, || counted().is_some()),
        "{}",
        daemon.stderr()
    );
    assert_eq!(state(&daemon, "ours/bank.1"), "active");
    assert_eq!(daemon.stop(), Some(0));
    let site = daemon.into_site();
    token.take_counter(&site.keystore_state(KEYSTORE));
    let mut process = Process::start(&mut site.command());
    process.wait_for_stderr("it cannot be told whether these records are the newest");
    if token.kind() == Kind::Tpm {
        assert_eq!(process.wait(DEADLINE).code(), Some(78));
    }
    drop(process);
    let (code, said) = assertctl(&site, &["state", "accept-rollback", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    let daemon = Daemon::start_at(site);
    daemon.wait_usable();
    let mut daemon = daemon.restart();
    daemon.wait_usable();
    serves(&mut daemon);
    assert!(!done(&daemon, &["status"]).contains("accept-rollback"));
}
