//! Rows 7 to 9: another token in the slot, a key that is gone from the right one, an object of
//! somebody else under our id. Nothing is made, nothing is destroyed, and what helps is said.

use super::place::{Files, OTHER, Place, files_below, same_files};
use crate::observed::{self, TARGET};
use harness::fault::{Function, Shimmed};
use harness::token::KEYSTORE;
use harness::{DEADLINE, SoftHsm, public_dir, wait_until};
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// The label of the key of [`TARGET`].
const LABEL: &str = "assertd/payments/bank/1";

/// The right token while it is not in its slot.
struct Aside(TempDir);

/// Takes the token out of its slot. The directory stays: a keystore's sandbox knows it alone.
fn take_out(token: &SoftHsm) -> Aside {
    let aside = Aside(public_dir());
    move_all(&token.state(), aside.0.path());
    aside
}

/// Puts it back, and throws away what is there instead.
fn put_back(token: &SoftHsm, aside: &Aside) {
    let other = public_dir();
    move_all(&token.state(), other.path());
    move_all(aside.0.path(), &token.state());
}

fn move_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::rename(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Puts another token in the slot, with the same label.
fn put_another(token: &SoftHsm, pin: &str) {
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", token.label()])
        .args(["--pin", pin, "--so-pin", "87654321"])
        .env("SOFTHSM2_CONF", token.conf())
        .output();
    succeeded(made.expect("softhsm2-util is installed by `make setup`"));
}

fn succeeded(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What `pkcs11-tool`, logged in, prints when it does this. SoftHSM fails now and then where another process
/// looks through the same token.
fn tool(token: &SoftHsm, arguments: &[&str]) -> String {
    let mut tries = 3;
    loop {
        tries -= 1;
        let done = token.pkcs11_tool().args(arguments).output();
        let done = done.expect("pkcs11-tool is installed by `make setup`");
        let said = String::from_utf8_lossy(&done.stderr);
        if tries == 0 || done.status.success() || !said.contains("CKR_FUNCTION_FAILED") {
            return succeeded(done);
        }
    }
}

/// The CKA_ID of the key of [`TARGET`], in hexadecimal.
fn id(token: &SoftHsm) -> String {
    let listed = tool(token, &["--list-objects", "--type", "privkey"]);
    let ours = listed.split(LABEL).nth(1).unwrap_or_default();
    let id = ours
        .lines()
        .find_map(|line| line.trim().strip_prefix("ID:"));
    id.unwrap_or_else(|| panic!("{listed}")).trim().to_owned()
}

fn delete(token: &SoftHsm, kind: &str) {
    let by_label = ["--type", kind, "--label", LABEL];
    tool(token, &[&["--delete-object"], &by_label[..]].concat());
}

/// A key pair of somebody else under this id.
fn make_foreign(token: &SoftHsm, id: &str) {
    let pair = [
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--usage-sign",
    ];
    tool(
        token,
        &[&pair[..], &["--id", id, "--label", "foreign"]].concat(),
    );
}

/// `assertctl apply` makes nothing in a lost key's place and says so.
fn apply_is_refused(place: &Place) {
    let applied = place.daemon.assertctl(&["apply", "--yes"]);
    let said = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(!applied.status.success(), "{said}");
    assert!(said.contains("payments/bank"), "{said}");
}

/// The key of [`TARGET`] does not sign, and it is said why. SoftHSM may show later what another process has just
/// made in it: until then the key is missing, and looked for again.
fn has_stopped(place: &Place, remedy: &str) {
    let says_why = || place.wait_key(TARGET, "failed").contains(remedy);
    let says_why = wait_until(DEADLINE, says_why);
    let why = place.wait_key(TARGET, "failed");
    assert!(says_why && why.contains("payments/bank.1"), "{why}");
    let said = place.refused(TARGET, "key_unavailable");
    assert!(said.contains(remedy), "{said}");
}

#[test]
fn row_07_an_empty_token_in_the_slot_gets_no_keys_and_the_right_one_serves_again() {
    let (site, token) = Place::new().end();
    let aside = take_out(token.token());
    put_another(token.token(), token.token().pin());
    let right: Files = files_below(aside.0.path());
    let place = Place::again((site, token));
    let (before, token) = (place.before(), place.token.token());
    for round in ["first", "second"] {
        has_stopped(
            &place,
            "bring that token back or restore it from its backup",
        );
        apply_is_refused(&place);
        assert_eq!(token.private_keys(), 0, "{round}");
        before.nothing_changed(&place);
        place.restart_keystore();
    }
    same_files(&right, &files_below(aside.0.path()));
    put_back(token, &aside);
    place.restart_keystore();
    place.daemon.wait_served(TARGET);
    assert_eq!(token.private_keys(), 1);
    assert_eq!(before.changes(&place), 0);
}

#[test]
fn row_07_a_wrong_token_with_another_pin_costs_it_one_try_and_the_right_one_none() {
    let (site, token) = Place::new().end();
    let aside = take_out(token.token());
    put_another(token.token(), "another-pin");
    let logins = token.calls(Function::C_Login);
    let place = Place::again((site, token));
    let before = place.before();
    for _ in 0..3 {
        let why = place.daemon.wait_keystore(KEYSTORE, "failed").why;
        let why = why.unwrap_or_default();
        assert!(why.contains("restart the keystore"), "{why}");
        assert_eq!(place.token.calls(Function::C_Login), logins + 1);
        place.restart_keystore();
    }
    before.nothing_changed(&place);
    put_back(place.token.token(), &aside);
    place.restart_keystore();
    place.daemon.wait_served(TARGET);
    assert_eq!(place.token.calls(Function::C_Login), logins + 2);
    assert_eq!(before.changes(&place), 0);
}

/// The configuration with the token's serial number, which it is known by from then on.
fn with_serial(token: &Shimmed, serial: &str) -> String {
    let label = format!("token = {{ label = \"{}\" }}", token.token().label());
    let both = label.replace(" }", &format!(", serial = \"{serial}\" }}"));
    observed::config(token).text().replace(&label, &both)
}

/// The serial number of the token, as status shows it.
fn serial(place: &Place) -> String {
    let shown = place.daemon.status().keystores[0].token.clone();
    let serial = shown.split("(serial ").nth(1).unwrap_or_default();
    serial.split(',').next().unwrap_or_default().to_owned()
}

#[test]
fn row_07_another_token_put_in_while_it_runs_is_shown_no_pin() {
    let place = Place::new();
    let serial = serial(&place);
    let (site, token) = place.end();
    site.configure(&with_serial(&token, &serial));
    let place = Place::again((site, token));
    place.daemon.wait_served(TARGET);
    let before = place.before();
    place
        .token
        .rules("C_GetTokenInfo * another\nC_SignInit 1! logout\n");
    place.refused(TARGET, "keystore_unavailable");
    let why = place.daemon.wait_keystore(KEYSTORE, "degraded").why;
    assert!(why.is_some_and(|why| why.contains(&serial)));
    before.wait_calls(&place, Function::C_Initialize, 2); // opened anew, and not only once
    assert_eq!(before.fired(&place, Function::C_SignInit), 1);
    assert!(before.fired(&place, Function::C_GetTokenInfo) > 2);
    assert_eq!(before.calls(&place, Function::C_Login), 0);
    place.token.rules("");
    place.daemon.wait_served(TARGET);
    before.in_the_same_process(&place);
    assert_eq!(before.calls(&place, Function::C_Login), 1);
    before.nothing_changed(&place);
}

#[test]
fn row_07_a_token_that_is_not_the_one_with_the_serial_is_not_used_and_waited_out() {
    let place = Place::new();
    let serial = serial(&place);
    let (site, token) = place.end();
    site.configure(&with_serial(&token, &serial));
    let aside = take_out(token.token());
    let logins = token.calls(Function::C_Login);
    let place = Place::again((site, token));
    let before = place.before();
    // Without a token, with one that was never initialised, and with another one.
    for another in [false, true] {
        if another {
            put_another(place.token.token(), place.token.token().pin());
        }
        let begun = before.calls(&place, Function::C_Initialize);
        let logins_now = || place.token.calls(Function::C_Login);
        let looked = || before.calls(&place, Function::C_Initialize) >= begun + 2;
        assert!(wait_until(DEADLINE, || looked() || logins_now() > logins));
        assert_eq!(logins_now(), logins, "a login to another token");
        let why = place.daemon.wait_keystore(KEYSTORE, "degraded").why;
        let why = why.unwrap_or_default();
        assert!(
            why.contains(&format!("serial {serial}; there are: ")),
            "{why}"
        );
        assert!(why.contains("put the token back"), "{why}");
        place.refused(TARGET, "key_unavailable");
    }
    assert_eq!(place.token.calls(Function::C_Login), logins);
    put_back(place.token.token(), &aside);
    place.daemon.wait_served(TARGET);
    before.in_the_same_process(&place);
    assert_eq!(place.token.calls(Function::C_Login), logins + 1);
    assert_eq!(before.changes(&place), 0);
}

#[test]
fn row_08_a_key_deleted_from_its_token_stops_alone_and_is_not_made_again() {
    let place = Place::with_two_keys();
    let token = place.token.token();
    let whole = public_dir();
    copy_all(&token.state(), whole.path());
    delete(token, "privkey");
    let before = place.before();
    // Found out by the first request.
    place.refused(TARGET, "keystore_unavailable");
    for round in ["running", "restarted"] {
        has_stopped(&place, "restore it from its backup");
        place.served(OTHER);
        assert_eq!(place.key(OTHER).0, "active");
        apply_is_refused(&place);
        assert_eq!(token.private_keys(), 1, "{round}");
        before.nothing_changed(&place);
        place.restart_keystore();
        place.daemon.wait_served(OTHER);
    }
    // From its backup it comes back.
    copy_all(whole.path(), &token.state());
    place.restart_keystore();
    place.daemon.wait_served(TARGET);
    assert_eq!(token.private_keys(), 2);
}

fn copy_all(from: &Path, to: &Path) {
    for (path, content) in files_below(from) {
        let copy = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::write(copy, content).unwrap();
    }
}

#[test]
fn row_09_another_key_under_our_id_is_not_used_and_not_destroyed() {
    let place = Place::with_two_keys();
    let token = place.token.token();
    let id = id(token);
    // In the place of ours, between two signatures.
    for kind in ["privkey", "pubkey"] {
        delete(token, kind);
    }
    make_foreign(token, &id);
    let before = place.before();
    place.token.rules("C_SignInit 1! ckr:0xb3\n"); // every handle is found anew
    place.refused(TARGET, "keystore_unavailable");
    assert_eq!(before.fired(&place, Function::C_SignInit), 1);
    for round in ["running", "restarted"] {
        has_stopped(&place, "find out who put it there");
        place.served(OTHER);
        apply_is_refused(&place);
        assert_eq!(token.private_keys(), 2, "{round}");
        before.nothing_changed(&place);
        place.restart_keystore();
        place.daemon.wait_served(OTHER);
    }
    before.said(&place, "assertd: ALERT", 0);
}

#[test]
fn row_09_a_second_key_under_our_id_stops_the_first_until_it_is_removed() {
    let place = Place::with_two_keys();
    let token = place.token.token();
    make_foreign(token, &id(token));
    let before = place.before();
    place.token.rules("C_SignInit 1! ckr:0xb3\n");
    place.refused(TARGET, "keystore_unavailable");
    for round in ["running", "restarted"] {
        has_stopped(&place, "remove it by the vendor's tool");
        place.served(OTHER);
        apply_is_refused(&place);
        assert_eq!(token.private_keys(), 3, "{round}");
        before.nothing_changed(&place);
        place.restart_keystore();
        place.daemon.wait_served(OTHER);
    }
    for kind in ["privkey", "pubkey"] {
        tool(
            token,
            &["--delete-object", "--type", kind, "--label", "foreign"],
        );
    }
    place.restart_keystore();
    place.daemon.wait_served(TARGET);
    assert_eq!(before.changes(&place), 0);
}
