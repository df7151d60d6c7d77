//! A keystore process that cannot stay up: assertd starts it again ever more rarely, says so in few
//! words, refuses its requests soon, and has it back when the cause is gone.

use crate::observed::{self, TARGET};
use harness::fault::{Function, Shimmed};
use harness::token::{KEYSTORE, Kind};
use harness::{DEADLINE, Daemon, SoftHsm, process, wait_until};
use nix::sys::signal::Signal;

/// A pause is shorter by a quarter at most than twice the one before.
const GROWS: f64 = 1.4;

/// What says how long the next pause is.
const PAUSE: &str = "starting it again in ";

fn seconds(line: &str) -> f64 {
    let (_, rest) = line.split_once(PAUSE).unwrap();
    rest.trim_end_matches(" s").parse().unwrap()
}

/// Whoever asks in the first second waits, because a restart takes less.
#[track_caller]
fn is_refused(daemon: &Daemon) {
    let refusal = (503, "keystore_unavailable".to_owned());
    let mut last = (0, String::new());
    let refused = wait_until(DEADLINE, || {
        last = daemon.outcome(TARGET);
        assert_eq!(last.0, 503, "{last:?}");
        last == refusal
    });
    assert!(refused, "{last:?}\n{}", daemon.stderr());
}

#[test]
fn a_module_that_crashes_at_each_start_is_started_ever_more_rarely_and_serves_again() {
    let token = Shimmed::new();
    let daemon = Daemon::with_keys(observed::config(&token));
    daemon.wait_served(TARGET);
    token.rules("C_Initialize * segfault\n");
    process::send(daemon.keystore_pid(), Signal::SIGKILL);
    let said = daemon.wait_logged(PAUSE, 3);
    let pauses: Vec<f64> = said[..3].iter().map(|line| seconds(line)).collect();
    let grow = pauses.windows(2).all(|two| two[1] > two[0] * GROWS);
    assert!(grow, "{pauses:?}");
    let why = daemon.wait_keystore(KEYSTORE, "degraded").why.unwrap();
    assert!(!why.is_empty());
    is_refused(&daemon);
    assert!(token.fired(Function::C_Initialize) >= 3);

    token.rules("");
    daemon.wait_served(TARGET);
    daemon.wait_keystore(KEYSTORE, "usable");
}

#[test]
fn a_program_that_is_missing_is_said_once_and_serves_when_it_is_back() {
    let token = SoftHsm::new();
    let daemon = Daemon::with_keys(observed::config(&token));
    daemon.wait_served(TARGET);
    let program = daemon.site().programs().path(Kind::Pkcs11.program());
    let away = program.with_extension("away");
    std::fs::rename(&program, &away).unwrap();
    process::send(daemon.keystore_pid(), Signal::SIGKILL);
    // It says how often it was tried as soon as that was several times.
    let why = daemon.wait_keystore(KEYSTORE, "degraded").why.unwrap();
    let missing = format!("cannot be started: {}", program.display());
    assert!(why.contains(&missing), "{why}");
    assert!(why.contains(" times in a row"), "{why}");
    daemon.wait_logged("keystore hsm: its process ended", 1);
    is_refused(&daemon);
    let said = daemon.logged("it is tried again by itself");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(&missing), "{said:?}");

    std::fs::rename(&away, &program).unwrap();
    daemon.wait_served(TARGET);
    assert_eq!(daemon.status().keystores[0].restarts, 1);
}
