//! What a configuration grants, in words: to whom, what, and under which terms. For comparing the
//! configuration in force with the one in the files, member by member.
//!
//! Pure, and for people: no decision is made by it. What is not said (owner, purpose, the place in a
//! file) changes nobody's rights.

use crate::config::{Config, Section, Target};
use crate::ctl::out::rfc3339;
use crate::denylist;
use crate::reuse::Reuse;
use crate::selector::Selector;
use assertd_client::api::{Grants, Term, Terms};
use keystore::charter::PurposeKind;
use keystore::protocol::EvidenceLevel;
use std::path::Path;

/// Everything a configuration grants, by workload and target, and what it denies everybody.
pub fn grants(config: &Config) -> Grants {
    let sections = config.workloads.iter();
    let mut grants: Vec<Terms> = sections
        .flat_map(|section| {
            let whom = whom(section);
            let targets = section.targets.values();
            targets.map(move |target| of_target(section, &whom, target))
        })
        .collect();
    grants
        .sort_by(|one, other| (&one.workload, &one.target).cmp(&(&other.workload, &other.target)));
    Grants {
        deny: denied(&config.deny),
        grants,
    }
}

fn term(member: &str, value: impl ToString) -> Term {
    let (member, value) = (member.to_owned(), value.to_string());
    Term { member, value }
}

/// The terms of a section, which hold for all its targets.
fn whom(section: &Section) -> Vec<Term> {
    let mut terms = vec![term("match", all_of(&section.matches))];
    let unless = section.unless.iter();
    terms.extend(unless.map(|selectors| term("unless", all_of(selectors))));
    if !section.shadow.is_empty() {
        terms.push(term("shadow", all_of(&section.shadow)));
    }
    if let Some(expires) = section.expires {
        terms.push(term("expires", rfc3339(expires.unix_s())));
    }
    if section.weight != 1 {
        terms.push(term("weight", section.weight));
    }
    if section.allow_pid_fallback {
        terms.push(term("allow_pid_fallback", true));
    }
    let (rate, burst) = (section.rate_per_s, section.burst);
    terms.push(term("rate", format!("{rate} in a second, {burst} at once")));
    terms
}

fn of_target(section: &Section, whom: &[Term], target: &Target) -> Terms {
    let mut terms = whom.to_vec();
    terms.extend([
        term("profile", &target.profile.name),
        term("iss", &target.iss),
    ]);
    for (name, value) in [
        ("sub", &target.sub),
        ("aud", &target.aud),
        ("scope", &target.scope),
    ] {
        terms.extend(value.iter().map(|value| term(name, value)));
    }
    terms.extend([
        term("lifetime", format!("{} s", target.lifetime_s)),
        term("key", &target.key),
        term("keystore", &target.keystore),
        term("alg", target.charter.alg),
    ]);
    if let Some((rate, burst)) = target.rate {
        let text = format!("{rate} in a second, {burst} at once");
        terms.push(term("rate for the target", text));
    }
    if target.evidence_min != EvidenceLevel::None {
        terms.push(term("evidence", target.evidence_min));
    }
    if target.reuse == Reuse::Never && target.profile.row.purpose == PurposeKind::Federation {
        terms.push(term("reuse", "never"));
    }
    Terms {
        workload: section.name.to_string(),
        target: target.name.clone(),
        terms,
    }
}

fn all_of(selectors: &[Selector]) -> String {
    let texts: Vec<String> = selectors.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn denied(files: &denylist::Files) -> Vec<Term> {
    let listed = |member, file: &Option<_>| {
        let file: Option<&Path> = file.as_deref();
        file.map(|file| term(member, file.display()))
    };
    [
        listed("executables", &files.executables),
        listed("units", &files.units),
        listed("users", &files.users),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests;
