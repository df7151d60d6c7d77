//! A kernel without SO_PEERPIDFD (before 6.5), as assertd sees one: a seccomp filter answers that
//! one option with ENOPROTOOPT, and PIDFD_GET_INFO (6.13) with ENOTTY; everything else is the real kernel. Workloads are served there only
//! if they say so, and who has died, or taken a number over, is not the caller.

use crate::denial::without_id;
use crate::world::{BANK, bank, serves};
use harness::daemon::Site;
use harness::hold::{Call, Hold};
use harness::http::{Answer, post};
use harness::pidspace::PidSpace;
use harness::process::{self, Process};
use harness::user::{ALICE, exchange_as, need_root, python_as};
use harness::{Config, DEADLINE, Daemon, Token, public_dir, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// Installs a filter and becomes the command that follows. The program is that of seccomp(2): another
/// architecture, call, level or option passes. `filter` hides both, `files` only PIDFD_GET_INFO, so that
/// what a process is has to be read from its files; `no filter` is the control.
const OLD_KERNEL: &str = "
import ctypes, os, platform, struct, sys
ARCH, GETSOCKOPT, IOCTL = {'x86_64': (0xC000003E, 55, 16), 'aarch64': (0xC00000B7, 209, 29)}[platform.machine()]
SOL_SOCKET, SO_PEERPIDFD, ENOPROTOOPT = 1, 77, 92
PIDFD_GET_INFO, ENOTTY = 0xC040FF0B, 25
LOAD, JUMP_IF, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
def op(code, value, yes=0, no=0):
    return struct.pack('=HBBI', code, yes, no, value)
def need(offset, value, skip):
    return op(LOAD, offset) + op(JUMP_IF, value, 0, skip)
allow = op(RETURN, ALLOW)
info = need(0, IOCTL, 4) + need(24, PIDFD_GET_INFO, 1) + op(RETURN, ERRNO | ENOTTY) + allow
peer = (need(0, GETSOCKOPT, 5) + need(24, SOL_SOCKET, 3)
        + need(32, SO_PEERPIDFD, 1) + op(RETURN, ERRNO | ENOPROTOOPT) + allow)
wrong_arch = op(LOAD, 4) + op(JUMP_IF, ARCH, 1, 0) + allow
program = wrong_arch + info + (peer if sys.argv[1] == 'filter' else allow)
class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
if sys.argv[1] != 'no filter':
    filter = Program(len(program) // 8, program)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter)):
        sys.exit('seccomp: ' + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
";

/// How often an attack is tried whose moment may be missed on a machine that is busy.
const TRIES: usize = 5;

/// assertd's command below [`OLD_KERNEL`].
fn command(site: &Site, filter: &str) -> Command {
    let assertd = site.command();
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-I", "-c", OLD_KERNEL, filter]);
    python.arg(assertd.get_program()).args(assertd.get_args());
    python.stdin(Stdio::null()).stdout(Stdio::null());
    python
}

/// A daemon below it, with its keys.
pub fn start(config: &Config, filter: &str) -> Daemon {
    let site = Site::new(config.text());
    let daemon = Daemon::ready(Process::start(&mut command(&site, filter)), site);
    daemon.apply();
    daemon
}

/// Root owns `bank` and says nothing; Alice owns `hers` and allows the fallback.
fn config(token: &Token) -> Config {
    need_root();
    let config = bank(token).workload("alice", ALICE, "allow_pid_fallback = true");
    config.target("alice", "hers", "")
}

const HERS: &str = r#"{"target":"hers"}"#;

fn alice_asks(daemon: &Daemon) -> Answer {
    exchange_as(ALICE, &daemon.socket(), &post(HERS))
}

#[test]
fn without_the_filter_the_same_start_has_pidfds() {
    let token = Token::new();
    let mut daemon = start(&config(&token), "no filter");
    assert_eq!(daemon.status().peer_proof, "pidfd");
    serves(&mut daemon);
    let record = daemon.audit_record(|record| record["kind"] == "decision");
    assert_eq!(record["peer_proof"], "pidfd", "{record}");
}

#[test]
fn no_peerpidfd_means_no_service_unless_the_workload_allows_it() {
    let token = Token::new();
    let daemon = start(&config(&token), "filter");
    assert_eq!(daemon.status().peer_proof, "pid");
    let status = daemon.assertctl(&["status"]);
    let shown = String::from_utf8(status.stdout).unwrap();
    assert!(shown.contains("allow_pid_fallback"), "{shown}");

    let answer = daemon.ask(BANK);
    assert_eq!(answer.status, 403, "{}", answer.body());
    let record = daemon.audit_record(|record| record["kind"] == "denied");
    assert_eq!(record["reason"], "weak_proof", "{record}");
    // The caller learns no more than from any other denial: see `denial`.
    let unknown = daemon.ask(r#"{"target":"none"}"#);
    assert_eq!(without_id(&answer), without_id(&unknown));

    let answer = alice_asks(&daemon);
    assert_eq!(answer.status, 200, "{}\n{}", answer.body(), daemon.stderr());
    let record = daemon.audit_record(|record| record["kind"] == "decision");
    assert_eq!(
        (&record["peer_proof"], &record["uid"]),
        (&"pid".into(), &ALICE.into()),
        "{record}"
    );
    let requests = daemon.status().requests;
    assert_eq!(requests.released, 1, "{requests:?}");
}

/// Connects, lets a child hold the connection, and ends. The child then says what it was sent: it
/// would get an answer that was meant for its parent.
const LEAVES: &str = "
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
body = b'{\"target\":\"hers\"}'
s.sendall(b'POST /v1/assertion HTTP/1.1\\r\\nhost: a\\r\\ncontent-length: %d\\r\\n\\r\\n%s' % (len(body), body))
if os.fork() == 0:
    try:
        got = s.recv(65536)
    except ConnectionResetError:
        got = b''
    print(len(got), flush=True)
    os._exit(0)
print('asked', flush=True)
os._exit(0)
";

#[test]
fn a_peer_that_died_before_it_was_accepted_gets_nothing() {
    let token = Token::new();
    let daemon = start(&config(&token), "filter");
    for reaped in [true, false] {
        daemon.freeze();
        let mut leaves = python_as(ALICE, LEAVES);
        leaves.arg(daemon.socket()).stdout(Stdio::piped());
        let mut peer = leaves.spawn().unwrap();
        let mut says = BufReader::new(peer.stdout.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        assert_eq!(line, "asked\n");
        if reaped {
            peer.wait().unwrap();
        } else {
            assert!(wait_until(DEADLINE, || process::state(peer.id()) == Some('Z')));
        }
        daemon.signal(Signal::SIGCONT);
        let mut rest = String::new();
        says.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "0\n", "bytes for a dead peer (reaped: {reaped})");
        peer.wait().unwrap();
    }
    assert_eq!(alice_asks(&daemon).status, 200, "the control");
    let decisions = daemon.audit_records();
    let decisions = decisions
        .iter()
        .filter(|record| record["kind"] == "decision");
    assert_eq!(decisions.count(), 1);
}

#[test]
fn a_connection_outlives_no_connector_without_pidfds_of_the_kernel_either() {
    let token = Token::new();
    let daemon = start(&config(&token), "filter");
    // The child asks only once its parent, who connected and was served, is over.
    let script = "
import os, select, socket, sys
body = b'{\"target\":\"hers\"}'
def status():
    s.sendall(b'POST /v1/assertion HTTP/1.1\\r\\nhost: a\\r\\ncontent-length: %d\\r\\n\\r\\n%s' % (len(body), body))
    try:
        return s.recv(65536)[9:12].decode() or 'nothing'
    except ConnectionResetError:
        return 'nothing'
served = '503'
for _ in range(20):
    if served != '503':
        break
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(sys.argv[1])
    served = status()
print(served, flush=True)
parent = select.poll()
parent.register(os.pidfd_open(os.getpid()), select.POLLIN)
if os.fork() == 0:
    parent.poll()
    print(status(), flush=True)
";
    let mut python = python_as(ALICE, script);
    let output = python.arg(daemon.socket()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200\nnothing\n");
    let record = daemon.audit_record(|record| record["kind"] == "denied");
    assert_eq!(record["reason"], "peer_gone", "{record}");
}

/// assertd in a pid namespace. From outside of it nobody is served, administrators neither: keys are
/// made before.
fn pid_space(token: &Token) -> PidSpace {
    let mut daemon = start(&config(token), "filter");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    let site = daemon.into_site();
    let old_kernel = command(&site, "filter");
    PidSpace::start(site, &old_kernel, ALICE)
}

/// An actor asks on new connections until it is older than one of them, and is served.
fn is_served(space: &mut PidSpace, name: &str) {
    let mut said = String::from("503");
    for _ in 0..10 {
        if said != "503" {
            break;
        }
        said = space.tell(name, "afresh hers");
    }
    assert_eq!(said, "200", "{}", space.daemon().stderr());
}

fn decisions(space: &PidSpace) -> usize {
    let records = space.daemon().audit_records();
    records.iter().filter(|it| it["kind"] == "decision").count()
}

/// A peer connects and ends while assertd is between accepting and opening its number; then another
/// process of the same user gets the number, and asks on the same connection.
#[test]
fn a_process_that_took_the_number_of_a_dead_peer_is_not_the_peer() {
    let token = Token::new();
    let mut space = pid_space(&token);
    space.actor("stays", "none", None);
    is_served(&mut space, "stays");

    let hit = (1..=TRIES).any(|attempt| {
        let socket = format!("held{attempt}");
        let number = space.actor("first", &socket, None);
        let hold = Hold::attach(space.assertd(), Call::PidfdOpen, "2s", "");
        assert_eq!(space.tell("first", "connect"), "connected");
        hold.wait_inside();
        space.end("first");
        space.successor("second", &socket, None, ("first", number));
        let in_time = hold.inside();
        assert_eq!(space.tell("second", "send hers"), "sent");
        let answer = space.tell("second", "read");
        hold.end();
        if in_time {
            assert_eq!(answer, "503");
        } else {
            assert_ne!(answer, "200");
            space.end("second");
        }
        in_time
    });
    assert!(
        hit,
        "each time assertd opened the number before it was taken again"
    );
    assert_eq!(decisions(&space), 1);
    // On its own connection it is itself.
    is_served(&mut space, "second");
    is_served(&mut space, "stays");
    assert_eq!(decisions(&space), 3);
}

#[test]
fn a_process_that_took_the_number_of_a_peer_that_was_served_is_not_the_peer() {
    let token = Token::new();
    let mut space = pid_space(&token);
    let number = space.actor("first", "served", None);
    is_served(&mut space, "first"); // and is old enough from now on
    assert_eq!(space.tell("first", "connect"), "connected");
    assert_eq!(space.tell("first", "send hers"), "sent");
    assert_eq!(space.tell("first", "read"), "200");
    space.end("first");
    space.successor("second", "served", None, ("first", number));
    assert_eq!(space.tell("second", "send hers"), "sent");
    assert_eq!(space.tell("second", "read"), "nothing");
    let denied = space
        .daemon()
        .audit_record(|record| record["reason"] == "peer_gone");
    assert_eq!(denied["pid"], number, "{denied}");
    assert_eq!(decisions(&space), 2);
    is_served(&mut space, "second");
}

/// Runs `impostor` with Alice's uid and some of root's powers against a frozen and a running assertd; what it
/// counted.
fn attacked(daemon: &Daemon, attempts: usize) -> Value {
    let public = public_dir(); // he may not enter the directory that it was built in
    let program = public.path().join("impostor");
    std::fs::copy(env!("CARGO_BIN_EXE_impostor"), &program).unwrap();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", &ALICE.to_string(), "--regid", &ALICE.to_string()]);
    let powers = "+checkpoint_restore,+kill,+dac_override";
    setpriv.args([
        "--clear-groups",
        "--inh-caps",
        powers,
        "--ambient-caps",
        powers,
    ]);
    setpriv.arg(program).arg(daemon.socket()).arg("hers");
    setpriv.args([daemon.pid().to_string(), attempts.to_string()]);
    let output = setpriv.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{output:?}\n{}", daemon.stderr());
    serde_json::from_str(&said).unwrap()
}

/// Every process of Alice's may have `hers`, so that whatever an assertion is written to is hers; but
/// whose answer is read connected as a process that is over, and never got one for itself.
fn impostors_gain_nothing(attempts: usize) {
    let token = Token::new();
    let daemon = start(&config(&token), "filter");
    let counts = attacked(&daemon, attempts);
    for control in ["before", "after"] {
        assert_eq!(counts["controls"][control]["victim"], "200", "{counts}");
    }
    assert_eq!(counts["attempts"], attempts, "{counts}");
    // Another process may take a number away from us, now and then.
    let reused = counts["reused"].as_u64().unwrap() as usize;
    assert!(reused > attempts * 9 / 10, "{counts}");
    assert!(
        counts["while_stopped"].as_u64().unwrap() as usize > attempts / 3,
        "{counts}"
    );
    assert_eq!(counts["assertions"], 0, "{counts}");
    let records = daemon.audit_records();
    let decided = records.iter().filter(|record| record["kind"] == "decision");
    assert_eq!(decided.count(), 4, "the controls' alone");
}

#[test]
fn a_number_taken_over_hundreds_of_times_gains_nothing() {
    impostors_gain_nothing(400);
}

#[test]
#[ignore = "long: ten thousand processes take half a minute (2026-11-23)"]
fn a_number_taken_over_ten_thousand_times_gains_nothing() {
    impostors_gain_nothing(10_000);
}
