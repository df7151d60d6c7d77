//! Rows 2 and 3: a session dies, with or without the login; a device session that is dead until the
//! module is initialised anew.

use super::place::{OTHER, Place};
use crate::observed::{self, TARGET};
use harness::fault::{Function, Shimmed};
use harness::token::KEYSTORE;
use harness::{DEADLINE, Daemon, wait_until};

/// Attempts in a row after which a process that had the token open ends, so that another one loads
/// the module (keystore/src/life.rs).
const ATTEMPTS_OF_A_PROCESS: u64 = 5;

/// Answers without sense: more than there are calls before the token is opened anew.
const SENSELESS: u64 = 6;

/// CKR_SESSION_CLOSED, CKR_SESSION_HANDLE_INVALID, CKR_KEY_HANDLE_INVALID, CKR_OPERATION_ACTIVE and
/// CKR_OPERATION_NOT_INITIALIZED: a session, or what is open in it, is not what it was.
const LOST: [&str; 5] = ["0xb0", "0xb3", "0x60", "0x90", "0x91"];

#[test]
fn row_02_a_lost_session_is_not_noticed_by_who_asks() {
    let place = Place::with_two_keys();
    let before = place.before();
    let mut lost = 0;
    for code in LOST {
        for how in ["C_SignInit 1! ckr", "C_Sign 1! ckr", "C_Sign 1! lie"] {
            place.token.rules(&format!("{how}:{code}\n"));
            let fired = place.token.fired_any();
            let found = place.token.calls(Function::C_FindObjectsInit);
            let read = place.token.calls(Function::C_GetAttributeValue);
            place.served(TARGET);
            lost += 1;
            assert_eq!(place.token.fired_any(), fired + 1, "{how}:{code}");
            // Handles die with their session: the key is found again by its id, and its public key
            // is read again, to be compared.
            let found = place.token.calls(Function::C_FindObjectsInit) - found;
            let read = place.token.calls(Function::C_GetAttributeValue) - read;
            assert!(found > 0 && read > 0, "{how}:{code}: {found}, {read}");
            place.served(OTHER);
        }
    }
    let opened = before.calls(&place, Function::C_OpenSession);
    assert_eq!(opened, lost, "one new session for each that was lost");
    assert_eq!(before.calls(&place, Function::C_Login), 0);
    before.said(&place, "", 0);
    before.in_the_same_process(&place);
    before.nothing_changed(&place);
}

#[test]
fn row_03_a_device_that_is_dead_until_it_is_initialised_costs_one_503() {
    // CKR_DEVICE_ERROR, CKR_SESSION_HANDLE_INVALID, CKR_USER_NOT_LOGGED_IN, CKR_GENERAL_ERROR: what
    // modules answer when they have lost their device and do not look for it any more.
    for code in ["0x30", "0xb3", "0x101", "0x5"] {
        let place = Place::new();
        let before = place.before();
        place.token.rules(&format!("C_Sign 1! dead:{code}\n"));
        place.refused(TARGET, "keystore_unavailable");
        assert!(before.fired(&place, Function::C_Sign) > 0);
        before.wait_usable(&place);
        place.served(TARGET);
        // The ladder was climbed as far as was needed, and not further.
        assert_eq!(before.calls(&place, Function::C_Finalize), 1, "{code}");
        assert_eq!(before.calls(&place, Function::C_Initialize), 1, "{code}");
        before.said(&place, "keystore hsm: ", 2);
        before.in_the_same_process(&place);
        before.nothing_changed(&place);
    }
}

#[test]
fn row_03_a_device_that_dies_while_it_is_opened_is_initialised_again() {
    let mut left = Place::new().end();
    // While the key is looked for, in the start-up probe, and in the look for strange objects.
    for rule in ["C_FindObjectsInit 1", "C_SignInit 1", "C_Sign 1"] {
        left.1.rules(&format!("{rule}! dead:0x30\n"));
        let (fired, begun) = (left.1.fired_any(), left.1.calls(Function::C_Initialize));
        let place = Place::again(left);
        place.daemon.wait_served(TARGET);
        assert!(place.token.fired_any() > fired, "{rule}");
        assert_eq!(place.key(TARGET).0, "active", "{rule}");
        assert_eq!(place.daemon.status().keystores[0].restarts, 0, "{rule}");
        let begun = place.token.calls(Function::C_Initialize) - begun;
        assert_eq!(begun, 2, "{rule}: initialised so often");
        // It was not called usable before it was.
        let log = place.daemon.stderr();
        let usable = log.matches("\nkeystore hsm: usable").count();
        assert_eq!(usable, 1, "{rule}:\n{log}");
        left = place.end();
    }
}

#[test]
fn row_02_a_login_that_is_lost_with_or_without_its_sessions_costs_one_503() {
    for action in ["logout", "close-all"] {
        let place = Place::with_two_keys();
        let before = place.before();
        place.token.rules(&format!("C_SignInit 1! {action}\n"));
        place.refused(TARGET, "keystore_unavailable");
        assert_eq!(before.fired(&place, Function::C_SignInit), 1, "{action}");
        // The login is made again, and a key has signed: from then on everything is served.
        before.wait_calls(&place, Function::C_Login, 1);
        before.wait_calls(&place, Function::C_Sign, 1);
        for _ in 0..4 {
            place.served(TARGET);
            place.served(OTHER);
        }
        assert_eq!(before.calls(&place, Function::C_Login), 1, "{action}");
        assert_eq!(before.calls(&place, Function::C_Initialize), 0, "{action}");
        before.said(&place, "", 0);
        before.in_the_same_process(&place);
        before.nothing_changed(&place);
    }
}

#[test]
fn row_03_a_device_that_fails_in_everything_for_a_while_serves_again_by_itself() {
    let place = Place::with_two_keys();
    let before = place.before();
    place.token.rules("* * ckr:0x30\n"); // CKR_DEVICE_ERROR
    place.refused(TARGET, "keystore_unavailable");
    place.daemon.wait_keystore(KEYSTORE, "degraded");
    // Longer than one process tries: the module itself may be what is wrong.
    before.wait_calls(&place, Function::C_Initialize, ATTEMPTS_OF_A_PROCESS + 2);
    place.refused(OTHER, "keystore_unavailable");
    assert_eq!(before.calls(&place, Function::C_Login), 0);
    place.token.rules("");
    place.daemon.wait_served(TARGET);
    place.served(OTHER);
    place.daemon.wait_keystore(KEYSTORE, "usable");
    assert!(before.fired(&place, Function::C_GetSlotList) >= ATTEMPTS_OF_A_PROCESS);
    before.said(&place, "assertd: keystore hsm: its process ended", 1);
    for state in ["degraded", "usable"] {
        before.said(&place, &format!("assertd: keystore hsm: {state}"), 1);
    }
    assert_eq!(before.calls(&place, Function::C_Login), 1);
    before.nothing_changed(&place);
}

#[test]
fn row_03_a_key_that_a_passing_fault_stopped_while_the_token_was_opened_serves_soon() {
    let place = Place::with_two_keys();
    let before = place.before();
    // The second is bank's start-up probe, after everything was opened anew: bank is the first by
    // its id. The other key signs, so that the token is open.
    place
        .token
        .rules("C_Sign 1! dead:0x30\nC_Sign 2! ckr:0x30\n");
    place.refused(TARGET, "keystore_unavailable");
    before.wait_usable(&place);
    place.daemon.wait_served(OTHER);
    place.daemon.wait_served(TARGET);
    assert_eq!(place.key(TARGET).0, "active");
    assert!(before.fired(&place, Function::C_Sign) >= 2);
    assert_eq!(before.calls(&place, Function::C_Initialize), 1);
    before.in_the_same_process(&place);
    before.nothing_changed(&place);
}

#[test]
fn row_03_a_login_that_fails_for_a_while_is_made_again_by_itself() {
    // What C_SignInit and C_Login answer: CKR_DEVICE_ERROR, a code of the vendor's own, and what has
    // no sense there (CKR_PIN_INCORRECT without a PIN, CKR_ARGUMENTS_BAD).
    for (signing, login) in [
        ("0x30", "0x30"),
        ("0x80000001", "0x80000001"),
        ("0xa0", "0x7"),
    ] {
        let place = Place::new();
        let before = place.before();
        place.token.rules(&format!(
            "C_SignInit * ckr:{signing}\nC_Login * ckr:{login}\n"
        ));
        place.refused(TARGET, "keystore_unavailable");
        place.daemon.wait_keystore(KEYSTORE, "degraded");
        // Longer than one process tries, and more often in the next one than a PIN of which nobody
        // knows whether it is right would be.
        before.wait_calls(&place, Function::C_Login, ATTEMPTS_OF_A_PROCESS + 5);
        place.daemon.wait_keystore(KEYSTORE, "degraded");
        place.token.rules("");
        place.daemon.wait_served(TARGET);
        assert!(before.fired(&place, Function::C_SignInit) > 0);
        assert!(before.fired(&place, Function::C_Login) > ATTEMPTS_OF_A_PROCESS);
        before.said(&place, "keystore hsm: failed", 0);
        before.said(&place, "assertd: keystore hsm: its process ended", 1);
        before.nothing_changed(&place);
    }
}

#[test]
fn row_03_a_code_of_the_vendors_own_is_waited_out() {
    let place = Place::new();
    let before = place.before();
    place.token.rules("C_SignInit * ckr:0x80000001\n");
    place.refused(TARGET, "keystore_unavailable");
    place.daemon.wait_keystore(KEYSTORE, "degraded");
    before.wait_calls(&place, Function::C_Initialize, 2);
    place.token.rules("");
    place.daemon.wait_served(TARGET);
    assert!(before.fired(&place, Function::C_SignInit) > 2);
    before.said(&place, "keystore hsm: failed", 0);
    before.nothing_changed(&place);
}

#[test]
fn row_03_a_key_that_signed_before_is_not_given_up_for_an_answer_without_sense() {
    // CKR_ARGUMENTS_BAD and CKR_MECHANISM_INVALID, to the same call as before: in the request, in
    // what is tried then, and in some start-up probes of the token that was opened anew.
    for code in ["0x7", "0x70"] {
        let place = Place::new();
        let before = place.before();
        let rules = (1..=SENSELESS).map(|n| format!("C_SignInit {n}! ckr:{code}\n"));
        place.token.rules(&rules.collect::<String>());
        place.refused(TARGET, "keystore_unavailable");
        place.daemon.wait_served(TARGET);
        assert_eq!(before.fired(&place, Function::C_SignInit), SENSELESS);
        assert!(before.calls(&place, Function::C_Initialize) >= 1, "{code}");
        before.said(&place, "keystore hsm: failed", 0);
        before.in_the_same_process(&place);
        before.nothing_changed(&place);
    }
}

#[test]
fn row_03_a_device_without_keys_that_is_dead_is_initialised_for_the_first_of_them() {
    let token = Shimmed::new();
    let daemon = Daemon::start(observed::config(&token));
    daemon.wait_keystore(KEYSTORE, "usable");
    let pid = daemon.keystore_pid();
    token.rules("C_OpenSession 1! dead:0x30\n");
    let apply = || daemon.assertctl(&["apply", "--yes"]).status.success();
    assert!(!apply(), "{}", daemon.stderr());
    assert!(token.fired(Function::C_OpenSession) > 0);
    assert!(wait_until(DEADLINE, apply), "{}", daemon.stderr());
    daemon.wait_served(TARGET);
    assert_eq!(daemon.keystore_pid(), pid);
}
