//! Which sections may be about a workload at all, found without asking each: by the name of its unit,
//! or by its user. Ten thousand sections that share a target cost as much as ten.
//!
//! Must never leave out one that fits; it may well offer some that do not.

use crate::config::Section;
use crate::selector::Selector;
use crate::workload::{Unit, Workload};
use std::collections::HashMap;

/// Numbers of sections.
#[derive(Debug, Default)]
pub struct Index {
    by_unit: HashMap<String, Vec<usize>>,
    by_user: HashMap<u32, Vec<usize>>,
    /// Those with neither one unit nor a user.
    others: Vec<usize>,
}

impl Index {
    /// Adds one.
    pub fn add(&mut self, number: usize, section: &Section) {
        let unit = section.matches.iter().find_map(|selector| match selector {
            Selector::Unit(pattern) => pattern.exact(),
            _ => None,
        });
        let user = section.matches.iter().find_map(|selector| match selector {
            Selector::User(uid) => Some(*uid),
            _ => None,
        });
        match (unit, user) {
            (Some(unit), _) => {
                let name = unit.rsplit('/').next().unwrap_or(unit);
                self.by_unit
                    .entry(name.to_owned())
                    .or_default()
                    .push(number);
            }
            (None, Some(uid)) => self.by_user.entry(uid).or_default().push(number),
            (None, None) => self.others.push(number),
        }
    }

    /// Those that may be about this workload.
    pub fn candidates(&self, workload: &Workload) -> impl Iterator<Item = usize> {
        let unit = workload.unit().map(Unit::name);
        let by_unit = unit.and_then(|name| self.by_unit.get(name));
        let by_user = self.by_user.get(&workload.uid());
        let found = by_unit.into_iter().chain(by_user).flatten();
        found.chain(&self.others).copied()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = usize> {
        let lists = self.by_unit.values().chain(self.by_user.values());
        lists.flatten().chain(&self.others).copied()
    }
}
