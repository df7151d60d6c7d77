//! Who is calling: the process that connected, for as long as it lives and is who it was.

use crate::world::{BANK, bank, serves, us};
use harness::http::{post, post_target};
use harness::process::{freeze, send};
use harness::user::{ALICE, python_as};
use harness::{Config, DEADLINE, Daemon, Token, wait_until};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Starts every script here: `ask(s, target)` sends a request, `status(s)` reads an answer's.
const PRELUDE: &str = "
import os, socket, sys, time
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(sys.argv[1])
    return s
def ask(s, target):
    body = b'{\"target\":\"%s\"}' % target.encode()
    s.sendall(b'POST /v1/assertion HTTP/1.1\\r\\nhost: a\\r\\ncontent-length: %d\\r\\n\\r\\n%s' % (len(body), body))
def answer(s):
    data = b''
    while True:
        head, _, body = data.partition(b'\\r\\n\\r\\n')
        lengths = [l.split(b':')[1] for l in head.lower().split(b'\\r\\n') if l.startswith(b'content-length:')]
        if b'\\r\\n\\r\\n' in data and len(body) >= int(lengths[0]):
            return int(data[9:12]), body.decode()
        part = s.recv(65536)
        if not part:
            return 0, ''
        data += part
def status(s):
    return answer(s)[0]
";

fn script(uid: u32, daemon: &Daemon, body: &str) -> Command {
    let mut python = python_as(uid, &format!("{PRELUDE}{body}"));
    python.arg(daemon.socket());
    python
}

/// Runs a script to its end and returns what it printed.
fn printed(uid: u32, daemon: &Daemon, body: &str) -> String {
    let output = script(uid, daemon, body)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Root owns `bank`, as in [`bank`]; Alice owns `hers`.
fn daemon(token: &Token) -> Daemon {
    harness::user::need_root();
    let config: Config = bank(token).workload("alice", ALICE, "");
    Daemon::with_keys(config.target("alice", "hers", ""))
}

#[test]
fn the_control_is_granted() {
    let token = Token::new();
    let daemon = daemon(&token);
    let body = "s = connect()\nask(s, 'hers')\nprint(status(s))\nask(s, 'bank')\nprint(status(s))";
    assert_eq!(printed(ALICE, &daemon, body), "200\n403");
}

#[test]
fn a_caller_that_is_killed_before_its_answer_gets_nothing_and_the_log_says_so() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    let keystore = daemon.keystore_pid();
    // A child of the caller holds the connection open: only the caller's death can stop it.
    for (holder, body) in [
        (
            "nobody",
            "s = connect()\nask(s, 'hers')\nprint('asked', flush=True)\ntime.sleep(60)",
        ),
        (
            "a child",
            "s = connect()\nask(s, 'hers')\nr, w = os.pipe()\nif os.fork() == 0:\n    os.close(w)\n    \
             os.read(r, 1)\n    got = answer(s)\n    print(got[0], 'assertion' in got[1], flush=True)\n    \
             os._exit(0)\nprint('asked', flush=True)\ntime.sleep(60)",
        ),
    ] {
        freeze(keystore);
        let before = daemon.audit_records().len();
        let mut caller = script(ALICE, &daemon, body)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut says = BufReader::new(caller.stdout.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        assert_eq!(line, "asked\n");
        let recorded = |kind: &str| {
            let records = daemon.audit_records();
            records[before..]
                .iter()
                .find(|record| record["kind"] == kind)
                .cloned()
        };
        assert!(
            wait_until(DEADLINE, || recorded("decision").is_some()),
            "{holder}"
        );
        caller.kill().unwrap();
        caller.wait().unwrap();
        send(keystore, Signal::SIGCONT);
        assert!(
            wait_until(DEADLINE, || recorded("outcome").is_some()),
            "{holder}"
        );
        let (decision, outcome) = (recorded("decision").unwrap(), recorded("outcome").unwrap());
        assert_eq!(outcome["id"], decision["id"]);
        assert_eq!(
            outcome["result"], "peer_gone",
            "{holder} held the connection: {outcome}"
        );
        line.clear();
        says.read_line(&mut line).unwrap();
        let expected = if holder == "nobody" {
            ""
        } else {
            "503 False\n"
        };
        assert_eq!(line, expected, "what the child was told");
    }
    serves(&mut daemon);
    let requests = daemon.status().requests;
    assert_eq!((requests.released, requests.peer_gone), (1, 2));
}

#[test]
fn a_connection_outlives_no_connector() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    // A pidfd says when it is over; the end of a pipe comes while the process is still ending.
    let body = "
import select
s = connect()
parent = select.poll()
parent.register(os.pidfd_open(os.getpid()), select.POLLIN)
if os.fork() == 0:
    parent.poll()
    ask(s, 'hers')
    print(status(s), flush=True)
    os._exit(0)
";
    assert_eq!(printed(ALICE, &daemon, body), "403");
    let record = daemon.audit_record(|record| record["kind"] == "denied");
    assert_eq!(record["reason"], "peer_gone", "{record}");
    serves(&mut daemon);
}

#[test]
fn a_connection_of_another_user_is_of_no_use_after_setuid() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    let script = format!(
        "s = connect()\nask(s, 'bank')\nprint(status(s))\nos.setresgid({ALICE}, {ALICE}, {ALICE})\n\
         os.setresuid({ALICE}, {ALICE}, {ALICE})\nask(s, 'bank')\nprint(status(s))\nask(s, 'hers')\n\
         print(status(s))"
    );
    // The first request shows that every request is attested anew, on the same connection.
    assert_eq!(printed(us(), &daemon, &script), "200\n403\n403");
    let record = daemon.audit_record(|record| record["kind"] == "denied");
    assert_eq!(record["reason"], "peer_changed_user", "{record}");
    // One that gave up only its effective uid still can be root again.
    let halfway = format!(
        "s = connect()\nos.seteuid({ALICE})\nask(s, 'bank')\nprint(status(s))\nt = connect()\n\
         ask(t, 'hers')\nprint(status(t))"
    );
    assert_eq!(printed(us(), &daemon, &halfway), "403\n403");
    serves(&mut daemon);
}

#[test]
fn a_caller_that_execs_is_the_same_caller() {
    let token = Token::new();
    let daemon = daemon(&token);
    let body = "
s = connect()
if sys.argv[2:] == []:
    os.set_inheritable(s.fileno(), True)
    args = ['python3', '-I', '-c', open('/proc/self/cmdline').read().split('\\0')[3], sys.argv[1]]
    os.execv('/usr/bin/python3', args + [str(s.fileno())])
s = socket.socket(fileno=int(sys.argv[2]))
s.settimeout(20)
ask(s, 'hers')
print(status(s))
";
    assert_eq!(printed(ALICE, &daemon, body), "200");
}

#[test]
fn a_connection_that_was_passed_on_speaks_for_the_one_who_made_it() {
    let token = Token::new();
    let daemon = daemon(&token);
    // Root connects and lets a child of Alice's use it: the kernel still says root, who lives.
    let body = format!(
        "
s = connect()
child = os.fork()
if child == 0:
    os.setresgid({ALICE}, {ALICE}, {ALICE})
    os.setresuid({ALICE}, {ALICE}, {ALICE})
    ask(s, 'hers')
    print(status(s), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"
    );
    assert_eq!(
        printed(us(), &daemon, &body),
        "403",
        "Alice's target is not root's"
    );
}

#[test]
fn the_name_of_the_callers_own_socket_means_nothing() {
    let token = Token::new();
    let daemon = daemon(&token);
    let body = "
import tempfile
tmp = tempfile.mkdtemp()
names = ['\\0assertd', '\\0/run/assertd/admin.sock', '\\0' + '\\xff' * 80, '\\0\\n\\r\\n%s%n', tmp + '/\\n0::x']
for name in names:
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.bind(name.encode('latin-1'))
    s.connect(sys.argv[1])
    ask(s, 'hers')
    one = status(s)
    ask(s, 'bank')
    print(one, status(s))
import shutil
shutil.rmtree(tmp)
";
    assert_eq!(printed(ALICE, &daemon, body), ["200 403"; 5].join("\n"));
}

#[test]
fn a_hostile_process_name_means_nothing() {
    let token = Token::new();
    let daemon = daemon(&token);
    let body = "
s = connect()
for name in ['(x) S 1', 'a\\nUid:\\t0\\t0\\t0\\t0', ') Z 0 0 0', '\\n0::/init.scope']:
    open('/proc/self/comm', 'w').write(name)
    ask(s, 'hers')
    one = status(s)
    ask(s, 'bank')
    print(one, status(s))
";
    assert_eq!(printed(ALICE, &daemon, body), ["200 403"; 4].join("\n"));
}

#[test]
fn half_a_connection_is_enough_for_an_answer() {
    // socat and others say that they are done as soon as they have asked.
    let token = Token::new();
    let daemon = daemon(&token);
    let mut raw = daemon.raw();
    raw.send(&post(BANK)).unwrap();
    raw.end_sending();
    assert_eq!(raw.answer(DEADLINE).expect("an answer").status, 200);
    let mut raw = daemon.raw();
    raw.send(&post_target("none")).unwrap();
    raw.end_sending();
    assert_eq!(raw.answer(DEADLINE).expect("an answer").status, 403);
}
