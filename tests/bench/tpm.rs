//! The TPM's rows: what a loaded key signs alone and through assertd, in turns, under both kinds of
//! sessions, and how soon a keystore with many keys is ready. Two emulators, because each serves one
//! connection at a time: one for the floor, one for assertd.

use crate::load::{self, Next};
use crate::summary::{Summary, median};
use crate::tpm_raw;
use crate::window::{Cpu, Run, WINDOW, rate, run, together};
use harness::daemon::Site;
use harness::process::Process;
use harness::{Config, DEADLINE, Daemon, Tpm, wait_until};
use keystore::config::Sessions;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Turns of the floor and assertd. Their ratio is taken in each, so that a neighbour who comes or goes
/// between two of them decides nothing.
const ROUNDS: usize = 7;

/// Connections at a time.
const CONNECTIONS: usize = 8;

/// So many keys, each of a target of its own.
const KEYS: usize = 100;

/// Starts that are timed.
const STARTS: usize = 5;

/// A rate that no machine reaches.
const NO_LIMIT: &str = "rate = 1000000\nburst = 1000000";

const WORKLOAD: &str = "bench";

/// Measures all of it.
pub fn report(summary: &mut Summary) {
    for (sessions, suffix) in [
        (Sessions::Password, ""),
        (Sessions::Encrypted, "_encrypted"),
    ] {
        eprintln!("TPM, {sessions:?} sessions");
        rates(sessions, suffix, summary);
    }
    eprintln!("TPM, ready with {KEYS} keys");
    let ready = median(ready_times_ms());
    summary.push(&format!("tpm_ready_{KEYS}_keys_ms"), ready, "ms");
}

fn section(sessions: Sessions) -> &'static str {
    match sessions {
        Sessions::Password => "sessions = \"password\"\n",
        Sessions::Encrypted => "sessions = \"encrypted\"\n",
    }
}

fn config(tpm: &Tpm, sessions: Sessions) -> Config {
    let uid = nix::unistd::geteuid().as_raw();
    Config::default()
        .keystore("tpm", tpm, section(sessions))
        .workload(WORKLOAD, uid, NO_LIMIT)
}

fn rates(sessions: Sessions, suffix: &str, summary: &mut Summary) {
    let (alone, behind) = (Tpm::new(), Tpm::new());
    let daemon = Daemon::with_keys(config(&behind, sessions).target(WORKLOAD, "bank", ""));
    let request = load::request("bank");
    let (broker, keystore) = (daemon.pid(), daemon.keystore_pid());
    let (mut floors, mut one, mut many) = (Vec::new(), Vec::<Run>::new(), Vec::<Run>::new());
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let floor = tpm_raw::raw(&alone.tcti(), sessions, WINDOW);
        let cpu = || Cpu::so_far(broker, keystore);
        let assertions = run(&daemon.socket(), CONNECTIONS, &request, cpu);
        ratios.push(rate(std::slice::from_ref(&assertions)) / floor.rate);
        floors.push(floor);
        many.push(assertions);
        one.push(run(&daemon.socket(), 1, &request, cpu));
    }
    let floor = median(floors.iter().map(|floor| floor.rate).collect());
    let mut push =
        |name: &str, value, unit| summary.push(&format!("tpm_{name}{suffix}"), value, unit);
    push("raw_rate", floor, "1/s");
    push(
        "raw_p50_us",
        median(floors.iter().map(|floor| floor.p50_us).collect()),
        "us",
    );
    push("assertion_rate", rate(&many), "1/s");
    push("ratio", median(ratios), "");
    push(
        "assertion_p50_us_c1",
        together(&one).0.percentile_us(50.0),
        "us",
    );
    let (times, elapsed, cpu) = together(&many);
    push("assertion_p99_us", times.percentile_us(99.0), "us");
    // The emulators among them: what they take is the TPM's time, which no chip takes of ours.
    push(
        "cpu_neighbours_percent",
        cpu.neighbours_percent(elapsed),
        "%",
    );
}

/// From the start of assertd's process, which starts the keystore's, to the first assertion.
fn ready_times_ms() -> Vec<f64> {
    let tpm = Tpm::new();
    let targets = (0..KEYS).map(|number| format!("t{number}"));
    let config = targets.fold(config(&tpm, Sessions::Password), |config, target| {
        config.target(WORKLOAD, &target, "")
    });
    let mut daemon = Daemon::with_keys(config);
    let mut times = Vec::new();
    for _ in 0..STARTS {
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
        let site = daemon.into_site();
        let begun = Instant::now();
        let process = Process::start(&mut site.command());
        first_assertion(&site);
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        daemon = Daemon::ready(process, site);
    }
    times
}

/// Asks for the last of the targets until it is given.
fn first_assertion(site: &Site) {
    let socket = site.runtime_dir().join("assertd.sock");
    let request = load::request(&format!("t{}", KEYS - 1));
    let mut status = 0;
    let given = wait_until(DEADLINE, || {
        if UnixStream::connect(&socket).is_err() {
            return false;
        }
        let asked = load::ask(&socket, 1, &request, |answer| {
            status = answer.status;
            Next::Stop
        });
        asked.is_ok() && status == 200
    });
    assert!(given, "no assertion in time; the last status: {status}");
}
