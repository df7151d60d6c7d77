//! A peer that is over gets nothing, whoever holds its socket (polkit CVE-2021-3560: when the requester
//! had gone, the error was taken for root). It is killed at every point at which assertd waits, as a
//! zombie and reaped; a child of its goes on reading, and would be given what was meant for it.

use super::{daemon, decisions};
use crate::world::serves;
use harness::caller::Caller;
use harness::hold::{Call, Hold};
use harness::process::{self, freeze, send};
use harness::user::ALICE;
use harness::{DEADLINE, Daemon, Token, wait_until};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// How much is left of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Death {
    /// Its number is still taken, and `/proc` shows it.
    Zombie,
    /// Nothing.
    Reaped,
    /// Nothing, and it stood still before.
    Stopped,
}

pub(super) const DEATHS: [Death; 2] = [Death::Zombie, Death::Reaped];

/// How often an attack is tried whose moment may be missed on a machine that is busy.
pub(super) const TRIES: usize = 10;

/// Alice's process, which connects, does `before` and waits to be killed. Its child waits for the word
/// that it is dead, makes sure of that, does `after`, and says how much it could read.
pub(super) fn connector(socket: &Path, before: &str, after: &str) -> Caller {
    let script = format!(
        "
s = connect()
life = os.pidfd_open(os.getpid())
{before}
if os.fork() == 0:
    told()
    if select.select([life], [], [], 0)[0] != [life]:
        sys.exit('the connector lives')
    {after}
    got = to_end(s)
    say('got', len(got), b'assertion' in got)
    os._exit(0)
say('asked')
time.sleep(60)
"
    );
    Caller::start(ALICE, socket, &script)
}

/// Kills the connector, and has its child go on.
#[track_caller]
pub(super) fn die(connector: &mut Caller, how: Death) {
    if let Death::Stopped = how {
        freeze(connector.pid());
    }
    connector.kill();
    match how {
        Death::Zombie => assert_eq!(process::state(connector.pid()), Some('Z')),
        Death::Reaped | Death::Stopped => connector.reap(),
    }
}

/// The child is let go on and gets not a byte; what the connection took is given back.
#[track_caller]
pub(super) fn gets_nothing(daemon: &Daemon, connector: &mut Caller, how: Death) {
    connector.tell("go on");
    assert_eq!(connector.rest(), "got 0 False", "{how:?}");
    permits_are_back(daemon);
}

#[track_caller]
fn permits_are_back(daemon: &Daemon) {
    let back = wait_until(DEADLINE, || daemon.status().connections == 0);
    assert!(back, "{} connections", daemon.status().connections);
}

/// The outcome of the first decision after so many.
#[track_caller]
fn outcome_after(daemon: &Daemon, before: usize) -> String {
    let id = |daemon: &Daemon| {
        let records = daemon.audit_records().into_iter();
        let mut decisions = records.filter(|record| record["kind"] == "decision");
        Some(decisions.nth(before)?["id"].clone())
    };
    assert!(wait_until(DEADLINE, || id(daemon).is_some()), "no decision");
    let id = id(daemon).unwrap();
    let record = daemon.audit_record(|it| it["kind"] == "outcome" && it["id"] == id);
    record["result"].as_str().unwrap().to_owned()
}

/// So many requests have been denied, and the log says that a peer was gone.
#[track_caller]
fn denied_as_gone(daemon: &Daemon, denied: u64) {
    assert!(
        wait_until(DEADLINE, || daemon.status().requests.denied == denied),
        "{:?}",
        daemon.status().requests
    );
    let record = daemon.audit_record(|record| record["kind"] == "denied");
    let why = (&record["reason"], &record["uid"]);
    assert_eq!(why, (&"peer_gone".into(), &ALICE.into()), "{record}");
}

#[test]
fn a_peer_that_died_before_it_was_accepted_gets_nothing() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    for how in DEATHS {
        freeze(daemon.pid());
        let mut connector = connector(&daemon.socket(), "ask(s, 'hers')", "pass");
        connector.expect("asked");
        die(&mut connector, how);
        assert_eq!(process::state(daemon.pid()), Some('T'), "not accepted yet");
        daemon.signal(Signal::SIGCONT);
        gets_nothing(&daemon, &mut connector, how);
    }
    // Nobody has read what it asked: there is nothing to record.
    let records = daemon.audit_records();
    assert!(records.iter().all(|it| it["uid"] != ALICE), "{records:#?}");
    serves(&mut daemon);
}

#[test]
fn a_peer_that_died_after_its_head_or_in_its_body_gets_nothing() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    let mut denied = 0;
    // What assertd has read when the connector dies; the rest is sent by the child.
    for read in ["request.index(b'{')", "request.index(b'hers')"] {
        let before = format!(
            "request = request('hers')\nread = {read}\ns.sendall(request[:read])\n\
             until(lambda: unread(s) == 0, 'assertd reads')"
        );
        for how in DEATHS {
            let mut connector = connector(&daemon.socket(), &before, "s.sendall(request[read:])");
            connector.expect("asked");
            assert_eq!(daemon.status().connections, 1);
            die(&mut connector, how);
            gets_nothing(&daemon, &mut connector, how);
            denied += 1;
            denied_as_gone(&daemon, denied);
        }
    }
    assert_eq!(decisions(&daemon), 0);
    serves(&mut daemon);
}

#[test]
fn a_peer_that_died_between_two_requests_gets_nothing() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    for (how, denied) in DEATHS.into_iter().zip(1..) {
        let before = "ask(s, 'hers')\nif status(s) != 200: sys.exit('the control is not served')";
        let mut connector = connector(&daemon.socket(), before, "ask(s, 'hers')");
        connector.expect("asked");
        die(&mut connector, how);
        gets_nothing(&daemon, &mut connector, how);
        denied_as_gone(&daemon, denied);
    }
    assert_eq!(decisions(&daemon), 2, "the controls");
    serves(&mut daemon);
}

#[test]
fn death_between_read_and_check_is_refused() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    let before = "whoami(s)\nsay('known')\ntold()\nask(s, 'hers')";
    for how in DEATHS {
        let hit = (0..TRIES).any(|_| {
            let mut connector = connector(&daemon.socket(), before, "pass");
            connector.expect("known");
            // assertd has looked at the process and is about to ask whether it lives.
            let hold = Hold::attach(daemon.pid(), Call::Poll, "2s", ",pread64,ioctl");
            connector.tell("ask");
            connector.expect("asked");
            hold.wait_inside();
            die(&mut connector, how);
            let in_time = hold.inside();
            gets_nothing(&daemon, &mut connector, how);
            let traced = hold.end();
            in_time && was_read_and_then_dead(&traced)
        });
        assert!(hit, "{how:?}: it never died in between");
    }
    denied_as_gone(&daemon, daemon.status().requests.denied);
    assert_eq!(decisions(&daemon), 0);
    serves(&mut daemon);
}

/// It was looked at with success, by its status and its cgroup or by the one call that says both
/// (PIDFD_GET_INFO, `_IOWR(0xff, 11, …)`); then a poll of its pidfd had it over.
fn was_read_and_then_dead(traced: &str) -> bool {
    let done = |holds: &dyn Fn(&str) -> bool| {
        let mut lines = traced.lines();
        lines.position(|line| holds(line) && !line.contains("= -1"))
    };
    let asked = done(&|line| line.contains("0xff, 0xb") || line.contains("PIDFD_GET_INFO"));
    let status = done(&|line| line.contains("\"Name:\\t"));
    let cgroup = done(&|line| line.contains("pread64(") && line.contains("\"0::/"));
    let over = done(&|line| line.contains("= 1 ([{fd=") && line.contains("revents=POLLIN"));
    let looked = asked.or(status.filter(|_| cgroup.is_some()));
    match (looked, over) {
        (Some(looked), Some(over)) => looked < over,
        _ => panic!("not what a request does:\n{traced}"),
    }
}

#[test]
fn a_peer_that_died_while_the_token_signs_gets_nothing() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    for how in [Death::Zombie, Death::Reaped, Death::Stopped] {
        let hit = (0..TRIES).any(|_| {
            let before = decisions(&daemon);
            let keystore = daemon.keystore_pid();
            freeze(keystore);
            let asked = Instant::now();
            let mut connector = connector(&daemon.socket(), "ask(s, 'hers')", "pass");
            connector.expect("asked");
            assert!(wait_until(DEADLINE, || decisions(&daemon) > before));
            die(&mut connector, how);
            // After five seconds assertd gives the keystore up.
            let in_time = asked.elapsed() < Duration::from_secs(4);
            assert_eq!(process::state(keystore), Some('T'), "not signed yet");
            send(keystore, Signal::SIGCONT);
            gets_nothing(&daemon, &mut connector, how);
            let outcome = outcome_after(&daemon, before);
            in_time && outcome == "peer_gone"
        });
        assert!(hit, "{how:?}: the log never says that it was gone");
    }
    let requests = daemon.status().requests;
    assert_eq!(requests.released, 0, "{requests:?}");
    assert!(requests.peer_gone >= 3, "{requests:?}");
    serves(&mut daemon);
}

#[test]
fn a_peer_that_died_while_the_log_is_flushed_gets_nothing() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    for how in DEATHS {
        let hit = (0..TRIES).any(|_| {
            let before = decisions(&daemon);
            let hold = Hold::attach(daemon.pid(), Call::Fdatasync, "2s", "");
            let mut connector = connector(&daemon.socket(), "ask(s, 'hers')", "pass");
            connector.expect("asked");
            assert!(wait_until(DEADLINE, || decisions(&daemon) > before));
            hold.wait_inside();
            die(&mut connector, how);
            let in_time = hold.inside();
            gets_nothing(&daemon, &mut connector, how);
            let outcome = outcome_after(&daemon, before);
            let traced = hold.end();
            assert!(traced.contains("fdatasync("), "{traced}");
            in_time && outcome == "peer_gone"
        });
        assert!(hit, "{how:?}: it was never killed in the flush");
    }
    assert_eq!(daemon.status().requests.released, 0);
    serves(&mut daemon);
}

/// Who is denied too often waits for half a second before it is told so.
#[test]
fn a_peer_that_died_while_its_refusal_is_held_back_gets_nothing() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    let before = "
while True:
    asked = time.monotonic()
    ask(s, 'nobodys')
    if not select.select([s], [], [], 0.1)[0]:
        break
    if status(s) != 403:
        sys.exit('not denied')
";
    for how in DEATHS {
        let hit = (0..TRIES).any(|_| {
            let held = daemon.status().requests.unavailable;
            let after = "s.settimeout(5); say(time.monotonic() - asked < 0.4)";
            let mut connector = connector(&daemon.socket(), before, after);
            connector.expect("asked");
            die(&mut connector, how);
            connector.tell("go on");
            let in_time = connector.line() == "True";
            let rest = connector.rest();
            // Its last denial was one too many, unless it was only slow to come.
            let hit = in_time && daemon.status().requests.unavailable == held + 1;
            assert!(!hit || rest == "got 0 False", "{how:?}: {rest}");
            permits_are_back(&daemon);
            hit
        });
        assert!(hit, "{how:?}: it never died in that half second");
    }
    assert_eq!(decisions(&daemon), 0);
    serves(&mut daemon);
}

/// What is granted while the peer lives may wait in assertd, if the peer does not read: what the kernel
/// has taken by its death can be read by whoever holds the socket, and nothing is added to that.
#[test]
fn a_peer_that_died_before_its_answer_was_written_gets_no_more() {
    let token = Token::new();
    let no_limit = "rate = 1000000\nburst = 1000000";
    let config = crate::world::bank(&token).workload("alice", ALICE, no_limit);
    let mut daemon = Daemon::with_keys(config.target("alice", "hers", ""));
    // Asks and does not read, until assertd neither reads nor writes any more.
    let before = "
s.setblocking(False)
seen = (-1, time.monotonic())
while time.monotonic() < seen[1] + 1:
    try:
        s.send(request('hers'))
    except BlockingIOError:
        time.sleep(0.01)
    if waiting(s) != seen[0]:
        seen = (waiting(s), time.monotonic())
s.setblocking(True)
";
    let after = "
    taken = waiting(s)
    got = to_end(s)
    whole = got.count(b'HTTP/1.1 200 OK')
    say('taken', taken, len(got), whole)
    os._exit(0)
";
    for how in DEATHS {
        let earlier = decisions(&daemon);
        let mut connector = connector(&daemon.socket(), before, after);
        connector.expect("asked");
        die(&mut connector, how);
        let granted = decisions(&daemon) - earlier;
        connector.tell("go on");
        let rest = connector.rest();
        let words: Vec<usize> = rest
            .split(' ')
            .skip(1)
            .map(|it| it.parse().unwrap())
            .collect();
        let [taken, got, whole] = words[..] else {
            panic!("{rest}")
        };
        assert!(taken > 0 && granted > whole, "{granted} granted: {rest}");
        assert_eq!(got, taken, "{how:?}: bytes for a dead peer");
        permits_are_back(&daemon);
    }
    serves(&mut daemon);
}
