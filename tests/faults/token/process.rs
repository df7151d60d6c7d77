//! Rows 11 and 12: a module that hangs, and one that takes its process with it.

use super::place::Place;
use super::room::{
    apply_fails, both_sign_and_nothing_is_left_over, only_the_first_signs, with_a_key_to_make,
};
use crate::observed::{self, Load, TARGET};
use harness::fault::{Function, Shimmed};
use harness::http::{Raw, post_target};
use harness::token::KEYSTORE;
use harness::{Config, DEADLINE, process, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Signers of the keystore that hangs: all of them do.
const SIGNERS: usize = 2;

/// More requests than may wait for a keystore that says nothing, and fewer than one user may have.
const REQUESTS: usize = 200;

/// A request has five seconds; the rest is for two busy cores.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Half of all answers to `assertctl status` while the module hangs, and how many there are at least.
const STATUS_WITHIN: Duration = Duration::from_secs(2);
const STATUS_MIN: usize = 3;

/// Connections that ask without pause while the module dies.
const CONNECTIONS: usize = 16;

/// Longer than connections wait while a token is opened, and shorter than a call may take.
const OPENS_SLOWLY_MS: u32 = 7_000;

/// Assertions between two deaths, so that each hits a keystore at work.
const RELEASED_BETWEEN: u64 = 100;

fn hanging() -> Place {
    let token = Shimmed::new();
    let uid = nix::unistd::geteuid().as_raw();
    let config = Config::default().keystore(KEYSTORE, &token, &format!("signers = {SIGNERS}\n"));
    let config = config.workload("payments", uid, "rate = 1000000\nburst = 1000000");
    Place::of(config.target("payments", TARGET, ""), token)
}

#[test]
fn row_11_a_module_that_hangs_is_replaced_and_keeps_nobody_waiting() {
    let mut place = hanging();
    let before = place.before();
    let rules = (1..=SIGNERS).map(|n| format!("C_Sign {n}! hang\n"));
    place.token.rules(&rules.collect::<String>());
    let asked = Instant::now();
    let mut requests: Vec<Raw> = (0..REQUESTS)
        .map(|_| {
            let mut raw = place.daemon.raw();
            raw.send(&post_target(TARGET)).unwrap();
            raw
        })
        .collect();
    place.token.wait_fired(
        Function::C_Sign,
        before.all_fired(Function::C_Sign) + SIGNERS as u64,
    );
    let mut times = Vec::new();
    while place.daemon.keystore_process(KEYSTORE) == Some(before.pid) {
        let began = Instant::now();
        let status = place.daemon.status();
        times.push(began.elapsed());
        let keystore = &status.keystores[0];
        let waiting = keystore.queued + keystore.in_flight;
        assert!(waiting <= REQUESTS, "{waiting} wait");
        assert!(asked.elapsed() < DEADLINE, "it is not replaced");
    }
    times.sort();
    let answered = times.len();
    assert!(answered >= STATUS_MIN, "status answered {answered} times");
    let median = times[times.len() / 2];
    assert!(median < STATUS_WITHIN, "{median:?}");

    let answers = requests.iter_mut().map(|raw| raw.answer(DEADLINE));
    let answers: Vec<_> = answers
        .collect::<Option<_>>()
        .expect("every request is answered");
    let took = asked.elapsed();
    assert!(took < ANSWERED_WITHIN, "answered after {took:?}");
    assert!(
        answers
            .iter()
            .all(|answer| [200, 503].contains(&answer.status))
    );
    let silent = |answer: &&harness::http::Answer| answer.body().contains("has been silent");
    let given_up = answers.iter().filter(silent).count();
    assert!(given_up > 0, "everybody waited for a keystore that hangs");

    place.daemon.wait_served(TARGET);
    assert_eq!(before.fired(&place, Function::C_Sign), SIGNERS as u64);
    let said = format!("keystore {KEYSTORE}: a signature has taken");
    before.said(&place, &said, 1);
    before.said(&place, "assertd: keystore hsm: its process ended", 1);
    assert_eq!(place.daemon.status().keystores[0].restarts, 1);
    assert!(place.daemon.lives());
    before.nothing_changed(&place);
}

#[test]
fn row_12_a_module_that_dies_costs_503s_and_nothing_is_recorded_as_released_that_was_not() {
    let mut place = Place::new();
    let (before, verifier) = (place.before(), observed::verifier(&place.daemon));
    // Outcomes are recorded behind the answer.
    let answered = || place.daemon.status().requests.released as usize;
    assert!(wait_until(DEADLINE, || released(&place).len() == answered()));
    let earlier = released(&place);
    let load = Load::start(&place.daemon.socket(), CONNECTIONS);
    let deaths = ["segfault", "abort", "exit", "exit:3"];
    for action in deaths {
        load.wait_released(RELEASED_BETWEEN);
        let fired = before.all_fired(Function::C_Sign) + before.fired(&place, Function::C_Sign);
        let (pid, refused) = (place.daemon.keystore_pid(), load.refused());
        place.token.rules(&format!("C_Sign 1! {action}\n"));
        place.token.wait_fired(Function::C_Sign, fired + 1);
        let gone = || place.daemon.keystore_process(KEYSTORE) != Some(pid);
        assert!(wait_until(DEADLINE, gone), "{action}: {pid} goes on");
        let refused = wait_until(DEADLINE, || load.refused() > refused);
        assert!(refused, "{action}: whose signature it was is not answered");
    }
    load.wait_released(RELEASED_BETWEEN);
    let seen = load.stop();
    let (answered, refused) = observed::only_assertions_and_503(&seen, &verifier);
    println!("{answered} assertions, {refused} 503s");
    assert!(refused >= deaths.len());
    assert_eq!(before.fired(&place, Function::C_Sign), deaths.len() as u64);
    before.said(
        &place,
        "assertd: keystore hsm: its process ended",
        deaths.len(),
    );

    // What is recorded as released is what was answered with an assertion, one for one.
    let answered: BTreeSet<String> = seen
        .iter()
        .filter(|answer| answer.status == 200)
        .map(|answer| answer.assertion().id)
        .collect();
    let recorded = || released(&place).difference(&earlier).cloned().collect();
    let all = wait_until(DEADLINE, || answered == recorded());
    let recorded: BTreeSet<String> = recorded();
    assert!(
        all,
        "{} answered, {} recorded",
        answered.len(),
        recorded.len()
    );
    observed::every_release_is_recorded(&seen, &place.daemon.audit_records());
    observed::chain_verifies(&place.daemon);
    assert!(place.daemon.lives());
    before.nothing_changed(&place);
}

/// The ids of all requests that the audit log says were released.
fn released(place: &Place) -> BTreeSet<String> {
    let records = place.daemon.audit_records();
    let outcomes = observed::of_kind(&records, "outcome").into_iter();
    let released = outcomes.filter(|record| record["result"] == "released");
    let id = |record: &Value| record["id"].as_str().unwrap().to_owned();
    released.map(id).collect()
}

#[test]
fn row_12_a_module_that_dies_while_it_makes_a_key_leaves_nothing_half_made() {
    let place = with_a_key_to_make();
    let before = place.before();
    for (times, action) in (1..).zip(["segfault", "abort", "exit"]) {
        place
            .token
            .rules(&format!("C_GenerateKeyPair 1! {action}\n"));
        let said = apply_fails(&place);
        assert!(said.contains("do this again"), "{said}");
        assert_eq!(before.fired(&place, Function::C_GenerateKeyPair), times);
        place.daemon.wait_served(TARGET);
        only_the_first_signs(&place);
        assert_eq!(place.token.token().private_keys(), 1, "{action}");
    }
    both_sign_and_nothing_is_left_over(&place);
}

#[test]
fn a_token_that_takes_long_to_open_is_degraded_and_says_why() {
    let place = Place::new();
    let before = place.before();
    let rule = format!("C_Initialize 1! delay:{OPENS_SLOWLY_MS}\n");
    place.token.rules(&rule);
    process::send(before.pid, Signal::SIGKILL);
    let status = place.daemon.wait_keystore(KEYSTORE, "degraded");
    let why = status.why.unwrap_or_default();
    assert!(why.contains("is being opened"), "{why}");
    let opening = status.pid.expect("it says who it is while it opens");
    assert_ne!(opening, before.pid);
    place.daemon.wait_served(TARGET);
    assert_eq!(place.daemon.keystore_pid(), opening, "it was left in peace");
    assert_eq!(before.fired(&place, Function::C_Initialize), 1);
    before.nothing_changed(&place);
}
