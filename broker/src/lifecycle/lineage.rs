//! All versions of one key, and the changes there are. A change that does not fit is refused, and
//! says so: whoever asks for one has looked at something else.

use super::{Age, Cause, Phase, Version};
use keystore::KeyVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Writing a record takes milliseconds. From here on it is corrected what it says of the time.
const LATE_S: u64 = 2;

/// What is written down of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    pub(super) versions: BTreeMap<u32, Version>,
    /// Whether an operator has stopped it.
    #[serde(default)]
    pub hold: Hold,
}

/// Whether an operator has stopped a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// No.
    #[default]
    Free,
    /// Nothing signs with it until `resume`, and no version becomes active.
    Held,
}

/// One change. What follows from it happens when it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A next version is to be made.
    Intend {
        /// The longest lifetime of what it may sign.
        lifetime_max_s: u64,
    },
    /// The keystore has made it.
    Made(KeyVersion),
    /// It belongs to the published set.
    List(KeyVersion),
    /// The documents are written, as the versions are now.
    Written,
    /// It was seen at the public URL, or its canary has passed.
    Seen(KeyVersion),
    /// It is seen there no more.
    Unseen(KeyVersion),
    /// It signs, and the one that did retires: one write.
    Activate(KeyVersion),
    /// It belongs to the set no more.
    Withdraw(KeyVersion),
    /// It is to be destroyed.
    Condemn(KeyVersion),
    /// The keystore has destroyed it.
    Destroyed(KeyVersion),
    /// What it signs may live so long.
    Lifetime(KeyVersion, u64),
    /// It signs no more, for this reason.
    End(KeyVersion, Cause),
    /// An operator stops the key, or lets it go on.
    Hold(Hold),
}

impl Change {
    /// Whether something signs no more from then on that could before, and is not waited for.
    pub fn stops(&self) -> bool {
        matches!(
            self,
            Change::End(_, Cause::Compromise) | Change::Hold(Hold::Held)
        )
    }
}

/// A change that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(Change, Option<Version>);

impl Lineage {
    /// One whose first version is there and signs: a key made before lineages were written down, or one
    /// that is adopted.
    pub fn of_active(version: KeyVersion, lifetime_max_s: u64, now: Age) -> Lineage {
        let active = Version {
            phase: Phase::Active { since: now },
            ..Version::intended(lifetime_max_s)
        };
        Lineage {
            versions: BTreeMap::from([(version.number(), active)]),
            hold: Hold::Free,
        }
    }

    /// One whose first version has just been made.
    pub fn of_made(version: KeyVersion, lifetime_max_s: u64, now: Age) -> Lineage {
        let made = Version {
            phase: Phase::Made { since: now },
            ..Version::intended(lifetime_max_s)
        };
        Lineage {
            versions: BTreeMap::from([(version.number(), made)]),
            hold: Hold::Free,
        }
    }

    /// All versions, oldest first.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = (KeyVersion, &Version)> {
        let known = self.versions.iter();
        known.filter_map(|(number, version)| Some((KeyVersion::new(*number)?, version)))
    }

    /// One of them.
    pub fn version(&self, version: KeyVersion) -> Option<&Version> {
        self.versions.get(&version.number())
    }

    /// The one that signs, unless the key is held.
    pub fn active(&self) -> Option<(KeyVersion, &Version)> {
        self.versions().find(|(_, version)| version.is_active())
    }

    /// The one on its way to become active.
    pub fn coming(&self) -> Option<(KeyVersion, &Version)> {
        self.versions().find(|(_, version)| version.is_coming())
    }

    /// The set as it is to be published: the active version first, then the others, oldest first.
    pub fn listed(&self) -> Vec<KeyVersion> {
        let listed = self.versions().filter(|(_, version)| version.is_listed());
        let (mut set, others): (Vec<_>, Vec<_>) =
            listed.partition(|(_, version)| version.is_active());
        set.extend(others);
        set.into_iter().map(|(number, _)| number).collect()
    }

    /// What signs, or will, may sign for so long from here on, in seconds.
    pub fn will_live(&mut self, lifetime_max_s: u64) {
        let signs = |version: &&mut Version| version.is_active() || version.is_coming();
        for version in self.versions.values_mut().filter(signs) {
            version.lifetime_max_s = version.lifetime_max_s.max(lifetime_max_s);
        }
    }

    /// What was to retire at `stamped` signed until `switched`, because writing that down took longer than
    /// what is kept for requests in flight is meant for. `None` if nothing did.
    pub fn retired_late(&self, stamped: Age, switched: Age) -> Option<Lineage> {
        if switched.since(stamped) <= LATE_S {
            return None;
        }
        let mut late = self.clone();
        for version in late.versions.values_mut() {
            if let Phase::Retiring { since } = &mut version.phase
                && *since == stamped
            {
                *since = switched;
            }
        }
        (late != *self).then_some(late)
    }

    /// Whether there are versions, and none is to be believed because one was misused.
    pub fn is_revoked(&self) -> bool {
        let mut versions = self.versions();
        self.listed().is_empty() && versions.any(|(_, it)| it.cause == Cause::Compromise)
    }

    /// The highest number there is or ever was.
    pub fn newest(&self) -> Option<KeyVersion> {
        self.versions().next_back().map(|(number, _)| number)
    }

    /// Whether the keystore has made a version after this one: the broker may destroy no newest.
    pub fn has_younger(&self, version: KeyVersion) -> bool {
        let mut younger = self.versions().filter(|(number, _)| *number > version);
        younger.any(|(_, version)| !matches!(version.phase, Phase::Making {}))
    }

    /// The lineage after a change at this time.
    ///
    /// # Errors
    /// If the change does not fit; nothing is changed then.
    pub fn after(&self, change: Change, now: Age) -> Result<Lineage, Wrong> {
        let mut next = self.clone();
        next.change(change, now)?;
        Ok(next)
    }

    fn change(&mut self, change: Change, now: Age) -> Result<(), Wrong> {
        match change {
            Change::Intend { lifetime_max_s } => {
                if self.coming().is_some() {
                    return Err(Wrong(change, None));
                }
                let number = self
                    .newest()
                    .map_or(Some(1), |newest| newest.number().checked_add(1));
                let number = number.ok_or(Wrong(change, None))?;
                self.versions
                    .insert(number, Version::intended(lifetime_max_s));
            }
            Change::Hold(hold) => self.hold = hold,
            Change::Written => {
                for version in self.versions.values_mut() {
                    version.phase = match version.phase {
                        Phase::Listing {} => Phase::Published {
                            since: now,
                            seen: None,
                        },
                        Phase::Withdrawing { since } => Phase::Withdrawn { since },
                        other => other,
                    };
                }
            }
            Change::Activate(number) => {
                let before = self.active().map(|(number, _)| number);
                self.set(number, change, |phase| match phase {
                    Phase::Published { .. } | Phase::Retiring { .. } => {
                        Some(Phase::Active { since: now })
                    }
                    _ => None,
                })?;
                self.goes_on(number);
                if let Some(before) = before {
                    self.set(before, change, |_| Some(Phase::Retiring { since: now }))?;
                }
            }
            Change::End(number, cause) => {
                let ended = self.versions.get_mut(&number.number());
                let ended = ended.ok_or(Wrong(change, None))?;
                ended.phase =
                    ended_by(cause, ended.phase, now).ok_or(Wrong(change, Some(*ended)))?;
                ended.cause = cause;
            }
            Change::Lifetime(number, lifetime_max_s) => {
                let version = self.versions.get_mut(&number.number());
                let version = version.ok_or(Wrong(change, None))?;
                version.lifetime_max_s = version.lifetime_max_s.max(lifetime_max_s);
            }
            Change::Made(number)
            | Change::List(number)
            | Change::Seen(number)
            | Change::Unseen(number)
            | Change::Withdraw(number)
            | Change::Condemn(number)
            | Change::Destroyed(number) => {
                self.set(number, change, |phase| further(change, phase, now))?;
                if let Change::List(number) = change {
                    self.goes_on(number);
                }
            }
        }
        Ok(())
    }

    /// A version that is taken back has not ended, whatever it was that had ended it.
    fn goes_on(&mut self, number: KeyVersion) {
        if let Some(version) = self.versions.get_mut(&number.number()) {
            version.cause = Cause::Succession;
        }
    }

    fn set(
        &mut self,
        number: KeyVersion,
        change: Change,
        to: impl FnOnce(Phase) -> Option<Phase>,
    ) -> Result<(), Wrong> {
        let version = self.versions.get_mut(&number.number());
        let version = version.ok_or(Wrong(change, None))?;
        version.phase = to(version.phase).ok_or(Wrong(change, Some(*version)))?;
        Ok(())
    }
}

/// The phase after a change of one version alone.
fn further(change: Change, phase: Phase, now: Age) -> Option<Phase> {
    match (change, phase) {
        (Change::Made(_), Phase::Making {}) => Some(Phase::Made { since: now }),
        // Withdrawn: it is taken back, and goes the whole way again.
        (Change::List(_), Phase::Made { .. } | Phase::Withdrawn { .. }) => Some(Phase::Listing {}),
        (Change::Seen(_), Phase::Published { since, seen }) => {
            let seen = seen.or(Some(now));
            Some(Phase::Published { since, seen })
        }
        (Change::Unseen(_), Phase::Published { since, .. }) => {
            Some(Phase::Published { since, seen: None })
        }
        (Change::Withdraw(_), Phase::Retiring { since }) => Some(Phase::Withdrawing { since }),
        (Change::Condemn(_), Phase::Withdrawn { .. }) => Some(Phase::Destroying {}),
        (Change::Destroyed(_), Phase::Destroying {}) => Some(Phase::Destroyed {}),
        _ => None,
    }
}

/// The phase of a version that ends now for this reason.
fn ended_by(cause: Cause, phase: Phase, now: Age) -> Option<Phase> {
    match (cause, phase) {
        (_, Phase::Making {} | Phase::Destroying {} | Phase::Destroyed {}) => None,
        (Cause::Succession, _) => None,
        // Nothing of it may be believed any more: out of the set at once.
        (Cause::Compromise, Phase::Made { .. }) => Some(Phase::Withdrawn { since: now }),
        (Cause::Compromise, Phase::Withdrawn { since }) => Some(Phase::Withdrawn { since }),
        (Cause::Compromise, _) => Some(Phase::Withdrawing { since: now }),
        // What it has signed is as good as before.
        (Cause::Loss, Phase::Active { .. }) => Some(Phase::Retiring { since: now }),
        (Cause::Loss, _) => None,
        (Cause::Abandonment, Phase::Made { .. }) => Some(Phase::Withdrawn { since: now }),
        (Cause::Abandonment, Phase::Listing {} | Phase::Published { .. }) => {
            Some(Phase::Withdrawing { since: now })
        }
        (Cause::Abandonment, _) => None,
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.1 {
            Some(version) => write!(
                f,
                "{:?} does not fit a version that is {:?}",
                self.0, version.phase
            ),
            None => write!(f, "{:?} does not fit", self.0),
        }
    }
}
