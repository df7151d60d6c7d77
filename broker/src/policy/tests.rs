//! The decision against an oracle that was written without looking at it, each explanation against
//! the decision it explains.

use super::*;
use crate::workload::{Program, Session};
use generate::{Dice, NOW_S};
use model::{Caller, Rule, policy};
use oracle::{Outcome, Request};
use std::collections::BTreeSet;

mod generate;
mod listing;
mod model;
mod oracle;
mod single;
mod words;

/// As many as make four thousand decisions, and, for what is about the same code again, a third.
const POLICIES: usize = 500;
const SOME_POLICIES: usize = 170;
const REQUESTS_OF_EACH: usize = 8;

/// One random case, whole.
struct Case<'a> {
    rules: &'a [Rule],
    policy: &'a Policy,
    caller: Caller,
    workload: Workload,
    request: Request,
}

impl Case<'_> {
    fn decide(&self, workload: &Workload) -> Decision {
        let Request {
            target,
            lifetime_s,
            now_s,
        } = self.request;
        self.policy
            .decide(workload, target, lifetime_s, Time::from_unix_s(now_s))
    }

    fn oracle(&self) -> Outcome {
        oracle::decide(self.rules, &self.caller, self.request)
    }

    /// To see what happened.
    fn shown(&self) -> String {
        let (caller, request) = (&self.caller, self.request);
        format!("{}\n{caller:?}\n{request:?}", model::text(self.rules))
    }
}

/// The same cases for each test, eight for each policy.
fn each_case(policies: usize, mut check: impl FnMut(&Case)) {
    let groups = generate::groups();
    let mut dice = Dice::new(6);
    for _ in 0..policies {
        let rules = generate::rules(&mut dice, &groups);
        let policy = policy(&rules);
        for _ in 0..REQUESTS_OF_EACH {
            let caller = generate::caller(&mut dice, &rules, &groups);
            check(&Case {
                rules: &rules,
                policy: &policy,
                workload: caller.workload(),
                request: generate::request(&mut dice, &rules, &caller),
                caller,
            });
        }
    }
}

/// The product's decision in the oracle's words; of an ambiguity the two that it names.
fn said(decision: &Decision) -> Outcome {
    let matching = match decision {
        Decision::Allow(grant) => {
            return Outcome::Granted {
                section: grant.section().name.to_string(),
                lifetime_s: grant.lifetime_s(),
                shadowed: grant.shadowed().iter().copied().collect(),
            };
        }
        Decision::Deny(Denial::UnknownTarget | Denial::NotYours) => Vec::new(),
        Decision::Deny(Denial::Ambiguous { one, other }) => vec![one, other],
        Decision::Deny(Denial::Expired { section } | Denial::WeakProof { section }) => {
            vec![section]
        }
    };
    let Decision::Deny(denial) = decision else {
        unreachable!("grants returned above")
    };
    Outcome::Denied {
        reason: denial.reason(),
        matching: matching.into_iter().map(ToString::to_string).collect(),
    }
}

/// Whether one condition more would have made it a grant.
fn is_one_away(case: &Case) -> bool {
    let Outcome::Denied {
        reason: "not_yours",
        ..
    } = case.oracle()
    else {
        return false;
    };
    let proof_serves = |rule: &Rule| case.caller.proof == Proof::Pidfd || rule.allow_pid_fallback;
    case.rules.iter().any(|rule| {
        rule.targets
            .iter()
            .any(|(name, ..)| *name == case.request.target)
            && oracle::misses(rule, &case.caller) == 1
            && rule.expires.is_none_or(|(_, expires_s)| NOW_S < expires_s)
            && proof_serves(rule)
    })
}

#[test]
fn the_decision_is_the_oracles() {
    let (mut cases, mut granted, mut one_away) = (0, 0, 0);
    let mut reasons: BTreeSet<&str> = BTreeSet::new();
    let mut shadowed: BTreeSet<&str> = BTreeSet::new();
    each_case(POLICIES, |case| {
        let (wanted, mut found) = (case.oracle(), said(&case.decide(&case.workload)));
        match (&wanted, &mut found) {
            // Two are named, of as many as there are.
            (
                Outcome::Denied {
                    reason: "ambiguous",
                    matching: all,
                },
                Outcome::Denied {
                    reason: "ambiguous",
                    matching: named,
                },
            ) => {
                let two: BTreeSet<&String> = named.iter().collect();
                assert!(two.len() == 2 && named.iter().all(|name| all.contains(name)));
                named.clone_from(all);
            }
            (Outcome::Granted { shadowed: keys, .. }, _) => {
                granted += 1;
                shadowed.extend(keys);
            }
            _ => {}
        }
        assert_eq!(found, wanted, "{}", case.shown());
        if let Outcome::Denied { reason, .. } = wanted {
            reasons.insert(reason);
        }
        cases += 1;
        one_away += usize::from(is_one_away(case));
    });
    let percent = |count| 100 * count / cases;
    let (granted, one_away) = (percent(granted), percent(one_away));
    println!("{cases} cases: {granted} % granted, {one_away} % one condition away from it");
    assert!(
        cases >= 4000 && granted >= 30 && one_away >= 30,
        "{granted} % and {one_away} %"
    );
    assert_eq!(
        reasons.into_iter().collect::<Vec<_>>(),
        [
            "ambiguous",
            "expired",
            "not_yours",
            "unknown_target",
            "weak_proof"
        ],
        "each reason occurs"
    );
    let keys = [
        "container",
        "exe",
        "exe_sha256",
        "group",
        "interactive",
        "slice",
    ];
    assert!(
        keys.iter().all(|key| shadowed.contains(key)),
        "{shadowed:?}"
    );
}

#[test]
fn the_sections_of_a_workload_are_those_the_oracle_counts() {
    each_case(SOME_POLICIES, |case| {
        let found: BTreeSet<&str> = case
            .policy
            .sections_of(&case.workload)
            .map(|section| &*section.name)
            .collect();
        let fits = |rule: &&Rule| oracle::misses(rule, &case.caller) == 0;
        let wanted: BTreeSet<&str> = case
            .rules
            .iter()
            .filter(fits)
            .map(|rule| rule.name.as_str())
            .collect();
        assert_eq!(found, wanted, "{}", case.shown());
    });
}

/// What is costly is read only if it may matter: so what is not read must not.
#[test]
fn what_is_not_asked_for_changes_no_decision() {
    let (mut unasked, mut asked) = (0, 0);
    each_case(SOME_POLICIES, |case| {
        let mut unread = case.workload.clone();
        let mut known = case.workload.clone();
        match case
            .policy
            .asks_for_program(&case.workload, Some(case.request.target))
        {
            true => asked += 1,
            false => {
                unread.set_program(Program::Unread);
                let (path, sha256) = (Some("/usr/bin/pay".to_owned()), model::digest("pay"));
                known.set_program(Program::Is { path, sha256 });
                unasked += 1;
            }
        }
        let extent = case.policy.extent();
        if extent.groups == Wanted::No {
            unread.set_groups(Vec::new());
            known.set_groups(vec![1, 2, 3]);
        }
        if extent.session == Wanted::No {
            unread.set_session(Session::Unread);
            known.set_session(Session::None);
        }
        let (unread, known) = (said(&case.decide(&unread)), said(&case.decide(&known)));
        assert_eq!(unread, known, "{}", case.shown());
    });
    assert!(asked > 100 && unasked > 400, "{asked} asked, {unasked} not");
}

#[test]
fn an_explanation_says_what_was_decided_and_of_every_owner_why() {
    let mut excluded = 0;
    each_case(SOME_POLICIES, |case| {
        let Request { target, now_s, .. } = case.request;
        let explanation = case
            .policy
            .explain(&case.workload, target, Time::from_unix_s(now_s));
        let (denial, granted_by) = match case.decide(&case.workload) {
            Decision::Allow(grant) => (None, Some(grant.section().name.clone())),
            Decision::Deny(denial) => (Some(denial), None),
        };
        assert_eq!(explanation.denial, denial, "{}", case.shown());
        let owners = case
            .rules
            .iter()
            .filter(|r| r.targets.iter().any(|t| t.0 == target));
        let owners: BTreeSet<&str> = owners.map(|rule| rule.name.as_str()).collect();
        let told: BTreeSet<&str> = explanation.sections.iter().map(|s| &*s.name).collect();
        assert_eq!((told, explanation.more), (owners, 0), "{}", case.shown());
        let mut distances = Vec::new();
        for section in &explanation.sections {
            let rule = case
                .rules
                .iter()
                .find(|rule| rule.name == *section.name)
                .unwrap();
            let fits = oracle::misses(rule, &case.caller) == 0;
            assert_eq!(
                section.standing == Standing::Matches,
                fits,
                "{}",
                case.shown()
            );
            let missing = |judged: &&Judged| judged.verdict != Verdict::Holds;
            distances.push(section.matches.iter().filter(missing).count());
            let last = *distances.last().unwrap();
            match section.standing {
                Standing::Matches => assert!(last == 0 && section.unless.is_empty()),
                Standing::DoesNotMatch => assert!(last > 0, "{}", case.shown()),
                Standing::Excluded => {
                    excluded += 1;
                    let may_hold = |judged: &Judged| judged.verdict != Verdict::Fails;
                    assert!(last == 0 && !section.unless.is_empty());
                    assert!(section.unless.iter().all(may_hold), "{}", case.shown());
                }
            }
        }
        assert!(distances.is_sorted(), "the nearest first: {}", case.shown());
        if let Some(name) = granted_by {
            let standing = |s: &&SectionVerdict| s.standing == Standing::Matches;
            let matching: Vec<_> = explanation.sections.iter().filter(standing).collect();
            assert_eq!(matching.len(), 1);
            assert_eq!(matching[0].name, name);
        }
    });
    assert!(excluded > 5, "{excluded} were excluded");
}
