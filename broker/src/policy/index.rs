//! Which sections may be about a workload at all, found without asking each: by the name of its unit,
//! by what that begins with, or by its user. Ten thousand sections that share a target cost as much
//! as ten.
//!
//! Must never leave out one that fits, nor offer one twice; it may well offer some that do not fit.
//! What is not in the processor's caches takes a hundred times as long as what is, and of ten thousand
//! sections hardly one is: so as little as possible is fetched on the way to one.

use crate::config::Section;
use crate::selector::{Pattern, Selector, unit_name};
use crate::workload::{Unit, Workload};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Sections, or what stands for them. Each is in one place alone.
#[derive(Debug)]
pub struct Index<T> {
    /// By what a unit's name hashes to: the name itself would be one more thing to fetch, and two that
    /// hash alike are told apart by who is offered both.
    by_unit: HashMap<u64, List<T>>,
    hasher: RandomState,
    /// By what units' names begin with.
    by_start: HashMap<String, List<T>>,
    /// The lengths of those starts that are not templates' (`app@`), each once.
    start_lengths: Vec<usize>,
    by_user: HashMap<u32, List<T>>,
    /// Those with neither a unit nor a user.
    others: List<T>,
}

/// Usually of one, which lies where the list does.
#[derive(Debug)]
struct List<T> {
    first: Option<T>,
    more: Vec<T>,
}

/// What the names of all units that fit a pattern have in common.
enum Names {
    /// They are this one.
    Exact(String),
    /// They begin so.
    Start(String),
}

impl<T> Index<T> {
    /// Adds what stands for a section.
    pub fn add(&mut self, section: &Section, item: T) {
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
        list.push(item);
    }

    fn by_start(&mut self, start: String) -> &mut List<T> {
        let length = start.len();
        if !is_template(&start) && !self.start_lengths.contains(&length) {
            self.start_lengths.push(length);
        }
        self.by_start.entry(start).or_default()
    }

    /// Those that may be about this workload.
    pub fn candidates(&self, workload: &Workload) -> impl Iterator<Item = &T> {
        let unit = workload.unit().map(Unit::name);
        let by_unit = unit.and_then(|name| self.by_unit.get(&self.hasher.hash_one(name)));
        let by_start = unit.into_iter().flat_map(|name| self.starts_of(name));
        let by_user = self.by_user.get(&workload.uid());
        let found = by_unit.into_iter().chain(by_start).chain(by_user);
        found.chain([&self.others]).flat_map(List::each)
    }

    /// Lists of the starts of a name.
    fn starts_of(&self, name: &str) -> impl Iterator<Item = &List<T>> {
        let templates = name.match_indices('@').map(|(at, _)| &name[..=at]);
        let others = self.start_lengths.iter();
        let others = others.filter_map(|length| name.get(..*length));
        let starts = templates.chain(others.filter(|start| !is_template(start)));
        starts.filter_map(|start| self.by_start.get(start))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        let of_units = self.by_unit.values().chain(self.by_start.values());
        let lists = of_units.chain(self.by_user.values());
        lists.chain([&self.others]).flat_map(List::each)
    }
}

impl<T> List<T> {
    fn push(&mut self, item: T) {
        match self.first {
            None => self.first = Some(item),
            Some(_) => self.more.push(item),
        }
    }

    fn each(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.more)
    }
}

impl<T> Default for Index<T> {
    fn default() -> Index<T> {
        Index {
            by_unit: HashMap::new(),
            hasher: RandomState::new(),
            by_start: HashMap::new(),
            start_lengths: Vec::new(),
            by_user: HashMap::new(),
            others: List::default(),
        }
    }
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List {
            first: None,
            more: Vec::new(),
        }
    }
}

/// Of a path its last part counts: the unit's name. The star stands for no `/`.
fn names(pattern: &Pattern) -> Names {
    let last = |text: &str| unit_name(text).to_owned();
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
