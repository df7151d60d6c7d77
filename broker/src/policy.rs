//! The decision: may this workload have an assertion for this target? Exactly one section may
//! match the workload and own the target. None is a denial, two is a denial; there is no order
//! to get wrong.
//!
//! Pure: workload, target and time in, a verdict out. Only [`Policy::decide`] makes a [`Grant`],
//! and without a grant there are no claims.

use crate::config::{Match, Section, Target};
use crate::peer::Proof;
use crate::workload::{Unit, Workload};
use keystore::Time;
use std::collections::HashMap;
use std::sync::Arc;

/// All sections, found by the targets they own.
#[derive(Debug, Default)]
pub struct Policy {
    sections: Vec<Arc<Section>>,
    owners: HashMap<String, Vec<usize>>,
}

/// The right to one assertion. Used once: not `Clone`, taken by value.
#[must_use]
#[derive(Debug)]
pub struct Grant {
    section: Arc<Section>,
    target: Arc<Target>,
    lifetime_s: u32,
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
        let mut owners: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, section) in sections.iter().enumerate() {
            for target in section.targets.keys() {
                owners.entry(target.clone()).or_default().push(index);
            }
        }
        Policy { sections, owners }
    }

    /// Decides about one request. `lifetime_s` can only shorten.
    pub fn decide(
        &self,
        workload: &Workload,
        target: &str,
        lifetime_s: Option<u32>,
        now: Time,
    ) -> Decision {
        let Some(owners) = self.owners.get(target) else {
            return Decision::Deny(Denial::UnknownTarget);
        };
        let mut matching = owners
            .iter()
            .map(|index| &self.sections[*index])
            .filter(|s| fits(&s.matches, workload));
        let Some(section) = matching.next() else {
            return Decision::Deny(Denial::NotYours);
        };
        if let Some(other) = matching.next() {
            let (one, other) = (section.name.clone(), other.name.clone());
            return Decision::Deny(Denial::Ambiguous { one, other });
        }
        if section.expires.is_some_and(|expires| now >= expires) {
            return Decision::Deny(Denial::Expired {
                section: section.name.clone(),
            });
        }
        if workload.proof() == Proof::Pid && !section.allow_pid_fallback {
            return Decision::Deny(Denial::WeakProof {
                section: section.name.clone(),
            });
        }
        let target = section.targets[target].clone();
        let lifetime_s = lifetime_s
            .unwrap_or(target.lifetime_s)
            .clamp(1, target.lifetime_s);
        Decision::Allow(Grant {
            section: section.clone(),
            target,
            lifetime_s,
        })
    }

    /// The sections that match a workload, for `whoami` and `targets`.
    pub fn sections_of(&self, workload: &Workload) -> impl Iterator<Item = &Arc<Section>> {
        self.sections
            .iter()
            .filter(|section| fits(&section.matches, workload))
    }

    /// Whether any section has a target of this name: unknown ones are recorded as one.
    pub fn knows_target(&self, target: &str) -> bool {
        self.owners.contains_key(target)
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
}

/// All selectors that are given hold. A selector on a property the workload lacks never does.
fn fits(matches: &Match, workload: &Workload) -> bool {
    let unit_fits = match (&matches.unit, workload.unit()) {
        (None, _) => true,
        (Some(wanted), Some(unit)) => unit_is(wanted, unit),
        (Some(_), None) => false,
    };
    unit_fits
        && matches.uid.is_none_or(|uid| uid == workload.uid())
        && matches.gid.is_none_or(|gid| gid == workload.gid())
        && matches.container == workload.container()
}

fn unit_is(wanted: &str, unit: &Unit) -> bool {
    if wanted.starts_with('/') {
        unit.path() == wanted
    } else {
        unit.name() == wanted
    }
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
