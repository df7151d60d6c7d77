//! Denials: one answer for every reason, and the reason in the log.

use crate::denylist::is_listed;
use harness::caller::{Caller, PRELUDE, finished, printed, script_as};
use harness::cgroup::Slice;
use harness::daemon::Site;
use harness::hold::{Call, Hold};
use harness::http::{Answer, post_target};
use harness::process::{freeze, send};
use harness::programs::Copies;
use harness::user::{ALICE, BOB, BROKER, STRANGER, exchange_as, need_root};
use harness::{Config, DEADLINE, Daemon, Token, wait_for};
use nix::sys::signal::Signal;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Deny lists: one names a user from the start, the others are empty. That lists of executables need
/// the witness is said while assertd runs, because one that starts does not wait for it.
fn daemon(token: &Token) -> Daemon {
    need_root();
    let config = Config::new(token)
        .workload("alice", ALICE, "")
        .target("alice", "bank", "")
        .workload("bob", BOB, "")
        .target("bob", "vault", "")
        .workload("old", ALICE, "expires = 2020-01-01")
        .target("old", "legacy", "")
        .workload("twin-a", ALICE, "")
        .target("twin-a", "twin", "")
        .workload("twin-b", ALICE, "")
        .target("twin-b", "twin", "")
        .workload("shut", ALICE, "unless = { container = false }")
        .target("shut", "closed", "")
        .workload("stranger", STRANGER, "")
        .target("stranger", "own", "");
    let site = Site::new(config.text());
    let mut deny = "[deny]\n".to_owned();
    for (list, text) in [
        ("users", format!("{STRANGER}\n")),
        ("units", String::new()),
        ("executables", String::new()),
    ] {
        let path = site.config().with_file_name(list);
        std::fs::write(&path, text).unwrap();
        deny += &format!("{list} = \"{}\"\n", path.display());
    }
    site.configure(config.with(&deny).text());
    let daemon = Daemon::start_at(site);
    daemon.apply();
    daemon
}

/// Replaces a deny list, and waits until it is in force.
#[track_caller]
fn list(daemon: &Daemon, name: &str, text: &str) {
    let list = daemon.site().config().with_file_name(name);
    is_listed(daemon, &list, text);
}

/// Who asks for what, and why it is denied.
const DENIED: [(u32, &str, &str); 8] = [
    (ALICE, "nothing", "unknown_target"),
    (ALICE, "vault", "not_yours"),
    (BOB, "bank", "not_yours"),
    (STRANGER, "bank", "not_yours"),
    (ALICE, "legacy", "expired"),
    (ALICE, "twin", "ambiguous"),
    (ALICE, "closed", "not_yours"), // but for its `unless`
    (STRANGER, "own", "listed_user"),
];

/// The whole answer with its id taken out.
pub fn without_id(answer: &Answer) -> String {
    let id = answer.member("id");
    assert_eq!(id.len(), 26, "{answer:?}");
    let text = String::from_utf8(answer.bytes.clone()).unwrap();
    assert_eq!(text.matches(&id).count(), 1);
    text.replace(&id, "ID")
}

#[test]
fn denials_are_the_same_byte_for_byte_whatever_the_reason() {
    let token = Token::new();
    let daemon = daemon(&token);
    let granted = exchange_as(ALICE, &daemon.socket(), &post_target("bank"));
    assert_eq!(granted.status, 200, "the control: {}", granted.body());
    let answers =
        DENIED.map(|(uid, target, _)| exchange_as(uid, &daemon.socket(), &post_target(target)));
    for (answer, denied) in answers.iter().zip(&DENIED) {
        assert_eq!(answer.status, 403, "{denied:?}: {}", answer.body());
        assert_eq!(without_id(answer), without_id(&answers[0]), "{denied:?}");
    }
    let ids: std::collections::HashSet<String> = answers.iter().map(|a| a.member("id")).collect();
    assert_eq!(ids.len(), answers.len(), "an id was used twice");
}

/// Asks on a connection of its own, as `before` has made the caller, and prints the answer's bytes.
fn in_hexadecimal(before: &str, target: &str) -> String {
    format!(
        "
{before}
s.sendall(request('{target}').replace(b'host: a', b'host: a\\r\\nconnection: close'))
say(to_end(s).hex())
"
    )
}

fn answer_in(hexadecimal: &str) -> Answer {
    let bytes = hexadecimal.as_bytes().chunks(2).map(|two| {
        let two = std::str::from_utf8(two).unwrap();
        u8::from_str_radix(two, 16).unwrap_or_else(|_| panic!("{hexadecimal}"))
    });
    Answer::parse(bytes.collect()).expect("a whole answer")
}

/// Reasons of policy, and of who is calling: a caller that cannot be identified is denied like one that
/// may not.
#[test]
fn denials_are_indistinguishable() {
    let token = Token::new();
    let daemon = daemon(&token);
    let socket = daemon.socket();
    let become_alice =
        format!("os.setresgid({ALICE}, {ALICE}, {ALICE})\nos.setresuid({ALICE}, {ALICE}, {ALICE})");
    let script = |before: &str, target: &str| {
        finished(&mut script_as(0, &socket, &in_hexadecimal(before, target)))
    };
    let alices = format!("{become_alice}\ns = connect()");
    let granted = answer_in(&script(&alices, "bank"));
    assert_eq!(granted.status, 200, "the control: {}", granted.body());
    let in_a_container = {
        let mut unshare = Command::new("unshare");
        let words = ["--pid", "--fork", "/usr/bin/python3", "-I", "-c"];
        let script = format!("{PRELUDE}{}", in_hexadecimal(&alices, "bank"));
        finished(unshare.args(words).arg(script).arg(&socket))
    };
    let by_stranger = printed(STRANGER, &socket, &in_hexadecimal("s = connect()", "own"));
    let denials = [
        ("unknown_target", script(&alices, "nothing")),
        ("not_yours", script(&alices, "vault")),
        ("expired", script(&alices, "legacy")),
        ("ambiguous", script(&alices, "twin")),
        ("not_yours", script(&alices, "closed")),
        ("listed_user", by_stranger),
        ("listed_unit", in_a_listed_unit(&daemon, "bank")),
        ("listed_executable", with_a_listed_program(&daemon, "bank")),
        (
            "program_not_attestable",
            with_a_huge_program(&daemon, "bank"),
        ),
        (
            "peer_changed_program",
            with_another_program(&daemon, "bank"),
        ),
        ("not_yours", in_a_container),
        (
            "peer_changed_user",
            script(&format!("s = connect()\n{become_alice}"), "bank"),
        ),
        (
            "peer_changed_user",
            script(
                &format!("os.setresuid(0, {ALICE}, 0)\ns = connect()"),
                "bank",
            ),
        ),
    ]
    .map(|(reason, shown)| (reason, answer_in(&shown)));
    let first = without_id(&denials[0].1);
    for (reason, answer) in &denials {
        assert_eq!(answer.status, 403, "{reason}: {}", answer.body());
        assert_eq!(without_id(answer), first, "{reason}");
        let id = answer.member("id");
        // The first of a kind has a record of its own.
        let recorded = daemon
            .audit_records()
            .into_iter()
            .find(|it| it["id"] == *id);
        if let Some(record) = recorded {
            assert_eq!(record["reason"], *reason, "{record}");
        }
    }
    for (reason, _) in &denials {
        daemon.audit_record(|record| record["reason"] == *reason);
    }
}

/// By the list of units. The others are empty again, for whoever comes next.
fn in_a_listed_unit(daemon: &Daemon, target: &str) -> String {
    let slice = Slice::new();
    let unit = slice.unit("listed.service");
    list(daemon, "units", "listed.service\n");
    let before = "say('ready')\ntold()\ns = connect()";
    let mut caller = Caller::start(ALICE, &daemon.socket(), &in_hexadecimal(before, target));
    caller.expect("ready");
    unit.take(caller.pid());
    caller.tell("ask");
    let answer = caller.rest();
    caller.reap();
    list(daemon, "units", "");
    answer
}

/// Alice runs this Python, and asks.
fn with_program(daemon: &Daemon, python: &Path, target: &str) -> String {
    let usual = in_hexadecimal("s = connect()", target);
    let usual = script_as(ALICE, &daemon.socket(), &usual);
    let mut command = Command::new(python);
    command.args(usual.get_args()).uid(ALICE).gid(ALICE);
    // A witness that starts may be late, which is no denial.
    let answered = wait_for(DEADLINE, || {
        let answer = finished(&mut command);
        (answer_in(&answer).status != 503).then_some(answer)
    });
    answered.expect("the witness answers")
}

fn with_a_listed_program(daemon: &Daemon, target: &str) -> String {
    let copies = Copies::new();
    let python = copies.of("/usr/bin/python3", "python");
    list(daemon, "executables", &copies.sha256("python"));
    with_program(daemon, &python, target)
}

/// As something is listed still: what is longer than the witness hashes.
fn with_a_huge_program(daemon: &Daemon, target: &str) -> String {
    let copies = Copies::new();
    let python = copies.of("/usr/bin/python3", "python");
    let file = OpenOptions::new().write(true).open(&python).unwrap();
    file.set_len((1 << 30) + 1).unwrap();
    drop(file); // nobody executes what somebody may write to
    with_program(daemon, &python, target)
}

/// Alice's process is served, and becomes another program; its child asks on its connection. Another
/// executable is listed, so that it is looked at what runs.
fn with_another_program(daemon: &Daemon, target: &str) -> String {
    list(daemon, "executables", &"ab".repeat(32));
    let before = format!(
        "
s = connect()
answered = 503
while answered == 503:
    ask(s, '{target}')
    answered = status(s)
if answered != 200:
    sys.exit('the control: %d' % answered)
parent = os.getpid()
if os.fork():
    os.set_inheritable(s.fileno(), True)
    os.execv('/usr/bin/sleep', ['sleep', '60'])
until(lambda: os.readlink('/proc/%d/exe' % parent).endswith('/sleep'), 'exec')"
    );
    let mut caller = Caller::start(ALICE, &daemon.socket(), &in_hexadecimal(&before, target));
    let answer = caller.line();
    list(daemon, "executables", "");
    answer
}

/// How long it takes says nothing either: no denial waits for what a grant waits for.
#[test]
fn no_denial_waits_for_the_keystore_or_the_disk() {
    let token = Token::new();
    let daemon = daemon(&token);
    let script = "
granted, denied = connect(), connect()
whoami(denied)
say('ready')
told()
ask(granted, 'bank')
say('asked')
told()
for target in ['nothing', 'vault', 'legacy', 'twin', 'closed']:
    ask(denied, target)
    say(status(denied))
say('waits' if waiting(granted) == 0 else 'answered')
say(status(granted))
";
    let mut caller = Caller::start(ALICE, &daemon.socket(), script);
    caller.expect("ready");
    freeze(daemon.keystore_pid());
    let hold = Hold::attach(daemon.pid(), Call::Fdatasync, "2s", "");
    caller.tell("ask");
    caller.expect("asked");
    hold.wait_inside();
    caller.tell("go on");
    for _ in 0..5 {
        caller.expect("403");
    }
    // What was asked before them has neither its record on the disk nor its signature.
    caller.expect("waits");
    send(daemon.keystore_pid(), Signal::SIGCONT);
    let status = caller.line();
    assert!(["200", "503"].contains(&status.as_str()), "{status}");
}

#[test]
fn the_log_has_the_reason_under_the_id_of_the_answer() {
    let token = Token::new();
    let daemon = daemon(&token);
    let ids = DENIED
        .map(|(uid, target, _)| exchange_as(uid, &daemon.socket(), &post_target(target)))
        .map(|answer| answer.member("id"));
    for ((uid, target, reason), id) in DENIED.into_iter().zip(ids) {
        let record = daemon.audit_record(|record| record["id"] == id.as_str());
        assert_eq!(record["kind"], "denied", "{record}");
        assert_eq!(record["reason"], reason, "{record}");
        assert_eq!(record["uid"], uid, "{record}");
        let named = if reason == "unknown_target" {
            None
        } else {
            Some(target)
        };
        assert_eq!(record["target"].as_str(), named, "{record}");
    }
}

#[test]
fn what_a_caller_may_list_is_its_own() {
    let token = Token::new();
    let daemon = daemon(&token);
    let get = b"GET /v1/targets HTTP/1.1\r\nhost: assertd\r\n\r\n";
    let names = |uid| {
        let answer = exchange_as(uid, &daemon.socket(), get).json();
        let targets = answer["targets"].as_array().unwrap().clone();
        targets
            .iter()
            .map(|t| t["target"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(BOB), ["vault"]);
    assert!(names(BROKER).is_empty(), "no section is about it");
    assert!(names(ALICE).contains(&"bank".to_owned()));
    for not_hers in ["vault", "closed", "own"] {
        assert!(!names(ALICE).contains(&not_hers.to_owned()), "{not_hers}");
    }
}

#[test]
fn the_administrators_socket_is_closed_to_everybody_else() {
    use std::os::unix::fs::PermissionsExt;
    let token = Token::new();
    let daemon = daemon(&token);
    let script = "
import socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print('connected')
except PermissionError:
    print('permission denied')
";
    let connect = |uid| {
        let mut python = harness::user::python_as(uid, script);
        String::from_utf8(python.arg(daemon.admin_socket()).output().unwrap().stdout).unwrap()
    };
    assert_eq!(connect(ALICE).trim(), "permission denied");
    assert_eq!(connect(0).trim(), "connected");
    // Should somebody open the socket's mode, the peer's uid still decides.
    let everybody = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(daemon.admin_socket(), everybody).unwrap();
    for path in ["/v1/status", "/v1/keys", "/", "/v1/nonsense"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: assertd\r\n\r\n");
        let answer = exchange_as(ALICE, &daemon.admin_socket(), request.as_bytes());
        assert_eq!(answer.status, 403, "{path}: {}", answer.body());
    }
    let request = b"GET /v1/status HTTP/1.1\r\nhost: assertd\r\n\r\n";
    assert_eq!(exchange_as(0, &daemon.admin_socket(), request).status, 200);
}
