//! Why a key does not sign, in sentences for administrators.

use super::{KeyRecord, Seen, Unusable};
use crate::lifecycle::{Cause, Hold, Lineage, Phase, Version};
use keystore::protocol::{Condition, KeyEntry};
use keystore::{Error, KeyId, KeyName, Kind};
use std::fmt;

/// What a workload is told while a keystore has shown nothing since the start.
const NOT_SEEN: &str = "its keystore cannot serve now; an administrator finds why in `assertctl \
                        status`";

pub(super) fn another_key(entry: &KeyEntry, keystore: &str, known: &KeyRecord) -> Error {
    let text = format!(
        "key {}: recorded with kid {} in keystore {}; keystore {keystore} shows {}; nothing was changed",
        entry.key,
        known.public_key.kid(),
        known.keystore,
        entry.kid
    );
    Error::new(Kind::Mismatch, text)
}

pub(super) fn missing(key: &KeyId, record: &KeyRecord) -> String {
    format!(
        "key {key} (kid {}): recorded, but keystore {} does not show it; bring its token or its state \
         directory back; nothing was made in its place",
        record.public_key.kid(),
        record.keystore
    )
}

pub(super) fn shows_another(key: &KeyId, record: &KeyRecord, entry: &KeyEntry) -> String {
    format!(
        "key {key} (kid {}): keystore {} shows another key under this id (kid {}); it is not used",
        record.public_key.kid(),
        record.keystore,
        entry.kid
    )
}

/// Why a version whose time it is cannot sign.
pub(super) fn not_able(seen: &Seen) -> String {
    match seen {
        // It may be starting, absent, or another token: why is not for workloads.
        Seen::Unknown => NOT_SEEN.to_owned(),
        Seen::Wrong(why)
        | Seen::Shown {
            condition: Condition::Failed { why, .. },
            ..
        } => why.clone(),
        Seen::Shown {
            condition: Condition::Usable {},
            ..
        } => "it is being activated".into(),
    }
}

/// How far a version has come, in one word.
pub fn phase(lineage: &Lineage, version: &Version) -> &'static str {
    match (version.phase, version.cause) {
        (Phase::Destroyed {}, _) => "destroyed",
        (Phase::Destroying {}, _) => "destroying",
        (_, Cause::Compromise) => "revoked",
        (Phase::Making {}, _) => "making",
        (Phase::Made { .. } | Phase::Listing {}, _) => "made",
        (Phase::Published { .. }, _) => "published",
        (Phase::Active { .. }, _) if lineage.hold == Hold::Held => "held",
        (Phase::Active { .. }, _) => "active",
        (Phase::Retiring { .. }, _) => "retiring",
        (Phase::Withdrawing { .. } | Phase::Withdrawn { .. }, _) => "retired",
    }
}

/// Why no version signs.
pub(super) fn not_active(name: &KeyName, lineage: &Lineage) -> Unusable {
    let why = match lineage.coming() {
        Some((version, coming)) => {
            let how_far = match coming.phase {
                Phase::Making {} => "is being made",
                Phase::Made { .. } | Phase::Listing {} => "is about to be published",
                _ => "is published and not active yet",
            };
            format!(
                "version {} {how_far}; `assertctl keys` says what it waits for",
                version.number()
            )
        }
        None => "no version of it is active; `assertctl keys rotate` makes one".to_owned(),
    };
    Unusable::NotActive(name.clone(), why)
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::NotMade(name) => {
                write!(f, "key {name}: not made yet; run `assertctl apply` as root")
            }
            Unusable::NotActive(name, why) => write!(f, "key {name}: {why}"),
            Unusable::Held(name) => write!(
                f,
                "key {name}: an operator has stopped it; `assertctl keys resume {name}` lets it go on"
            ),
            Unusable::Revoked(id) => write!(
                f,
                "key {id}: revoked; `assertctl keys rotate {}` makes another",
                id.name
            ),
            Unusable::Suspended(id) => write!(
                f,
                "key {id}: suspended, because a signature of it was wrong; check the token, then \
                 restart assertd"
            ),
            Unusable::Failed(_, why) if why.starts_with("key ") => f.write_str(why),
            Unusable::Failed(id, why) => write!(f, "key {id}: {why}"),
        }
    }
}
