//! Row 1: the token is removed, while nobody uses it or in the middle of a signature, and put back;
//! and a token that comes late.

use super::place::Place;
use crate::observed::TARGET;
use harness::fault::Function;
use harness::token::KEYSTORE;
use harness::{DEADLINE, wait_until};
use std::time::{Duration, Instant};

/// CKR_TOKEN_NOT_PRESENT and CKR_DEVICE_REMOVED.
const NOT_PRESENT: &str = "0xe0";
const REMOVED: &str = "0x32";

/// What fails without a token, but for the signature itself.
const WITHOUT_TOKEN: [&str; 8] = [
    "C_GetTokenInfo",
    "C_GetMechanismList",
    "C_OpenSession",
    "C_GetSessionInfo",
    "C_Login",
    "C_FindObjectsInit",
    "C_GetAttributeValue",
    "C_GenerateKeyPair",
];

/// Attempts to open a token that is not there, and how long all of them take at least: the waits
/// between two are 0.1, 0.2, 0.4, 0.8 and 1.6 s, each a quarter less at worst.
const ATTEMPTS: u64 = 6;
const ATTEMPTS_TAKE: Duration = Duration::from_millis(2_325);

/// Calls for a signature that a removal may cost: the one that meets it, those in other sessions
/// while it is found out what holds, and nothing from then on.
const SIGNATURES_MAX: u64 = 8;

/// The rules of a token that is gone. `signing` is what fails of a signature, and how.
fn gone(signing: &str, code: &str) -> String {
    let rules = WITHOUT_TOKEN.iter();
    let rules = rules.map(|function| format!("{function} * ckr:{code}\n"));
    format!("{}{signing}:{code}\n", rules.collect::<String>())
}

#[test]
fn row_01_a_token_removed_while_idle_costs_503_and_serves_again_when_it_is_back() {
    let place = Place::new();
    for code in [NOT_PRESENT, REMOVED] {
        let before = place.before();
        place.token.rules(&gone("C_SignInit * ckr", code));
        let said = place.refused(TARGET, "keystore_unavailable");
        assert!(said.contains("put the token back"), "{said}");
        assert!(before.fired(&place, Function::C_SignInit) > 0);
        place.daemon.wait_keystore(KEYSTORE, "degraded");
        place.refused(TARGET, "keystore_unavailable");
        place.token.rules("");
        place.daemon.wait_served(TARGET);
        before.went_and_came_back_once(&place);
        assert_eq!(before.calls(&place, Function::C_Login), 1);
        before.nothing_changed(&place);
    }
}

#[test]
fn row_01_a_token_removed_in_a_signature_costs_503_and_serves_again_when_it_is_back() {
    let place = Place::new();
    // The module was not asked, and its operation stays open; or it was, and the answer was lost.
    for (how, code) in [("ckr", REMOVED), ("lie", REMOVED), ("lie", NOT_PRESENT)] {
        let before = place.before();
        place.token.rules(&gone(&format!("C_Sign * {how}"), code));
        place.refused(TARGET, "keystore_unavailable");
        assert!(before.fired(&place, Function::C_Sign) > 0);
        place.daemon.wait_keystore(KEYSTORE, "degraded");
        place.token.rules("");
        place.daemon.wait_served(TARGET);
        before.went_and_came_back_once(&place);
        before.nothing_changed(&place);
    }
}

#[test]
fn row_01_a_token_that_is_gone_is_looked_for_with_pauses_and_by_nobody_else() {
    let place = Place::new();
    let before = place.before();
    place.token.rules(&gone("C_SignInit * ckr", NOT_PRESENT));
    let first = Instant::now(); // before the first attempt, however late that is seen
    place.refused(TARGET, "keystore_unavailable");
    before.wait_calls(&place, Function::C_Initialize, 1);
    let mut asked = 0;
    while before.calls(&place, Function::C_Initialize) < ATTEMPTS {
        assert!(first.elapsed() < DEADLINE, "it is not looked for any more");
        place.refused(TARGET, "keystore_unavailable");
        asked += 1;
    }
    let took = first.elapsed();
    assert!(took >= ATTEMPTS_TAKE, "{ATTEMPTS} attempts in {took:?}");
    assert!(asked > SIGNATURES_MAX, "only {asked} requests came");
    let signatures = before.calls(&place, Function::C_SignInit);
    assert!(signatures <= SIGNATURES_MAX, "{signatures} for {asked}");
    assert_eq!(before.calls(&place, Function::C_Login), 0);
    let status = place.daemon.wait_keystore(KEYSTORE, "degraded");
    let why = status.why.unwrap_or_default();
    assert!(why.contains("put the token back"), "{why}");
    place.token.rules("");
    place.daemon.wait_served(TARGET);
    before.went_and_came_back_once(&place);
    before.nothing_changed(&place);
}

#[test]
fn row_01_a_token_that_comes_after_the_start_is_found_without_a_restart() {
    let place = Place::new();
    place.token.rules(&gone("C_SignInit * ckr", NOT_PRESENT));
    let place = Place::again(place.end());
    let before = place.before();
    let status = place.daemon.wait_keystore(KEYSTORE, "degraded");
    let why = status.why.unwrap_or_default();
    assert!(why.contains("put the token back"), "{why}");
    place.refused(TARGET, "key_unavailable");
    before.wait_calls(&place, Function::C_Initialize, 2);
    assert_eq!(before.calls(&place, Function::C_Login), 0);
    let found = Instant::now();
    place.token.rules("");
    place.daemon.wait_served(TARGET);
    assert!(wait_until(DEADLINE, || place.key(TARGET).0 == "active"));
    println!("found after {:?}", found.elapsed());
    before.wait_usable(&place);
    before.in_the_same_process(&place);
    assert_eq!(before.calls(&place, Function::C_Login), 1);
    before.nothing_changed(&place);
}
