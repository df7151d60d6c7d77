//! Start, limits, drain, stop.

use crate::world::{BANK, bank, code, serves, us, with_bank};
use assertd_client::api::Status;
use harness::http::{Raw, post};
use harness::process::{self, Process, freeze, send};
use harness::{Config, DEADLINE, Daemon, SoftHsm, Token, wait_for, wait_until};
use nix::sys::signal::Signal;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn a_killed_broker_takes_its_keystore_with_it() {
    let token = Token::new();
    let mut daemon = Daemon::start(bank(&token));
    let keystore = daemon.keystore_pid();
    daemon.signal(Signal::SIGKILL);
    assert_eq!(daemon.exit_code(), None);
    assert!(wait_until(DEADLINE, || !process::runs(keystore)));
}

#[test]
fn a_client_goes_on_after_a_restart_and_says_when_there_is_nobody() {
    let (daemon, _token) = with_bank();
    let mut client = daemon.client();
    let first = client.assertion("bank", None).unwrap();
    let daemon = daemon.restart();
    daemon.wait_usable();
    let second = client.assertion("bank", None).unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(daemon.status().requests.released, 1, "asked for once");
    let site = daemon.into_site();
    let nobody = client.assertion("bank", None).err().unwrap().to_string();
    assert!(nobody.contains("is assertd running?"), "{nobody}");
    let daemon = Daemon::start_at(site);
    daemon.wait_usable();
    client.assertion("bank", None).unwrap();
}

/// Connections with a request that is being signed by a keystore that stands still.
fn in_flight(daemon: &Daemon, count: usize) -> Vec<Raw> {
    let before = decisions(daemon);
    let asked = (0..count)
        .map(|_| {
            let mut raw = daemon.raw();
            raw.send(&post(BANK)).unwrap();
            raw
        })
        .collect();
    assert!(wait_until(DEADLINE, || decisions(daemon) == before + count));
    asked
}

fn decisions(daemon: &Daemon) -> usize {
    daemon
        .audit_records()
        .iter()
        .filter(|record| record["kind"] == "decision")
        .count()
}

#[test]
fn sigterm_finishes_what_was_asked_takes_nothing_new_and_exits_0() {
    let (mut daemon, _token) = with_bank();
    let (keystore, socket) = (daemon.keystore_pid(), daemon.socket());
    let mut idle = daemon.raw();
    freeze(keystore);
    let asked = in_flight(&daemon, 8);
    daemon.signal(Signal::SIGTERM);
    until_nobody_listens(&socket);
    send(keystore, Signal::SIGCONT);
    for mut raw in asked {
        let answer = raw
            .answer(DEADLINE)
            .expect("an answer to what was asked before");
        assert_eq!(answer.status, 200, "{}", answer.body());
    }
    assert_eq!(
        idle.answer(DEADLINE),
        None,
        "an idle connection is closed without a word"
    );
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.stderr());
    assert!(!process::runs(keystore));

    let records = daemon.audit_records();
    let released = records
        .iter()
        .filter(|record| record["result"] == "released")
        .count();
    assert_eq!(released, 8, "{records:#?}");
    assert_eq!(records.last().unwrap()["kind"], "closed");
    let dir = daemon.audit_dir().display().to_string();
    let verified = daemon.assertctl(&["audit", "verify", &dir]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
}

/// The listener goes first; the path may stay behind.
fn until_nobody_listens(socket: &Path) {
    let closed = wait_until(DEADLINE, || {
        UnixStream::connect(socket).is_err_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::NotFound
            )
        })
    });
    assert!(closed, "a draining daemon still accepts");
}

/// Whoever was accepted has asked or is about to, so that a restart cuts nobody. There is a second
/// for it, which a busy machine may miss, but not five times.
#[test]
fn who_was_accepted_may_still_ask_when_assertd_is_told_to_stop() {
    let answered = (0..5).any(|_| {
        let (mut daemon, _token) = with_bank();
        let mut raw = daemon.raw();
        let accepted = wait_until(DEADLINE, || daemon.status().connections == 1);
        assert!(accepted, "{:?}", daemon.status());
        daemon.signal(Signal::SIGTERM);
        until_nobody_listens(&daemon.socket());
        let sent = raw.send(&post(BANK));
        let answer = raw.answer(DEADLINE);
        assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.stderr());
        sent.is_ok()
            && answer.is_some_and(|answer| {
                answer.status == 200 && answer.header("connection") == Some("close")
            })
    });
    assert!(answered, "its connection was closed without an answer");
}

#[test]
fn a_drain_ends_although_the_keystore_hangs() {
    let (mut daemon, _token) = with_bank();
    let keystore = daemon.keystore_pid();
    freeze(keystore);
    let mut asked = in_flight(&daemon, 2);
    let start = Instant::now();
    daemon.signal(Signal::SIGTERM);
    let answer = asked[0]
        .answer(DEADLINE)
        .expect("an answer at the request's deadline");
    assert_eq!((answer.status, code(&answer).as_str()), (503, "deadline"));
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.stderr());
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    assert!(wait_until(DEADLINE, || !process::runs(keystore)));
}

#[test]
fn a_second_sigterm_does_not_wait() {
    let (mut daemon, _token) = with_bank();
    let keystore = daemon.keystore_pid();
    freeze(keystore);
    let _asked = in_flight(&daemon, 1);
    daemon.signal(Signal::SIGTERM);
    let socket = daemon.socket();
    assert!(wait_until(DEADLINE, || UnixStream::connect(&socket).is_err()));
    let start = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.stderr());
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert!(wait_until(DEADLINE, || !process::runs(keystore)));
}

#[test]
fn the_audit_chain_goes_on_over_restarts_and_shows_a_changed_byte() {
    let (mut daemon, _token) = with_bank();
    serves(&mut daemon);
    let mut daemon = daemon.restart();
    serves(&mut daemon);
    assert_eq!(daemon.ask(r#"{"target":"none"}"#).status, 403);
    assert_eq!(daemon.stop(), Some(0));
    let dir = daemon.audit_dir().display().to_string();
    let verify = || daemon.assertctl(&["audit", "verify", &dir]);
    let verified = verify();
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    let records = daemon.audit_records();
    assert_eq!(
        records
            .iter()
            .filter(|record| record["kind"] == "opened")
            .count(),
        2
    );
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record["seq"], number, "sequence numbers have a gap");
    }

    // The control: one digit of one record's uid.
    let mut segments: Vec<_> = std::fs::read_dir(daemon.audit_dir())
        .unwrap()
        .flatten()
        .collect();
    segments.retain(|entry| entry.file_name().to_string_lossy().ends_with(".log"));
    segments.sort_by_key(std::fs::DirEntry::file_name);
    let path = segments[0].path();
    let mut bytes = std::fs::read(&path).unwrap();
    let needle = b"\"kind\":\"decision\"";
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap();
    let uid = bytes[at..]
        .windows(6)
        .position(|window| window == b"\"uid\":")
        .unwrap()
        + at
        + 6;
    bytes[uid] = if bytes[uid] == b'7' { b'8' } else { b'7' };
    std::fs::write(&path, bytes).unwrap();
    let verified = verify();
    assert_eq!(
        verified.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let token = Token::new();
    let config = Config::new(&token).workload("ours", us(), "rate = 1\nburst = 3");
    let daemon = Daemon::with_keys(config.target("ours", "bank", ""));
    let answers: Vec<_> = (0..6).map(|_| daemon.ask(BANK)).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses[..3], [200, 200, 200], "the burst");
    let refused = answers
        .iter()
        .find(|answer| answer.status != 200)
        .expect("more than the burst");
    assert_eq!(
        (refused.status, code(refused).as_str()),
        (429, "too_many_requests")
    );
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&seconds), "{seconds}");
    let served = wait_until(Duration::from_secs(seconds + 3), || {
        daemon.ask(BANK).status == 200
    });
    assert!(served, "still refused after Retry-After");
}

#[test]
fn who_is_denied_too_often_is_told_to_slow_down_and_nobody_else_is() {
    use harness::user::{ALICE, exchange_as};
    let (mut daemon, _token) = with_bank();
    let mut raw = daemon.raw();
    let mut statuses = Vec::new();
    let mut held = Duration::ZERO;
    while statuses.last() != Some(&429) {
        let start = Instant::now();
        raw.send(&post(r#"{"target":"none"}"#)).unwrap();
        statuses.push(raw.answer(DEADLINE).unwrap().status);
        held = start.elapsed();
        assert!(statuses.len() < 200, "200 denials and no limit");
    }
    assert_eq!(statuses[0], 403);
    assert!(
        held >= Duration::from_millis(400),
        "answered after {held:?}"
    );
    assert!(
        statuses.iter().all(|status| [403, 429].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(
        exchange_as(ALICE, &daemon.socket(), &post(BANK)).status,
        403,
        "another user"
    );
    serves(&mut daemon);
    let denied = daemon
        .audit_records()
        .iter()
        .filter(|record| record["kind"] == "denied")
        .count();
    assert_eq!(
        denied, 2,
        "the first of each is recorded, the others are counted"
    );
}

#[test]
fn a_keystore_that_ends_comes_back_and_assertd_does_not_notice_for_long() {
    let (mut daemon, _token) = with_bank();
    let (pid, keystore) = (daemon.pid(), daemon.keystore_pid());
    send(keystore, Signal::SIGKILL);
    let back = wait_until(Duration::from_secs(10), || daemon.ask(BANK).status == 200);
    assert!(back, "{}", daemon.stderr());
    assert_eq!(daemon.pid(), pid);
    assert_ne!(daemon.keystore_pid(), keystore);
    assert_eq!(daemon.status().keystores[0].restarts, 1);
    serves(&mut daemon);
}

#[test]
fn pkcs11_a_wrong_pin_is_tried_once_and_said() {
    let token = SoftHsm::new();
    std::fs::write(token.pin_file(), "00000001").unwrap();
    let daemon = Daemon::start(bank(&token));
    let status = daemon.status();
    let failed = &status.keystores[0];
    assert_eq!(failed.state, "failed", "{failed:?}");
    assert!(
        failed.why.as_ref().is_some_and(|why| why.contains("PIN")),
        "{failed:?}"
    );
    let answer = daemon.ask(BANK);
    assert_eq!(answer.status, 503, "{}", answer.body());
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn a_bad_configuration_ends_the_start_and_is_shown_with_its_place() {
    let token = Token::new();
    let config = bank(&token).with("[workload.x]\nmatch = { uid = 1 }\naudience = \"y\"\n");
    let site = harness::daemon::Site::new(config.text());
    let mut process = Process::start(&mut site.command());
    assert_eq!(
        process.wait(DEADLINE).code(),
        Some(78),
        "{}",
        process.stderr()
    );
    let said = process.stderr();
    assert!(
        said.contains("assertd.toml:") && said.contains("audience"),
        "{said}"
    );
    assert!(
        !site.state_dir().exists(),
        "state was made for a configuration that is wrong"
    );
}

#[test]
fn readiness_means_that_a_request_is_answered() {
    let (daemon, _token) = with_bank();
    let daemon = daemon.restart();
    // Not even one attempt may fail once the ready line is there.
    let answer = daemon.ask(BANK);
    assert_eq!(answer.status, 200, "{}", answer.body());
    let record = wait_for(DEADLINE, || {
        daemon
            .audit_records()
            .into_iter()
            .rfind(|record| record["kind"] == "outcome")
    });
    assert_eq!(record.unwrap()["result"], "released");
}

#[test]
fn a_peer_that_stands_still_keeps_nobody_waiting() {
    use harness::user::{ALICE, python_as};
    let (mut daemon, _token) = with_bank();
    let script = "
import os, signal, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b'POST /v1/assertion HTTP/1.1\\r\\nhost: a\\r\\n')
os.kill(os.getpid(), signal.SIGSTOP)
";
    let mut python = python_as(ALICE, script);
    let peer = Process::start(python.arg(daemon.socket()));
    assert!(wait_until(DEADLINE, || process::state(peer.pid()) == Some('T')));
    serves(&mut daemon);
    let given_up = wait_until(Duration::from_secs(8), || daemon.status().connections == 0);
    assert!(
        given_up,
        "half a request is kept for a peer that stands still"
    );
    serves(&mut daemon);
}

#[test]
fn a_daemon_without_descriptors_waits_and_recovers() {
    use nix::sys::resource::{Resource, getrlimit};
    let token = Token::new();
    let site = harness::daemon::Site::new(bank(&token).text());
    // Soft and hard: assertd raises the soft one as far as it may.
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -n 64; exec \"$0\" --config \"$1\""]);
    shell.arg(site.programs().assertd()).arg(site.config());
    shell.stdin(std::process::Stdio::null());
    let mut daemon = Daemon::ready(Process::start(&mut shell), site);
    daemon.apply();
    serves(&mut daemon);
    assert!(
        getrlimit(Resource::RLIMIT_NOFILE).unwrap().0 > 200,
        "this test needs some itself"
    );
    let held: Vec<Raw> = (0..100).map(|_| daemon.raw()).collect();
    daemon_says(&daemon, "accept: ");
    let before = daemon.stderr().len();
    let start = Instant::now();
    let quiet = !wait_until(Duration::from_secs(1), || {
        daemon.stderr().len() > before + 64 * 1024
    });
    assert!(
        quiet,
        "it spins: {} bytes a second",
        daemon.stderr().len() - before
    );
    assert!(daemon.lives() && start.elapsed() < DEADLINE);
    drop(held);
    // While descriptors are short, administrators are turned away too.
    let no_connections = |status: Status| status.connections == 0;
    let back = wait_until(DEADLINE, || {
        daemon.try_status().is_some_and(no_connections)
            && daemon.client().assertion("bank", None).is_ok()
    });
    assert!(back && daemon.lives(), "{}", daemon.stderr());
}

fn daemon_says(daemon: &Daemon, text: &str) {
    let said = wait_until(DEADLINE, || daemon.stderr().contains(text));
    assert!(said, "never said {text:?}:\n{}", daemon.stderr());
}
