//! The keystore process dies; the broker must not.

use crate::observed::{self, Load, Seen};
use harness::{DEADLINE, Daemon, SoftHsm, process, wait_for};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

const KILLS: usize = 20;

/// Connections that ask without pause: so many requests are under way at any moment, in the
/// keystore, in the queue, or in the broker.
const CONNECTIONS: usize = 128;

/// Assertions between two kills, so that each kill hits a keystore at work.
const RELEASED_BETWEEN: u64 = 300;

/// Half of the times have to be this short, and each this: what else the machine does may hold up one.
const HALF_BACK_WITHIN: Duration = Duration::from_secs(1);
const BACK_WITHIN: Duration = Duration::from_secs(5);

struct Kill {
    at: Instant,
    pid: u32,
    back_after: Duration,
}

#[test]
fn keystore_killed_twenty_times_under_load_costs_only_503s() {
    let token = SoftHsm::new();
    let mut daemon = Daemon::with_keys(observed::config(&token));
    let (pid, verifier) = (daemon.pid(), observed::verifier(&daemon));
    let load = Load::start(&daemon.socket(), CONNECTIONS);

    let kills: Vec<Kill> = (0..KILLS)
        .map(|_| {
            load.wait_released(RELEASED_BETWEEN);
            kill_keystore(&daemon, &load)
        })
        .collect();
    load.wait_released(RELEASED_BETWEEN);
    let seen = load.stop();

    let (released, refused) = observed::only_assertions_and_503(&seen, &verifier);
    let in_flight: usize = kills.iter().map(|kill| under_way(&seen, kill.at)).sum();
    print_table(&kills, &seen);
    println!("{released} assertions, {refused} 503s, {in_flight} requests under way at the kills");

    assert!(
        in_flight >= 1_000,
        "only {in_flight} requests were under way at the kills"
    );
    for (number, kill) in (1..).zip(&kills) {
        let back = kill.back_after;
        assert!(
            back <= BACK_WITHIN,
            "kill {number}: first assertion after {back:?}"
        );
    }
    let mut times: Vec<Duration> = kills.iter().map(|kill| kill.back_after).collect();
    times.sort();
    let half = times[times.len() / 2];
    assert!(half <= HALF_BACK_WITHIN, "half of them after {half:?}");
    let mut pids: Vec<u32> = kills.iter().map(|kill| kill.pid).collect();
    pids.dedup();
    assert_eq!(pids.len(), KILLS, "each kill was another process's");
    assert!(daemon.lives(), "{}", daemon.stderr());
    assert_eq!(daemon.status().pid, pid);
    assert_eq!(daemon.status().keystores[0].restarts, KILLS as u64);
    observed::chain_verifies(&daemon);
}

/// Kills the keystore and waits for the first assertion that was asked for afterwards.
fn kill_keystore(daemon: &Daemon, load: &Load) -> Kill {
    let pid = daemon.keystore_pid();
    let at = Instant::now();
    process::send(pid, Signal::SIGKILL);
    let first = wait_for(DEADLINE, || {
        let seen = load.seen();
        // The newest come last, and what was answered before the kill need not be looked at.
        let new = seen.iter().rev().take_while(|answer| answer.answered > at);
        new.filter(|answer| answer.status == 200 && answer.asked > at)
            .map(|answer| answer.answered)
            .min()
    });
    let first = first.unwrap_or_else(|| panic!("no service again:\n{}", daemon.stderr()));
    Kill {
        at,
        pid,
        back_after: first - at,
    }
}

/// Requests whose life spans a moment.
fn under_way(seen: &[Seen], at: Instant) -> usize {
    seen.iter()
        .filter(|answer| answer.asked < at && answer.answered > at)
        .count()
}

fn print_table(kills: &[Kill], seen: &[Seen]) {
    println!("kill  keystore  under way  200 of them  503 of them  back after");
    for (number, kill) in (1..).zip(kills) {
        let hit = seen
            .iter()
            .filter(|a| a.asked < kill.at && a.answered > kill.at);
        let refused = hit.filter(|answer| answer.status == 503).count();
        let all = under_way(seen, kill.at);
        println!(
            "{number:>4}  {:>8}  {all:>9}  {:>11}  {refused:>11}  {:>7.0} ms",
            kill.pid,
            all - refused,
            kill.back_after.as_secs_f64() * 1e3,
        );
    }
}
