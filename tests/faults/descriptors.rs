//! assertd has fewer descriptors than it has callers: those beyond are refused at once, administrators
//! are served all the time, and nothing is left of it afterwards.

use crate::observed::{self, TARGET};
use harness::http::Raw;
use harness::{DEADLINE, Daemon, SoftHsm, process, wait_until};
use nix::sys::resource::{Resource, getrlimit};
use std::process::Command;
use std::time::{Duration, Instant};

/// About 25 are in use at rest, and a connection takes three.
const ALLOWED: usize = 64;

/// More than there is room for.
const CALLERS: usize = 60;

/// One that finds no room is told at once, on two busy cores; one that waited would wait 30 s.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);

/// Status, likewise.
const STATUS_WITHIN: Duration = Duration::from_secs(2);

/// While the shortage lasts: a loop around accept(2) would take a whole core.
const WATCHED: Duration = Duration::from_secs(2);
const BUSY_MAX: f64 = 0.5;

/// A few lines a second at most.
const LINES_MAX: usize = 20;

#[test]
fn row_42_without_descriptors_callers_are_refused_fast_and_administrators_are_served() {
    let token = SoftHsm::new();
    let mut daemon = Daemon::with_keys(observed::config(&token));
    daemon.wait_served(TARGET);
    let before = descriptors(&daemon);
    limit(&daemon, ALLOWED);
    assert!(
        getrlimit(Resource::RLIMIT_NOFILE).unwrap().0 > 200,
        "this test needs some itself"
    );

    let mut waiting: Vec<Raw> = (0..CALLERS).map(|_| daemon.raw()).collect();
    let mut held = Vec::new();
    let mut refused = 0;
    let many = wait_until(DEADLINE, || {
        // Who is let in is told nothing before it asks.
        for mut raw in std::mem::take(&mut waiting) {
            match raw.answer(Duration::from_millis(5)) {
                None => waiting.push(raw),
                Some(answer) => {
                    let told = (answer.status, answer.header("retry-after"));
                    assert_eq!(told, (503, Some("1")), "{answer:?}");
                    refused += 1;
                    held.push(raw);
                }
            }
        }
        refused > CALLERS / 2 && daemon.status().connections == waiting.len()
    });
    println!(
        "{refused} of {CALLERS} were refused, {} descriptors",
        descriptors(&daemon)
    );
    assert!(
        many,
        "{refused}: there was room, or some wait who are no connection"
    );
    // What others had for a moment may be free again, and lets some more in. Then whoever comes is told at
    // once.
    let told = loop {
        let mut late = daemon.raw();
        if let Some(answer) = late.answer(REFUSED_WITHIN) {
            break answer;
        }
        waiting.push(late);
        assert!(waiting.len() < CALLERS / 2, "nobody is refused any more");
    };
    assert_eq!(told.status, 503);
    assert_eq!(daemon.status().connections, waiting.len());
    daemon.wait_logged("accept: descriptors are short", 1);

    // Status, and all else that administrators do, has what it needs.
    let (cpu, began, lines) = (cpu_s(&daemon), Instant::now(), daemon.logged("").len());
    let mut slowest = Duration::ZERO;
    while began.elapsed() < WATCHED {
        let before = Instant::now();
        let status = daemon.status();
        assert!(status.connections > 0, "nobody was let in");
        slowest = slowest.max(before.elapsed());
        std::thread::sleep(Duration::from_millis(50)); // between two looks
    }
    assert!(slowest < STATUS_WITHIN, "status takes {slowest:?}");
    let busy = (cpu_s(&daemon) - cpu) / began.elapsed().as_secs_f64();
    assert!(
        busy < BUSY_MAX,
        "{:.0} % of a core are spent on nothing",
        busy * 100.0
    );
    let said = daemon.logged("").len() - lines;
    assert!(said < LINES_MAX, "{said} lines:\n{}", daemon.stderr());
    let reloaded = daemon.assertctl(&["reload"]);
    let text = String::from_utf8_lossy(&reloaded.stderr);
    assert_eq!(reloaded.status.code(), Some(0), "{text}");

    // Nobody raises the limit: it serves again because they have gone.
    drop((held, waiting));
    let empty = wait_until(DEADLINE, || daemon.status().connections == 0);
    assert!(empty, "{:?}", daemon.status());
    daemon.wait_served(TARGET);
    let after = descriptors(&daemon);
    assert!(after <= before + 4, "{after} descriptors, {before} before");
    assert!(daemon.lives());
    observed::chain_verifies(&daemon);
}

/// Fewer than are in use: whoever comes, administrators among them, waits until some have gone, and
/// nobody has to help.
#[test]
fn row_42_a_limit_below_what_is_in_use_is_waited_out() {
    let token = SoftHsm::new();
    let mut daemon = Daemon::with_keys(observed::config(&token));
    daemon.wait_served(TARGET);
    let held: Vec<Raw> = (0..CALLERS).map(|_| daemon.raw()).collect();
    let there = wait_until(DEADLINE, || daemon.status().connections == CALLERS);
    assert!(there, "{:?}", daemon.status());
    limit(&daemon, ALLOWED / 4);
    let (cpu, began, lines) = (cpu_s(&daemon), Instant::now(), daemon.logged("").len());
    let late = daemon.raw();
    daemon.wait_logged("accept: ", 1);
    assert_eq!(
        process::state(daemon.pid()).map(|state| state != 'Z'),
        Some(true)
    );
    let spins = wait_until(WATCHED, || daemon.logged("").len() > lines + LINES_MAX);
    assert!(!spins, "{}", daemon.stderr());
    let busy = (cpu_s(&daemon) - cpu) / began.elapsed().as_secs_f64();
    assert!(
        busy < BUSY_MAX,
        "{:.0} % of a core are spent on nothing",
        busy * 100.0
    );
    drop((held, late));
    limit(&daemon, ALLOWED);
    let empty = wait_until(DEADLINE, || {
        daemon
            .try_status()
            .is_some_and(|status| status.connections == 0)
    });
    assert!(empty, "{}", daemon.stderr());
    daemon.wait_served(TARGET);
    assert!(daemon.lives());
}

fn limit(daemon: &Daemon, descriptors: usize) {
    let status = Command::new("prlimit")
        .arg(format!("--pid={}", daemon.pid()))
        .arg(format!("--nofile={descriptors}:20000"))
        .status();
    assert!(status.unwrap().success(), "prlimit");
}

fn descriptors(daemon: &Daemon) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()));
    entries.unwrap().count()
}

/// Processor time so far (proc_pid_stat(5): utime and stime, hundredths of a second).
fn cpu_s(daemon: &Daemon) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = |field: usize| -> f64 {
        let text = fields.split_ascii_whitespace().nth(field).unwrap();
        text.parse().unwrap()
    };
    (ticks(11) + ticks(12)) / 100.0
}
