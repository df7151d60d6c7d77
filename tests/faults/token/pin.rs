//! Rows 4 to 6: a PIN that is wrong at the start, or is changed while the keystore runs, and one
//! that is locked or has one try left. What a try costs cannot be given back, and what came of one
//! is not always told.

use super::place::Place;
use crate::observed::TARGET;
use harness::fault::{Function, Shimmed};
use harness::token::KEYSTORE;
use harness::{DEADLINE, SoftHsm, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

const RESTARTS: usize = 20;

/// So many of a keystore that dies at its start, and so long at least: assertd starts each a little
/// later than the one before.
const DEATHS: usize = 8;
const DEATHS_TAKE: Duration = Duration::from_secs(12);

/// Tries without a clear answer that are made at once, and the seconds before each of the next
/// (keystore/pkcs11/src/pinmemory.rs). Less one, for a clock of whole seconds.
const QUICK: u64 = 3;
const WAITS_S: [u64; 3] = [9, 59, 599];

/// As long as the right one, which is made of digits.
const WRONG: &str = "wrong-pin";
const CHANGED: &str = "changed-pin";

/// What is said of a PIN that was refused now or before: `correct the PIN`, `correct it`.
const CORRECT: &str = "correct ";

/// CKF_USER_PIN_FINAL_TRY and CKF_USER_PIN_LOCKED, and what is said of them.
const FLAGS: [(&str, &str); 2] = [
    ("0x20000", "has one try left, which is not spent here"),
    ("0x40000", "unlock it with the SO PIN"),
];

fn set_pin(token: &Shimmed, pin: &str) {
    std::fs::write(token.token().pin_file(), pin).unwrap();
}

/// As an administrator of the token does it, who forgets the keystore.
fn change_pin(token: &SoftHsm, new: &str) {
    let mut tool = token.pkcs11_tool();
    let changed = tool.args(["--change-pin", "--new-pin", new]).output();
    let changed = changed.expect("pkcs11-tool is installed by `make setup`");
    let said = String::from_utf8_lossy(&changed.stderr).into_owned();
    assert!(changed.status.success(), "{said}");
}

/// Nothing is served, and why is said with the remedy.
fn is_failed_for_want_of(place: &Place, remedy: &str) {
    let status = place.daemon.wait_keystore(KEYSTORE, "failed");
    let why = status.why.unwrap_or_default();
    assert!(why.contains(remedy), "{why}");
    assert!(why.contains("restart"), "{why}");
    for pin in [place.token.token().pin(), WRONG, CHANGED] {
        assert!(!why.contains(pin), "a PIN is shown");
    }
    let (status, code) = place.daemon.outcome(TARGET);
    assert_eq!(status, 503, "{code}");
}

#[test]
fn row_04_a_wrong_pin_is_tried_once_over_twenty_restarts() {
    let (site, token) = Place::new().end();
    set_pin(&token, WRONG);
    let logins = token.calls(Function::C_Login);
    let place = Place::again((site, token));
    is_failed_for_want_of(&place, CORRECT);
    place.daemon.wait_logged("keystore hsm: failed", 2); // the keystore's line and assertd's
    let before = place.before();
    let tried = || place.token.calls(Function::C_Login) - logins;
    assert_eq!(tried(), 1, "the wrong PIN was never tried");
    for _ in 0..RESTARTS {
        place.restart_keystore();
        is_failed_for_want_of(&place, CORRECT);
    }
    assert_eq!(tried(), 1, "C_Login over {RESTARTS} restarts");
    before.said(&place, "keystore hsm: failed", RESTARTS);
    before.nothing_changed(&place);
    // Nor is it after a restart of assertd; and the right one is another one.
    let mut place = Place::again(place.end());
    is_failed_for_want_of(&place, CORRECT);
    assert_eq!(place.token.calls(Function::C_Login) - logins, 1);
    set_pin(&place.token, place.token.token().pin());
    place.restart_keystore();
    place.daemon.wait_served(TARGET);
    assert_eq!(place.token.calls(Function::C_Login) - logins, 2);
    assert!(place.daemon.lives());
}

/// Most tries without a clear answer that may be made in a time.
fn tries_within(time: Duration) -> u64 {
    let mut left = time.as_secs();
    let waited = WAITS_S.iter().take_while(|wait| {
        let over = left.checked_sub(**wait);
        left = over.unwrap_or(0);
        over.is_some()
    });
    QUICK + waited.count() as u64
}

/// Waits until the keystore says that it waits, and how to end that.
fn waits_with_its_pin(place: &Place) -> bool {
    let status = place.daemon.keystore(KEYSTORE);
    let why = status.and_then(|status| status.why).unwrap_or_default();
    assert!(!why.contains(place.token.token().pin()), "a PIN is shown");
    why.contains("the next is made in") && why.contains("pin.v1")
}

#[test]
fn row_04_a_module_that_dies_in_its_login_gets_the_pin_three_times_and_then_rarely() {
    let place = Place::new();
    let before = place.before();
    let (site, token) = place.end();
    let logins = token.calls(Function::C_Login);
    let fired = token.fired(Function::C_Login);
    token.rules("C_Login * segfault\n");
    let begun = Instant::now();
    let mut place = Place::again((site, token));
    let tried = || place.token.calls(Function::C_Login) - logins;
    let (mut deaths, mut waited) = (0, false);
    while deaths < DEATHS || begun.elapsed() < DEATHS_TAKE {
        let Some(pid) = place.daemon.keystore_process(KEYSTORE) else {
            assert!(begun.elapsed() < 6 * DEADLINE, "{deaths} deaths");
            std::thread::yield_now();
            continue;
        };
        // It dies of its login, or else it waits, and is killed.
        let gone = || place.daemon.keystore_process(KEYSTORE) != Some(pid);
        let over = wait_until(DEADLINE, || {
            let waits = waits_with_its_pin(&place);
            waited |= waits;
            waits || gone()
        });
        assert!(over, "{}", place.daemon.stderr());
        let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
        assert!(wait_until(DEADLINE, gone), "{pid} goes on");
        deaths += 1;
    }
    let tries = tried();
    let allowed = tries_within(begun.elapsed());
    println!("{tries} logins over {deaths} deaths, of {allowed}");
    assert!((QUICK..=allowed).contains(&tries), "{tries} of {allowed}");
    assert!(place.token.fired(Function::C_Login) - fired >= tries);
    assert!(waited, "it never said that it waits");
    // Somebody who knows that the PIN is right does what is said, or the wait is just over.
    place.token.rules("");
    let memory = place.daemon.site().keystore_state(KEYSTORE).join("pin.v1");
    std::fs::remove_file(memory).unwrap();
    place.daemon.wait_served(TARGET);
    assert!(tried() <= tries_within(begun.elapsed()) + 1);
    assert!(place.daemon.lives());
    before.nothing_changed(&place);
}

#[test]
fn row_04_a_right_pin_that_got_no_clear_answer_at_the_start_is_tried_again_after_a_while() {
    let place = Place::new();
    let before = place.before();
    let (site, token) = place.end();
    let (logins, fired) = (
        token.calls(Function::C_Login),
        token.fired(Function::C_Login),
    );
    let rules = (1..=QUICK).map(|n| format!("C_Login {n}! ckr:0x30\n")); // CKR_DEVICE_ERROR
    token.rules(&rules.collect::<String>());
    let begun = Instant::now();
    let place = Place::again((site, token));
    let waits = wait_until(DEADLINE, || waits_with_its_pin(&place));
    assert!(waits, "{}", place.daemon.stderr());
    place.refused(TARGET, "key_unavailable");
    let status = place.daemon.keystore(KEYSTORE).unwrap();
    assert_eq!(status.state, "degraded");
    place.daemon.wait_served(TARGET);
    assert_eq!(place.token.fired(Function::C_Login) - fired, QUICK);
    assert_eq!(place.token.calls(Function::C_Login) - logins, QUICK + 1);
    assert!(begun.elapsed() >= Duration::from_secs(WAITS_S[0]));
    assert!(place.daemon.logged("keystore hsm: failed").is_empty());
    before.nothing_changed(&place);
}

#[test]
fn row_05_a_pin_changed_while_running_costs_one_login_and_none_until_a_restart() {
    // The device session is lost, and everything is opened anew; or the login alone, of which
    // SoftHSM does not say CKR_PIN_INCORRECT by itself: it reads a PIN when it is initialised.
    for rule in [
        "C_Sign 1! dead:0x32",
        "C_SignInit 1! logout\nC_Login 1! ckr:0xa0",
    ] {
        let place = Place::new();
        change_pin(place.token.token(), CHANGED);
        place.served(TARGET);
        let before = place.before();
        place.token.rules(&format!("{rule}\n"));
        place.refused(TARGET, "keystore_unavailable");
        assert!(
            before.fired(&place, Function::C_SignInit) + before.fired(&place, Function::C_Sign) > 0
        );
        is_failed_for_want_of(&place, CORRECT);
        for _ in 0..10 {
            place.refused(TARGET, "keystore_unavailable");
        }
        assert_eq!(before.calls(&place, Function::C_Login), 1, "{rule}");
        before.said(&place, "keystore hsm: failed", 1);
        before.said(&place, "assertd: keystore hsm: failed", 1);
        before.in_the_same_process(&place);
        // A restart with the old PIN costs nothing; one with the new PIN serves.
        place.restart_keystore();
        is_failed_for_want_of(&place, CORRECT);
        assert_eq!(before.calls(&place, Function::C_Login), 1, "{rule}");
        set_pin(&place.token, CHANGED);
        place.restart_keystore();
        place.daemon.wait_served(TARGET);
        assert_eq!(before.calls(&place, Function::C_Login), 2, "{rule}");
        before.nothing_changed(&place);
    }
}

#[test]
fn row_06_a_pin_that_is_locked_or_at_its_last_try_is_not_tried_at_start() {
    let mut left = Place::new().end();
    for (flags, remedy) in FLAGS {
        let (site, token) = left;
        let (logins, flagged) = (
            token.calls(Function::C_Login),
            token.fired(Function::C_GetTokenInfo),
        );
        token.rules(&format!("C_GetTokenInfo * flags:{flags}\n"));
        let place = Place::again((site, token));
        let before = place.before();
        is_failed_for_want_of(&place, remedy);
        place.restart_keystore();
        is_failed_for_want_of(&place, remedy);
        assert!(place.token.fired(Function::C_GetTokenInfo) > flagged + 1);
        assert_eq!(place.token.calls(Function::C_Login), logins, "{flags}");
        place.token.rules("");
        place.restart_keystore();
        place.daemon.wait_served(TARGET);
        assert_eq!(place.token.calls(Function::C_Login), logins + 1);
        before.nothing_changed(&place);
        left = place.end();
    }
}

#[test]
fn row_06_a_pin_that_is_locked_or_at_its_last_try_is_not_tried_again_while_running() {
    for (flags, remedy) in FLAGS {
        let place = Place::new();
        let before = place.before();
        let lost = "C_SignInit 1! logout";
        place
            .token
            .rules(&format!("C_GetTokenInfo * flags:{flags}\n{lost}\n"));
        place.refused(TARGET, "keystore_unavailable");
        assert_eq!(before.fired(&place, Function::C_SignInit), 1);
        is_failed_for_want_of(&place, remedy);
        assert!(before.fired(&place, Function::C_GetTokenInfo) > 0);
        assert_eq!(before.calls(&place, Function::C_Login), 0, "{flags}");
        before.said(&place, "keystore hsm: failed", 1);
        before.in_the_same_process(&place);
        before.nothing_changed(&place);
    }
}
