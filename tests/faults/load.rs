//! More connections than there is room for.

use crate::generator::Times;
use crate::observed;
use harness::user::{ALICE, BOB, BROKER, KEYSTORE, STRANGER, python_as};
use harness::{DEADLINE, Daemon, SoftHsm, process, wait_until};
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Connections that are served at a time, of all users and of one (assertd's `server`).
const CONNECTIONS_MAX: usize = 1_024;
const CONNECTIONS_PER_UID_MAX: usize = 256;

/// Who connects: enough users that not their share is the limit but all there is.
const UIDS: [u32; 5] = [ALICE, BOB, STRANGER, BROKER, KEYSTORE];

/// Ten thousand in all.
const CONNECTIONS_EACH: usize = 2_000;

/// A refusal of one connection may take so long while thousands are made on two cores; a place
/// that is waited for until somebody leaves takes 30 s.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);

/// Status, likewise. What it may take where nothing else runs is in docs/performance.md.
const STATUS_WITHIN: Duration = Duration::from_secs(2);

/// Reliability §11: at 1,024 connections.
const RSS_MAX_KIB: u64 = 64 * 1024;

/// Connects, asks on each connection, keeps those that are served, reports, and holds them until
/// its standard input ends.
const HOLD: &str = "
import json, socket, sys, time
path, wanted = sys.argv[1], int(sys.argv[2])
request = b'GET /v1/whoami HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n'
kept, statuses, slowest = [], {}, 0.0
for _ in range(wanted):
    began = time.monotonic()
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(path)
    try:
        s.sendall(request)
    except BrokenPipeError:
        pass
    status = s.recv(65536)[9:12].decode()
    statuses[status] = statuses.get(status, 0) + 1
    if status == '200':
        kept.append(s)
    else:
        slowest = max(slowest, time.monotonic() - began)
        s.close()
print(json.dumps({'statuses': statuses, 'slowest_refusal_s': slowest}), flush=True)
sys.stdin.read()
";

#[derive(Deserialize)]
struct Report {
    statuses: std::collections::BTreeMap<String, usize>,
    slowest_refusal_s: f64,
}

#[test]
fn row_38_ten_thousand_connections_are_served_up_to_the_limit_and_refused_fast_beyond() {
    let token = SoftHsm::new();
    // What a service manager gives: 1,024 descriptors, and leave to raise that.
    let site = harness::daemon::Site::new(observed::config(&token).text());
    let mut limited = std::process::Command::new("prlimit");
    limited
        .arg("--nofile=1024:20000")
        .arg(site.programs().assertd());
    limited
        .arg("--config")
        .arg(site.config())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut daemon = Daemon::ready(process::Process::start(&mut limited), site);
    daemon.apply();
    let descriptors = descriptors(daemon.pid());

    let mut holders: Vec<Child> = UIDS.into_iter().map(|uid| hold(&daemon, uid)).collect();
    let mut status_times = Vec::new();
    let reports: Vec<Report> = holders
        .iter_mut()
        .map(|holder| {
            let report = BufReader::new(holder.stdout.take().unwrap());
            let line = while_status_answers(&daemon, &mut status_times, report);
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
        })
        .collect();

    let count = |status: &str| -> usize {
        reports
            .iter()
            .filter_map(|report| report.statuses.get(status))
            .sum()
    };
    let (served, refused) = (count("200"), count("503"));
    let slowest = reports
        .iter()
        .map(|report| report.slowest_refusal_s)
        .fold(0.0, f64::max);
    let status_times = Times::new(status_times);
    let rss = rss_kib(daemon.pid());
    println!(
        "{served} served, {refused} refused, slowest refusal {:.1} ms; status {} times, p99 {:.1} \
         ms; assertd {} MiB",
        slowest * 1e3,
        status_times.count(),
        status_times.percentile_us(99.0) / 1e3,
        rss / 1024
    );
    assert_eq!(
        served + refused,
        UIDS.len() * CONNECTIONS_EACH,
        "only 200 and 503"
    );
    assert_eq!(served, CONNECTIONS_MAX);
    let most = reports
        .iter()
        .filter_map(|report| report.statuses.get("200"))
        .max();
    assert!(
        most.is_some_and(|most| *most <= CONNECTIONS_PER_UID_MAX),
        "{most:?} for one uid"
    );
    assert!(
        slowest < REFUSED_WITHIN.as_secs_f64(),
        "a refusal took {slowest:.3} s"
    );
    let slowest_status = status_times.percentile_us(100.0);
    assert!(
        slowest_status < STATUS_WITHIN.as_secs_f64() * 1e6,
        "{slowest_status} us for status"
    );
    assert!(rss < RSS_MAX_KIB, "{rss} KiB");

    for holder in &mut holders {
        drop(holder.stdin.take());
        assert!(holder.wait().unwrap().success());
    }
    let recovered = wait_until(DEADLINE, || daemon.status().connections == 0);
    assert!(
        recovered,
        "{} connections are still counted",
        daemon.status().connections
    );
    // The pidfd, /proc directory and socket of each went with it; a few of ours come and go.
    let given_back = wait_until(DEADLINE, || {
        self::descriptors(daemon.pid()) <= descriptors + 8
    });
    assert!(
        given_back,
        "{} descriptors, {descriptors} before",
        self::descriptors(daemon.pid())
    );
    assert!(
        !daemon
            .client()
            .assertion(observed::TARGET, None)
            .unwrap()
            .assertion
            .is_empty()
    );
    assert!(daemon.lives());
}

fn hold(daemon: &Daemon, uid: u32) -> Child {
    let mut python = python_as(uid, HOLD);
    python
        .arg(daemon.socket())
        .arg(CONNECTIONS_EACH.to_string());
    python
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Asks for status again and again until a line has come.
fn while_status_answers(
    daemon: &Daemon,
    times: &mut Vec<Duration>,
    mut report: impl BufRead + Send,
) -> String {
    let mut line = String::new();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| report.read_line(&mut line).unwrap());
        while !reading.is_finished() {
            let before = Instant::now();
            daemon.status();
            times.push(before.elapsed());
        }
    });
    line
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
