//! One section and one caller that fits it: each denial by itself.

use super::model::{Conditions, Place, Profile};
use super::*;

pub fn plain() -> Rule {
    Rule {
        name: "w0".to_owned(),
        matches: Conditions {
            unit: Some("pay.service"),
            uid: Some(7),
            ..Conditions::default()
        },
        targets: vec![("bank", Profile::Rfc7523, None)],
        ..Rule::default()
    }
}

pub fn fitting() -> Caller {
    Caller {
        place: Place::Unit(&["system.slice"], "pay.service", ""),
        uid: 7,
        gid: 7,
        groups: Vec::new(),
        container: false,
        session: Session::Unread,
        program: Err(""),
        proof: Proof::Pidfd,
    }
}

fn decided(policy: &Policy, caller: &Caller, target: &str) -> Outcome {
    said(&policy.decide(&caller.workload(), target, None, Time::from_unix_s(NOW_S)))
}

fn denied(reason: &'static str, sections: &[&str]) -> Outcome {
    let matching = sections.iter().map(ToString::to_string).collect();
    Outcome::Denied { reason, matching }
}

#[test]
fn an_empty_policy_denies_everything() {
    let empty = Policy::default();
    assert_eq!(
        decided(&empty, &fitting(), "bank"),
        denied("unknown_target", &[])
    );
    assert!(!empty.knows_target("bank"));
    assert_eq!(empty.extent(), Extent::default());
}

/// systemd puts a `_` before a unit's name in its cgroup's that could be a file of the kernel's.
#[test]
fn a_unit_whose_cgroup_has_another_name_is_matched_by_its_own_and_by_its_path() {
    let caller = Caller {
        place: Place::Unit(&["system.slice"], "_memory.service", ""),
        ..fitting()
    };
    let outcome = |unit| {
        let mut rule = plain();
        rule.matches.unit = Some(unit);
        decided(&policy(&[rule]), &caller, "bank")
    };
    for unit in [
        "memory.service",
        "mem*.service",
        "/system.slice/_memory.service",
        "/system.slice/_mem*.service",
        "/sys*.slice/_memory.service",
    ] {
        assert!(matches!(outcome(unit), Outcome::Granted { .. }), "{unit}");
    }
    for unit in [
        "_memory.service",
        "_*.service",
        "/system.slice/memory.service",
    ] {
        assert_eq!(outcome(unit), denied("not_yours", &[]), "{unit}");
    }
}

#[test]
fn each_denial_has_its_reason() {
    let one = policy(&[plain()]);
    assert!(matches!(
        decided(&one, &fitting(), "bank"),
        Outcome::Granted { .. }
    ));
    assert!(one.knows_target("bank") && !one.knows_target("aws"));
    assert_eq!(
        decided(&one, &fitting(), "aws"),
        denied("unknown_target", &[])
    );
    let others = [
        Caller {
            uid: 8,
            ..fitting()
        },
        Caller {
            place: Place::Nowhere(None),
            ..fitting()
        },
        Caller {
            container: true,
            ..fitting()
        },
    ];
    for other in &others {
        assert_eq!(decided(&one, other, "bank"), denied("not_yours", &[]));
    }
    let two = policy(&[
        plain(),
        Rule {
            name: "w1".to_owned(),
            ..plain()
        },
    ]);
    assert_eq!(
        decided(&two, &fitting(), "bank"),
        denied("ambiguous", &["w0", "w1"])
    );
}

/// An expired section still owns its target: another must not take its place unnoticed.
#[test]
fn what_has_expired_is_denied_from_that_second_on() {
    let until = |expires| {
        policy(&[Rule {
            expires: Some((expires, 0)),
            ..plain()
        }])
    };
    let over = until("2027-01-15T08:00:00Z");
    assert_eq!(
        decided(&over, &fitting(), "bank"),
        denied("expired", &["w0"])
    );
    let not_over = until("2027-01-15T08:00:01Z");
    assert!(matches!(
        decided(&not_over, &fitting(), "bank"),
        Outcome::Granted { .. }
    ));
    let expired = Rule {
        expires: Some(("2027-01-15", 0)),
        ..plain()
    };
    let beside = policy(&[
        expired,
        Rule {
            name: "w1".to_owned(),
            ..plain()
        },
    ]);
    assert_eq!(
        decided(&beside, &fitting(), "bank"),
        denied("ambiguous", &["w0", "w1"])
    );
}

#[test]
fn a_weak_proof_serves_nobody_who_did_not_allow_it() {
    let caller = Caller {
        proof: Proof::Pid,
        ..fitting()
    };
    assert_eq!(
        decided(&policy(&[plain()]), &caller, "bank"),
        denied("weak_proof", &["w0"])
    );
    let allowing = policy(&[Rule {
        allow_pid_fallback: true,
        ..plain()
    }]);
    assert!(matches!(
        decided(&allowing, &caller, "bank"),
        Outcome::Granted { .. }
    ));
}

/// Reading costs: the witness hashes a file, and a terminal is another file of `/proc`.
#[test]
fn what_cannot_decide_is_not_read() {
    let asks = |policy: &Policy, caller: &Caller| {
        policy.asks_for_program(&caller.workload(), Some("bank"))
    };
    let one = policy(&[plain()]);
    assert!(!asks(&one, &fitting()));
    assert_eq!(one.extent(), Extent::default());
    let matches = Conditions {
        exe: Some("/usr/bin/pay"),
        ..plain().matches
    };
    let one = policy(&[Rule { matches, ..plain() }]);
    assert!(asks(&one, &fitting()));
    assert_eq!(one.extent(), Extent::default());
    assert!(!one.asks_for_program(&fitting().workload(), Some("aws")));
    // Whatever it runs, it would not match; and what is known already changes nothing in that.
    let program = Ok((Some("/usr/bin/pay"), "pay"));
    assert!(!asks(
        &one,
        &Caller {
            gid: 9,
            uid: 8,
            ..fitting()
        }
    ));
    assert!(!asks(
        &one,
        &Caller {
            container: true,
            program,
            ..fitting()
        }
    ));
    let digest = || Conditions {
        exe_sha256: vec!["pay"],
        ..Conditions::default()
    };
    for rule in [
        Rule {
            unless: vec![digest()],
            ..plain()
        },
        Rule {
            shadow: Some(digest()),
            ..plain()
        },
    ] {
        assert!(asks(&policy(&[rule]), &fitting()));
    }
    let interactive = || Conditions {
        interactive: Some(false),
        ..Conditions::default()
    };
    let matches = Conditions {
        interactive: Some(false),
        ..plain().matches
    };
    for rule in [
        Rule { matches, ..plain() },
        Rule {
            unless: vec![interactive()],
            ..plain()
        },
        Rule {
            shadow: Some(interactive()),
            ..plain()
        },
    ] {
        assert_eq!(policy(&[rule]).extent().session, Wanted::Yes);
    }
}

#[test]
fn no_request_lengthens_a_life() {
    let policy = policy(&[plain()]);
    let lived = |asked| {
        let workload = fitting().workload();
        match policy.decide(&workload, "bank", asked, Time::from_unix_s(NOW_S)) {
            Decision::Allow(grant) => grant.lifetime_s(),
            Decision::Deny(denial) => panic!("{denial:?}"),
        }
    };
    let asked = [
        None,
        Some(0),
        Some(1),
        Some(59),
        Some(60),
        Some(61),
        Some(u32::MAX),
    ];
    assert_eq!(asked.map(lived), [60, 1, 1, 59, 60, 60, 60]);
}

#[test]
fn of_many_owners_the_ten_nearest_are_told_about() {
    let named = |number: u32| Rule {
        name: format!("w{number:02}"),
        matches: Conditions {
            uid: Some(number),
            ..plain().matches
        },
        ..plain()
    };
    let rules: Vec<Rule> = (0..13).map(named).collect();
    let workload = fitting().workload();
    let explanation = policy(&rules).explain(&workload, "bank", Time::from_unix_s(NOW_S));
    let names: Vec<&str> = explanation
        .sections
        .iter()
        .map(|section| &*section.name)
        .collect();
    // The one that matches, then by name.
    let first = [
        "w07", "w00", "w01", "w02", "w03", "w04", "w05", "w06", "w08", "w09",
    ];
    assert_eq!(names, first);
    assert_eq!((explanation.more, explanation.denial), (3, None));
}

/// Sections are looked up by their units. One that is found twice would be ambiguous with itself.
#[test]
fn whatever_pattern_names_its_unit_a_section_is_found_and_found_once() {
    let cases = [
        ("app@*.service", None, "app@1.service"),
        ("apps*.service", None, "apps1.service"), // begins with as many letters
        ("a@b@*.service", None, "a@b@1.service"),
        ("web@*.service", Some(7), "web@1.service"),
        ("pay*.service", Some(7), "payments.service"),
        ("/system.slice/job@*.service", None, "job@1.service"),
        ("/system.slice/log-*.service", None, "log-1.service"),
        ("/sys*.slice/cron.service", None, "cron.service"),
        ("/system.slice/own.service", Some(7), "own.service"),
        ("ab*.service", None, "abc.service"),
    ];
    let rule = |(number, (unit, uid, _)): (usize, &(&'static str, Option<u32>, &str))| Rule {
        name: format!("w{number:02}"),
        matches: Conditions {
            unit: Some(*unit),
            uid: *uid,
            ..Conditions::default()
        },
        ..plain()
    };
    let rules: Vec<Rule> = cases.iter().enumerate().map(rule).collect();
    let policy = policy(&rules);
    for (number, (_, uid, unit)) in cases.iter().enumerate() {
        let caller = Caller {
            place: Place::Unit(&["system.slice"], unit, ""),
            uid: uid.unwrap_or(7),
            ..fitting()
        };
        let workload = caller.workload();
        let decision = policy.decide(&workload, "bank", None, Time::from_unix_s(NOW_S));
        let Decision::Allow(grant) = decision else {
            panic!("{unit}: {decision:?}");
        };
        assert_eq!(&*grant.section().name, format!("w{number:02}"), "{unit}");
        let explained = policy.explain(&workload, "bank", Time::from_unix_s(NOW_S));
        assert_eq!(explained.sections.len() + explained.more, cases.len());
    }
    // A cgroup may be called as no unit is: the second byte ends no letter, and `ab` is as long.
    let odd = Caller {
        place: Place::Unit(&["system.slice"], "büro.service", ""),
        ..fitting()
    };
    assert_eq!(decided(&policy, &odd, "bank"), denied("not_yours", &[]));
}
