//! The decision: may this workload have an assertion for this target? Exactly one section may
//! match the workload and own the target. None is a denial, two is a denial; there is no order
//! to get wrong.
//!
//! Pure: workload, target and time in, a verdict out. Only [`Policy::decide`] makes a [`Grant`],
//! and without a grant there are no claims.

use crate::config::{Section, Target};
use crate::peer::Proof;
use crate::selector::{Selector, Source, Verdict};
use crate::workload::{Extent, Wanted, Workload};
use index::Index;
use keystore::Time;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

mod explain;
mod index;
pub use explain::{Explanation, Judged, SectionVerdict, Standing};

/// All sections, found by the targets they own.
#[derive(Debug, Default)]
pub struct Policy {
    sections: Vec<Arc<Section>>,
    all: Index<Arc<Section>>,
    owners: HashMap<String, Index<Owner>>,
    uses_session: bool,
    /// Supplementary groups that some selector names.
    groups: BTreeSet<u32>,
    uses_program: bool,
}

/// A section and its target of some name.
#[derive(Debug)]
struct Owner {
    section: Arc<Section>,
    target: Arc<Target>,
}

/// The right to one assertion. Used once: not `Clone`, taken by value.
#[must_use]
#[derive(Debug)]
pub struct Grant {
    section: Arc<Section>,
    target: Arc<Target>,
    lifetime_s: u32,
    shadowed: Vec<&'static str>,
}

/// What the policy says.
#[must_use]
#[derive(Debug)]
pub enum Decision {
    /// One assertion.
    Allow(Grant),
    /// None, and why; the caller never learns why.
    Deny(Denial),
}

/// Why there is no grant. For records and administrators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No section has a target of this name.
    UnknownTarget,
    /// Sections have the target, but none of them matches the workload.
    NotYours,
    /// Two sections match and own the target.
    Ambiguous {
        /// One of them.
        one: Arc<str>,
        /// The other.
        other: Arc<str>,
    },
    /// The one that matches has expired.
    Expired {
        /// Which.
        section: Arc<str>,
    },
    /// The one that matches wants a better proof of the peer than this kernel gives.
    WeakProof {
        /// Which.
        section: Arc<str>,
    },
}

impl Policy {
    /// A policy of these sections. None at all denies everything.
    pub fn new(sections: Vec<Arc<Section>>) -> Policy {
        let mut policy = Policy::default();
        for section in &sections {
            policy.all.add(section, section.clone());
            for (name, target) in &section.targets {
                let owner = Owner {
                    section: section.clone(),
                    target: target.clone(),
                };
                let owners = policy.owners.entry(name.clone()).or_default();
                owners.add(section, owner);
            }
            policy.uses_session |= section.asks(Source::Session);
            policy
                .groups
                .extend(section.selectors().filter_map(|selector| match selector {
                    Selector::SupplementaryGroup(gid) => Some(*gid),
                    _ => None,
                }));
            policy.uses_program |= section.asks(Source::Program);
        }
        policy.sections = sections;
        policy
    }

    /// What has to be read of every workload.
    pub fn extent(&self) -> Extent {
        Extent {
            session: Wanted::when(self.uses_session),
            groups: Wanted::when(!self.groups.is_empty()),
        }
    }

    /// Whether its program may decide about this workload: some section that owns the target asks
    /// for it, and would match but for that.
    pub fn asks_for_program(&self, workload: &Workload, target: Option<&str>) -> bool {
        if !self.uses_program {
            return false;
        }
        self.any_but_for_program(workload, target, |section| section.asks(Source::Program))
    }

    /// Whether a section may match, that owns the target if one is named, whatever the workload runs.
    pub fn may_match(&self, workload: &Workload, target: Option<&str>) -> bool {
        self.any_but_for_program(workload, target, |_| true)
    }

    /// Whether some section, that owns the target if one is named, would match but for what is said of
    /// executables, and is such a one.
    fn any_but_for_program(
        &self,
        workload: &Workload,
        target: Option<&str>,
        is_such: impl Fn(&Section) -> bool,
    ) -> bool {
        let may = |section: &Arc<Section>| {
            let selectors = section.matches.iter();
            let others = selectors.filter(|selector| selector.source() != Source::Program);
            is_such(section) && all_hold(others, workload)
        };
        match target {
            Some(target) => {
                let mut owners = self.candidates(workload, target);
                owners.any(|owner| may(&owner.section))
            }
            None => self.all.candidates(workload).any(may),
        }
    }

    /// Whether it matters to some section that a workload is in this supplementary group.
    pub fn names_group(&self, gid: u32) -> bool {
        self.groups.contains(&gid)
    }

    /// Decides about one request. `lifetime_s` can only shorten.
    pub fn decide(
        &self,
        workload: &Workload,
        target: &str,
        lifetime_s: Option<u32>,
        now: Time,
    ) -> Decision {
        if !self.knows_target(target) {
            return Decision::Deny(Denial::UnknownTarget);
        }
        let mut matching = self
            .candidates(workload, target)
            .filter(|owner| fits(&owner.section, workload));
        let Some(Owner { section, target }) = matching.next() else {
            return Decision::Deny(Denial::NotYours);
        };
        if let Some(other) = matching.next() {
            let (one, other) = (section.name.clone(), other.section.name.clone());
            return Decision::Deny(Denial::Ambiguous { one, other });
        }
        let name = || section.name.clone();
        if section.expires.is_some_and(|expires| now >= expires) {
            return Decision::Deny(Denial::Expired { section: name() });
        }
        if workload.proof() == Proof::Pid && !section.allow_pid_fallback {
            return Decision::Deny(Denial::WeakProof { section: name() });
        }
        let lifetime_s = lifetime_s
            .unwrap_or(target.lifetime_s)
            .clamp(1, target.lifetime_s);
        let shadow = section.shadow.iter();
        let shadowed = shadow.filter(|selector| selector.verdict(workload) != Verdict::Holds);
        Decision::Allow(Grant {
            section: section.clone(),
            target: target.clone(),
            lifetime_s,
            shadowed: shadowed.map(Selector::key).collect(),
        })
    }

    /// The sections that match a workload, for `whoami` and `targets`.
    pub fn sections_of(&self, workload: &Workload) -> impl Iterator<Item = &Arc<Section>> {
        let candidates = self.all.candidates(workload);
        candidates.filter(|section| fits(section, workload))
    }

    /// Those of them that would grant something now, for `targets`.
    pub fn granting(&self, workload: &Workload, now: Time) -> impl Iterator<Item = &Arc<Section>> {
        let weak = workload.proof() == Proof::Pid;
        self.sections_of(workload).filter(move |section| {
            let over = section.expires.is_some_and(|expires| now >= expires);
            !over && (!weak || section.allow_pid_fallback)
        })
    }

    /// Whether any section has a target of this name: unknown ones are recorded as one.
    pub fn knows_target(&self, target: &str) -> bool {
        self.owners.contains_key(target)
    }

    fn candidates(&self, workload: &Workload, target: &str) -> impl Iterator<Item = &Owner> {
        let owners = self.owners.get(target).into_iter();
        owners.flat_map(|index| index.candidates(workload))
    }
}

impl Grant {
    /// The section that granted.
    pub fn section(&self) -> &Section {
        &self.section
    }

    /// For what.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// For how long, in seconds: the least of request, target and profile.
    pub fn lifetime_s(&self) -> u32 {
        self.lifetime_s
    }

    /// Selectors in the section's `shadow` that do not hold.
    pub fn shadowed(&self) -> &[&'static str] {
        &self.shadowed
    }
}

/// Whether a section is about this workload: all of `match` holds, and no `unless` may.
fn fits(section: &Section, workload: &Workload) -> bool {
    let may_hold = |selector: &Selector| selector.verdict(workload) != Verdict::Fails;
    all_hold(section.matches.iter(), workload)
        && !section
            .unless
            .iter()
            .any(|unless| unless.iter().all(may_hold))
}

fn all_hold<'a>(mut selectors: impl Iterator<Item = &'a Selector>, workload: &Workload) -> bool {
    selectors.all(|selector| selector.verdict(workload) == Verdict::Holds)
}

impl Denial {
    /// The reason as records say it: a fixed word.
    pub fn reason(&self) -> &'static str {
        match self {
            Denial::UnknownTarget => "unknown_target",
            Denial::NotYours => "not_yours",
            Denial::Ambiguous { .. } => "ambiguous",
            Denial::Expired { .. } => "expired",
            Denial::WeakProof { .. } => "weak_proof",
        }
    }
}

#[cfg(test)]
mod tests;
