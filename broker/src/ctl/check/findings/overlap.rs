//! Sections that can both match one process. Where they own a target of the same name, a process that
//! both match is denied it as ambiguous.
//!
//! Of a target's owners only those are held against each other that could meet: by the name of a unit,
//! by what begins a pattern, by the user. What that leaves is bounded by [`PAIRS_MAX`].

use super::super::finding::{
    COVERED, Finding, NOT_ALL_PAIRS, OVERLAP, SAME_OWNERS, SAME_PROCESSES,
};
use super::overlap_text::{Meeting, names, process};
use super::{named, unit_of, user_of};
use crate::config::{Config, Facts, Section};
use crate::selector::{Selector, contradiction, imply, unit_name};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Most pairs that are held against each other: 0.1 s. Ten thousand sections as people write them
/// need fewer than twice as many pairs as there are sections.
const PAIRS_MAX: usize = 200_000;

/// Most others that are looked for beside one section: nobody reads on.
const OTHERS_MAX: usize = 4;

/// How two sections stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Relation {
    /// The same processes match both.
    Same,
    /// Every process that matches the one matches the other.
    Within,
    /// Some process may match both.
    May,
}

/// Pairs by the section they are told at, with the targets both own.
type Pairs = BTreeMap<(Relation, usize, usize), Vec<String>>;

pub fn findings(config: &Config, facts: Option<&Facts>, found: &mut Vec<Finding>) {
    let mut search = Search {
        sections: &config.workloads,
        known: config
            .workloads
            .iter()
            .map(|section| known_user(section, facts))
            .collect(),
        pairs: Pairs::new(),
        budget: PAIRS_MAX,
        others: HashMap::new(),
    };
    let mut owners: BTreeMap<(&str, bool), Vec<usize>> = BTreeMap::new();
    for (number, section) in config.workloads.iter().enumerate() {
        let container = section.matches.contains(&Selector::Container(true));
        for target in section.targets.keys() {
            owners.entry((target, container)).or_default().push(number);
        }
    }
    for ((target, _), owners) in &owners {
        search.of_target(target, owners);
    }
    let exhausted = search.budget == 0;
    tell(&config.workloads, &search.pairs, found);
    without_target(&config.workloads, &search.pairs, found);
    if exhausted {
        found.push(NOT_ALL_PAIRS.of_all(
            &config.path,
            format!(
                "{PAIRS_MAX} pairs of sections were held against each other, and there are more that \
                 could overlap"
            ),
            "match by unit, so that sections can be told apart by their names; then check again",
        ));
    }
}

/// The user that a unit's processes have, as the host's facts say, where the section says none. Root
/// may become another user by itself.
fn known_user(section: &Section, facts: Option<&Facts>) -> Option<Selector> {
    let unit = unit_of(section)?.exact()?;
    let unit = facts?.unit(unit_name(unit))?;
    let uid = facts?.uid(unit.user.as_deref()?)?;
    let is_fixed = uid != 0 && !unit.dynamic_user && user_of(section).is_none();
    is_fixed.then_some(Selector::User(uid))
}

struct Search<'a> {
    sections: &'a [Arc<Section>],
    /// What is known of their users beyond what they say.
    known: Vec<Option<Selector>>,
    pairs: Pairs,
    budget: usize,
    /// How many others each section has been told with, by target.
    others: HashMap<(usize, String), usize>,
}

/// The owners of one target, by what they are found by.
#[derive(Default)]
struct Anchors {
    /// By the unit's name, and the user if there is one.
    exact: HashMap<(String, Option<u32>), Vec<usize>>,
    /// By what stands before the star of the unit's name.
    stars: HashMap<String, Vec<usize>>,
    /// Those with a unit, by user.
    with_unit: HashMap<Option<u32>, Vec<usize>>,
    /// Those without.
    loose: HashMap<Option<u32>, Vec<usize>>,
    users: BTreeSet<Option<u32>>,
}

/// What a section is found by.
enum Anchor {
    Exact(String),
    Star(String),
    Loose,
}

fn anchor(section: &Section) -> Anchor {
    let user_unit = section
        .matches
        .iter()
        .any(|it| matches!(it, Selector::UserUnit(_)));
    match (unit_of(section), user_of(section)) {
        (Some(unit), _) => {
            let text = unit.to_string();
            let name = unit_name(&text);
            match name.split_once('*') {
                Some((before, _)) => Anchor::Star(before.to_owned()),
                None => Anchor::Exact(name.to_owned()),
            }
        }
        (None, Some(uid)) if user_unit => Anchor::Exact(format!("user@{uid}.service")),
        (None, _) => Anchor::Loose,
    }
}

impl Search<'_> {
    fn user(&self, number: usize) -> Option<u32> {
        match &self.known[number] {
            Some(Selector::User(uid)) => Some(*uid),
            _ => user_of(&self.sections[number]),
        }
    }

    fn of_target(&mut self, target: &str, owners: &[usize]) {
        let mut anchors = Anchors::default();
        for &number in owners {
            let user = self.user(number);
            let with_unit = match anchor(&self.sections[number]) {
                Anchor::Exact(name) => {
                    anchors.exact.entry((name, user)).or_default().push(number);
                    true
                }
                Anchor::Star(before) => {
                    anchors.stars.entry(before).or_default().push(number);
                    true
                }
                Anchor::Loose => false,
            };
            let list = if with_unit {
                &mut anchors.with_unit
            } else {
                &mut anchors.loose
            };
            list.entry(user).or_default().push(number);
            anchors.users.insert(user);
        }
        for &number in owners {
            self.of_owner(target, number, &anchors);
        }
    }

    /// Holds one owner against those that are at least as narrow, each pair once.
    fn of_owner(&mut self, target: &str, number: usize, anchors: &Anchors) {
        let user = self.user(number);
        let none = Vec::new();
        match anchor(&self.sections[number]) {
            Anchor::Exact(name) => {
                let exact = |user| anchors.exact.get(&(name.clone(), user)).unwrap_or(&none);
                self.among(target, number, exact(user));
                if user.is_some() {
                    exact(None)
                        .iter()
                        .for_each(|other| self.pair(target, *other, number));
                }
                // Every pattern that the name could fit begins as it does.
                for end in name.char_indices().map(|(at, _)| at) {
                    let stars = anchors.stars.get(&name[..end]).unwrap_or(&none);
                    stars
                        .iter()
                        .for_each(|wide| self.pair(target, *wide, number));
                }
            }
            Anchor::Star(before) => {
                self.among(target, number, anchors.stars.get(&before).unwrap_or(&none));
                for end in before.char_indices().map(|(at, _)| at) {
                    let stars = anchors.stars.get(&before[..end]).unwrap_or(&none);
                    stars
                        .iter()
                        .for_each(|wide| self.pair(target, *wide, number));
                }
            }
            Anchor::Loose => {
                self.among(target, number, anchors.loose.get(&user).unwrap_or(&none));
                let with_loose = |other: &Option<u32>| user.is_none() && other.is_some();
                for other in anchors.users.iter().filter(|other| with_loose(other)) {
                    let others = anchors.loose.get(other).unwrap_or(&none);
                    others
                        .iter()
                        .for_each(|narrow| self.pair(target, number, *narrow));
                }
                let users: Vec<Option<u32>> = match user {
                    Some(_) => vec![user, None],
                    None => anchors.users.iter().copied().collect(),
                };
                for other in users {
                    let others = anchors.with_unit.get(&other).unwrap_or(&none);
                    others
                        .iter()
                        .for_each(|narrow| self.pair(target, number, *narrow));
                }
            }
        }
    }

    /// Those of the same anchor that come after it.
    fn among(&mut self, target: &str, number: usize, others: &[usize]) {
        let after = others.partition_point(|other| *other <= number);
        others[after..]
            .iter()
            .for_each(|other| self.pair(target, number, *other));
    }

    /// Holds two owners of a target against each other; the wide one is who is told about.
    fn pair(&mut self, target: &str, wide: usize, narrow: usize) {
        let told = self
            .others
            .get(&(wide, target.to_owned()))
            .copied()
            .unwrap_or(0);
        if self.budget == 0 || told >= OTHERS_MAX {
            return;
        }
        self.budget -= 1;
        let Some((relation, one, other)) = self.relation(wide, narrow) else {
            return;
        };
        *self.others.entry((wide, target.to_owned())).or_default() += 1;
        self.pairs
            .entry((relation, one, other))
            .or_default()
            .push(target.to_owned());
    }

    /// How two sections stand, and which of them is to be told about; nothing if no process matches
    /// both.
    fn relation(&self, wide: usize, narrow: usize) -> Option<(Relation, usize, usize)> {
        let (one, other) = (&self.sections[wide], &self.sections[narrow]);
        if one.matches == other.matches && one.unless == other.unless {
            return Some((Relation::Same, wide, narrow));
        }
        let known = self.known[wide].iter().chain(&self.known[narrow]);
        let both: Vec<&Selector> = one
            .matches
            .iter()
            .chain(&other.matches)
            .chain(known)
            .collect();
        let excluded = |unless: &Vec<Selector>| unless.iter().all(|it| imply(&both, it));
        if contradiction(&both).is_some() || one.unless.iter().chain(&other.unless).any(excluded) {
            return None;
        }
        if is_within(other, self.known[narrow].as_ref(), one) {
            return Some((Relation::Within, narrow, wide));
        }
        if is_within(one, self.known[wide].as_ref(), other) {
            return Some((Relation::Within, wide, narrow));
        }
        Some((Relation::May, wide, narrow))
    }
}

/// Whether every process that matches the first matches the second too.
fn is_within(narrow: &Section, known: Option<&Selector>, wide: &Section) -> bool {
    let matches: Vec<&Selector> = narrow.matches.iter().chain(known).collect();
    let cannot_hold =
        |selector: &Selector| contradiction(&[matches.as_slice(), &[selector]].concat()).is_some();
    wide.matches
        .iter()
        .all(|selector| imply(&matches, selector))
        && wide
            .unless
            .iter()
            .all(|unless| unless.iter().any(cannot_hold))
}

/// Of what was found, a finding for each section and target.
fn tell(sections: &[Arc<Section>], pairs: &Pairs, found: &mut Vec<Finding>) {
    let mut may: BTreeMap<(usize, &[String]), Vec<usize>> = BTreeMap::new();
    for ((relation, one, other), targets) in pairs {
        let (first, second) = (&sections[*one], &sections[*other]);
        let owned = names("target", targets);
        match relation {
            Relation::Same => found.push(SAME_OWNERS.at(
                format!("{} and {}", named(first), named(second)),
                &first.place,
                format!(
                    "both match the same processes and own {owned}: exactly one owner may, so that \
                     every request for it is denied (the other is at {})",
                    second.place
                ),
                "remove the target from one of them",
            )),
            Relation::Within => found.push(COVERED.at(
                named(first),
                &first.place,
                format!(
                    "whatever it matches {} ({}) matches too, and both own {owned}: exactly one owner \
                     may, so that every request for it is denied",
                    named(second),
                    second.place
                ),
                format!(
                    "exclude it from the wider one: in {} write unless = {{ {} }}",
                    named(second),
                    Meeting::inline(&first.matches)
                ),
            )),
            Relation::May => may.entry((*one, targets)).or_default().push(*other),
        }
    }
    for ((one, targets), others) in may {
        let section = &sections[one];
        let first = &sections[others[0]];
        let process = process(&Meeting {
            one: section,
            other: first,
        });
        let object = match others.len() {
            1 => format!("{} and {}", named(section), named(first)),
            more if more < OTHERS_MAX => {
                let all: Vec<String> = others
                    .iter()
                    .map(|other| named(&sections[*other]))
                    .collect();
                format!("{} and {}", named(section), all.join(", "))
            }
            more => format!(
                "{}, {} and at least {} more",
                named(section),
                named(first),
                more - 1
            ),
        };
        found.push(OVERLAP.at(
            object,
            &section.place,
            format!(
                "{process} would match both {} and {} ({}), which both own {}, and be denied it as \
                 ambiguous",
                named(section),
                named(first),
                first.place,
                names("target", targets)
            ),
            format!(
                "narrow one of them, or exclude the other's processes: in {} write unless = {{ {} }}",
                named(section),
                Meeting::inline(&first.matches)
            ),
        ));
    }
}

/// Sections that say the same and share no target: their processes have the targets of both.
fn without_target(sections: &[Arc<Section>], told: &Pairs, found: &mut Vec<Finding>) {
    let mut same: HashMap<String, usize> = HashMap::new();
    for (number, section) in sections.iter().enumerate() {
        let texts: Vec<String> = section.matches.iter().map(ToString::to_string).collect();
        let first = *same.entry(texts.join(",")).or_insert(number);
        let other = &sections[first];
        let is_told = told.contains_key(&(Relation::Same, first, number));
        if first == number || is_told || other.unless != section.unless {
            continue;
        }
        found.push(SAME_PROCESSES.at(
            format!("{} and {}", named(other), named(section)),
            &other.place,
            format!(
                "both match the same processes, which have the targets of both (the other is at {})",
                section.place
            ),
            "make them one section, or give each a unit of its own",
        ));
    }
}
