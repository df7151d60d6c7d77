//! The keystore's own memory: which object is which key, under which charter. Written before an
//! object is made and again after, so that a crash leaves an intent to take up, never an orphan
//! or a second key. What the token does not show any more is reported, never replaced (P5, P6).
//! How versions come and go stands in [`versions`] and [`foreign`], how they are certified in [`certify`],
//! what is said of them in [`attest`]; here, what they are used for.

mod attest;
mod certify;
mod foreign;
mod versions;

pub use attest::Linked;
pub use versions::{Reach, VERSIONS_MAX};

use crate::backend::{Backend, ObjectId, TokenId};
use crate::livekey::{LiveKey, Origin, look, probe};
use crate::mint::Mint;
use crate::protocol::{CHARTER_LEN_MAX, Condition, FRAME_LEN_MAX, KeyEntry};
use crate::statefile::{StateDir, StateFile};
use crate::{Certificate, Charter, Clock, Error, KeyId, Kind, PublicKey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Most keys one keystore holds; an HSM partition has a few thousand objects, a typo times 800
/// hosts must not fill it.
pub const KEYS_MAX: usize = 10_000;

/// Keys that are tried when the token is in doubt: one may have been deleted, three hardly at once.
const TRIED_MAX: usize = 3;

/// Bytes of a [`crate::protocol::Reply::Keys`] page, leaving room for its frame.
const PAGE_LEN: usize = FRAME_LEN_MAX - CHARTER_LEN_MAX - 2048;

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    keys: BTreeMap<KeyId, Record>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    object: ObjectId,
    charter: Charter,
    /// Records from before there was a choice are of keys that root had made.
    #[serde(default, skip_serializing_if = "Origin::is_made")]
    origin: Origin,
    /// What it is called in the token, if not by our id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_id: Option<TokenId>,
    /// The one it was certified by last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<Certificate>,
    state: RecordState,
}

impl Record {
    /// The key, if it was made, as it stands here.
    fn live(&self) -> Option<LiveKey> {
        let RecordState::Made { public_key } = &self.state else {
            return None;
        };
        let (charter, certificate) = (self.charter.clone(), self.certificate.clone());
        Some(LiveKey {
            certificate,
            origin: self.origin,
            ..LiveKey::recorded(self.object, charter, public_key.clone())
        })
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum RecordState {
    /// Written before the object is made.
    Intended {},
    /// The object is there and this is its public key, for ever.
    Made { public_key: PublicKey },
}

/// The records and the token they are about.
pub struct Keys<B> {
    backend: B,
    clock: Arc<Clock>,
    file: Mutex<(StateFile<Stored>, Stored)>,
    live: RwLock<BTreeMap<KeyId, Arc<LiveKey>>>,
    /// Keys that did not sign since somebody last looked.
    suspects: Mutex<BTreeSet<KeyId>>,
}

/// What trying keys has shown of a token that is not ill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It signs.
    Signs,
    /// There is no key that it could sign with.
    NoKey,
}

/// Why there is no assertion.
#[derive(Debug)]
pub enum Unminted {
    /// The token was not asked, or is known to have lost the key.
    Refused(Error),
    /// It was, and did not sign.
    Token(Error),
}

impl From<Unminted> for Error {
    fn from(unminted: Unminted) -> Error {
        match unminted {
            Unminted::Refused(error) | Unminted::Token(error) => error,
        }
    }
}

impl<B: Backend> Keys<B> {
    /// Reads the records and looks at every key in the token; each usable one signs a probe. The
    /// clock is the process's, which remembers longer than one token is open.
    ///
    /// # Errors
    /// `Corrupt` if the state file fails its check. A key that is missing or wrong is no error
    /// here: that key is failed, the others serve.
    pub fn open(backend: B, dir: &StateDir, clock: Arc<Clock>) -> Result<Keys<B>, Error> {
        let (file, stored) = StateFile::<Stored>::open(dir, "keys.v1")?;
        let mut live = BTreeMap::new();
        for (key, record) in &stored.keys {
            if let Some(id) = &record.token_id {
                backend.alias(record.object, id);
            }
            if let Some(recorded) = record.live() {
                live.insert(key.clone(), Arc::new(look(&backend, key, recorded)));
            }
        }
        let (file, live) = (Mutex::new((file, stored)), RwLock::new(live));
        Ok(Keys {
            backend,
            clock,
            file,
            live,
            suspects: Mutex::default(),
        })
    }

    /// The token.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The one signing verb: a JWS over `claims`, if the key's charter permits them now.
    ///
    /// # Errors
    /// Whether it is the token's doing, and why.
    pub fn mint(&self, mint: &Mint) -> Result<String, Unminted> {
        let key = &mint.key;
        let live = self.find(key).map_err(Unminted::Refused)?;
        if let Condition::Failed { kind, why } = &live.condition {
            return Err(Unminted::Refused(Error::new(*kind, why.clone())));
        }
        if live.lacks_certificate() {
            let text =
                format!("key {key}: its assertions name its certificate, and it has none yet");
            return Err(Unminted::Refused(Error::new(Kind::Refused, text)));
        }
        let now = self.clock.trusted().map_err(Unminted::Refused)?;
        let input = mint.text(&live, now).map_err(|refusal| {
            let text = format!("key {key}: {refusal}");
            Unminted::Refused(Error::new(Kind::Refused, text))
        })?;
        let signature = self.sign(key, &live, input.as_bytes());
        let signature = signature.map_err(|error| match error.kind() {
            // The TPM is well: it does as the key's policy says.
            Kind::Unhealthy => Unminted::Refused(error),
            _ => Unminted::Token(error),
        })?;
        Ok(input.with_signature(&signature))
    }

    /// Signs what was built here, and takes note of a key that does not.
    fn sign(&self, key: &KeyId, live: &Arc<LiveKey>, message: &[u8]) -> Result<Vec<u8>, Error> {
        let LiveKey {
            object,
            public_key,
            charter,
            ..
        } = &**live;
        let signed = self.backend.sign(*object, public_key, charter.alg, message);
        signed.inspect_err(|error| match error.kind() {
            // The key's own fault: it stops, and no other.
            Kind::NotFound | Kind::Mismatch => self.look_anew(key, live),
            Kind::Unhealthy => self.stop(key, live, error),
            _ => drop(self.lock_suspects().insert(key.clone())),
        })
    }

    /// Has the text of a mint written before its time, if its key is there.
    pub fn draft(&self, mint: &mut Mint) {
        if let Ok(live) = self.find(&mint.key) {
            mint.draft(live);
        }
    }

    /// The keys after `after`, as many as fit a frame, and whether more follow.
    pub fn list(&self, after: Option<&KeyId>) -> (Vec<KeyEntry>, bool) {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let (mut page, mut length) = (Vec::new(), 0);
        for (key, entry) in live
            .iter()
            .filter(|(key, _)| after.is_none_or(|after| *key > after))
        {
            let entry = entry.entry(key);
            length += serde_json::to_vec(&entry).map_or(FRAME_LEN_MAX, |json| json.len() + 1);
            if length > PAGE_LEN && !page.is_empty() {
                return (page, true);
            }
            page.push(entry);
        }
        (page, false)
    }

    /// Every recorded key in the order of their ids; one whose making was not finished is not live.
    pub fn recorded(&self) -> Vec<(KeyId, Option<Arc<LiveKey>>)> {
        let recorded: Vec<KeyId> = self.lock().1.keys.keys().cloned().collect();
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let with_live = |key: KeyId| {
            let live = live.get(&key).cloned();
            (key, live)
        };
        recorded.into_iter().map(with_live).collect()
    }

    /// Whether the token signs: keys are tried until one does, those first that did not. If another
    /// one does it is they that are ill, and they stop. One whose signature is wrong stops at once.
    ///
    /// # Errors
    /// Why the last of them did not. [`Kind::NotFound`] if every recorded key is missing.
    pub fn try_some(&self) -> Result<Tried, Error> {
        self.look_again();
        let suspects = std::mem::take(&mut *self.lock_suspects());
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let usable = live.iter().filter(|(_, live)| live.is_usable());
        let usable = usable.map(|(key, live)| (key.clone(), live.clone()));
        let (suspected, others): (Vec<_>, Vec<_>) =
            usable.partition(|(key, _)| suspects.contains(key));
        drop(live); // not held over a call into the token
        if suspected.is_empty() && others.is_empty() {
            return self.signs().map(|()| Tried::NoKey);
        }
        let (mut ill, mut tried) = (Vec::new(), Ok(Tried::NoKey));
        let suspected = suspected.into_iter().take(TRIED_MAX);
        for (key, live) in suspected.chain(others.into_iter().take(TRIED_MAX)) {
            let Err(error) = probe(&self.backend, &key, &live) else {
                return self.only_these(ill);
            };
            if error.kind() == Kind::Unhealthy {
                self.stop(&key, &live, &error); // until it is looked at again
                continue; // and nothing follows for the token
            }
            if error.kind() == Kind::Mismatch {
                self.stop(&key, &live, &error);
            } else if suspects.contains(&key) {
                ill.push((key, live));
            }
            tried = Err(error);
        }
        self.lock_suspects()
            .extend(ill.into_iter().map(|(key, _)| key));
        tried
    }

    /// The token signs, and not with these.
    fn only_these(&self, ill: Vec<(KeyId, Arc<LiveKey>)>) -> Result<Tried, Error> {
        for (key, was) in ill {
            self.look_anew(&key, &was);
        }
        Ok(Tried::Signs)
    }

    /// A key that gave a wrong signature, or is another one now, does not get a second chance; one that the
    /// host is in no state for is looked at again.
    fn stop(&self, key: &KeyId, was: &Arc<LiveKey>, error: &Error) {
        let (kind, why) = (error.kind(), error.to_string());
        let stopped = LiveKey {
            condition: Condition::Failed { kind, why },
            ..(**was).clone()
        };
        self.put_in_place(key, was, stopped);
    }

    /// Looks again at keys that the token did not show when they were looked at: it may be back, or
    /// they are. A key that is another one, or could leave, stays failed until the next start.
    pub fn look_again(&self) {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let missing = live.iter().filter(|(_, live)| live.may_come_back());
        let missing: Vec<(KeyId, Arc<LiveKey>)> = missing
            .map(|(key, live)| (key.clone(), live.clone()))
            .collect();
        drop(live);
        for (key, was) in missing {
            self.look_anew(&key, &was);
        }
    }

    fn look_anew(&self, key: &KeyId, was: &Arc<LiveKey>) {
        let now = look(&self.backend, key, (**was).clone());
        self.put_in_place(key, was, now);
    }

    fn put_in_place(&self, key: &KeyId, was: &Arc<LiveKey>, now: LiveKey) {
        let mut live = self.write_live();
        // Destroyed or amended meanwhile: then somebody else has looked.
        if live.get(key).is_some_and(|there| Arc::ptr_eq(there, was)) {
            live.insert(key.clone(), Arc::new(now));
        }
    }

    /// Whether any key signs, as far as is known without asking the token.
    ///
    /// # Errors
    /// If none does although there are some, and one may do so again: why it does not.
    pub fn signs(&self) -> Result<(), Error> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        // The token does as it should where the host is not as it should be.
        if live
            .values()
            .any(|live| live.is_usable() || live.is_unhealthy())
        {
            return Ok(());
        }
        // What one of them says of the token counts more than that another one is missing.
        let weight = |kind: Kind| match kind {
            Kind::NotFound => 1,
            Kind::Unsupported => 2,
            _ => 0,
        };
        let away = live.values().filter(|live| live.may_come_back());
        let reasons = away.filter_map(|live| match &live.condition {
            Condition::Failed { kind, why } => Some((*kind, why)),
            Condition::Usable {} => None,
        });
        match reasons.min_by_key(|(kind, _)| weight(*kind)) {
            // A token that never could is not opened anew for that.
            None | Some((Kind::Unsupported, _)) => Ok(()),
            Some((kind, why)) => Err(Error::new(kind, why.clone())),
        }
    }

    /// Labels of objects that look like ours and have no record.
    pub fn strange(&self) -> Result<Vec<String>, Error> {
        let known: Vec<ObjectId> = self
            .lock()
            .1
            .keys
            .values()
            .map(|record| record.object)
            .collect();
        self.backend.strange(&known)
    }

    fn find(&self, key: &KeyId) -> Result<Arc<LiveKey>, Error> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(key).cloned().ok_or_else(|| not_found(key))
    }

    fn lock(&self) -> Guard<'_> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_suspects(&self) -> MutexGuard<'_, BTreeSet<KeyId>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_live(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<KeyId, Arc<LiveKey>>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_found(key: &KeyId) -> Error {
    Error::new(
        Kind::NotFound,
        format!("key {key}: not made yet; run `assertctl apply`"),
    )
}

fn check_charter(charter: &Charter) -> Result<(), Error> {
    charter.check()?;
    let length = serde_json::to_vec(charter).map_or(usize::MAX, |json| json.len());
    if length > CHARTER_LEN_MAX {
        let text = format!("charter: {length} bytes long, {CHARTER_LEN_MAX} is the most");
        return Err(Error::new(Kind::Refused, text));
    }
    Ok(())
}

/// The records, locked.
type Guard<'a> = MutexGuard<'a, (StateFile<Stored>, Stored)>;

/// Changes the stored value and the file, or neither.
fn replace(guard: &mut Guard<'_>, change: impl FnOnce(&mut Stored)) -> Result<(), Error> {
    let mut next = Stored {
        keys: guard.1.keys.clone(),
    };
    change(&mut next);
    guard.0.replace(&next)?;
    guard.1 = next;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As they were written before versions had an origin.
    const BEFORE: &str = r#"{"keys":{"a/b.1":{"object":"000102030405060708090a0b0c0d0e0f","charter":{"purpose":{"client_authentication":{"iss":"a","sub":"a","aud":"b"}},"alg":"ES256","typ":"client-authentication+jwt","lifetime_max_s":60},"state":{"intended":{}}}}}"#;

    #[test]
    fn records_of_old_are_read_and_stay_as_they_were() {
        let stored: Stored = serde_json::from_str(BEFORE).unwrap();
        let record = stored.keys.values().next().unwrap();
        assert_eq!(record.origin, Origin::Made);
        assert_eq!(serde_json::to_string(&stored).unwrap(), BEFORE);
    }

    #[test]
    fn what_came_by_rotation_is_known_by_it() {
        let mut stored: Stored = serde_json::from_str(BEFORE).unwrap();
        for record in stored.keys.values_mut() {
            record.origin = Origin::Next;
        }
        let text = serde_json::to_string(&stored).unwrap();
        let again: Stored = serde_json::from_str(&text).unwrap();
        assert!(again.keys.values().all(|it| it.origin == Origin::Next));
    }
}
