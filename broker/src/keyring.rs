//! The broker's own memory of keys: which versions exist, in which keystore, under which public
//! key. Signatures are verified against *this* record, so that a token that shows another key
//! under our id is found out, and a key that has vanished is missed by name (P3, P5).
//!
//! Rotation will add states and a journal here; for now a recorded version is active.

use keystore::jws::Header;
use keystore::protocol::{Condition, Evidence, EvidenceLevel, KeyEntry};
use keystore::publickey::Verifier;
use keystore::statefile::{StateDir, StateFile};
use keystore::{Alg, Error, KeyId, KeyName, Kid, Kind, PublicKey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

/// What a workload is told while a keystore has shown nothing since the start.
const NOT_SEEN: &str = "its keystore cannot serve now; an administrator finds why in `assertctl \
                        status`";

#[derive(Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    keys: BTreeMap<KeyId, KeyRecord>,
}

/// What is remembered for ever about one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// The keystore that made it.
    pub keystore: String,
    /// Its public key.
    pub public_key: PublicKey,
    /// Its algorithm.
    pub alg: Alg,
    /// When it was recorded, seconds since 1970.
    pub made_at: u64,
}

/// The version of a key that signs now.
pub struct ActiveKey {
    /// Its id.
    pub id: KeyId,
    /// Its thumbprint.
    pub kid: Kid,
    /// The keystore that holds it.
    pub keystore: String,
    /// Its public key.
    pub public_key: PublicKey,
    /// The header its charter fixes, as the keystore last said.
    pub header: Header,
    /// For its signatures.
    pub verifier: Verifier,
}

/// What a keystore last said about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing since this broker started.
    Unknown,
    /// It shows the recorded key.
    Shown {
        /// Whether it can sign.
        condition: Condition,
        /// What is known about where it lives.
        evidence: Evidence,
        /// The header that its charter fixes.
        header: Header,
    },
    /// It does not show it, or another key under its id.
    Wrong(String),
}

/// All recorded keys.
pub struct Keyring {
    file: Mutex<(StateFile<Stored>, Stored)>,
    live: RwLock<Live>,
}

/// What is known now, changed as a whole.
#[derive(Default)]
struct Live {
    seen: BTreeMap<KeyId, Seen>,
    active: HashMap<KeyName, Arc<ActiveKey>>,
    /// Keys that have signed wrongly. Nothing a keystore does takes one out again.
    suspended: BTreeSet<KeyId>,
}

/// Why a key cannot sign now. The text is for administrators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It has not been made.
    NotMade(KeyName),
    /// A signature of it was wrong.
    Suspended(KeyId),
    /// Its keystore does not show it, or says it cannot sign.
    Failed(KeyId, String),
}

impl Keyring {
    /// Reads the records.
    ///
    /// # Errors
    /// `Corrupt` if the file fails its check.
    pub fn open(dir: &StateDir) -> Result<Keyring, Error> {
        let (file, stored) = StateFile::<Stored>::open(dir, "keyring.v1")?;
        Ok(Keyring {
            file: Mutex::new((file, stored)),
            live: RwLock::default(),
        })
    }

    /// What is known about where a key lives.
    pub fn evidence(&self, key: &KeyId) -> EvidenceLevel {
        match self.read().seen.get(key) {
            Some(Seen::Shown { evidence, .. }) => evidence.level,
            Some(Seen::Unknown | Seen::Wrong(_)) | None => EvidenceLevel::None,
        }
    }

    /// The version of `name` that signs now.
    pub fn active(&self, name: &KeyName) -> Result<Arc<ActiveKey>, Unusable> {
        let live = self.read();
        match live.active.get(name) {
            Some(key) if live.suspended.contains(&key.id) => {
                Err(Unusable::Suspended(key.id.clone()))
            }
            Some(key) => Ok(key.clone()),
            None => {
                drop(live);
                Err(self.why_not(name))
            }
        }
    }

    fn why_not(&self, name: &KeyName) -> Unusable {
        let recorded = self.records().into_keys().rfind(|key| key.name == *name);
        let Some(key) = recorded else {
            return Unusable::NotMade(name.clone());
        };
        let why = match self.seen(&key) {
            // It may be starting, absent, or another token: why is not for workloads.
            Seen::Unknown => NOT_SEEN.to_owned(),
            Seen::Wrong(why)
            | Seen::Shown {
                condition: Condition::Failed { why, .. },
                ..
            } => why,
            Seen::Shown {
                condition: Condition::Usable {},
                ..
            } => "it is being activated".into(),
        };
        Unusable::Failed(key, why)
    }

    /// Records a key its keystore has made. Recording it again changes nothing.
    ///
    /// # Errors
    /// `Mismatch` if the id is recorded with another public key; `Unavailable` if the record
    /// could not be written.
    pub fn record(&self, keystore: &str, entry: &KeyEntry, now_s: u64) -> Result<KeyRecord, Error> {
        let record = KeyRecord {
            keystore: keystore.to_owned(),
            public_key: entry.public_key.clone(),
            alg: entry.charter.alg,
            made_at: now_s,
        };
        let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, stored) = &mut *guard;
        let recorded = match stored.keys.get(&entry.key) {
            Some(known)
                if known.public_key == record.public_key && known.keystore == record.keystore =>
            {
                known.clone()
            }
            Some(known) => {
                return Err(Error::new(
                    Kind::Mismatch,
                    format!(
                        "key {}: recorded with kid {} in keystore {}; keystore {keystore} shows {}; \
                         nothing was changed",
                        entry.key,
                        known.public_key.kid(),
                        known.keystore,
                        entry.kid
                    ),
                ));
            }
            None => {
                let mut next = stored.clone();
                next.keys.insert(entry.key.clone(), record.clone());
                file.replace(&next)?;
                *stored = next;
                record
            }
        };
        drop(guard);
        self.look_at(&entry.key, &recorded, Some(entry));
        Ok(recorded)
    }

    /// Takes note of everything a keystore shows: recorded keys become active or are found
    /// missing. Keys it shows that are not recorded are not used. `recorded` are the records from
    /// before the keystore was asked: a key recorded meanwhile is not missing from its answer.
    pub fn compare(
        &self,
        keystore: &str,
        recorded: &BTreeMap<KeyId, KeyRecord>,
        shown: &[KeyEntry],
    ) {
        let shown: HashMap<&KeyId, &KeyEntry> = shown.iter().map(|e| (&e.key, e)).collect();
        for (key, record) in recorded {
            if record.keystore == keystore {
                self.look_at(key, record, shown.get(key).copied());
            }
        }
    }

    fn look_at(&self, key: &KeyId, record: &KeyRecord, entry: Option<&KeyEntry>) {
        let seen = judge(key, record, entry);
        if *self.read().seen.get(key).unwrap_or(&Seen::Unknown) == seen {
            return; // nothing has changed since the last look, which is every few seconds
        }
        if let Seen::Wrong(why)
        | Seen::Shown {
            condition: Condition::Failed { why, .. },
            ..
        } = &seen
        {
            eprintln!("assertd: {why}");
        }
        let usable = match &seen {
            Seen::Shown {
                condition: Condition::Usable {},
                header,
                ..
            } => activate(key, record, header.clone()),
            _ => None,
        };
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let current = live.active.get(&key.name);
        match usable {
            Some(new) if current.is_none_or(|current| current.id <= new.id) => {
                live.active.insert(key.name.clone(), Arc::new(new));
            }
            None if current.is_some_and(|current| current.id == *key) => {
                live.active.remove(&key.name);
            }
            _ => {}
        }
        live.seen.insert(key.clone(), seen);
    }

    /// Stops a key at once: it has signed wrongly (reliability row 13).
    pub fn suspend(&self, key: &KeyId) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.suspended.insert(key.clone());
    }

    /// Whether a key is suspended.
    pub fn is_suspended(&self, key: &KeyId) -> bool {
        self.read().suspended.contains(key)
    }

    fn read(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// All records.
    pub fn records(&self) -> BTreeMap<KeyId, KeyRecord> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .keys
            .clone()
    }

    /// What its keystore last said about a key.
    pub fn seen(&self, key: &KeyId) -> Seen {
        self.read().seen.get(key).cloned().unwrap_or(Seen::Unknown)
    }
}

/// Compares the record with what the keystore shows.
fn judge(key: &KeyId, record: &KeyRecord, entry: Option<&KeyEntry>) -> Seen {
    let kid = record.public_key.kid();
    match entry {
        None => Seen::Wrong(format!(
            "key {key} (kid {kid}): recorded, but keystore {} does not show it; bring its token or \
             its state directory back; nothing was made in its place",
            record.keystore
        )),
        Some(entry) if entry.public_key != record.public_key || entry.charter.alg != record.alg => {
            Seen::Wrong(format!(
                "key {key} (kid {kid}): keystore {} shows another key under this id (kid {}); it is \
                 not used",
                record.keystore, entry.kid
            ))
        }
        Some(entry) => Seen::Shown {
            condition: entry.condition.clone(),
            evidence: entry.evidence,
            header: Header::of(&entry.charter, &entry.kid, entry.certificate.as_ref()),
        },
    }
}

fn activate(id: &KeyId, record: &KeyRecord, header: Header) -> Option<ActiveKey> {
    let verifier = record.public_key.verifier(record.alg).ok()?;
    Some(ActiveKey {
        id: id.clone(),
        kid: record.public_key.kid(),
        keystore: record.keystore.clone(),
        public_key: record.public_key.clone(),
        header,
        verifier,
    })
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unusable::NotMade(name) => {
                write!(f, "key {name}: not made yet; run `assertctl apply` as root")
            }
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

#[cfg(test)]
mod tests;
