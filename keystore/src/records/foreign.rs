//! Keys that this keystore did not have made: brought in by root, or already in the token. They are the
//! first version of a key, or its next one: a vendor's key may stand beside the one that is to
//! take its place. A key that was brought in is marked for ever; one that was there is what the
//! token shows of it.

use super::versions::{begun_otherwise, has_its_turn, versions};
use super::{Guard, Keys, Record, RecordState, check_charter, replace};
use crate::backend::{Backend, Existing, ObjectId, TokenId};
use crate::livekey::{Origin, look};
use crate::protocol::{Condition, KeyEntry};
use crate::{Charter, Error, KeyId, Kind, PrivateKey, PublicKey};
use std::sync::Arc;

/// Whether a version is there.
enum Place {
    Taken,
    Free(ObjectId),
}

impl<B: Backend> Keys<B> {
    /// Brings in a private key, or answers with the version that it is already. What a crash cut off is
    /// finished by bringing in the same key again.
    ///
    /// # Errors
    /// `Refused` for what is no key of the charter's algorithm, and out of turn; `Exists` if the
    /// version is another key.
    pub fn import(
        &self,
        key: &KeyId,
        charter: &Charter,
        private_key: &PrivateKey,
    ) -> Result<(KeyEntry, bool), Error> {
        let (public_key, _) = private_key.read()?;
        fits(key, &public_key, charter)?;
        let mut guard = self.lock();
        let place = self.place(&guard, key, charter, &public_key, Origin::Imported)?;
        let Place::Free(object) = place else {
            return Ok((self.find(key)?.entry(key), false));
        };
        let intent = Record {
            object,
            charter: charter.clone(),
            origin: Origin::Imported,
            token_id: None,
            certificate: None,
            state: RecordState::Intended {},
        };
        self.carry_out(&mut guard, key, intent, &|label, intent| {
            let alg = intent.charter.alg;
            let there = match self.backend.inspect(intent.object) {
                Err(error) if error.kind() == Kind::NotFound => {
                    self.backend
                        .import(intent.object, label, alg, private_key)?
                }
                other => other?, // left by an attempt that was cut off
            };
            match there.public_key == public_key {
                true => Ok(there),
                false => Err(begun_otherwise(key)),
            }
        })
    }

    /// Takes a key of the token's that signs for one of ours, or answers with the version that it is already. It
    /// signs, is certified and is destroyed like any other from then on.
    ///
    /// # Errors
    /// `NotFound` and `Mismatch` as the backend has them; `Refused` if it is no key of the charter's
    /// algorithm, and out of turn; `Exists` if it is another of ours.
    pub fn adopt(
        &self,
        key: &KeyId,
        charter: &Charter,
        which: &Existing,
    ) -> Result<(KeyEntry, bool), Error> {
        let (id, inspection) = self.backend.find(which)?;
        let public_key = inspection.public_key;
        fits(key, &public_key, charter)?;
        let mut guard = self.lock();
        let is_it = |record: &Record| match &record.token_id {
            Some(token_id) => *token_id == id,
            None => TokenId::from(record.object) == id,
        };
        let recorded = guard.1.keys.iter().find(|(_, record)| is_it(record));
        if let Some((other, _)) = recorded.filter(|(other, _)| *other != key) {
            let text = format!("key {key}: the object with {which} is key {other} already");
            return Err(Error::new(Kind::Exists, text));
        }
        let place = self.place(&guard, key, charter, &public_key, Origin::Adopted)?;
        let Place::Free(new) = place else {
            return Ok((self.find(key)?.entry(key), false));
        };
        // An id as long as ours is taken as it is; ours are random, so that it is nobody else's.
        let (object, token_id) = match id.object() {
            Some(object) => (object, None),
            None => (new, Some(id)),
        };
        if let Some(id) = &token_id {
            self.backend.alias(object, id);
        }
        let adopted = Record {
            object,
            charter: charter.clone(),
            origin: Origin::Adopted,
            token_id,
            certificate: None,
            state: RecordState::Made { public_key },
        };
        let recorded = adopted.live().expect("it is made");
        let live = Arc::new(look(&self.backend, key, recorded));
        if let Condition::Failed { kind, why } = &live.condition {
            return Err(Error::new(*kind, why.clone())); // nothing was begun
        }
        replace(&mut guard, |stored| {
            drop(stored.keys.insert(key.clone(), adopted))
        })?;
        self.write_live().insert(key.clone(), live.clone());
        Ok((live.entry(key), true))
    }

    /// The place of a version that is to be this key.
    fn place(
        &self,
        guard: &Guard<'_>,
        key: &KeyId,
        charter: &Charter,
        public_key: &PublicKey,
        origin: Origin,
    ) -> Result<Place, Error> {
        check_charter(charter)?;
        let exists = |what| Error::new(Kind::Exists, format!("key {key}: is there {what}"));
        match guard.1.keys.get(key) {
            Some(record) if record.origin != origin => match record.state {
                RecordState::Made { .. } => Err(exists("already, and came in another way")),
                RecordState::Intended {} => Err(begun_otherwise(key)),
            },
            Some(record) => match &record.state {
                RecordState::Intended {} => Ok(Place::Free(record.object)),
                RecordState::Made { public_key: known } if known != public_key => {
                    Err(exists("with another public key"))
                }
                RecordState::Made { .. } if record.charter != *charter => {
                    Err(exists("under another charter; amend it instead"))
                }
                RecordState::Made { .. } => Ok(Place::Taken),
            },
            None => {
                self.is_next(guard, key, charter)?;
                self.new_object(guard, key).map(Place::Free)
            }
        }
    }

    /// Whether a version may be the first, or the next of what is there.
    fn is_next(&self, guard: &Guard<'_>, key: &KeyId, charter: &Charter) -> Result<(), Error> {
        let refuse = |text: String| Error::new(Kind::Refused, format!("key {key}: {text}"));
        let Some((newest, record)) = versions(guard, &key.name).next_back() else {
            return Ok(());
        };
        has_its_turn(guard, newest, record, key).map_err(refuse)?;
        let known = &record.charter;
        if known.alg != charter.alg || known.purpose.kind() != charter.purpose.kind() {
            let text = format!("{newest} has another algorithm or kind of purpose");
            return Err(refuse(text));
        }
        Ok(())
    }
}

fn fits(key: &KeyId, public_key: &PublicKey, charter: &Charter) -> Result<(), Error> {
    match public_key.fits(charter.alg) {
        true => Ok(()),
        false => {
            let text = format!(
                "key {key}: the key is not one for {}, which its charter has",
                charter.alg
            );
            Err(Error::new(Kind::Refused, text))
        }
    }
}
