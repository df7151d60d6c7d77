//! Many workloads before one slow token: each gets its share, and whoever asks rarely waits for nobody's
//! backlog. What is counted is signatures, never time.

use crate::observed::of_kind;
use harness::caller::{Caller, script_as};
use harness::fault::{Function, Shimmed};
use harness::http::post_target;
use harness::token::KEYSTORE;
use harness::user::{ALICE, BOB, exchange_as, need_root};
use harness::{Config, DEADLINE, Daemon, wait_until};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Asks on so many connections, each again as soon as it is served, until it is told to end; says then
/// how many answers were which.
const GREEDY: &str = "
from collections import Counter
crowd = [connect() for _ in range(COUNT)]
for s in crowd:
    ask(s, TARGET)
say('asked')
answers, ending = Counter(), False
while crowd:
    for s in select.select(crowd + ([] if ending else [sys.stdin]), [], [])[0]:
        if s is sys.stdin:
            ending = True
            continue
        code, body = answer(s)
        answers[code] += 1
        if code == 503 and 'queue_full' not in body:
            sys.exit(body)
        if ending or code != 200:
            crowd.remove(s)
        else:
            ask(s, TARGET)
say(answers[200], answers[503], sum(answers.values()))
";

/// A daemon whose one signer takes so long, with a section for each user.
fn daemon(token: &Shimmed, delay_ms: u32, sections: &[(&str, u32, &str)]) -> Daemon {
    need_root();
    token.rules("");
    let mut config = Config::default().keystore(KEYSTORE, token, "signers = 1\n");
    for (name, uid, extra) in sections {
        config = config.workload(name, *uid, extra).target(name, name, "");
    }
    let daemon = Daemon::with_keys(config);
    token.rules(&format!("C_Sign * delay:{delay_ms}\n"));
    // It is known by now that a signature takes that long.
    for (name, uid, _) in sections {
        let answer = exchange_as(*uid, &daemon.socket(), &post_target(name));
        assert_eq!(answer.status, 200, "{}", answer.body());
    }
    daemon
}

fn greedy(daemon: &Daemon, uid: u32, target: &str, count: usize) -> Caller {
    let script = GREEDY.replace("COUNT", &count.to_string());
    let script = script.replace("TARGET", &format!("'{target}'"));
    let mut caller = Caller::run(&mut script_as(uid, &daemon.socket(), &script));
    caller.expect("asked");
    caller
}

fn queued(daemon: &Daemon) -> usize {
    daemon.status().keystores[0].queued
}

/// Whose assertions were released, in order: by the records of outcomes.
fn released(records: &[Value]) -> Vec<String> {
    let decisions = of_kind(records, "decision");
    let workload = |id: &Value| {
        let decision = decisions.iter().find(|it| it["id"] == *id).unwrap();
        decision["workload"].as_str().unwrap().to_owned()
    };
    let outcomes = of_kind(records, "outcome").into_iter();
    let released = outcomes.filter(|it| it["result"] == "released");
    released.map(|it| workload(&it["id"])).collect()
}

/// How many were released from the moment that this request was decided until it was itself: by the
/// order of the records.
fn signed_before(daemon: &Daemon, id: &Value) -> usize {
    daemon.audit_record(|it| it["kind"] == "outcome" && it["id"] == *id);
    let records = daemon.audit_records();
    let of_it = |kind: &str| {
        let is_it = |it: &Value| it["kind"] == kind && it["id"] == *id;
        records.iter().position(is_it).unwrap()
    };
    let between = &records[of_it("decision")..of_it("outcome")];
    of_kind(between, "outcome").len()
}

#[test]
fn who_asks_rarely_waits_for_no_backlog_of_others() {
    let token = Shimmed::new();
    let daemon = daemon(&token, 100, &[("greedy", ALICE, ""), ("quiet", BOB, "")]);
    let mut greedy = greedy(&daemon, ALICE, "greedy", 30);
    assert!(wait_until(DEADLINE, || queued(&daemon) >= 25));
    for _ in 0..5 {
        assert!(queued(&daemon) >= 20, "there is a backlog");
        let answer = exchange_as(BOB, &daemon.socket(), &post_target("quiet"));
        assert_eq!(answer.status, 200, "{}", answer.body());
        // One that is signed as it comes, one whose turn it is, and one that ends between two looks.
        let before = signed_before(&daemon, &answer.json()["id"]);
        assert!(before <= 3, "{before} others went before it");
    }
    greedy.tell("end");
    let said = greedy.line();
    assert!(
        said.split(' ').nth(1) == Some("0"),
        "200s, 503s, all: {said}"
    );
}

/// Four seconds of signatures wait; who asks how it is, or for nothing that is signed, waits for none.
#[test]
fn administrators_and_who_wants_no_signature_do_not_wait_in_the_queue() {
    let token = Shimmed::new();
    let daemon = daemon(&token, 200, &[("greedy", ALICE, ""), ("quiet", BOB, "")]);
    let mut greedy = greedy(&daemon, ALICE, "greedy", 20);
    assert!(wait_until(DEADLINE, || queued(&daemon) >= 19));
    let old = |daemon: &Daemon| daemon.status().keystores[0].oldest_ms;
    assert!(wait_until(DEADLINE, || old(&daemon) > 2_000));
    let get = |path| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let began = Instant::now();
    daemon.status();
    let of_status = began.elapsed();
    for path in ["/v1/whoami", "/v1/targets"] {
        let answer = exchange_as(BOB, &daemon.socket(), get(path).as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.body());
    }
    let took = began.elapsed();
    assert!(queued(&daemon) >= 15, "there is a backlog");
    assert!(
        of_status < Duration::from_secs(1),
        "status took {of_status:?}"
    );
    assert!(took < Duration::from_secs(3), "all of it took {took:?}");
    greedy.tell("end");
    greedy.line();
}

#[test]
fn shares_follow_the_weights() {
    let token = Shimmed::new();
    let sections = [("one", ALICE, ""), ("three", BOB, "weight = 3")];
    let daemon = daemon(&token, 30, &sections);
    let mut callers = [
        greedy(&daemon, ALICE, "one", 20),
        greedy(&daemon, BOB, "three", 20),
    ];
    assert!(wait_until(DEADLINE, || queued(&daemon) >= 35));
    let before = released(&daemon.audit_records()).len();
    let of_both = || released(&daemon.audit_records()).split_off(before);
    assert!(wait_until(DEADLINE, || of_both().len() >= 80));
    let of_both = of_both();
    let of_one = of_both.iter().filter(|whose| *whose == "one").count();
    let wanted = of_both.len() / 4;
    assert!(
        of_one.abs_diff(wanted) <= 1 + wanted / 10,
        "{of_one} of {}",
        of_both.len()
    );
    for caller in &mut callers {
        caller.tell("end");
        caller.line();
    }
}

#[test]
fn what_could_not_be_answered_in_time_is_refused_at_once_and_never_signed() {
    let token = Shimmed::new();
    let daemon = daemon(&token, 200, &[("greedy", ALICE, "")]);
    let signed = token.calls(Function::C_Sign);
    let mut greedy = greedy(&daemon, ALICE, "greedy", 100);
    let refused = || daemon.status().requests.unavailable;
    assert!(wait_until(DEADLINE, || refused() > 0));
    assert!(
        token.calls(Function::C_Sign) - signed < 10,
        "nobody waited for it"
    );
    greedy.tell("end");
    let said = greedy.line();
    let numbers: Vec<u64> = said.split(' ').map(|it| it.parse().unwrap()).collect();
    let [served, refused, all] = numbers[..] else {
        panic!("{said}");
    };
    assert_eq!(served + refused, all);
    assert!(served > 0 && refused > 0, "{said}");
    assert_eq!(token.calls(Function::C_Sign) - signed, served);
}
