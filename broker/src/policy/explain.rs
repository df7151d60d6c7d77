//! Why a decision is as it is, for administrators: which sections own the target, and of each which
//! selector fails, with what the workload has instead. Says what [`Policy::decide`] does, and
//! decides nothing itself.

use super::{Decision, Denial, Policy, fits};
use crate::config::{Place, Section};
use crate::selector::{Selector, Verdict};
use crate::workload::Workload;
use keystore::Time;
use std::sync::Arc;

/// Most sections that are told about, the nearest first: with thousands nobody reads the rest.
const SECTIONS_MAX: usize = 10;

/// Of one workload and one target.
#[derive(Debug)]
pub struct Explanation {
    /// As [`Policy::decide`] decides it.
    pub denial: Option<Denial>,
    /// Sections that own the target, the nearest first.
    pub sections: Vec<SectionVerdict>,
    /// How many more there are.
    pub more: usize,
}

/// One section that owns the target.
#[derive(Debug)]
pub struct SectionVerdict {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is written.
    pub place: Place,
    /// Whether it is about the workload.
    pub standing: Standing,
    /// What it demands, in the order it is written.
    pub matches: Vec<Judged>,
    /// Of those `unless` that exclude the workload: what they name.
    pub unless: Vec<Judged>,
    /// Its shadow conditions.
    pub shadow: Vec<Judged>,
}

/// Whether a section is about a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It matches.
    Matches,
    /// Something in `match` does not hold.
    DoesNotMatch,
    /// It would match, and an `unless` excludes it.
    Excluded,
}

/// One selector and what the workload has.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged {
    /// The selector's key.
    pub key: &'static str,
    /// What is demanded.
    pub wanted: String,
    /// What is there.
    pub found: String,
    /// Whether it holds.
    pub verdict: Verdict,
}

impl Policy {
    /// Why a workload gets an assertion for this target, or none.
    pub fn explain(&self, workload: &Workload, target: &str, now: Time) -> Explanation {
        let denial = match self.decide(workload, target, None, now) {
            Decision::Allow(_) => None,
            Decision::Deny(denial) => Some(denial),
        };
        let owners = self.owners.get(target).into_iter();
        let owners = owners.flat_map(|index| index.all());
        let mut owners: Vec<&Arc<Section>> = owners.map(|owner| &owner.section).collect();
        owners.sort_by_cached_key(|section| (distance(section, workload), section.name.clone()));
        let more = owners.len().saturating_sub(SECTIONS_MAX);
        let sections = owners.into_iter().take(SECTIONS_MAX);
        Explanation {
            denial,
            sections: sections.map(|section| verdict(section, workload)).collect(),
            more,
        }
    }
}

/// How far a section is from a workload: how many selectors stand between them.
fn distance(section: &Section, workload: &Workload) -> usize {
    let fails = |selector: &&Selector| selector.verdict(workload) != Verdict::Holds;
    section.matches.iter().filter(fails).count()
}

fn verdict(section: &Section, workload: &Workload) -> SectionVerdict {
    let judge = |selectors: &[Selector]| -> Vec<Judged> {
        selectors
            .iter()
            .map(|selector| judged(selector, workload))
            .collect()
    };
    let matches = judge(&section.matches);
    let standing = match distance(section, workload) {
        _ if fits(section, workload) => Standing::Matches,
        0 => Standing::Excluded,
        _ => Standing::DoesNotMatch,
    };
    let excludes = |unless: &&Vec<Selector>| {
        let mut selectors = unless.iter();
        selectors.all(|selector| selector.verdict(workload) != Verdict::Fails)
    };
    SectionVerdict {
        name: section.name.clone(),
        place: section.place.clone(),
        standing,
        matches,
        unless: section
            .unless
            .iter()
            .filter(excludes)
            .flat_map(|unless| judge(unless))
            .collect(),
        shadow: judge(&section.shadow),
    }
}

fn judged(selector: &Selector, workload: &Workload) -> Judged {
    Judged {
        key: selector.key(),
        wanted: selector.wanted(),
        found: selector.found(workload),
        verdict: selector.verdict(workload),
    }
}
