//! Denials: one answer for every reason, and the reason in the log.

use harness::caller::{Caller, PRELUDE, finished, script_as};
use harness::hold::{Call, Hold};
use harness::http::{Answer, post_target};
use harness::process::{freeze, send};
use harness::user::{ALICE, BOB, STRANGER, exchange_as};
use harness::{Config, Daemon, Token};
use nix::sys::signal::Signal;
use std::process::Command;

fn daemon(token: &Token) -> Daemon {
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
        .target("twin-b", "twin", "");
    Daemon::with_keys(config)
}

/// Who asks for what, and why it is denied.
const DENIED: [(u32, &str, &str); 6] = [
    (ALICE, "nothing", "unknown_target"),
    (ALICE, "vault", "not_yours"),
    (BOB, "bank", "not_yours"),
    (STRANGER, "bank", "not_yours"),
    (ALICE, "legacy", "expired"),
    (ALICE, "twin", "ambiguous"),
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
    let denials = [
        ("unknown_target", script(&alices, "nothing")),
        ("not_yours", script(&alices, "vault")),
        ("expired", script(&alices, "legacy")),
        ("ambiguous", script(&alices, "twin")),
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
    for reason in [
        "unknown_target",
        "not_yours",
        "expired",
        "ambiguous",
        "peer_changed_user",
    ] {
        daemon.audit_record(|record| record["reason"] == reason);
    }
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
for target in ['nothing', 'vault', 'legacy', 'twin']:
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
    for _ in 0..4 {
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
    assert!(names(STRANGER).is_empty());
    assert!(names(ALICE).contains(&"bank".to_owned()));
    assert!(!names(ALICE).contains(&"vault".to_owned()));
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
