//! Which sections may be about a workload at all, found without asking each: by the name of its unit,
//! by what that begins with, or by its user. Ten thousand sections that share a target cost as much
//! as ten.
//!
//! Must never leave out one that fits, nor offer one twice; it may well offer some that do not fit.

use crate::config::Section;
use crate::selector::{Pattern, Selector};
use crate::workload::{Unit, Workload};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Numbers of sections. Each is in one place alone.
#[derive(Debug, Default)]
pub struct Index {
    /// By what a unit's name hashes to: the name itself would have to be fetched from memory, and two
    /// that hash alike are told apart by who is offered both.
    by_unit: HashMap<u64, Numbers>,
    hasher: RandomState,
    /// By what units' names begin with.
    by_start: HashMap<String, Numbers>,
    /// The lengths of those starts that are not templates' (`app@`), each once.
    start_lengths: Vec<usize>,
    by_user: HashMap<u32, Numbers>,
    /// Those with neither a unit nor a user.
    others: Numbers,
}

/// Usually one, which is not fetched from elsewhere.
#[derive(Debug, Default)]
struct Numbers {
    first: Option<u32>,
    more: Vec<u32>,
}

/// What the names of all units that fit a pattern have in common.
enum Names {
    /// They are this one.
    Exact(String),
    /// They begin so.
    Start(String),
}

impl Index {
    /// Adds one.
    pub fn add(&mut self, number: usize, section: &Section) {
        let names = section.matches.iter().find_map(|selector| match selector {
            Selector::Unit(pattern) => Some(names(pattern)),
            _ => None,
        });
        let user = section.matches.iter().find_map(|selector| match selector {
            Selector::User(uid) => Some(*uid),
            _ => None,
        });
        let list = match (names, user) {
            (Some(Names::Exact(name)), _) => {
                let hash = self.hasher.hash_one(&name);
                self.by_unit.entry(hash).or_default()
            }
            // Teams' units begin alike, instances of one template alone as its name does.
            (Some(Names::Start(start)), None) => self.by_start(start),
            (Some(Names::Start(start)), Some(_)) if is_template(&start) => self.by_start(start),
            (_, Some(uid)) => self.by_user.entry(uid).or_default(),
            (None, None) => &mut self.others,
        };
        list.push(number);
    }

    fn by_start(&mut self, start: String) -> &mut Numbers {
        let length = start.len();
        if !is_template(&start) && !self.start_lengths.contains(&length) {
            self.start_lengths.push(length);
        }
        self.by_start.entry(start).or_default()
    }

    /// Those that may be about this workload.
    pub fn candidates(&self, workload: &Workload) -> impl Iterator<Item = usize> {
        let unit = workload.unit().map(Unit::name);
        let by_unit = unit.and_then(|name| self.by_unit.get(&self.hasher.hash_one(name)));
        let by_start = unit.into_iter().flat_map(|name| self.starts_of(name));
        let by_user = self.by_user.get(&workload.uid());
        let found = by_unit.into_iter().chain(by_start).chain(by_user);
        found.chain([&self.others]).flat_map(Numbers::each)
    }

    /// Lists of the starts of a name.
    fn starts_of(&self, name: &str) -> impl Iterator<Item = &Numbers> {
        let templates = name.match_indices('@').map(|(at, _)| &name[..=at]);
        let others = self.start_lengths.iter();
        let others = others.filter_map(|length| name.get(..*length));
        let starts = templates.chain(others.filter(|start| !is_template(start)));
        starts.filter_map(|start| self.by_start.get(start))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = usize> {
        let of_units = self.by_unit.values().chain(self.by_start.values());
        let lists = of_units.chain(self.by_user.values());
        lists.chain([&self.others]).flat_map(Numbers::each)
    }
}

impl Numbers {
    fn push(&mut self, number: usize) {
        let number = u32::try_from(number).expect("files of 16 MiB hold fewer sections");
        match self.first {
            None => self.first = Some(number),
            Some(_) => self.more.push(number),
        }
    }

    fn each(&self) -> impl Iterator<Item = usize> {
        let all = self.first.iter().chain(&self.more);
        all.map(|number| *number as usize)
    }
}

/// Of a path its last part counts: the unit's name. The star stands for no `/`.
fn names(pattern: &Pattern) -> Names {
    let last = |text: &str| text.rsplit('/').next().unwrap_or(text).to_owned();
    match pattern.exact() {
        Some(text) => Names::Exact(last(text)),
        None if pattern.after().contains('/') => Names::Exact(last(pattern.after())),
        None => Names::Start(last(pattern.before())),
    }
}

/// Whether names that begin so are instances of one template.
fn is_template(start: &str) -> bool {
    start.ends_with('@')
}
