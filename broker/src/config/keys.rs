//! The keys that a configuration asks for, and what is to be known of each.

use super::{Canary, Config, Issuer, KeyFrom, Section, Target};
use crate::lifecycle::Schedule;
use keystore::protocol::EvidenceLevel;
use keystore::{Charter, KeyName, Purpose};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A key the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub keystore: String,
    /// What it may ever say.
    pub charter: Charter,
    /// Where its first version comes from.
    pub key_from: KeyFrom,
    /// For how many seconds each of its certificates is valid, if it has any.
    pub certificate_s: Option<u64>,
}

/// A key the configuration asks for, and what its life goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where.
    pub keystore: String,
    /// When its versions follow each other.
    pub schedule: Schedule,
    /// With less no version takes the place of one that signs. An issuer's key has many targets, of which
    /// each demands what it does when it is asked for.
    pub evidence_min: EvidenceLevel,
    /// How a version comes after another.
    pub next: NextVersion,
    /// For how many seconds each of its certificates is valid, if it has any.
    pub certificate_s: Option<u64>,
}

/// How a version of a key comes after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextVersion {
    /// The keystore makes it, under the charter of the one before.
    Made,
    /// So does it, but the charter has the `kid` that the other side has given the one before.
    Assigned,
    /// The vendor makes it.
    AtTheVendor,
}

impl NextVersion {
    /// Why the keystore is not to make one, with what to do instead.
    pub fn why_none_is_made(self) -> Option<&'static str> {
        match self {
            NextVersion::Made => None,
            NextVersion::Assigned => Some(
                "the other side gives each version a `kid`, which the one before cannot have: write the new \
                 one as the target's `kid` and bring its key in by `assertctl keys import`, or have one made \
                 for another target",
            ),
            NextVersion::AtTheVendor => Some(
                "the vendor makes the keys: have it make the next one, and bring that in by `assertctl keys \
                 import`",
            ),
        }
    }
}

impl Config {
    /// The keys this configuration asks for, each with its keystore and charter.
    pub fn wanted_keys(&self) -> BTreeMap<KeyName, Wanted> {
        let of_issuer = |issuer: &Arc<Issuer>| {
            let wanted = Wanted {
                keystore: issuer.keystore.clone(),
                charter: Charter::clone(&issuer.charter),
                key_from: KeyFrom::Make,
                certificate_s: None,
            };
            (issuer.key.clone(), wanted)
        };
        let of_target = |target: &Arc<Target>| {
            let wanted = Wanted {
                keystore: target.keystore.clone(),
                charter: Charter::clone(&target.charter),
                key_from: target.key_from,
                certificate_s: target.certificate_s,
            };
            (target.key.clone(), wanted)
        };
        let issuers = self.issuers.values().map(of_issuer);
        self.own_keys().map(of_target).chain(issuers).collect()
    }

    /// The same keys, each with what its life goes by.
    pub fn kept_keys(&self) -> BTreeMap<KeyName, Kept> {
        let mut all = BTreeMap::new();
        for issuer in self.issuers.values() {
            let kept = Kept {
                keystore: issuer.keystore.clone(),
                schedule: issuer.schedule.clone(),
                evidence_min: EvidenceLevel::None,
                next: NextVersion::Made,
                certificate_s: None,
            };
            all.insert(issuer.key.clone(), kept);
        }
        for target in self.own_keys() {
            if let Some(schedule) = target.schedule.as_deref() {
                let kept = Kept {
                    keystore: target.keystore.clone(),
                    schedule: schedule.clone(),
                    evidence_min: target.evidence_min,
                    next: target.next,
                    certificate_s: target.certificate_s,
                };
                all.insert(target.key.clone(), kept);
            }
        }
        all
    }

    /// The longest life of what each key signs, in seconds.
    pub fn lifetimes(&self) -> BTreeMap<KeyName, u64> {
        let all = self.kept_keys().into_iter();
        all.map(|(key, kept)| (key, kept.schedule.lifetime_max_s))
            .collect()
    }

    /// Targets whose keys become active by a canary, each with its section.
    pub fn canaries(&self) -> impl Iterator<Item = (&Arc<Section>, &Arc<Target>, &Canary)> {
        self.workloads.iter().flat_map(|section| {
            let targets = section.targets.values();
            targets.filter_map(move |target| Some((section, target, target.canary.as_deref()?)))
        })
    }

    fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.workloads
            .iter()
            .flat_map(|section| section.targets.values())
    }

    fn own_keys(&self) -> impl Iterator<Item = &Arc<Target>> {
        let is_own =
            |target: &&Arc<Target>| !matches!(target.charter.purpose, Purpose::Federation { .. });
        self.targets().filter(is_own)
    }
}
