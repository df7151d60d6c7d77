//! One signature for many requests, counted at the token: who gets it, until when, and what ends it.
//! Each request is decided and recorded for itself all the same.

use crate::observed::{chain_verifies, of_kind};
use harness::assertion::now_s;
use harness::caller::{Caller, script_as};
use harness::fault::{Function, Shimmed};
use harness::http::{Answer, post};
use harness::process::{self, Process};
use harness::user::{ALICE, BOB, exchange_as, need_root};
use harness::{Config, DEADLINE, Daemon, public_dir, replace_file, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The shortest life of an assertion that is handed out again, and half of it.
const LIFETIME_S: u64 = 30;

/// How often a moment may be missed on a machine that is busy.
const TRIES: usize = 5;

/// Asks on so many connections at once, and says how many got an assertion, and how many they were.
const CROWD: &str = "
crowd = [connect() for _ in range(COUNT)]
for s in crowd:
    ask(s, 'aws')
say('asked')
answers = [answer(s) for s in crowd]
import json
got = [json.loads(body)['assertion'] for code, body in answers if code == 200]
say(len(got), len(set(got)))
";

/// Two users whose workloads may have assertions of one issuer, and one with one for a client.
fn config(token: &Shimmed) -> Config {
    need_root();
    let target = |workload: &str, target: &str, extra: &str| {
        format!(
            "[workload.{workload}.target.{target}]\nprofile = \"aws-oidc\"\nissuer = \"prod\"\n\
             subject = \"{workload}\"\naudience = \"sts.amazonaws.com\"\n{extra}"
        )
    };
    Config::new(token)
        .with(
            "[issuer.prod]\nurl = \"https://id.example.com/prod\"\nsubjects = [\"alice\", \"bob\"]\n\
             keystore = \"hsm\"\nalg = \"ES256\"",
        )
        .workload("alice", ALICE, "rate = 1000\nburst = 1000")
        .with(&target("alice", "aws", "lifetime = 600"))
        .with(&target("alice", "each", "reuse = false"))
        .with(&target("alice", "seldom", "rate = 1\nburst = 3"))
        .target("alice", "bank", "")
        .workload("bob", BOB, "")
        .with(&target("bob", "aws", "lifetime = 600"))
}

/// The daemon, and how many signatures its token has made before anybody asked.
fn daemon(token: &Shimmed) -> (Daemon, u64) {
    token.rules("");
    let daemon = Daemon::with_keys(config(token));
    let signed = token.calls(Function::C_Sign);
    (daemon, signed)
}

fn ask(daemon: &Daemon, uid: u32, body: &str) -> Answer {
    exchange_as(uid, &daemon.socket(), &post(body))
}

fn ask_for(daemon: &Daemon, uid: u32, target: &str) -> Value {
    let answer = ask(daemon, uid, &format!("{{\"target\":\"{target}\"}}"));
    assert_eq!(answer.status, 200, "{}", answer.body());
    answer.json()
}

/// The record of the request that was answered so.
fn decision(daemon: &Daemon, answer: &Value) -> Value {
    daemon.audit_record(|it| it["kind"] == "decision" && it["id"] == answer["id"])
}

#[test]
fn one_signature_serves_a_workload_until_half_of_its_life() {
    let token = Shimmed::new();
    let (daemon, before) = daemon(&token);
    let body = format!("{{\"target\":\"aws\",\"lifetime\":{LIFETIME_S}}}");
    let start = Instant::now();
    let (mut seen, mut asked) = (Vec::new(), 0);
    while start.elapsed() < Duration::from_secs(LIFETIME_S + 3) {
        let answer = ask(&daemon, ALICE, &body);
        assert_eq!(answer.status, 200, "{}", answer.body());
        let left_s = answer.json()["expires_at"].as_u64().unwrap() - now_s();
        assert!(left_s + 1 >= LIFETIME_S / 2, "{left_s} s are left of it");
        seen.push(answer.member("assertion"));
        asked += 1;
        std::thread::sleep(Duration::from_millis(500)); // the pace of a client, not a wait
    }
    let signed = token.calls(Function::C_Sign) - before;
    assert_eq!(
        signed, 3,
        "for {asked} requests in two half-lives and a bit"
    );
    assert_eq!(seen.into_iter().collect::<HashSet<_>>().len(), 3);
    assert_eq!(daemon.status().requests.reused, asked - signed);
}

#[test]
fn each_request_has_a_record_of_its_own_that_names_the_first() {
    let token = Shimmed::new();
    let (daemon, _) = daemon(&token);
    let (first, second) = (
        ask_for(&daemon, ALICE, "aws"),
        ask_for(&daemon, ALICE, "aws"),
    );
    assert_eq!(first["assertion"], second["assertion"]);
    assert_ne!(first["id"], second["id"]);
    let (one, other) = (decision(&daemon, &first), decision(&daemon, &second));
    assert_eq!(one["reuse"], Value::Null);
    assert_eq!(other["reuse"]["of"], first["id"]);
    assert!(other["reuse"]["at"].as_u64() >= one["iat"].as_u64());
    for same in [
        "workload",
        "target",
        "kid",
        "jti_sha256",
        "claims_sha256",
        "iat",
        "exp",
    ] {
        assert_eq!(one[same], other[same], "{same}");
    }
    let is_end = |it: &Value| it["kind"] == "outcome" && it["id"] == second["id"];
    assert_eq!(daemon.audit_record(is_end)["result"], "released");
    chain_verifies(&daemon);
}

#[test]
fn no_other_workload_target_or_lifetime_gets_it() {
    let token = Shimmed::new();
    let (daemon, before) = daemon(&token);
    let signed = || token.calls(Function::C_Sign) - before;
    let first = ask_for(&daemon, ALICE, "aws");
    assert_eq!(
        ask_for(&daemon, ALICE, "aws")["assertion"],
        first["assertion"]
    );
    assert_eq!(signed(), 1);
    assert_ne!(
        ask_for(&daemon, BOB, "aws")["assertion"],
        first["assertion"]
    );
    assert_eq!(signed(), 2);
    let shorter = ask(&daemon, ALICE, "{\"target\":\"aws\",\"lifetime\":599}");
    assert_ne!(shorter.json()["assertion"], first["assertion"]);
    assert_eq!(signed(), 3);
    // A longer life than the target's is the target's.
    let longer = ask(&daemon, ALICE, "{\"target\":\"aws\",\"lifetime\":6000}");
    assert_eq!(longer.json()["assertion"], first["assertion"]);
    assert_eq!(signed(), 3);
}

#[test]
fn for_client_authentication_or_if_it_is_not_wanted_each_request_is_signed() {
    let token = Shimmed::new();
    let (daemon, before) = daemon(&token);
    for (target, signed) in [("bank", 3), ("each", 6)] {
        let all: HashSet<String> = (0..3)
            .map(|_| ask_for(&daemon, ALICE, target)["assertion"].to_string())
            .collect();
        assert_eq!(all.len(), 3, "{target}");
        assert_eq!(token.calls(Function::C_Sign) - before, signed, "{target}");
    }
    assert_eq!(daemon.status().requests.reused, 0);
}

#[test]
fn requests_at_the_same_time_are_one_signature() {
    let token = Shimmed::new();
    let (daemon, before) = daemon(&token);
    token.rules("C_Sign * delay:500\n");
    let script = CROWD.replace("COUNT", "30");
    let mut crowd = Caller::run(&mut script_as(ALICE, &daemon.socket(), &script));
    assert_eq!(crowd.line(), "asked");
    assert_eq!(crowd.line(), "30 1", "answers, and different ones");
    assert_eq!(token.calls(Function::C_Sign) - before, 1);
    assert_eq!(token.fired(Function::C_Sign), 1, "it took its time");
    assert_eq!(daemon.status().requests.reused, 29);
}

/// Every workload of a host asks again when assertd has been started anew.
#[test]
fn requests_before_the_keystores_first_answer_are_one_signature() {
    let token = Shimmed::new();
    let (mut daemon, _) = daemon(&token);
    token.rules("C_Login * delay:2000\n");
    for _ in 0..TRIES {
        let (socket, site) = (daemon.socket(), daemon.into_site());
        let process = Process::start(&mut site.command());
        assert!(wait_until(DEADLINE, || UnixStream::connect(&socket).is_ok()));
        let script = CROWD.replace("COUNT", "30");
        let mut crowd = Caller::run(&mut script_as(ALICE, &socket, &script));
        assert_eq!(crowd.line(), "asked");
        let is_before = !process.stderr().contains("assertd: ready:");
        assert_eq!(crowd.line(), "30 1", "answers, and different ones");
        if is_before {
            return;
        }
        daemon = Daemon::ready(process, site);
    }
    panic!("nobody came in time");
}

#[test]
fn the_next_is_served_if_the_one_it_waits_for_hangs_up() {
    let token = Shimmed::new();
    let (daemon, before) = daemon(&token);
    token.rules("C_Sign * delay:500\n");
    let script = "
first, second = connect(), connect()
ask(first, 'aws')
say('asked')
told()
ask(second, 'aws')
say('asked')
told()
first.close()
say(status(second))
";
    let mut caller = Caller::run(&mut script_as(ALICE, &daemon.socket(), script));
    caller.expect("asked");
    assert!(wait_until(DEADLINE, || daemon.status().keystores[0]
        .in_flight
        == 1));
    caller.tell("go on");
    caller.expect("asked");
    caller.tell("go on");
    assert_eq!(caller.line(), "200");
    let signed = token.calls(Function::C_Sign) - before;
    assert!((1..=2).contains(&signed), "{signed}");
}

#[test]
fn another_configuration_ends_it() {
    let token = Shimmed::new();
    let (daemon, before) = daemon(&token);
    let first = ask_for(&daemon, ALICE, "aws");
    let reloaded = daemon.assertctl(&["reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert_ne!(
        ask_for(&daemon, ALICE, "aws")["assertion"],
        first["assertion"]
    );
    assert_eq!(token.calls(Function::C_Sign) - before, 2);
}

#[test]
fn a_key_that_signs_wrongly_takes_with_it_what_it_has_signed() {
    let token = Shimmed::new();
    let (daemon, _) = daemon(&token);
    ask_for(&daemon, ALICE, "aws");
    token.rules("C_Sign * zeros\n");
    let other = ask(&daemon, ALICE, "{\"target\":\"aws\",\"lifetime\":599}");
    assert_eq!(other.problem(), "wrong_signature");
    for uid in [ALICE, BOB] {
        let answer = ask(&daemon, uid, "{\"target\":\"aws\"}");
        assert_eq!(answer.problem(), "key_unavailable", "{}", answer.body());
    }
}

#[test]
fn it_is_handed_out_while_the_keystore_is_away() {
    let token = Shimmed::new();
    let (daemon, before) = daemon(&token);
    let first = ask_for(&daemon, ALICE, "aws");
    process::freeze(daemon.keystore_pid());
    assert_eq!(
        ask_for(&daemon, ALICE, "aws")["assertion"],
        first["assertion"]
    );
    let other = ask(&daemon, BOB, "{\"target\":\"aws\"}");
    assert_eq!(other.status, 503, "it is away: {}", other.body());
    assert_eq!(token.calls(Function::C_Sign) - before, 1);
    process::send(daemon.keystore_pid(), Signal::SIGCONT);
}

/// Asks on so many connections at once, and says how many were told that the keystore is silent.
const CROWD_BEHIND_NOTHING: &str = "
crowd = [connect() for _ in range(200)]
for s in crowd:
    ask(s, 'aws')
say('asked')
answers = [answer(s) for s in crowd]
say(sum('has been silent' in body for _, body in answers), sum(code == 503 for code, _ in answers))
";

/// As many as may wait for a signature of their own each; or one user's connections were all held.
#[test]
fn a_crowd_behind_one_signature_gives_a_silent_keystore_up_too() {
    let token = Shimmed::new();
    let (daemon, _) = daemon(&token);
    process::freeze(daemon.keystore_pid());
    let mut crowd = Caller::run(&mut script_as(
        ALICE,
        &daemon.socket(),
        CROWD_BEHIND_NOTHING,
    ));
    assert_eq!(crowd.line(), "asked");
    let said = crowd.line();
    process::send(daemon.keystore_pid(), Signal::SIGCONT);
    let numbers: Vec<usize> = said.split(' ').map(|it| it.parse().unwrap()).collect();
    assert_eq!(numbers[1], 200, "it is away");
    assert!(numbers[0] >= 200 - 64, "{} of 200 gave it up", numbers[0]);
    ask_for(&daemon, ALICE, "aws");
}

#[test]
fn each_request_is_decided_anew() {
    let token = Shimmed::new();
    let (daemon, _) = daemon(&token);
    ask_for(&daemon, ALICE, "aws");
    let of_another = format!("uid = {}", BOB + 1);
    let text = config(&token)
        .text()
        .replace(&format!("uid = {ALICE}"), &of_another);
    daemon.site().configure(&text);
    let reloaded = daemon.assertctl(&["reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    let answer = ask(&daemon, ALICE, "{\"target\":\"aws\"}");
    assert_eq!(answer.problem(), "denied", "{}", answer.body());
    let released = of_kind(&daemon.audit_records(), "decision").len();
    assert_eq!(released, 1);
}

/// A deny list ends nothing that is kept, and is asked each time: who is taken off gets it again.
#[test]
fn who_is_denied_gets_nothing_that_is_kept() {
    let token = Shimmed::new();
    token.rules("");
    let dir = public_dir();
    let users = dir.path().join("users");
    replace_file(&users, "");
    let deny = format!("[deny]\nusers = \"{}\"\n", users.display());
    let daemon = Daemon::with_keys(config(&token).with(&deny));
    let before = token.calls(Function::C_Sign);
    let first = ask_for(&daemon, ALICE, "aws");
    let status = || ask(&daemon, ALICE, "{\"target\":\"aws\"}").status;
    replace_file(&users, &format!("{ALICE}\n"));
    assert!(wait_until(DEADLINE, || status() == 403));
    replace_file(&users, "");
    assert!(wait_until(DEADLINE, || status() == 200));
    let again = ask_for(&daemon, ALICE, "aws");
    assert_eq!(again["assertion"], first["assertion"]);
    assert_eq!(token.calls(Function::C_Sign) - before, 1);
}

#[test]
fn what_is_handed_out_again_counts_for_the_rate() {
    let token = Shimmed::new();
    let (daemon, before) = daemon(&token);
    let script = "
s = connect()
for _ in range(20):
    ask(s, 'seldom')
    code = status(s)
    if code != 200:
        break
say(code)
";
    let mut caller = Caller::run(&mut script_as(ALICE, &daemon.socket(), script));
    assert_eq!(caller.line(), "429");
    assert!(
        daemon.status().requests.reused >= 2,
        "none was handed out again"
    );
    assert_eq!(token.calls(Function::C_Sign) - before, 1);
}

/// A life of a second, and a token that takes longer to sign.
#[test]
fn what_is_over_before_it_is_made_is_handed_to_nobody() {
    let token = Shimmed::new();
    let (daemon, signed) = daemon(&token);
    token.rules("C_Sign * delay:2100\n");
    for target in ["bank", "each"] {
        let body = format!("{{\"target\":\"{target}\",\"lifetime\":1}}");
        let answer = ask(&daemon, ALICE, &body);
        assert_eq!(answer.status, 503, "{}", answer.body());
        assert!(
            answer.body().contains("problem:expired"),
            "{}",
            answer.body()
        );
        let id = answer.json()["id"].clone();
        let outcome = daemon.audit_record(|it| it["kind"] == "outcome" && it["id"] == id);
        assert_eq!(outcome["reason"], "expired", "{outcome}");
    }
    assert_eq!(token.calls(Function::C_Sign), signed + 2, "both were made");
    token.rules("");
    ask_for(&daemon, ALICE, "bank");
}
