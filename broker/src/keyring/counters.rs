//! Follows the keystores' counters: what each says of the records, and how far it is to go.

use super::accepted::Accepted;
use super::anchor::{self, Keys, Known, Urgency, Verdict};
use super::{Book, Keyring, Stored};
use keystore::protocol::{Counter, CounterPlace};
use keystore::{Error, KeyId, KeyName, KeyVersion, Kid};
use std::collections::BTreeSet;

/// What is said of records that are older than a keystore's counter, or that it does not know.
pub fn older(keystore: &str, known: &Known) -> Option<String> {
    let place = match known.place {
        CounterPlace::Tpm => "the counter in its TPM",
        CounterPlace::File => "the counter in its state directory",
    };
    let what = match (known.verdict, known.reached) {
        (Verdict::Older, Some(reached)) => format!(
            "keyring: these records are older than others that assertd has written: {place} has come to \
             {reached} since (keystore {keystore})"
        ),
        (Verdict::Older | Verdict::Gone, _) => format!(
            "keyring: it cannot be told whether these records are the newest: {place} is gone, which they \
             count on (keystore {keystore})"
        ),
        _ => return None,
    };
    Some(format!(
        "{what}. A key that was revoked or retired since may be active in them. Bring the newest state \
         directory back; if this one is meant, run `assertctl state accept-rollback` as root, and restart \
         assertd"
    ))
}

impl Stored {
    /// Keystores that have a version of a key.
    pub(super) fn keystores_of(&self, name: &KeyName) -> BTreeSet<String> {
        let from_first = self.keys.range(name.version(KeyVersion::FIRST)..);
        let of_key = from_first.take_while(|(key, _)| key.name == *name); // there may be thousands
        of_key.map(|(_, record)| record.keystore.clone()).collect()
    }

    fn keys_in(&self, keystore: &str) -> Keys {
        match self.keys.values().any(|record| record.keystore == keystore) {
            true => Keys::Some,
            false => Keys::None,
        }
    }
}

impl Book {
    /// A change of this key that is about to be written is counted in its keystores. What comes before a
    /// counter was looked at waits for that: it would make older records look newer.
    pub(super) fn count(&mut self, next: &mut Stored, name: &KeyName, urgency: Urgency) {
        for keystore in next.keystores_of(name) {
            match self.counters.get(&keystore) {
                None if urgency == Urgency::AtOnce => drop(self.uncounted.insert(keystore)),
                None => {}
                Some(known) if known.is_older() => {}
                Some(known) => {
                    if let Some(recorded) = next.counts.get_mut(&keystore) {
                        *recorded = anchor::after(*recorded, known.reached, urgency);
                    }
                }
            }
        }
    }
}

impl Keyring {
    /// The records are not to be gone by: nothing signs any more.
    pub fn refuse(&self, why: String) {
        self.refused.send_replace(Some(why));
    }

    /// Waits until they are refused, and says why.
    pub async fn refused(&self) -> String {
        let mut refused = self.refused.subscribe();
        let why = refused.wait_for(Option::is_some).await;
        why.map_or_else(|_| String::new(), |why| why.clone().unwrap_or_default())
    }

    /// What is known of a keystore's counter since the start.
    pub fn counter(&self, keystore: &str) -> Option<Known> {
        self.book().counters.get(keystore).cloned()
    }

    /// Compares the records with a keystore's counter as it was found after the start. What somebody has
    /// accepted is taken for new.
    ///
    /// # Errors
    /// `Unavailable` if what follows could not be written for certain.
    pub fn weigh(&self, keystore: &str, counter: &Counter) -> Result<Known, Error> {
        let mut book = self.book();
        let recorded = book.read.counts.get(keystore).copied();
        let keys = book.read.keys_in(keystore);
        let mut verdict = anchor::judge(recorded, keys, counter.value);
        if book.accepted == Accepted::Yes {
            let accepted = match (verdict, counter.value) {
                (Verdict::Older, Some(value)) => Verdict::Joins(value),
                (Verdict::Gone, _) => Verdict::Begin,
                _ => verdict,
            };
            if accepted != verdict {
                book.restored.push(keystore.to_owned());
            }
            verdict = accepted;
        }
        let late = u64::from(book.uncounted.contains(keystore));
        let goes_on_at = match (verdict, recorded) {
            (Verdict::Begin, _) => Some(0),
            (Verdict::Joins(value), _) => Some(value + late),
            (Verdict::Newest { .. }, Some(recorded)) => Some(recorded + late),
            _ => None,
        };
        if let Some(value) = goes_on_at
            && recorded != Some(value)
        {
            let mut next = book.stored.clone();
            next.counts.insert(keystore.to_owned(), value);
            book.replace(next)?;
        }
        book.uncounted.remove(keystore);
        if book.restored.iter().any(|name| name == keystore) {
            book.accepted_file.remove(); // it was for these records, and once
        }
        let known = Known::of(counter, verdict);
        book.counters.insert(keystore.to_owned(), known.clone());
        if let Some(why) = older(keystore, &known)
            && known.place == CounterPlace::Tpm
        {
            self.refuse(why);
        }
        drop(book);
        self.tell(); // what is due is counted
        Ok(known)
    }

    /// Whether the records of a key may be gone by: its keystores have said that they are the newest, or it
    /// was changed since the start.
    pub fn is_certain(&self, name: &KeyName, has: impl Fn(&str) -> bool) -> bool {
        let book = self.book();
        let keystores = book.stored.keystores_of(name);
        let mut waited_for = keystores.iter().filter(|keystore| has(keystore));
        waited_for.all(|keystore| book.counters.contains_key(keystore))
            || book.read.lineages.get(name) != book.stored.lineages.get(name)
    }

    /// Keystores that have a version of a key.
    pub fn keystores_of(&self, name: &KeyName) -> BTreeSet<String> {
        self.book().stored.keystores_of(name)
    }

    /// The versions of a keystore whose records are older ones that somebody accepted. Told once.
    pub fn take_restored(&self, keystore: &str) -> Vec<(KeyId, Kid)> {
        let mut book = self.book();
        if !book.restored.iter().any(|name| name == keystore) {
            return Vec::new();
        }
        book.restored.retain(|name| name != keystore);
        let keys = book.stored.keys.iter();
        let restored = keys.filter(|(_, record)| record.keystore == keystore);
        restored
            .map(|(key, record)| (key.clone(), record.public_key.kid()))
            .collect()
    }

    /// Where a keystore's counter is to go, if it is not there.
    pub fn due(&self, keystore: &str) -> Option<u64> {
        let book = self.book();
        let known = book.counters.get(keystore)?;
        let recorded = *book.stored.counts.get(keystore)?;
        let is_there = known.reached.is_some_and(|reached| reached >= recorded);
        (!known.is_older() && !is_there).then_some(recorded)
    }

    /// A keystore's counter was advanced.
    ///
    /// # Errors
    /// `Unavailable` if where it began could not be written for certain.
    pub fn reached(&self, keystore: &str, value: u64) -> Result<(), Error> {
        let mut book = self.book();
        if book.stored.counts.get(keystore) == Some(&0) {
            let mut next = book.stored.clone();
            next.counts.insert(keystore.to_owned(), value);
            book.replace(next)?;
        }
        if let Some(known) = book.counters.get_mut(keystore) {
            known.reached = Some(value);
            known.why = None;
        }
        Ok(())
    }

    /// It could not be.
    pub fn not_advanced(&self, keystore: &str, why: String) {
        if let Some(known) = self.book().counters.get_mut(keystore) {
            known.why = Some(why);
        }
    }
}
