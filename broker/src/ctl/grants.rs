//! What a reload would grant, change and revoke: the configuration in the files against the one in
//! force.
//!
//! Pure. Two lists of terms go in, changes come out; a workload and its target are the same thing in
//! both by their names, as its key is.

use assertd_client::api::{Grants, Term, Terms};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// One difference.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum GrantChange<'a> {
    /// Nobody has it now.
    Grant(&'a Terms),
    /// Its terms become others.
    Amend {
        workload: &'a str,
        target: &'a str,
        changes: Vec<TermChange<'a>>,
    },
    /// Nobody will have it.
    Revoke(&'a Terms),
    /// Another file says who gets nothing.
    Deny { changes: Vec<TermChange<'a>> },
}

/// A member of the terms and its two values; none where it is not there.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct TermChange<'a> {
    pub member: &'a str,
    pub from: Option<&'a str>,
    pub to: Option<&'a str>,
}

/// All differences, by workload and target.
pub fn changes<'a>(running: &'a Grants, files: &'a Grants) -> Vec<GrantChange<'a>> {
    let (old, new) = (by_name(running), by_name(files));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    let mut changes = Vec::new();
    let deny = differences(&running.deny, &files.deny);
    if !deny.is_empty() {
        changes.push(GrantChange::Deny { changes: deny });
    }
    for name in names {
        changes.extend(match (old.get(&name), new.get(&name)) {
            (None, Some(new)) => Some(GrantChange::Grant(new)),
            (Some(old), None) => Some(GrantChange::Revoke(old)),
            (Some(old), Some(new)) if old != new => Some(GrantChange::Amend {
                workload: name.0,
                target: name.1,
                changes: differences(&old.terms, &new.terms),
            }),
            _ => None,
        });
    }
    changes
}

type ByName<'a> = BTreeMap<(&'a str, &'a str), &'a Terms>;

fn by_name(grants: &Grants) -> ByName<'_> {
    let grants = grants.grants.iter();
    let named = grants.map(|terms| ((terms.workload.as_str(), terms.target.as_str()), terms));
    named.collect()
}

/// What is gone, what came, and what has another value, in the order of the new terms. Of a member
/// that is there several times (`unless`) each value counts for itself.
fn differences<'a>(old: &'a [Term], new: &'a [Term]) -> Vec<TermChange<'a>> {
    let several = |member: &str| {
        let count = |terms: &[Term]| terms.iter().filter(|term| term.member == member).count();
        count(old).max(count(new)) > 1
    };
    let mut changes = Vec::new();
    for term in new.iter().filter(|term| !old.contains(term)) {
        let same = |other: &&Term| other.member == term.member && !several(&term.member);
        changes.push(TermChange {
            member: &term.member,
            from: old.iter().find(same).map(|old| old.value.as_str()),
            to: Some(&term.value),
        });
    }
    for term in old.iter().filter(|term| !new.contains(term)) {
        let replaced = new.iter().any(|new| new.member == term.member);
        if several(&term.member) || !replaced {
            changes.push(TermChange {
                member: &term.member,
                from: Some(&term.value),
                to: None,
            });
        }
    }
    changes
}

impl GrantChange<'_> {
    /// One line, as cells of a table: sign and names, then the terms.
    pub fn row(&self) -> Vec<String> {
        let (sign, workload, target, what) = match self {
            GrantChange::Grant(terms) => ('+', &*terms.workload, &*terms.target, summary(terms)),
            GrantChange::Revoke(terms) => ('-', &*terms.workload, &*terms.target, summary(terms)),
            GrantChange::Amend {
                workload,
                target,
                changes,
            } => ('~', *workload, *target, words(changes)),
            GrantChange::Deny { changes } => {
                return vec!["~ deny".to_owned(), words(changes)];
            }
        };
        vec![format!("{sign} {workload} → {target}"), what]
    }
}

fn words(changes: &[TermChange]) -> String {
    let none = "none";
    let changes = changes.iter().map(|change| {
        let (from, to) = (change.from.unwrap_or(none), change.to.unwrap_or(none));
        format!("{}: {from} → {to}", change.member)
    });
    changes.collect::<Vec<_>>().join("; ")
}

/// Who, as whom, for whom, how long, and when it ends.
fn summary(terms: &Terms) -> String {
    let of = |member: &str| {
        let term = terms.terms.iter().find(|term| term.member == member);
        term.map(|term| term.value.as_str())
    };
    let value = |member| of(member).unwrap_or("?");
    let mut text = format!(
        "{}: {} to {}, {}",
        value("match"),
        value("sub"),
        value("aud"),
        value("lifetime")
    );
    for term in terms.terms.iter().filter(|term| term.member == "unless") {
        text += &format!(", unless {}", term.value);
    }
    if let Some(expires) = of("expires") {
        text += &format!(", until {expires}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(workload: &str, members: &[(&str, &str)]) -> Terms {
        let terms = members.iter().map(|(member, value)| Term {
            member: (*member).to_owned(),
            value: (*value).to_owned(),
        });
        Terms {
            workload: workload.to_owned(),
            target: "bank".to_owned(),
            terms: terms.collect(),
        }
    }

    fn grants(grants: Vec<Terms>) -> Grants {
        Grants {
            deny: Vec::new(),
            grants,
        }
    }

    fn rows(running: &Grants, files: &Grants) -> Vec<String> {
        let changes = changes(running, files);
        changes
            .iter()
            .map(|change| change.row().join(" | "))
            .collect()
    }

    const PAYMENTS: [(&str, &str); 4] = [
        ("match", "uid = 7"),
        ("sub", "payments"),
        ("aud", "https://bank.example"),
        ("lifetime", "60 s"),
    ];

    #[test]
    fn the_same_terms_are_no_change_in_whatever_order() {
        let one = terms("a", &PAYMENTS);
        let two = terms("b", &PAYMENTS);
        let forth = grants(vec![one.clone(), two.clone()]);
        assert_eq!(rows(&forth, &grants(vec![two, one])), Vec::<String>::new());
    }

    #[test]
    fn a_grant_and_a_revocation_say_who_gets_what() {
        let running = grants(vec![terms("old", &PAYMENTS)]);
        let files = grants(vec![terms("new", &PAYMENTS)]);
        let who = "uid = 7: payments to https://bank.example, 60 s";
        assert_eq!(
            rows(&running, &files),
            [
                format!("+ new → bank | {who}"),
                format!("- old → bank | {who}")
            ]
        );
    }

    #[test]
    fn changed_terms_are_said_one_by_one() {
        let mut new = terms("a", &PAYMENTS);
        new.terms[3].value = "300 s".to_owned();
        new.terms.push(Term {
            member: "expires".to_owned(),
            value: "2027-01-01T00:00:00Z".to_owned(),
        });
        let running = grants(vec![terms("a", &PAYMENTS)]);
        let files = grants(vec![new]);
        let forth = "~ a → bank | lifetime: 60 s → 300 s; expires: none → 2027-01-01T00:00:00Z";
        let back = "~ a → bank | lifetime: 300 s → 60 s; expires: 2027-01-01T00:00:00Z → none";
        assert_eq!(rows(&running, &files), [forth]);
        assert_eq!(rows(&files, &running), [back]);
    }

    #[test]
    fn each_of_several_exclusions_counts_for_itself() {
        let with = |exclusions: &[&str]| {
            let mut terms = terms("a", &PAYMENTS);
            terms.terms.extend(exclusions.iter().map(|value| Term {
                member: "unless".to_owned(),
                value: (*value).to_owned(),
            }));
            grants(vec![terms])
        };
        let (one, two, other) = (with(&["x"]), with(&["x", "y"]), with(&["z"]));
        assert_eq!(rows(&one, &two), ["~ a → bank | unless: none → y"]);
        assert_eq!(rows(&two, &one), ["~ a → bank | unless: y → none"]);
        assert_eq!(rows(&one, &other), ["~ a → bank | unless: x → z"]);
        assert_eq!(
            rows(&two, &other),
            ["~ a → bank | unless: none → z; unless: x → none; unless: y → none"]
        );
    }

    #[test]
    fn another_deny_list_is_a_change() {
        let mut files = grants(Vec::new());
        files.deny.push(Term {
            member: "users".to_owned(),
            value: "/etc/assertd/users".to_owned(),
        });
        let row = "~ deny | users: none → /etc/assertd/users";
        assert_eq!(rows(&grants(Vec::new()), &files), [row]);
    }
}
