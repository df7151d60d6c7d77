//! The decision against a matcher written without looking at it, and each denial by itself.

use super::*;
use crate::config::Config;
use keystore::Time;
use proptest::prelude::*;

const HEAD: &str = r#"
[keystore.hsm]
backend = "pkcs11"
module = "/m.so"
token = { label = "t" }
pin = { credential = "p" }
"#;

/// A section as text, and as the oracle sees it.
#[derive(Clone, Debug)]
struct Rule {
    unit: Option<u8>,
    uid: Option<u32>,
    gid: Option<u32>,
    container: bool,
    targets: Vec<u8>,
    expired: bool,
}

#[derive(Clone, Debug)]
struct Caller {
    unit: Option<u8>,
    uid: u32,
    gid: u32,
    container: bool,
}

fn policy(rules: &[Rule]) -> Policy {
    use std::io::Write;
    let mut text = HEAD.to_owned();
    for (number, rule) in rules.iter().enumerate() {
        let mut selectors = vec![format!("container = {}", rule.container)];
        selectors.extend(rule.unit.map(|unit| format!("unit = \"u{unit}.service\"")));
        selectors.extend(rule.uid.map(|uid| format!("uid = {uid}")));
        selectors.extend(rule.gid.map(|gid| format!("gid = {gid}")));
        let expires = if rule.expired {
            "expires = 2026-11-02\n"
        } else {
            ""
        };
        let selectors = selectors.join(", ");
        text += &format!("[workload.w{number}]\n{expires}match = {{ {selectors} }}\n");
        for target in &rule.targets {
            text += &format!(
                "[workload.w{number}.target.t{target}]\nprofile = \"rfc7523\"\n\
                 authorization_server = \"https://as\"\nclient_id = \"c\"\n"
            );
        }
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Policy::new(Config::load(file.path()).unwrap().workloads)
}

fn workload(caller: &Caller) -> Workload {
    let unit = caller
        .unit
        .map(|unit| format!("/system.slice/u{unit}.service"));
    Workload::for_test(
        caller.uid,
        caller.gid,
        unit.as_deref(),
        caller.container,
        Proof::Pidfd,
    )
}

fn later() -> Time {
    Time::from_unix_s(1_800_000_000)
}

fn matches(rule: &Rule, caller: &Caller) -> bool {
    if rule.container != caller.container {
        return false;
    }
    for (wanted, found) in [(rule.uid, caller.uid), (rule.gid, caller.gid)] {
        if let Some(wanted) = wanted
            && wanted != found
        {
            return false;
        }
    }
    rule.unit.is_none() || rule.unit == caller.unit
}

/// Which section grants, by counting: exactly one may match and own the target.
fn oracle(rules: &[Rule], caller: &Caller, target: u8) -> Option<usize> {
    let mut owners = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        if rule.targets.contains(&target) && matches(rule, caller) {
            owners.push(number);
        }
    }
    match owners[..] {
        [only] if !rules[only].expired => Some(only),
        _ => None,
    }
}

fn rule() -> impl Strategy<Value = Rule> {
    let selectors = (
        proptest::option::weighted(0.7, 0u8..3),
        proptest::option::weighted(0.7, 0u32..3),
        proptest::option::weighted(0.3, 0u32..2),
    );
    let rest = (
        prop::bool::weighted(0.2),
        proptest::collection::btree_set(0u8..4, 0..3),
        prop::bool::weighted(0.1),
    );
    (selectors, rest).prop_map(|((unit, uid, gid), (container, targets, expired))| Rule {
        unit,
        uid: if unit.is_none() {
            Some(uid.unwrap_or(1))
        } else {
            uid
        },
        gid,
        container,
        targets: targets.into_iter().collect(),
        expired,
    })
}

fn caller() -> impl Strategy<Value = Caller> {
    (
        proptest::option::weighted(0.9, 0u8..3),
        0u32..3,
        0u32..2,
        prop::bool::weighted(0.2),
    )
        .prop_map(|(unit, uid, gid, container)| Caller {
            unit,
            uid,
            gid,
            container,
        })
}

/// A caller made to fit one of the rules, so that grants are common.
fn fitting(rules: &[Rule], which: usize, caller: Caller) -> Caller {
    let Some(rule) = rules.get(which % rules.len().max(1)) else {
        return caller;
    };
    Caller {
        unit: rule.unit.or(caller.unit),
        uid: rule.uid.unwrap_or(caller.uid),
        gid: rule.gid.unwrap_or(caller.gid),
        container: rule.container,
    }
}

proptest! {
    #[test]
    fn the_decision_is_the_oracles(
        rules in proptest::collection::vec(rule(), 0..6), which in 0usize..6, caller in caller(),
        fit in prop::bool::weighted(0.7), target in 0u8..4,
    ) {
        let caller = if fit { fitting(&rules, which, caller) } else { caller };
        let decision = policy(&rules).decide(&workload(&caller), &format!("t{target}"), None, later());
        let granted = match decision {
            Decision::Allow(grant) => Some(grant.section().name.to_string()),
            Decision::Deny(_) => None,
        };
        prop_assert_eq!(granted, oracle(&rules, &caller, target).map(|number| format!("w{number}")));
    }

    #[test]
    fn no_request_lengthens_a_life(asked in proptest::option::of(0u32..100_000)) {
        let rules = [Rule { unit: None, uid: Some(1), gid: None, container: false, targets: vec![0], expired: false }];
        let caller = Caller { unit: None, uid: 1, gid: 1, container: false };
        let Decision::Allow(grant) = policy(&rules).decide(&workload(&caller), "t0", asked, later()) else {
            return Err(TestCaseError::fail("denied"));
        };
        prop_assert!(grant.lifetime_s() <= 60 && grant.lifetime_s() >= 1);
        prop_assert!(asked.is_none_or(|asked| grant.lifetime_s() <= asked.max(1)));
    }
}

fn one(rule: Rule) -> Policy {
    policy(&[rule])
}

fn plain() -> Rule {
    Rule {
        unit: Some(0),
        uid: Some(1),
        gid: None,
        container: false,
        targets: vec![0],
        expired: false,
    }
}

fn denial(policy: &Policy, caller: &Workload, target: &str) -> Denial {
    match policy.decide(caller, target, None, later()) {
        Decision::Deny(denial) => denial,
        Decision::Allow(_) => panic!("granted"),
    }
}

#[test]
fn an_empty_policy_denies_everything() {
    let caller = workload(&Caller {
        unit: Some(0),
        uid: 0,
        gid: 0,
        container: false,
    });
    assert_eq!(
        denial(&Policy::default(), &caller, "t0"),
        Denial::UnknownTarget
    );
}

#[test]
fn each_denial_has_its_reason() {
    let fits = Caller {
        unit: Some(0),
        uid: 1,
        gid: 1,
        container: false,
    };
    let reason = |policy: &Policy, caller: &Caller, target: &str| {
        denial(policy, &workload(caller), target).reason()
    };
    let policy_of_one = one(plain());
    assert_eq!(reason(&policy_of_one, &fits, "t1"), "unknown_target");
    assert_eq!(
        reason(
            &policy_of_one,
            &Caller {
                uid: 2,
                ..fits.clone()
            },
            "t0"
        ),
        "not_yours"
    );
    assert_eq!(
        reason(
            &policy_of_one,
            &Caller {
                unit: None,
                ..fits.clone()
            },
            "t0"
        ),
        "not_yours"
    );
    assert_eq!(
        reason(
            &policy_of_one,
            &Caller {
                container: true,
                ..fits.clone()
            },
            "t0"
        ),
        "not_yours"
    );
    assert_eq!(
        reason(&policy(&[plain(), plain()]), &fits, "t0"),
        "ambiguous"
    );
    assert_eq!(
        reason(
            &one(Rule {
                expired: true,
                ..plain()
            }),
            &fits,
            "t0"
        ),
        "expired"
    );
}

#[test]
fn a_weak_proof_serves_nobody_who_did_not_allow_it() {
    let caller = Workload::for_test(1, 1, Some("/system.slice/u0.service"), false, Proof::Pid);
    assert!(matches!(
        denial(&one(plain()), &caller, "t0"),
        Denial::WeakProof { .. }
    ));
}

#[test]
fn a_full_path_matches_that_path_alone() {
    let fits_path = |path: &str, wanted: &str| {
        let caller = Workload::for_test(1, 1, Some(path), false, Proof::Pidfd);
        let selector = Selector::Unit(crate::selector::Pattern::new(wanted).unwrap());
        selector.verdict(&caller) == Verdict::Holds
    };
    assert!(fits_path(
        "/system.slice/a.service",
        "/system.slice/a.service"
    ));
    assert!(fits_path("/system.slice/a.service", "a.service"));
    assert!(!fits_path(
        "/other.slice/a.service",
        "/system.slice/a.service"
    ));
    assert!(!fits_path("/system.slice/b.service/a.service", "a.service"));
}
