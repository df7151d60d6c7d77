//! What a workload is told that it has, what is remembered of it, and how little is looked at to find
//! its sections.

use super::model::{Conditions, Place};
use super::single::{fitting, plain};
use super::*;

fn granting(rule: Rule, caller: &Caller) -> usize {
    let now = Time::from_unix_s(NOW_S);
    policy(&[rule]).granting(&caller.workload(), now).count()
}

#[test]
fn what_is_listed_is_what_would_be_granted_now() {
    let until = |expires| Rule {
        expires: Some((expires, 0)),
        ..plain()
    };
    assert_eq!(granting(plain(), &fitting()), 1);
    assert_eq!(granting(until("2027-01-15T08:00:00Z"), &fitting()), 0);
    assert_eq!(granting(until("2027-01-15T08:00:01Z"), &fitting()), 1);
    let by_number = Caller {
        proof: Proof::Pid,
        ..fitting()
    };
    assert_eq!(granting(plain(), &by_number), 0);
    let allowing = Rule {
        allow_pid_fallback: true,
        ..plain()
    };
    assert_eq!(granting(allowing, &by_number), 1);
    let other = Caller {
        uid: 8,
        ..fitting()
    };
    assert_eq!(granting(plain(), &other), 0);
}

#[test]
fn groups_that_no_section_names_matter_to_nobody() {
    let matches = Conditions {
        supplementary_group: Some(("root".to_owned(), 0)),
        ..plain().matches
    };
    let policy = policy(&[Rule { matches, ..plain() }]);
    assert_eq!(policy.extent().groups, Wanted::Yes);
    assert!(policy.names_group(0) && !policy.names_group(1));
    let mut workload = fitting().workload();
    workload.set_groups(vec![0, 1, 2]);
    let remembered = workload.with_groups(|group| policy.names_group(group));
    assert_eq!(remembered.groups(), [0]);
}

/// Whose program is read although no section asks: for who might get something, if a deny list asks.
#[test]
fn what_runs_is_asked_of_who_might_get_something() {
    let matches = Conditions {
        exe: Some("/usr/bin/pay"),
        ..plain().matches
    };
    let policy = policy(&[Rule { matches, ..plain() }]);
    let (fits, other) = (
        fitting().workload(),
        Caller {
            uid: 8,
            ..fitting()
        }
        .workload(),
    );
    for (target, expected) in [(Some("bank"), true), (None, true), (Some("aws"), false)] {
        assert_eq!(policy.may_match(&fits, target), expected, "{target:?}");
        assert!(!policy.may_match(&other, target), "{target:?}");
    }
}

#[test]
fn sections_of_other_units_and_users_are_not_looked_at() {
    let rule = |name: &str, unit, uid| Rule {
        name: name.to_owned(),
        matches: Conditions {
            unit,
            uid,
            ..Conditions::default()
        },
        ..plain()
    };
    let policy = policy(&[
        rule("exact", Some("a.service"), Some(7)),
        rule("template", Some("web@*.service"), Some(7)),
        rule("team", Some("pay*.service"), Some(7)),
        rule("user", None, Some(9)),
    ]);
    let looked_at = |unit, uid| {
        let caller = Caller {
            place: Place::Unit(&["system.slice"], unit, ""),
            uid,
            ..fitting()
        };
        let workload = caller.workload();
        let candidates = policy.all.candidates(&workload);
        let names = candidates.map(|section| section.name.to_string());
        names.collect::<Vec<String>>()
    };
    assert_eq!(looked_at("a.service", 8), ["exact"]);
    assert_eq!(looked_at("web@1.service", 8), ["template"]);
    // A team's units begin alike, and its sections are told apart by their users.
    assert_eq!(looked_at("pay1.service", 8), [""; 0]);
    assert_eq!(looked_at("b.service", 7), ["team"]);
    assert_eq!(looked_at("b.service", 9), ["user"]);
}
