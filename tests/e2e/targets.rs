//! What a target demands by itself: how well its key is known to live in hardware, and how often it
//! may be asked for.

use crate::world::{code, us};
use harness::http::{Answer, post_target};
use harness::user::{ALICE, exchange_as, need_root};
use harness::{Config, DEADLINE, Daemon, Token, wait_until};

/// From the least.
const LEVELS: [&str; 4] = ["none", "asserted", "device-attested", "tpm-certified"];

fn ask(daemon: &Daemon, target: &str) -> Answer {
    daemon.ask(&format!("{{\"target\":\"{target}\"}}"))
}

fn with_targets(token: &Token, targets: &[(&str, String)]) -> Config {
    let config = Config::new(token).workload("ours", us(), "");
    let targets = targets.iter();
    targets.fold(config, |config, (name, more)| {
        config.target("ours", name, more)
    })
}

#[test]
fn a_key_of_which_less_is_known_than_its_target_demands_is_not_used() {
    let token = Token::new();
    let targets = LEVELS.map(|level| (level, format!("evidence = \"{level}\"")));
    let daemon = Daemon::with_keys(with_targets(&token, &targets));
    let keys = daemon.keys();
    let known = |target: &str| {
        let name = format!("ours/{target}");
        let key = keys.iter().find(|key| key.key.starts_with(&name));
        let key = key.unwrap_or_else(|| panic!("no {name} in {keys:?}"));
        LEVELS.iter().position(|level| *level == key.evidence)
    };
    let (mut used, mut refused) = (Vec::new(), Vec::new());
    for (demanded, target) in LEVELS.into_iter().enumerate() {
        let answer = ask(&daemon, target);
        if known(target).expect("a level that there is") >= demanded {
            assert_eq!(answer.status, 200, "{target}: {}", answer.body());
            used.push(target);
            continue;
        }
        let told = (answer.status, code(&answer));
        assert_eq!(told, (503, "evidence_too_low".to_owned()), "{target}");
        let detail = answer.member("detail");
        for part in [
            &format!("target {target} of workload ours wants `{target}` at least"),
            &format!("key ours/{target}"),
            "an administrator",
        ] {
            assert!(detail.contains(part), "{part:?} is not in: {detail}");
        }
        refused.push(target);
    }
    // Of a module's keys there is its word alone; a TPM proves what it says.
    assert!(used.contains(&"none") && used.len() >= 2, "{used:?}");
    let is_proven = token.kind() == harness::token::Kind::Tpm;
    assert_eq!(refused.is_empty(), is_proven, "{refused:?}");
    let records = daemon.audit_records();
    let granted = records.iter().filter(|it| it["kind"] == "decision");
    assert_eq!(granted.count(), used.len(), "nothing is decided before");

    // The administrator asks for less.
    let targets = LEVELS.map(|level| (level, "evidence = \"none\"".to_owned()));
    let less = with_targets(&token, &targets);
    daemon.site().configure(less.text());
    assert_eq!(daemon.assertctl(&["reload"]).status.code(), Some(0));
    for target in LEVELS {
        assert_eq!(ask(&daemon, target).status, 200, "{target}");
    }
}

/// Asks until it is told to wait: how often it was served before, and that answer.
#[track_caller]
fn until_too_often(daemon: &Daemon, target: &str) -> (usize, Answer) {
    for served in 0..50 {
        let answer = ask(daemon, target);
        if answer.status != 200 {
            let told = (answer.status, code(&answer));
            assert_eq!(told, (429, "too_many_requests".to_owned()), "{target}");
            return (served, answer);
        }
    }
    panic!("{target}: 50 requests and no limit")
}

#[test]
fn a_target_with_a_rate_of_its_own_is_limited_by_itself_and_no_other_is() {
    need_root();
    let token = Token::new();
    let targets = [
        ("slow", "rate = 1\nburst = 4".to_owned()),
        ("brisk", "rate = 2".to_owned()),
        ("free", String::new()),
    ];
    let config = with_targets(&token, &targets).workload("alice", ALICE, "");
    let daemon = Daemon::with_keys(config.target("alice", "slow", "rate = 1\nburst = 4"));
    // More of them may pass if asking takes seconds, fewer may not.
    let (served, refused) = until_too_often(&daemon, "slow");
    assert!(served >= 4, "the burst: {served}");
    let wait_s: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait_s), "{wait_s}");
    let (served, _) = until_too_often(&daemon, "brisk");
    assert!(served >= 2, "without a burst it is the rate: {served}");
    // Neither the workload nor who has a target of that name is above its rate.
    for _ in 0..5 {
        assert_eq!(ask(&daemon, "free").status, 200);
    }
    let other = exchange_as(ALICE, &daemon.socket(), &post_target("slow"));
    assert_eq!(other.status, 200, "{}", other.body());
    for target in ["slow", "brisk"] {
        let served = wait_until(DEADLINE, || ask(&daemon, target).status == 200);
        assert!(served, "{target} is still refused");
    }
}
