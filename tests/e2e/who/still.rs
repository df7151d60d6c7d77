//! Peers that stand still.

use crate::world::{bank, serves};
use harness::caller::Caller;
use harness::process;
use harness::user::{ALICE, need_root};
use harness::{DEADLINE, Daemon, Token, wait_until};
use std::time::{Duration, Instant};

/// A connection on which nothing happens is closed after 30 s.
const PATIENT: Duration = Duration::from_secs(45);

#[test]
fn a_stopped_peer_that_never_reads_keeps_nobody_waiting_and_gives_its_place_back() {
    need_root();
    let token = Token::new();
    let no_limit = "rate = 1000000\nburst = 1000000";
    let config = bank(&token).workload("alice", ALICE, no_limit);
    let mut daemon = Daemon::with_keys(config.target("alice", "hers", ""));
    // One that stops as soon as it has asked, and one whose answers are more than the sockets hold.
    let asked = "s = connect()\nask(s, 'hers')\nos.kill(os.getpid(), signal.SIGSTOP)";
    let flooded = "
s = connect()
s.setblocking(False)
seen = (-1, time.monotonic())
while time.monotonic() < seen[1] + 1:
    try:
        s.send(request('hers'))
    except BlockingIOError:
        time.sleep(0.01)
    if waiting(s) != seen[0]:
        seen = (waiting(s), time.monotonic())
os.kill(os.getpid(), signal.SIGSTOP)
";
    let start = Instant::now();
    let peers = [asked, flooded].map(|script| Caller::start(ALICE, &daemon.socket(), script));
    let stopped = || {
        peers
            .iter()
            .all(|peer| process::state(peer.pid()) == Some('T'))
    };
    assert!(wait_until(DEADLINE, stopped));
    assert_eq!(daemon.status().connections, 2);
    let mut slowest = Duration::ZERO;
    let back = wait_until(PATIENT, || {
        let before = Instant::now();
        serves(&mut daemon);
        slowest = slowest.max(before.elapsed());
        std::thread::sleep(Duration::from_millis(100)); // paces the control below its rate
        daemon.status().connections == 0
    });
    assert!(back, "{:?} later: {:?}", start.elapsed(), daemon.status());
    assert!(stopped(), "they never read");
    assert!(slowest < Duration::from_secs(2), "others wait: {slowest:?}");
}
