//! Versions of a key follow each other: by an operator's word, by time, over restarts, and never with a
//! moment in which what is signed is not published.

use crate::world::{BANK, SHORT, bank, decode, serves, with_bank};
use harness::token::KEYSTORE;
use harness::{DEADLINE, Daemon, Token, wait_until};
use serde_json::Value;
use std::path::Path;

fn done(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.assertctl(arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}{why}");
    said
}

fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.assertctl(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The state of each version that is not destroyed.
fn states(daemon: &Daemon) -> Vec<(String, String)> {
    let keys = daemon.keys().into_iter();
    let shown = keys.filter(|key| key.state != "destroyed");
    shown.map(|key| (key.key, key.state)).collect()
}

fn wait_states(daemon: &Daemon, wanted: &[(&str, &str)]) {
    let wanted: Vec<(String, String)> = wanted
        .iter()
        .map(|(key, state)| ((*key).to_owned(), (*state).to_owned()))
        .collect();
    let there = wait_until(DEADLINE, || states(daemon) == wanted);
    assert!(
        there,
        "{:?} and not {wanted:?}\n{}",
        daemon.keys(),
        daemon.stderr()
    );
}

fn kid_of(daemon: &Daemon, id: &str) -> String {
    let keys = daemon.keys();
    let key = keys.iter().find(|key| key.key == id);
    key.unwrap_or_else(|| panic!("no {id}")).kid.clone()
}

/// The kid of an assertion that is asked for now.
fn signs(daemon: &Daemon) -> String {
    let answer = daemon.ask(BANK);
    assert_eq!(answer.status, 200, "{}", answer.body());
    let (header, _) = decode(answer.json()["assertion"].as_str().unwrap());
    header["kid"].as_str().unwrap().to_owned()
}

fn kids(set: &Value) -> Vec<String> {
    let keys = set["keys"].as_array().unwrap();
    keys.iter()
        .map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

fn published(daemon: &Daemon) -> Vec<String> {
    kids(&serde_json::from_str(&done(daemon, &["jwks", "--key", "ours/bank"])).unwrap())
}

#[test]
fn a_key_is_rotated_by_two_words() {
    let (daemon, token) = with_bank();
    let state = daemon.site().keystore_state(KEYSTORE);
    let first = signs(&daemon);
    done(&daemon, &["keys", "rotate", "ours/bank"]);
    wait_states(
        &daemon,
        &[("ours/bank.1", "active"), ("ours/bank.2", "published")],
    );
    let second = kid_of(&daemon, "ours/bank.2");
    assert_eq!(published(&daemon), [first.clone(), second.clone()]);
    assert_eq!(signs(&daemon), first, "published is not active");
    let said = refused(&daemon, &["keys", "rotate", "ours/bank"]);
    assert!(
        said.contains("ours/bank.2: is on its way already"),
        "{said}"
    );
    let listed = done(&daemon, &["keys"]);
    assert!(
        listed.contains("assertctl keys activate ours/bank"),
        "{listed}"
    );

    done(&daemon, &["keys", "activate", "ours/bank"]);
    assert_eq!(signs(&daemon), second);
    assert_eq!(published(&daemon), [second.clone(), first.clone()]);
    assert_eq!(token.private_keys(&state), 2);
    let listed = done(&daemon, &["keys", "ours/bank"]);
    let lines: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with(['|', '>']))
        .collect();
    assert!(lines.len() >= 5, "{listed}");
    assert!(listed.contains("leaves the published set"), "{listed}");
    let used = daemon.keys();
    assert!(used.iter().all(|key| key.used_at.is_some()), "{used:?}");
    let said = refused(&daemon, &["keys", "ours/other"]);
    assert!(said.contains("recorded none"), "{said}");
    // And back: what retires is published still.
    done(&daemon, &["keys", "activate", "ours/bank.1"]);
    assert_eq!(signs(&daemon), first);
    for action in ["made", "published", "activated"] {
        daemon.audit_record(|record| record["action"] == action && record["key"] == "ours/bank.2");
    }
}

#[test]
fn a_rotation_goes_on_after_a_restart() {
    let (daemon, _token) = with_bank();
    done(&daemon, &["keys", "rotate", "ours/bank"]);
    wait_states(
        &daemon,
        &[("ours/bank.1", "active"), ("ours/bank.2", "published")],
    );
    let daemon = daemon.restart();
    daemon.wait_usable();
    wait_states(
        &daemon,
        &[("ours/bank.1", "active"), ("ours/bank.2", "published")],
    );
    done(&daemon, &["keys", "activate", "ours/bank"]);
    let second = kid_of(&daemon, "ours/bank.2");
    let mut daemon = daemon.restart();
    daemon.wait_usable();
    assert_eq!(signs(&daemon), second);
    wait_states(
        &daemon,
        &[("ours/bank.1", "retiring"), ("ours/bank.2", "active")],
    );
    serves(&mut daemon);
}

#[test]
fn a_key_rotates_by_itself_and_what_is_old_is_destroyed() {
    let token = Token::new();
    let config = harness::Config::new(&token)
        .workload("ours", crate::world::us(), "rate = 100000\nburst = 100000")
        .target("ours", "bank", SHORT);
    let daemon = Daemon::with_keys(&config);
    let state = daemon.site().keystore_state(KEYSTORE);
    let first = signs(&daemon);
    let patience = DEADLINE * 3;
    assert!(
        wait_until(patience, || signs(&daemon) != first),
        "{:?}",
        daemon.keys()
    );
    assert_eq!(signs(&daemon), kid_of(&daemon, "ours/bank.2"));
    assert!(
        published(&daemon).contains(&first),
        "it was used a moment ago"
    );
    let gone = || states(&daemon).iter().all(|(key, _)| key != "ours/bank.1");
    assert!(
        wait_until(patience, gone),
        "{:?}\n{}",
        daemon.keys(),
        daemon.stderr()
    );
    assert!(!published(&daemon).contains(&first));
    assert!(token.private_keys(&state) <= 2);
    daemon.audit_record(|record| record["action"] == "destroyed" && record["key"] == "ours/bank.1");
}

#[test]
fn a_held_key_signs_nothing_until_it_is_resumed() {
    let (daemon, _token) = with_bank();
    let first = signs(&daemon);
    done(&daemon, &["keys", "hold", "ours/bank"]);
    let answer = daemon.ask(BANK);
    assert_eq!(answer.status, 503);
    assert!(
        answer.member("detail").contains("keys resume ours/bank"),
        "{}",
        answer.body()
    );
    assert_eq!(
        published(&daemon),
        std::slice::from_ref(&first),
        "what it signed is valid still"
    );
    let daemon = daemon.restart();
    daemon.wait_usable();
    assert_eq!(daemon.ask(BANK).status, 503, "a restart lets nothing go on");
    let said = refused(&daemon, &["keys", "hold", "ours/bank"]);
    assert!(said.contains("is stopped already"), "{said}");
    done(&daemon, &["keys", "resume", "ours/bank"]);
    assert_eq!(signs(&daemon), first);
}

#[test]
fn a_revoked_key_is_gone_at_once_and_another_signs_at_once() {
    let (daemon, _token) = with_bank();
    let first = signs(&daemon);
    let said = refused(&daemon, &["keys", "revoke", "ours/bank", "--compromised"]);
    assert!(said.contains("Nothing was done"), "{said}");
    let said = done(
        &daemon,
        &["keys", "revoke", "ours/bank", "--compromised", "--yes"],
    );
    let steps = [
        "1. done: ours/bank.1",
        "2. now, at the authorization server",
        "5. on a host",
    ];
    let places: Vec<usize> = steps
        .iter()
        .map(|step| said.find(step).expect(step))
        .collect();
    assert!(places.is_sorted(), "{said}");
    let answer = daemon.ask(BANK);
    assert_eq!(answer.status, 503, "{}", answer.body());
    let said = refused(&daemon, &["jwks", "--key", "ours/bank"]);
    assert!(said.contains("nothing to publish"), "{said}");
    for id in ["ours/bank", "ours/bank.1"] {
        let said = refused(&daemon, &["keys", "activate", id, "--now"]);
        assert!(said.contains("ours/bank"), "{said}");
    }
    let daemon = daemon.restart();
    daemon.wait_usable();
    assert_eq!(daemon.ask(BANK).status, 503, "it is for ever");
    done(&daemon, &["keys", "rotate", "ours/bank"]);
    wait_states(
        &daemon,
        &[("ours/bank.1", "revoked"), ("ours/bank.2", "active")],
    );
    assert_ne!(signs(&daemon), first);
    assert_eq!(published(&daemon), [kid_of(&daemon, "ours/bank.2")]);
    done(&daemon, &["keys", "destroy", "ours/bank.1", "--yes"]);
    wait_states(&daemon, &[("ours/bank.2", "active")]);
}

#[test]
fn a_version_on_its_way_is_given_up() {
    let (daemon, _token) = with_bank();
    done(&daemon, &["keys", "rotate", "ours/bank"]);
    wait_states(
        &daemon,
        &[("ours/bank.1", "active"), ("ours/bank.2", "published")],
    );
    done(&daemon, &["keys", "abandon", "ours/bank"]);
    wait_states(
        &daemon,
        &[("ours/bank.1", "active"), ("ours/bank.2", "retired")],
    );
    assert_eq!(published(&daemon), [kid_of(&daemon, "ours/bank.1")]);
    done(&daemon, &["keys", "rotate", "ours/bank"]);
    // No number is used twice, and the one given up goes.
    wait_states(
        &daemon,
        &[("ours/bank.1", "active"), ("ours/bank.3", "published")],
    );
}

#[test]
fn a_lost_key_is_replaced_by_word_alone() {
    let (daemon, token) = with_bank();
    let state = daemon.site().keystore_state(KEYSTORE);
    let said = refused(&daemon, &["keys", "replace-lost", "ours/bank", "--yes"]);
    assert!(said.contains("is not lost"), "{said}");
    token.lose_private_keys(&state);
    let daemon = daemon.restart();
    daemon.wait_usable();
    assert_eq!(daemon.ask(BANK).status, 503);
    done(&daemon, &["keys", "replace-lost", "ours/bank", "--yes"]);
    wait_states(
        &daemon,
        &[("ours/bank.1", "retiring"), ("ours/bank.2", "active")],
    );
    assert_eq!(signs(&daemon), kid_of(&daemon, "ours/bank.2"));
    assert_eq!(
        published(&daemon).len(),
        2,
        "what the lost one signed is valid still"
    );
}

#[test]
fn a_key_whose_keystore_has_lost_all_it_knew_is_made_anew_by_apply() {
    let (mut daemon, token) = with_bank();
    let state = daemon.site().keystore_state(KEYSTORE);
    let first = signs(&daemon);
    assert_eq!(daemon.stop(), Some(0));
    token.lose_private_keys(&state);
    std::fs::remove_dir_all(&state).unwrap();
    let daemon = Daemon::start_at(daemon.into_site());
    daemon.wait_usable();
    let said = refused(&daemon, &["apply", "--yes"]);
    assert!(
        said.contains("bank: version 1"),
        "nobody has given it up: {said}"
    );
    done(&daemon, &["keys", "replace-lost", "ours/bank", "--yes"]);
    let told = || {
        daemon
            .stderr()
            .contains("have `assertctl apply` make this version")
    };
    assert!(wait_until(DEADLINE, told), "{}", daemon.stderr());
    daemon.apply();
    wait_states(
        &daemon,
        &[("ours/bank.1", "retiring"), ("ours/bank.2", "active")],
    );
    assert_ne!(signs(&daemon), first);
}

#[test]
fn a_broker_that_lost_its_records_gets_them_from_its_keystores() {
    let (mut daemon, _token) = with_bank();
    let first = signs(&daemon);
    let counted = || daemon.status().keystores[0].counter.as_ref()?.value;
    assert!(wait_until(DEADLINE, || counted().is_some()));
    assert_eq!(daemon.stop(), Some(0));
    let site = daemon.into_site();
    for name in ["keyring.v1", "keyring.v1.prev"] {
        std::fs::remove_file(site.state_dir().join(name)).unwrap();
    }
    let daemon = Daemon::start_at(site);
    daemon.wait_usable();
    assert_eq!(daemon.ask(BANK).status, 503);
    assert!(daemon.apply().contains("recorded"), "nothing is made");
    assert_eq!(signs(&daemon), first);
}

/// `tar` in the directory that `state` lies in.
fn tar(state: &Path) -> std::process::Command {
    let mut tar = std::process::Command::new("tar");
    tar.arg("-C").arg(state.parent().unwrap());
    tar
}

#[test]
fn a_backup_brings_keys_back_and_what_came_after_it_is_reported() {
    let (mut daemon, token) = with_bank();
    let (state, first) = (daemon.site().state_dir(), signs(&daemon));
    let backup = tempfile::tempdir().unwrap();
    let archive = backup.path().join("assertd.tar.gz");
    // The command of docs/operations.md, while it runs: 1 says that a file was replaced meanwhile.
    let made = tar(&state)
        .args(["--exclude=*.new", "-czf"])
        .arg(&archive)
        .arg("state")
        .status();
    assert!(matches!(made.unwrap().code(), Some(0 | 1)));
    done(&daemon, &["keys", "rotate", "ours/bank"]);
    wait_states(
        &daemon,
        &[("ours/bank.1", "active"), ("ours/bank.2", "published")],
    );
    assert_eq!(daemon.stop(), Some(0));
    let site = daemon.into_site();
    std::fs::remove_dir_all(&state).unwrap();
    assert!(
        tar(&state)
            .arg("-xpf")
            .arg(&archive)
            .status()
            .unwrap()
            .success()
    );
    let accept = |site: &harness::daemon::Site| {
        let mut command = std::process::Command::new(site.programs().assertctl());
        command.arg("-c").arg(site.config());
        let arguments = ["state", "accept-rollback", "--yes"];
        assert!(command.args(arguments).status().unwrap().success());
    };
    accept(&site);
    let daemon = Daemon::start_at(site);
    daemon.wait_usable();
    assert_eq!(
        states(&daemon),
        [("ours/bank.1".to_owned(), "active".to_owned())]
    );
    assert_eq!(signs(&daemon), first);
    if token.kind() == harness::token::Kind::Pkcs11 {
        // Its object is in the token still. A TPM has nothing of a key but its file.
        let told = "objects that look like ours and have no record";
        let reported = || {
            let status = done(&daemon, &["status"]);
            status.contains(told) && status.contains("ours/bank")
        };
        assert!(wait_until(DEADLINE, reported), "{}", daemon.stderr());
    }
    done(&daemon, &["keys", "rotate", "ours/bank"]);
    wait_states(
        &daemon,
        &[("ours/bank.1", "active"), ("ours/bank.2", "published")],
    );
    assert_ne!(kid_of(&daemon, "ours/bank.2"), first);
}

#[test]
fn the_documents_follow_every_step() {
    let token = Token::new();
    let directory = tempfile::tempdir().unwrap();
    let config = bank(&token).with(&format!(
        "[publication]\ndirectory = \"{}\"\n[issuer.prod]\nurl = \"https://id.example/prod\"\n\
         subjects = [\"ours\"]\nkeystore = \"{KEYSTORE}\"\ntrust_domain = \"example.org\"\n",
        directory.path().display()
    ));
    let daemon = Daemon::with_keys(&config);
    let read = |path: &str| -> Value {
        let path = directory.path().join(path);
        serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")))
            .unwrap()
    };
    let jwks = || kids(&read("client/ours/bank/jwks.json"));
    let first = signs(&daemon);
    assert_eq!(jwks(), std::slice::from_ref(&first));
    assert_eq!(
        read("issuer/prod/.well-known/openid-configuration")["issuer"],
        "https://id.example/prod"
    );
    let sequence = |bundle: &Value| bundle["spiffe_sequence"].as_u64().unwrap();
    let before = read("issuer/prod/bundle.json");
    done(&daemon, &["keys", "rotate", "issuer/prod"]);
    done(&daemon, &["keys", "rotate", "ours/bank"]);
    wait_states(
        &daemon,
        &[
            ("issuer/prod.1", "active"),
            ("issuer/prod.2", "published"),
            ("ours/bank.1", "active"),
            ("ours/bank.2", "published"),
        ],
    );
    assert_eq!(jwks(), [first.clone(), kid_of(&daemon, "ours/bank.2")]);
    let after = read("issuer/prod/bundle.json");
    assert_eq!(kids(&after).len(), 2);
    assert!(sequence(&after) > sequence(&before));
    let said = refused(&daemon, &["keys", "activate", "issuer/prod"]);
    assert!(said.contains("may not know it before"), "{said}");
    done(
        &daemon,
        &["keys", "revoke", "ours/bank.1", "--compromised", "--yes"],
    );
    let without = wait_until(DEADLINE, || jwks() == [kid_of(&daemon, "ours/bank.2")]);
    assert!(without, "{:?}", jwks());
    // Nobody else signs: the one on its way does, at once.
    wait_states(
        &daemon,
        &[
            ("issuer/prod.1", "active"),
            ("issuer/prod.2", "published"),
            ("ours/bank.1", "revoked"),
            ("ours/bank.2", "active"),
        ],
    );
    assert_eq!(signs(&daemon), kid_of(&daemon, "ours/bank.2"));
    // Whatever is taken away is there again after a start.
    std::fs::remove_dir_all(directory.path().join("client")).unwrap();
    let daemon = daemon.restart();
    assert_eq!(jwks(), [kid_of(&daemon, "ours/bank.2")]);
    assert!(Path::new(&directory.path().join("published")).exists());
}
