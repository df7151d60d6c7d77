//! The broker's own memory of keys: which versions exist, in which keystore, under which public
//! key, and how far each has come in its life ([`crate::lifecycle`]). Signatures are verified against
//! *this* record, so that a token that shows another key under our id is found out, and a key that has
//! vanished is missed by name (P3, P5).
//!
//! One file holds all of it, replaced as a whole: a change of a key's life and the record it is about
//! are durable together or not at all, and nothing follows from a change before it is.

use crate::lifecycle::{Age, Change, Hold, Lineage, Mark, Reading};
use accepted::Accepted;
use anchor::{Counts, Urgency};
use keystore::jws::Header;
use keystore::protocol::KeyEntry;
use keystore::publickey::Verifier;
use keystore::statefile::{StateDir, StateFile};
use keystore::{Alg, Error, KeyId, KeyName, Kid, Kind, PublicKey};
use live::Live;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::watch;

pub mod accepted;
mod anchor;
mod copy;
pub mod counters;
mod live;
mod words;

pub use anchor::{Known, Verdict};
pub use copy::Copied;
pub use live::Seen;
pub use words::phase;

/// What the records are called in the state directory.
pub const FILE: &str = "keyring.v1";

#[derive(Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    keys: BTreeMap<KeyId, KeyRecord>,
    /// Of a key that was recorded before there were any: none, and it is active.
    #[serde(default)]
    lineages: BTreeMap<KeyName, Lineage>,
    /// How far the time of keys had come when this was written.
    #[serde(default)]
    mark: Option<Mark>,
    /// How far the counter of each keystore is to come that changes are counted in.
    #[serde(default)]
    counts: Counts,
    /// When versions last signed, seconds since 1970, as it was known an hour ago at most.
    #[serde(default)]
    used: BTreeMap<KeyId, u64>,
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
    /// Whether it existed outside a token before, which is shown for ever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
}

/// Who wants a version recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The keeper, which has asked for it.
    Keeper,
    /// Root, who may also have brought it in as the next one.
    Root,
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
    /// When it last signed, seconds since 1970; 0: it is not known that it ever did.
    used_s: Arc<AtomicU64>,
}

impl ActiveKey {
    /// It has signed.
    pub fn note_use(&self, now_s: u64) {
        self.used_s.fetch_max(now_s, Ordering::Relaxed);
    }
}

/// Reads all clocks.
pub type Clocks = Box<dyn Fn() -> Reading + Send + Sync>;

/// All recorded keys.
pub struct Keyring {
    file: Mutex<Book>,
    live: RwLock<Live>,
    clocks: Clocks,
    /// The mark that time is counted from: of the last start.
    began: Mark,
    /// Told of everything that a key's next step may depend on.
    changed: watch::Sender<()>,
    /// Why the records are not to be gone by.
    refused: watch::Sender<Option<String>>,
}

struct Book {
    file: StateFile<Stored>,
    stored: Stored,
    /// What is known of the keystores' counters.
    counters: BTreeMap<String, Known>,
    accepted: Accepted,
    accepted_file: accepted::Word,
    /// As they were read at the start: what is compared with a keystore's counter.
    read: Stored,
    /// Keystores whose counter was not looked at when an operator stopped one of their keys.
    uncounted: BTreeSet<String>,
    /// Keystores whose older records were accepted, until that is told.
    restored: Vec<String>,
}

/// What came of changing a lineage that somebody has looked at.
#[derive(Debug)]
pub enum Changed {
    /// It is so now.
    Yes(Lineage),
    /// Somebody else has changed it since: look again.
    Meanwhile,
}

/// Why a key cannot sign now. The text is for administrators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It has not been made.
    NotMade(KeyName),
    /// No version of it is active.
    NotActive(KeyName, String),
    /// An operator has stopped it.
    Held(KeyName),
    /// This version is not to be believed any more.
    Revoked(KeyId),
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
    pub fn open(dir: &StateDir, clocks: Clocks) -> Result<Keyring, Error> {
        let (file, mut stored) = StateFile::<Stored>::open(dir, FILE)?;
        let accepted = Accepted::read(dir)?;
        let now = clocks();
        let began = match &stored.mark {
            Some(mark) => mark.at(&now),
            None => Mark::first(&now),
        };
        for key in stored.keys.keys() {
            // Recorded before lineages were, and nothing signs but what is recorded: it signed.
            let lineage = stored.lineages.entry(key.name.clone());
            lineage.or_insert_with(|| Lineage::of_active(key.version, 0, began.age));
        }
        let live = Live::of(&stored.lineages, &stored.used);
        let read = stored.clone();
        Ok(Keyring {
            file: Mutex::new(Book {
                file,
                stored,
                counters: BTreeMap::new(),
                accepted,
                accepted_file: accepted::Word::of(dir),
                read,
                uncounted: BTreeSet::new(),
                restored: Vec::new(),
            }),
            live: RwLock::new(live),
            clocks,
            began,
            changed: watch::Sender::new(()),
            refused: watch::Sender::new(None),
        })
    }

    /// How far the time of keys has come.
    pub fn now(&self) -> Mark {
        self.began.at(&(self.clocks)())
    }

    /// Told whenever a key's next step may be another.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How often the records have been replaced.
    pub fn generation(&self) -> u64 {
        self.book().file.generation()
    }

    /// The version of `name` that signs now.
    pub fn active(&self, name: &KeyName) -> Result<Arc<ActiveKey>, Unusable> {
        let live = self.read();
        match live.active(name) {
            Some(key) => match live.stop_of(&key.id) {
                None => Ok(key.clone()),
                Some(stop) => Err(stop.of(&key.id)),
            },
            None => {
                drop(live);
                Err(self.why_not(name))
            }
        }
    }

    /// A version that is not active and could sign if it were, for its canary alone.
    pub fn on_trial(&self, key: &KeyId) -> Option<Arc<ActiveKey>> {
        let live = self.read();
        match live.stop_of(key) {
            None => live.able(key).cloned(),
            Some(_) => None,
        }
    }

    /// Whether what a version has signed may leave us.
    ///
    /// # Errors
    /// Why not: it was stopped since.
    pub fn may_release(&self, key: &KeyId) -> Result<(), Unusable> {
        match self.read().stop_of(key) {
            None => Ok(()),
            Some(stop) => Err(stop.of(key)),
        }
    }

    /// Records a key its keystore has made, and that it is made. Recording it again changes nothing.
    ///
    /// # Errors
    /// `Mismatch` if the id is recorded with another public key, or nobody has asked for the version;
    /// `Unavailable` if the record could not be written.
    pub fn record(
        &self,
        keystore: &str,
        entry: &KeyEntry,
        by: By,
        now_s: u64,
    ) -> Result<KeyRecord, Error> {
        let record = KeyRecord {
            keystore: keystore.to_owned(),
            public_key: entry.public_key.clone(),
            alg: entry.charter.alg,
            made_at: now_s,
            imported: entry.evidence.imported,
        };
        let mark = self.now();
        let mut book = self.book();
        let recorded = match book.stored.keys.get(&entry.key) {
            Some(known)
                if known.public_key == record.public_key && known.keystore == record.keystore =>
            {
                known.clone()
            }
            Some(known) => return Err(words::another_key(entry, keystore, known)),
            None => {
                let mut next = book.stored.clone();
                let before = next.lineages.remove(&entry.key.name);
                let lineage = born(before, entry, by, mark.age)?;
                next.lineages.insert(entry.key.name.clone(), lineage);
                next.keys.insert(entry.key.clone(), record.clone());
                next.mark = Some(mark);
                book.count(&mut next, &entry.key.name, Urgency::Together);
                book.replace(next)?;
                record
            }
        };
        drop(book);
        self.look_at(&entry.key, &recorded, Some(entry));
        self.tell();
        Ok(recorded)
    }

    /// Changes a lineage that is still as it was looked at.
    ///
    /// # Errors
    /// `Internal` if a change does not fit; `Unavailable` if it could not be written for certain.
    pub fn change(
        &self,
        name: &KeyName,
        looked_at: &Lineage,
        changes: &[Change],
    ) -> Result<Changed, Error> {
        let mark = self.now();
        let mut book = self.book();
        let current = book.stored.lineages.get(name).cloned().unwrap_or_default();
        if current != *looked_at {
            return Ok(Changed::Meanwhile);
        }
        let (mut lineage, stamped) = (current, mark.age.over());
        for change in changes {
            lineage = lineage
                .after(*change, stamped)
                .map_err(|wrong| Error::new(Kind::Internal, format!("key {name}: {wrong}")))?;
        }
        // What stops, stops before the disk is asked: that may take long, or fail.
        self.write_live().stop(name, &lineage);
        let mut next = book.stored.clone();
        next.lineages.insert(name.clone(), lineage.clone());
        next.mark = Some(mark);
        let urgency = match changes.iter().any(Change::stops) {
            true => Urgency::AtOnce,
            false => Urgency::Together,
        };
        book.count(&mut next, name, urgency);
        book.replace(next)?;
        let mut live = self.write_live();
        if changes.contains(&Change::Hold(Hold::Free)) {
            live.resume(name);
        }
        live.follow(name, &lineage);
        drop(live);
        let lineage = book.corrected(name, lineage, stamped, self.now());
        drop(book);
        self.tell();
        Ok(Changed::Yes(lineage))
    }

    /// Has it written down that what keys sign may live so long from here on, in seconds, before anything
    /// does.
    ///
    /// # Errors
    /// `Unavailable` if it could not be written for certain.
    pub fn will_live(&self, lifetimes_s: &BTreeMap<KeyName, u64>) -> Result<(), Error> {
        let mark = self.now();
        let mut book = self.book();
        let mut next = book.stored.clone();
        for (name, lineage) in &mut next.lineages {
            if let Some(lifetime_s) = lifetimes_s.get(name) {
                lineage.will_live(*lifetime_s);
            }
        }
        if next.lineages == book.stored.lineages {
            return Ok(());
        }
        next.mark = Some(mark);
        book.replace(next)
    }

    /// When a version last signed, seconds since 1970, if that is known.
    pub fn used_at(&self, key: &KeyId) -> Option<u64> {
        self.read().used_at(key)
    }

    /// Has the age written down that has been reached, and what has signed: what a machine loses that is off is no more
    /// than what has passed since.
    ///
    /// # Errors
    /// `Unavailable` if it could not be written for certain.
    pub fn remember_time(&self) -> Result<(), Error> {
        let (mark, used) = (Some(self.now()), self.read().used());
        let mut book = self.book();
        let next = Stored {
            mark,
            used,
            ..book.stored.clone()
        };
        book.replace(next)
    }

    /// One key's life.
    pub fn lineage(&self, name: &KeyName) -> Option<Lineage> {
        self.book().stored.lineages.get(name).cloned()
    }

    /// All keys' lives.
    pub fn lineages(&self) -> BTreeMap<KeyName, Lineage> {
        self.book().stored.lineages.clone()
    }

    /// All records and all keys' lives, as they are at one moment.
    pub fn all(&self) -> (BTreeMap<KeyId, KeyRecord>, BTreeMap<KeyName, Lineage>) {
        let book = self.book();
        (book.stored.keys.clone(), book.stored.lineages.clone())
    }

    /// All records.
    pub fn records(&self) -> BTreeMap<KeyId, KeyRecord> {
        self.book().stored.keys.clone()
    }

    /// One record.
    pub fn key_record(&self, key: &KeyId) -> Option<KeyRecord> {
        self.book().stored.keys.get(key).cloned()
    }

    /// Whoever waits for something looks again.
    pub fn tell(&self) {
        self.changed.send_replace(());
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_live(&self) -> std::sync::RwLockWriteGuard<'_, Live> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn replace(&mut self, next: Stored) -> Result<(), Error> {
        self.file.replace(&next)?;
        self.stored = next;
        Ok(())
    }

    /// A change whose writing took so long that what retires signed on meanwhile: it retires from here on
    /// (I3). Where that cannot be written now, it is with the next change.
    fn corrected(
        &mut self,
        name: &KeyName,
        lineage: Lineage,
        stamped: Age,
        switched: Mark,
    ) -> Lineage {
        let late = lineage.retired_late(stamped, switched.age.over());
        let Some(late) = late else {
            return lineage;
        };
        let mut next = self.stored.clone();
        next.lineages.insert(name.clone(), late.clone());
        next.mark = Some(switched);
        if let Err(error) = self.file.replace(&next) {
            eprintln!("assertd: key {name}: {error}");
        }
        self.stored = next;
        late
    }
}

/// The lineage once a version is made: of a new key, or of one whose next version was asked for, or brought
/// in by root, as if somebody had asked for it and it had been made in one moment.
fn born(before: Option<Lineage>, entry: &KeyEntry, by: By, now: Age) -> Result<Lineage, Error> {
    let lifetime_s = u64::from(entry.charter.lifetime_max_s);
    let version = entry.key.version;
    match before {
        None => Ok(Lineage::of_made(version, lifetime_s, now)),
        Some(lineage) => {
            let made = |lineage: &Lineage| lineage.after(Change::Made(version), now);
            let intend = Change::Intend {
                lifetime_max_s: lifetime_s,
            };
            let born = match (made(&lineage), by) {
                (Err(_), By::Root) => lineage.after(intend, now).and_then(|begun| made(&begun)),
                (born, _) => born,
            };
            born.map_err(|_| {
                let text = format!(
                    "key {}: assertd has not asked for this version, or another one is on its way \
                     (`assertctl keys`); it is not used",
                    entry.key
                );
                Error::new(Kind::Mismatch, text)
            })
        }
    }
}

#[cfg(test)]
mod tests;
