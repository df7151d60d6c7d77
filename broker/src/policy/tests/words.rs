//! What people read: of every selector what is demanded, and what a workload has instead.

use super::model::{Conditions, Place};
use super::single::{fitting, plain};
use super::*;

/// Every selector at once; the group is one that every system has.
fn demanding() -> Rule {
    let matches = Conditions {
        unit: Some("/system.slice/app@*.service"),
        slice: Some("team.slice"),
        user_unit: Some("sync@*.service"),
        uid: Some(9),
        gid: Some(8),
        supplementary_group: Some(("root".to_owned(), 0)),
        exe: Some("/usr/bin/app"),
        exe_sha256: vec!["pay", "app"],
        container: Some(true),
        interactive: Some(false),
    };
    Rule { matches, ..plain() }
}

/// Key, what is demanded, what is there.
fn told(rule: &Rule, caller: &Caller) -> Vec<(&'static str, String, String, Verdict)> {
    let rules = [rule.clone()];
    let now = Time::from_unix_s(NOW_S);
    let mut explanation = policy(&rules).explain(&caller.workload(), "bank", now);
    let judged = explanation.sections.remove(0).matches;
    judged
        .into_iter()
        .map(|j| (j.key, j.wanted, j.found, j.verdict))
        .collect()
}

fn found(rule: &Rule, caller: &Caller) -> Vec<String> {
    told(rule, caller)
        .into_iter()
        .map(|(.., found, _)| found)
        .collect()
}

#[test]
fn every_selector_says_what_is_demanded_and_what_is_there() {
    let (pay, app) = (model::digest("pay"), model::digest("app"));
    let caller = Caller {
        groups: vec![4, 5],
        session: Session::Login("session-3.scope".to_owned()),
        program: Ok((Some("/usr/bin/web"), "web")),
        ..fitting()
    };
    let judged = told(&demanding(), &caller);
    assert!(
        judged
            .iter()
            .all(|(.., verdict)| *verdict == Verdict::Fails),
        "{judged:?}"
    );
    let web = model::digest("web").to_string();
    let wanted = [
        (
            "unit",
            "/system.slice/app@*.service",
            "/system.slice/pay.service",
        ),
        ("slice", "team.slice", "system.slice"),
        ("user_unit", "sync@*.service", "none"),
        ("user", "9", "7"),
        ("group", "8", "7"),
        ("supplementary_group", "0", "4, 5"),
        ("exe", "/usr/bin/app", "/usr/bin/web"),
        ("exe_sha256", &format!("{pay} or {app}"), &web),
        ("container", "true", "false"),
        (
            "interactive",
            "false",
            "true: it belongs to session-3.scope",
        ),
    ];
    let judged = judged
        .iter()
        .map(|(key, wanted, found, _)| (*key, &wanted[..], &found[..]));
    assert_eq!(judged.collect::<Vec<_>>(), wanted);
}

#[test]
fn what_is_not_there_or_not_known_is_told_as_such() {
    let nowhere = Caller {
        place: Place::Nowhere(None),
        uid: 7,
        ..fitting()
    };
    assert_eq!(
        found(&demanding(), &nowhere),
        [
            "none", "none", "none", "7", "7", "none", "not read", "not read", "false", "not read"
        ]
    );
    let hidden = Caller {
        place: Place::UserUnit(7, "sync@1.service"),
        session: Session::Terminal,
        program: Err("it may not be read"),
        ..fitting()
    };
    let user_manager = "/user.slice/user-7.slice/user@7.service";
    let not_attestable = "not attestable: it may not be read";
    let hidden = found(&demanding(), &hidden);
    assert_eq!(
        hidden[..3],
        [user_manager, "user.slice, user-7.slice", "sync@1.service"]
    );
    assert_eq!(hidden[6..8], [not_attestable; 2]);
    assert_eq!(hidden[9], "true: it has a terminal");
    let deleted = Caller {
        program: Ok((None, "app")),
        session: Session::None,
        ..fitting()
    };
    let deleted = found(&demanding(), &deleted);
    assert_eq!(
        deleted[6],
        "not attestable: no path of this host leads to it any more"
    );
    assert_eq!(deleted[7], model::digest("app").to_string());
    assert_eq!(deleted[9], "false");
    let by_name = Rule {
        matches: Conditions {
            unit: Some("web.service"),
            ..demanding().matches
        },
        ..plain()
    };
    assert_eq!(found(&by_name, &fitting())[0], "pay.service");
}

#[test]
fn selectors_are_shown_as_they_would_be_written() {
    let matches = Conditions {
        exe_sha256: vec!["pay"],
        ..demanding().matches
    };
    let policy = policy(&[Rule { matches, ..plain() }]);
    let digest = model::digest("pay");
    let shown: Vec<String> = policy.sections[0]
        .matches
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        shown,
        [
            "unit = \"/system.slice/app@*.service\"",
            "slice = \"team.slice\"",
            "user_unit = \"sync@*.service\"",
            "uid = 9",
            "gid = 8",
            "supplementary_group = 0",
            "exe = \"/usr/bin/app\"",
            &format!("exe_sha256 = \"{digest}\""),
            "container = true",
            "interactive = false",
        ]
    );
}

#[test]
fn several_digests_are_shown_as_a_list() {
    let matches = Conditions {
        exe_sha256: vec!["pay", "app"],
        ..plain().matches
    };
    let policy = policy(&[Rule { matches, ..plain() }]);
    let digests = ["pay", "app"].map(|text| format!("\"{}\"", model::digest(text)));
    let mut shown = policy.sections[0].matches.iter().map(ToString::to_string);
    let expected = format!("exe_sha256 = [{}]", digests.join(", "));
    assert!(shown.any(|shown| shown == expected), "{expected}");
}
