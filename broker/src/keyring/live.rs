//! What is known of keys now, and follows from records and keystores anew after each start: which
//! version signs, what each keystore shows, what is stopped.

use super::{ActiveKey, KeyRecord, Keyring, Unusable, words};
use crate::lifecycle::{Cause, Hold, Lineage};
use keystore::jws::Header;
use keystore::protocol::{Condition, Evidence, EvidenceLevel, KeyEntry};
use keystore::{Certificate, KeyId, KeyName, KeyVersion};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
        /// Its certificate, if it has one.
        certificate: Option<Certificate>,
    },
    /// It does not show it, or another key under its id.
    Wrong(String),
}

/// Changed as a whole.
#[derive(Default)]
pub(super) struct Live {
    seen: BTreeMap<KeyId, Seen>,
    /// Versions that could sign, if it were their time.
    able: BTreeMap<KeyId, Arc<ActiveKey>>,
    /// Which version it is the time of.
    pointers: BTreeMap<KeyName, KeyVersion>,
    active: HashMap<KeyName, Arc<ActiveKey>>,
    /// Keys that have signed wrongly. Nothing a keystore does takes one out again.
    suspended: BTreeSet<KeyId>,
    revoked: BTreeSet<KeyId>,
    held: BTreeSet<KeyName>,
    /// When they last signed.
    used: BTreeMap<KeyId, Arc<AtomicU64>>,
}

/// Why nothing of a version is released although it can sign.
#[derive(Clone, Copy)]
pub(super) enum Stop {
    Suspended,
    Revoked,
    Held,
}

impl Stop {
    pub(super) fn of(self, key: &KeyId) -> Unusable {
        match self {
            Stop::Suspended => Unusable::Suspended(key.clone()),
            Stop::Revoked => Unusable::Revoked(key.clone()),
            Stop::Held => Unusable::Held(key.name.clone()),
        }
    }
}

impl Live {
    pub(super) fn of(lineages: &BTreeMap<KeyName, Lineage>, used: &BTreeMap<KeyId, u64>) -> Live {
        let used = used
            .iter()
            .map(|(key, at)| (key.clone(), Arc::new(AtomicU64::new(*at))));
        let mut live = Live {
            used: used.collect(),
            ..Live::default()
        };
        for (name, lineage) in lineages {
            live.follow(name, lineage);
        }
        live
    }

    pub(super) fn used(&self) -> BTreeMap<KeyId, u64> {
        let known = self
            .used
            .keys()
            .filter_map(|key| Some((key.clone(), self.used_at(key)?)));
        known.collect()
    }

    pub(super) fn used_at(&self, key: &KeyId) -> Option<u64> {
        let at = self.used.get(key)?.load(Ordering::Relaxed);
        (at > 0).then_some(at)
    }

    pub(super) fn active(&self, name: &KeyName) -> Option<&Arc<ActiveKey>> {
        self.active.get(name)
    }

    pub(super) fn able(&self, key: &KeyId) -> Option<&Arc<ActiveKey>> {
        self.able.get(key)
    }

    pub(super) fn stop_of(&self, key: &KeyId) -> Option<Stop> {
        if self.suspended.contains(key) {
            Some(Stop::Suspended)
        } else if self.revoked.contains(key) {
            Some(Stop::Revoked)
        } else if self.held.contains(&key.name) {
            Some(Stop::Held)
        } else {
            None
        }
    }

    /// Stops what a lineage stops. Never lets anything begin.
    pub(super) fn stop(&mut self, name: &KeyName, lineage: &Lineage) {
        for (version, it) in lineage.versions() {
            if it.cause == Cause::Compromise {
                self.revoked.insert(name.version(version));
            }
        }
        if lineage.hold == Hold::Held {
            self.held.insert(name.clone());
        }
    }

    /// Is as a lineage says.
    pub(super) fn follow(&mut self, name: &KeyName, lineage: &Lineage) {
        self.stop(name, lineage);
        match lineage.active() {
            Some((version, _)) => drop(self.pointers.insert(name.clone(), version)),
            None => drop(self.pointers.remove(name)),
        }
        self.point(name);
    }

    /// Lets a key go on: an operator's word alone does, for a hold that could not be written holds too.
    pub(super) fn resume(&mut self, name: &KeyName) {
        self.held.remove(name);
    }

    /// The version whose time it is signs, if it can.
    fn point(&mut self, name: &KeyName) {
        let version = self.pointers.get(name);
        let key = version.and_then(|version| self.able.get(&name.version(*version)));
        match key {
            Some(key) => drop(self.active.insert(name.clone(), key.clone())),
            None => drop(self.active.remove(name)),
        }
    }
}

impl Keyring {
    /// Takes note of everything a keystore shows: recorded keys become able or are found
    /// missing. Keys it shows that are not recorded are not used. `recorded` are the records from
    /// before the keystore was asked: a key recorded meanwhile is not missing from its answer.
    pub fn compare(
        &self,
        keystore: &str,
        recorded: &BTreeMap<KeyId, KeyRecord>,
        shown: &[KeyEntry],
    ) {
        let shown: HashMap<&KeyId, &KeyEntry> = shown.iter().map(|e| (&e.key, e)).collect();
        let mut news = false;
        for (key, record) in recorded {
            // What was destroyed is not missed.
            if record.keystore == keystore && (self.is_kept(key) || shown.contains_key(key)) {
                news |= self.look_at(key, record, shown.get(key).copied());
            }
        }
        if news {
            self.tell();
        }
    }

    fn is_kept(&self, key: &KeyId) -> bool {
        let book = self.book();
        let lineage = book.stored.lineages.get(&key.name);
        let version = lineage.and_then(|lineage| lineage.version(key.version));
        version.is_none_or(|version| version.is_kept())
    }

    /// Whether it is another than before.
    pub(super) fn look_at(
        &self,
        key: &KeyId,
        record: &KeyRecord,
        entry: Option<&KeyEntry>,
    ) -> bool {
        let seen = judge(key, record, entry);
        if *self.read().seen.get(key).unwrap_or(&Seen::Unknown) == seen {
            return false; // nothing has changed since the last look, which is every few seconds
        }
        if let Seen::Wrong(why)
        | Seen::Shown {
            condition: Condition::Failed { why, .. },
            ..
        } = &seen
        {
            eprintln!("assertd: {why}");
        }
        let able = match &seen {
            Seen::Shown {
                condition: Condition::Usable {},
                header,
                ..
            } => able(key, record, header.clone()),
            _ => None,
        };
        let mut live = self.write_live();
        let able = able.map(|able| ActiveKey {
            used_s: live.used.entry(key.clone()).or_default().clone(),
            ..able
        });
        match able {
            Some(able) => drop(live.able.insert(key.clone(), Arc::new(able))),
            None => drop(live.able.remove(key)),
        }
        live.seen.insert(key.clone(), seen);
        live.point(&key.name);
        true
    }

    /// Stops a key at once: it has signed wrongly (reliability row 13).
    pub fn suspend(&self, key: &KeyId) {
        self.write_live().suspended.insert(key.clone());
        self.tell();
    }

    /// What is known about where a key lives.
    pub fn evidence(&self, key: &KeyId) -> EvidenceLevel {
        match self.read().seen.get(key) {
            Some(Seen::Shown { evidence, .. }) => evidence.level,
            Some(Seen::Unknown | Seen::Wrong(_)) | None => EvidenceLevel::None,
        }
    }

    /// Whether a key is suspended.
    pub fn is_suspended(&self, key: &KeyId) -> bool {
        self.read().suspended.contains(key)
    }

    /// What its keystore last said about a key.
    pub fn seen(&self, key: &KeyId) -> Seen {
        self.read().seen.get(key).cloned().unwrap_or(Seen::Unknown)
    }

    pub(super) fn why_not(&self, name: &KeyName) -> Unusable {
        let Some(lineage) = self.lineage(name) else {
            return Unusable::NotMade(name.clone());
        };
        let Some((version, _)) = lineage.active() else {
            return words::not_active(name, &lineage);
        };
        let key = name.version(version);
        let why = words::not_able(&self.seen(&key));
        Unusable::Failed(key, why)
    }
}

/// Compares the record with what the keystore shows.
fn judge(key: &KeyId, record: &KeyRecord, entry: Option<&KeyEntry>) -> Seen {
    match entry {
        None => Seen::Wrong(words::missing(key, record)),
        Some(entry) if entry.public_key != record.public_key || entry.charter.alg != record.alg => {
            Seen::Wrong(words::shows_another(key, record, entry))
        }
        Some(entry) => Seen::Shown {
            condition: entry.condition.clone(),
            evidence: entry.evidence,
            header: Header::of(&entry.charter, &entry.kid, entry.certificate.as_ref()),
            certificate: entry.certificate.clone(),
        },
    }
}

fn able(id: &KeyId, record: &KeyRecord, header: Header) -> Option<ActiveKey> {
    let verifier = record.public_key.verifier(record.alg).ok()?;
    Some(ActiveKey {
        id: id.clone(),
        kid: record.public_key.kid(),
        keystore: record.keystore.clone(),
        public_key: record.public_key.clone(),
        header,
        verifier,
        used_s: Arc::default(),
    })
}
