//! Which process two sections would both match, in words.

use crate::config::Section;
use crate::selector::{Pattern, Selector};

/// Two sections that some process may match.
pub struct Meeting<'a> {
    pub one: &'a Section,
    pub other: &'a Section,
}

impl Meeting<'_> {
    /// Selectors as they would be written in a table, without what holds anyway.
    pub fn inline(selectors: &[Selector]) -> String {
        let is_default = |selector: &&Selector| **selector != Selector::Container(false);
        let texts: Vec<String> = selectors
            .iter()
            .filter(is_default)
            .map(ToString::to_string)
            .collect();
        texts.join(", ")
    }
}

/// `a process of payments.service that runs as uid 991`
pub fn process(meeting: &Meeting) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut all: Vec<&Selector> = meeting
        .one
        .matches
        .iter()
        .chain(&meeting.other.matches)
        .collect();
    all.sort_by_key(|selector| rank(selector));
    for (at, selector) in all.iter().enumerate() {
        let implied = |other: &Selector| {
            std::mem::discriminant(other) == std::mem::discriminant(*selector)
                && other.implies(selector)
        };
        let earlier = all[..at].iter().any(|other| implied(other));
        let later = all[at + 1..]
            .iter()
            .any(|other| implied(other) && !selector.implies(other));
        if !earlier && !later {
            parts.extend(part(selector, &all));
        }
    }
    parts.dedup();
    parts.insert(0, "a process".to_owned());
    parts.join(" ")
}

/// Where a selector stands in the sentence: where a process is, then what it is.
fn rank(selector: &Selector) -> usize {
    let order = ["unit", "user_unit", "slice", "container", "user", "group"];
    let place = order.iter().position(|key| *key == selector.key());
    place.unwrap_or(order.len())
}

fn part(selector: &Selector, all: &[&Selector]) -> Option<String> {
    Some(match selector {
        Selector::Unit(unit) => format!("of {}", unit_text(unit, all)),
        Selector::UserUnit(unit) => format!("of user unit {unit}"),
        Selector::Slice(slice) => format!("in {slice}"),
        Selector::User(uid) => format!("that runs as uid {uid}"),
        Selector::Group(gid) => format!("with gid {gid}"),
        Selector::SupplementaryGroup(gid) => format!("with supplementary group {gid}"),
        Selector::Executable(path) => format!("that executes {path}"),
        Selector::Digest(_) => "that executes one of the files named by SHA-256".to_owned(),
        Selector::Container(false) => return None,
        Selector::Container(true) => "in a container".to_owned(),
        Selector::Interactive(true) => "that is interactive".to_owned(),
        Selector::Interactive(false) => "that is not interactive".to_owned(),
    })
}

/// One unit that fits all patterns, if two of them have to be fitted.
fn unit_text(unit: &Pattern, all: &[&Selector]) -> String {
    if let Some(text) = unit.exact() {
        return text.to_owned();
    }
    let common = all.iter().find_map(|other| match other {
        Selector::Unit(other) if other != unit => unit.common(other),
        _ => None,
    });
    common.unwrap_or_else(|| format!("a unit `{unit}`"))
}

/// `target bank`, `targets bank, tax`
pub fn names(noun: &str, names: &[String]) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{noun}{plural} {}", names.join(", "))
}
