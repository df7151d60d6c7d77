//! One user takes all that one may have, and wants more: connections, and answers on each of them.
//! Everybody else is served as before.

use crate::generator::{self, Next};
use crate::observed::{self, TARGET};
use harness::http::post_target;
use harness::user::{ALICE, STRANGER, exchange_as, python_as};
use harness::{DEADLINE, Daemon, SoftHsm, wait_until};
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

/// assertd's `server`.
const CONNECTIONS_PER_UID_MAX: usize = 256;

/// How long the others ask.
const WINDOW: Duration = Duration::from_secs(3);

/// What an assertion may take meanwhile, and status, on two cores that the flooder has as well.
const OTHERS_WITHIN: Duration = Duration::from_secs(2);

/// Keeps every connection that it gets, asks on all of them without pause, and goes on connecting,
/// until its standard input ends. Says what it got: how many connections it held at most, how often it
/// was turned away, how often it was answered.
const FLOOD: &str = "
import json, select, socket, sys
path = sys.argv[1]
request = b'POST /v1/assertion HTTP/1.1\\r\\nhost: a\\r\\ncontent-length: 17\\r\\n\\r\\n{\"target\":\"bank\"}'
peers, poll = {}, select.poll()
poll.register(0, select.POLLIN | select.POLLHUP)
most = turned_away = answered = 0
print('there', flush=True)
while True:
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(5)
    s.connect(path)
    s.setblocking(False)
    try:
        s.send(request)
    except OSError:
        pass
    peers[s.fileno()] = s
    poll.register(s, select.POLLIN)
    for fd, event in poll.poll(0 if len(peers) < 300 else 20):
        if fd == 0:
            print(json.dumps({'most': most, 'turned_away': turned_away, 'answered': answered}))
            sys.exit()
        data = b''
        try:
            data = peers[fd].recv(65536)
            if b'too_many_connections' in data:
                turned_away += 1
                data = b''
            elif data:
                answered += 1
                peers[fd].send(request)
        except OSError:
            data = b''
        if not data:
            poll.unregister(fd)
            peers.pop(fd).close()
    most = max(most, len(peers))
";

#[derive(Debug, Deserialize)]
struct Report {
    most: usize,
    turned_away: usize,
    answered: usize,
}

struct Flooder {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Flooder {
    fn start(daemon: &Daemon, uid: u32) -> Flooder {
        let mut python = python_as(uid, FLOOD);
        python.arg(daemon.socket());
        let piped = python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = piped.spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "there\n");
        Flooder { process, said }
    }

    fn end(mut self) -> Report {
        drop(self.process.stdin.take());
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert!(self.process.wait().unwrap().success(), "the flooder failed");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

impl Drop for Flooder {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended
        let _ = self.process.wait();
    }
}

#[test]
fn row_41_a_user_who_floods_takes_its_own_share_and_nobody_elses() {
    let token = SoftHsm::new();
    let mut daemon = Daemon::with_keys(observed::config(&token));
    daemon.wait_served(TARGET);
    let flooder = Flooder::start(&daemon, STRANGER);
    let full = wait_until(DEADLINE, || {
        daemon.status().connections >= CONNECTIONS_PER_UID_MAX
    });
    assert!(full, "{:?}", daemon.status());

    // Those who are in keep their connections and are answered on them, ...
    let (began, mut served, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    let request = generator::request(TARGET);
    generator::ask(&daemon.socket(), 4, &request, |answer| {
        let body = String::from_utf8_lossy(answer.body);
        assert_eq!(answer.status, 200, "{body}");
        slowest = slowest.max(answer.answered - answer.asked);
        served += 1;
        match began.elapsed() < WINDOW {
            true => Next::Ask,
            false => Next::Stop,
        }
    })
    .expect("no connection is cut");
    // ... those who come are let in, another user as well as root, and status is answered.
    for _ in 0..5 {
        let other = exchange_as(ALICE, &daemon.socket(), &post_target(TARGET));
        assert_eq!((other.status, other.problem()), (403, "denied".to_owned()));
        let before = Instant::now();
        let status = daemon.status();
        slowest = slowest.max(before.elapsed());
        assert!(status.connections >= CONNECTIONS_PER_UID_MAX, "{status:?}");
    }
    let report = flooder.end();
    println!("{served} others were served, the slowest in {slowest:?}; the flooder: {report:?}");
    assert!(served > 20, "{served}");
    assert!(slowest < OTHERS_WITHIN, "{slowest:?}");
    // It was a flood: its share was full, and it was refused more.
    assert!(report.most >= CONNECTIONS_PER_UID_MAX, "{report:?}");
    assert!(report.turned_away > 500, "{report:?}");
    assert!(report.answered > 0, "{report:?}");

    assert!(wait_until(DEADLINE, || daemon.status().connections == 0));
    daemon.wait_served(TARGET);
    assert!(daemon.lives());
}
