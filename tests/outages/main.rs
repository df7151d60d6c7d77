//! `make outages`: how long there is no assertion when a token fails, as a client sees it. Every
//! fault is inflicted three times on a token of a running assertd under 50 requests a second; the
//! client's logs are in `target/bench/outages/`, the figures in `target/bench/outages.json`, what
//! they mean in docs/reliability.md. Ends with 1 if a promise does not hold.
//!
//! Words on the command line choose the faults whose names hold one of them.

mod scene;
mod table;

use scene::client::{Client, EVERY};
use scene::fault::Fault;
use scene::log::{self, Outage};
use scene::place::Place;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use table::Row;

/// How long the token is away in the three runs, where it is: as the keystore waits longer from one
/// attempt to the next, what it does depends on it.
const ABSENCES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(7),
];

/// Undisturbed service before a fault, and after it: longer than it takes to say that it is back.
const BEFORE: Duration = Duration::from_millis(1_500);
const AFTER: Duration = Duration::from_millis(2_000);

/// How long to wait for service before it is said that there is none.
const BACK_MAX: Duration = Duration::from_secs(30);

/// Issue 4 of 8, done when 2.
const OUTAGE_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted =
        |fault: &Fault| words.is_empty() || words.iter().any(|word| fault.name().contains(word));
    let mut place = Place::new();
    let faults = Fault::ALL.into_iter().filter(wanted);
    let rows: Vec<Row> = faults.map(|fault| measure(&mut place, fault)).collect();
    assert!(!rows.is_empty(), "{words:?}: no fault has such a name");
    table::print(&rows);
    table::write(&rows, Path::new("target/bench/outages.json"));
    let broken: Vec<&String> = rows.iter().flat_map(|row| &row.broken).collect();
    for promise in &broken {
        println!("FAIL {promise}");
    }
    match broken.as_slice() {
        [] => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// One fault, as often as there are absences.
fn measure(place: &mut Place, fault: Fault) -> Row {
    let restarts = place.keystore_restarts(fault.keystore());
    let mut row = Row::new(fault);
    let mut text = String::new();
    for (number, length) in (1..).zip(ABSENCES) {
        eprintln!("{} ({}): run {number}", fault.name(), fault.keystore());
        let (client_log, found) = run(place, fault, length);
        text += &format!("# run {number}; due (ms), ended (ms), outcome\n{client_log}\n");
        match found {
            Ok((outage, absence)) => row.add(outage, absence),
            Err(why) => row
                .broken
                .push(format!("{}, run {number}: {why}", fault.name())),
        }
    }
    row.keystore_restarts = place.keystore_restarts(fault.keystore()) - restarts;
    row.assertd_restarts = place.assertd_restarts();
    row.judge(OUTAGE_MAX);
    table::write_log(fault.name(), &text);
    table::write_log("assertd", &place.daemon.stderr());
    row
}

/// One run: the client's log, and the outage with the token's absence.
fn run(
    place: &mut Place,
    fault: Fault,
    length: Duration,
) -> (String, Result<(Outage, Duration), String>) {
    place.daemon.wait_served(fault.keystore());
    let client = Client::start(&place.daemon, fault.keystore(), EVERY);
    std::thread::sleep(BEFORE); // what is measured needs a past
    let inflicted = fault.inflict(place, &client, length);
    let absence = inflicted.clone().unwrap_or_default();
    let undone = client.now();
    let back = harness::wait_until(BACK_MAX, || {
        let since = client.now().saturating_sub(AFTER);
        since >= undone && client.serves_since(since)
    });
    place.hsm.rules("");
    place.tpm.proxy.rules("");
    let entries = client.stop();
    let text = log::text(&entries, absence);
    let found = inflicted.and_then(|_| log::outage(&entries, absence));
    let found = found.and_then(|outage| match log::wrong(&entries) {
        _ if !back => Err(format!("service was not back after {BACK_MAX:?}")),
        Some(what) => Err(what),
        None => Ok((outage, absence.length())),
    });
    (text, found)
}
