//! What befalls a TPM, seen from assertd. Whatever KEYSTORE says, the keystore is one.

use crate::world::{BANK, bank, serves, us};
use harness::process::Process;
use harness::token::KEYSTORE;
use harness::{Config, DEADLINE, Daemon, Tpm, wait_for};
use std::process::Command;

/// Waits until status shows the keystore as failed; what it says of why.
#[track_caller]
fn wait_failed(daemon: &Daemon) -> String {
    let said = wait_for(DEADLINE, || {
        let keystores = daemon.status().keystores;
        let failed = keystores.into_iter().find(|it| it.state == "failed");
        failed.map(|it| it.why.unwrap_or_default())
    });
    said.unwrap_or_else(|| panic!("never failed: {:?}", daemon.status().keystores))
}

#[test]
fn when_its_tpm_is_replaced_new_keys_are_made_by_what_the_keystore_says() {
    let mut tpm = Tpm::new();
    let mut daemon = Daemon::with_keys(bank(&tpm));
    serves(&mut daemon);
    let old = daemon.keys().remove(0);
    tpm.swtpm().replace();
    let mut daemon = daemon.restart();

    let why = wait_failed(&daemon);
    let order = [
        "another TPM",
        "another name in the configuration",
        "stop the keystore",
        "move its state directory away",
        "start it again",
        "`assertctl reload`",
        "`assertctl apply`",
    ];
    let places = order.map(|part| why.find(part));
    assert!(places.iter().all(Option::is_some), "{why}");
    assert!(places.is_sorted(), "{why}");
    assert_ne!(daemon.assertctl(&["apply"]).status.code(), Some(0));
    // The workload is told whom to ask, and not why; administrators are told why.
    let answer = daemon.ask(BANK);
    assert_eq!(answer.status, 503);
    let told = answer.member("detail");
    let whom = "its keystore cannot serve now; an administrator finds why in `assertctl status`";
    assert!(told.contains(whom), "{told}");
    assert!(!told.contains("storage primary"), "{told}");
    let key = daemon.keys().remove(0);
    assert_eq!(key.state, "unknown");
    assert!(key.why.unwrap().contains("storage primary"));
    let checked = daemon.assertctl(&["check"]).stdout;
    let checked = String::from_utf8(checked).unwrap();
    let of_key = checked.lines().find(|line| line.contains("D81")).unwrap();
    assert!(of_key.contains("storage primary"), "{checked}");

    // As it says: the keystore is assertd's child, and ends and starts with it.
    let renamed = Config::new(&tpm)
        .workload("ours", us(), "")
        .target("ours", "bank-2", "");
    daemon.site().configure(renamed.text());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    let site = daemon.into_site();
    let state = site.keystore_state(KEYSTORE);
    std::fs::rename(&state, state.with_extension("old")).unwrap();
    // The counter went with the TPM: assertd cannot tell that its records are the newest.
    let mut process = Process::start(&mut site.command());
    assert_eq!(process.wait(DEADLINE).code(), Some(78));
    assert!(process.stderr().contains("state accept-rollback"));
    let mut accept = Command::new(site.programs().assertctl());
    accept.arg("-c").arg(site.config());
    let accepted = accept.args(["state", "accept-rollback", "--yes"]).status();
    assert!(accepted.unwrap().success());
    let daemon = Daemon::start_at(site);
    let said = daemon.apply();
    assert!(said.contains("created ours/bank-2"), "{said}");
    let answer = daemon.ask(r#"{"target":"bank-2"}"#);
    assert_eq!(answer.status, 200, "{}", answer.body());
    let keys = daemon.keys();
    let kept = keys.iter().find(|key| key.key == old.key).unwrap();
    assert_eq!(kept.kid, old.kid);
    assert_ne!(answer.member("kid"), old.kid);
}
