//! One version of a key: how far it has come.

use super::Age;
use serde::{Deserialize, Serialize};

/// How far a version has come. A phase ending in *-ing* is an intent: something outside is to be
/// done, or half done, and is done again after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Phase {
    /// The keystore is to make it.
    Making {},
    /// It is there, and its public key recorded. Nobody else knows it.
    Made {
        /// Since when.
        since: Age,
    },
    /// It belongs to the published set, and the documents are to say so.
    Listing {},
    /// The documents say so. It does not sign.
    Published {
        /// Since when.
        since: Age,
        /// Since when it is seen at the public URL, if that is looked at; or since when its canary has passed.
        seen: Option<Age>,
    },
    /// It signs.
    Active {
        /// Since when.
        since: Age,
    },
    /// It signs no more, and what it has signed is still valid.
    Retiring {
        /// Since when.
        since: Age,
    },
    /// It belongs to the set no more, and the documents are to say so.
    Withdrawing {
        /// Since when it does not sign.
        since: Age,
    },
    /// The documents say so. It is kept for a while.
    Withdrawn {
        /// Since when it does not sign.
        since: Age,
    },
    /// The keystore is to destroy it.
    Destroying {},
    /// It is gone. What is known of it is kept for ever, so that nothing gets its name again.
    Destroyed {},
}

/// Why a version signs no more, or never did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Another one took its place, or has yet to.
    #[default]
    Succession,
    /// Somebody may have misused it: nothing waits any more, and nothing brings it back.
    Compromise,
    /// Its token is said to be gone.
    Loss,
    /// It was given up before it had signed anything.
    Abandonment,
}

/// One version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// How far it has come.
    pub phase: Phase,
    /// Why it ended.
    #[serde(default)]
    pub cause: Cause,
    /// The longest lifetime of anything it may have signed, in seconds.
    pub lifetime_max_s: u64,
}

impl Version {
    /// One that is to be made.
    pub fn intended(lifetime_max_s: u64) -> Version {
        Version {
            phase: Phase::Making {},
            cause: Cause::Succession,
            lifetime_max_s,
        }
    }

    /// Since when it is as it is, where that is written down.
    pub fn since(&self) -> Option<Age> {
        match self.phase {
            Phase::Made { since }
            | Phase::Published { since, .. }
            | Phase::Active { since }
            | Phase::Retiring { since }
            | Phase::Withdrawing { since }
            | Phase::Withdrawn { since } => Some(since),
            Phase::Making {} | Phase::Listing {} | Phase::Destroying {} | Phase::Destroyed {} => {
                None
            }
        }
    }

    /// Whether it belongs to the published set.
    pub fn is_listed(&self) -> bool {
        matches!(
            self.phase,
            Phase::Listing {}
                | Phase::Published { .. }
                | Phase::Active { .. }
                | Phase::Retiring { .. }
        )
    }

    /// Whether it is on its way to become active.
    pub fn is_coming(&self) -> bool {
        matches!(
            self.phase,
            Phase::Making {} | Phase::Made { .. } | Phase::Listing {} | Phase::Published { .. }
        )
    }

    /// Whether it signs.
    pub fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active { .. })
    }

    /// Whether the keystore has made it and has not been told to destroy it.
    pub fn is_kept(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Making {} | Phase::Destroying {} | Phase::Destroyed {}
        )
    }
}
