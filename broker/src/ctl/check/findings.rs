//! What can be wrong with a configuration that loads. Pure: a configuration, a host's facts if there
//! are some, and the time in; findings out. Ten thousand sections take a fraction of a second: no
//! section is held against all others.

mod bounds;
mod exclusion;
mod host;
mod overlap;
mod overlap_text;
mod section;
mod subjects;
mod target;

use super::finding::{Finding, NEEDS_WITNESS, NO_PURPOSE, NO_WORKLOAD};
use crate::config::{Config, Facts, Section};
use crate::selector::{Pattern, Selector};
use host::Host;
use keystore::Time;
use std::sync::Arc;

/// Everything there is to say: what can never work first, then by section.
pub fn findings(config: &Config, facts: Option<&Facts>, now: Time) -> Vec<Finding> {
    let mut found = Vec::new();
    if config.workloads.is_empty() {
        found.push(NO_WORKLOAD.of_all(
            &config.path,
            "there is no workload, so that every request is denied",
            "write a [workload.NAME] in conf.d/NAME.toml beside it",
        ));
    }
    // Of a host that is known it is said whether it has one.
    let is_unknown = facts.and_then(|facts| facts.witness).is_none();
    if config.deny.executables.is_some() && is_unknown {
        found.push(NEEDS_WITNESS.of_all(
            &config.path,
            "`executables` in [deny] needs assertd's witness, which reads what workloads run; where it \
             does not run, this whole configuration does not come into force",
            section::ENABLE_WITNESS,
        ));
    }
    let mut host = facts.map(Host::of);
    for section in &config.workloads {
        section::findings(section, now, &mut found);
        exclusion::findings(section, &mut found);
        for target in section.targets.values() {
            target::findings(target, &mut found);
        }
        if let Some(host) = &mut host {
            host.section(section, &mut found);
        }
    }
    overlap::findings(config, facts, &mut found);
    subjects::findings(config, &mut found);
    bounds::findings(config, &mut found);
    if let Some(host) = host {
        host.config(config, &mut found);
    }
    found.extend(without_purpose(&config.workloads));
    found.sort_by_key(|finding| finding.severity);
    found
}

/// One line for all of them: nothing is wrong with any.
fn without_purpose(sections: &[Arc<Section>]) -> Option<Finding> {
    let mut without = sections.iter().filter(|section| section.purpose.is_none());
    let first = without.next()?;
    let object = match without.count() {
        0 => named(first),
        others => format!("{} and {others} more", named(first)),
    };
    Some(NO_PURPOSE.at(
        object,
        &first.place,
        "it says no `purpose`, which whoever reviews access reads first",
        "write purpose = \"what it is for, in a sentence\"",
    ))
}

/// As it is written.
fn named(section: &Section) -> String {
    format!("[workload.{}]", section.name)
}

/// The user that a section demands.
fn user_of(section: &Section) -> Option<u32> {
    section.matches.iter().find_map(|selector| match selector {
        Selector::User(uid) => Some(*uid),
        _ => None,
    })
}

/// The unit that a section demands.
fn unit_of(section: &Section) -> Option<&Pattern> {
    section.matches.iter().find_map(|selector| match selector {
        Selector::Unit(pattern) => Some(pattern),
        _ => None,
    })
}

/// The slice that a section demands.
fn slice_of(section: &Section) -> Option<&str> {
    section.matches.iter().find_map(|selector| match selector {
        Selector::Slice(slice) => Some(slice.as_str()),
        _ => None,
    })
}

#[cfg(test)]
pub mod tests;
