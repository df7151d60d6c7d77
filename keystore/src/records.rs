//! The keystore's own memory: which object is which key, under which charter. Written before an
//! object is made and again after, so that a crash leaves an intent to take up, never an orphan
//! or a second key. What the token does not show any more is reported, never replaced (P5, P6).

use crate::backend::{Backend, LABEL_PREFIX, ObjectId};
use crate::livekey::{LiveKey, look, probe};
use crate::mint::Mint;
use crate::protocol::{CHARTER_LEN_MAX, Condition, FRAME_LEN_MAX, KeyEntry};
use crate::statefile::{StateDir, StateFile};
use crate::{Charter, Clock, Error, KeyId, KeyName, KeyVersion, Kind, PublicKey};
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
    state: RecordState,
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
            if let RecordState::Made { public_key } = &record.state {
                live.insert(
                    key.clone(),
                    Arc::new(look(
                        &backend,
                        key,
                        record.object,
                        &record.charter,
                        public_key,
                    )),
                );
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
        let now = self.clock.trusted().map_err(Unminted::Refused)?;
        let input = mint.text(&live, now).map_err(|refusal| {
            let text = format!("key {key}: {refusal}");
            Unminted::Refused(Error::new(Kind::Refused, text))
        })?;
        let signed = self.backend.sign(
            live.object,
            &live.public_key,
            live.charter.alg,
            input.as_bytes(),
        );
        let signature = signed.map_err(|error| {
            match error.kind() {
                // The key's own fault: it stops, and no other.
                Kind::NotFound | Kind::Mismatch => self.look_anew(key, &live),
                _ => drop(self.lock_suspects().insert(key.clone())),
            }
            Unminted::Token(error)
        })?;
        Ok(input.with_signature(&signature))
    }

    /// Has the text of a mint written before its time, if its key is there.
    pub fn draft(&self, mint: &mut Mint) {
        if let Ok(live) = self.find(&mint.key) {
            mint.draft(live);
        }
    }

    /// Makes a key, or answers with the one that is there under the same charter.
    pub fn make(&self, key: &KeyId, charter: &Charter) -> Result<(KeyEntry, bool), Error> {
        check_charter(charter)?;
        if key.version != KeyVersion::FIRST {
            let text =
                format!("key {key}: a new key starts at version 1; later ones come by rotation");
            return Err(Error::new(Kind::Refused, text));
        }
        let mut guard = self.lock();
        let object = match guard.1.keys.get(key) {
            Some(Record {
                charter: known,
                state: RecordState::Made { .. },
                ..
            }) => {
                if known != charter {
                    return Err(Error::new(
                        Kind::Exists,
                        format!("key {key}: is there under another charter; amend it instead"),
                    ));
                }
                return Ok((self.find(key)?.entry(key), false));
            }
            Some(record) => record.object,
            None if guard.1.keys.len() >= KEYS_MAX => {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "key {key}: this keystore holds {KEYS_MAX} keys, which is the most it may"
                    ),
                ));
            }
            None => ObjectId::random()?,
        };
        let intent = Record {
            object,
            charter: charter.clone(),
            state: RecordState::Intended {},
        };
        replace(&mut guard, |stored| {
            drop(stored.keys.insert(key.clone(), intent.clone()))
        })?;

        let public_key = self.find_or_generate(key, object, charter)?;
        let made = Record {
            state: RecordState::Made {
                public_key: public_key.clone(),
            },
            ..intent
        };
        replace(&mut guard, |stored| {
            drop(stored.keys.insert(key.clone(), made.clone()))
        })?;

        let live = Arc::new(look(&self.backend, key, object, charter, &public_key));
        self.write_live().insert(key.clone(), live.clone());
        Ok((live.entry(key), true))
    }

    /// The object of an intent: adopted if a crash left it (its id is random and ours), else made.
    fn find_or_generate(
        &self,
        key: &KeyId,
        object: ObjectId,
        charter: &Charter,
    ) -> Result<PublicKey, Error> {
        let label = format!("{LABEL_PREFIX}{}/{}", key.name, key.version.number());
        let inspection = match self.backend.inspect(object) {
            Err(error) if error.kind() == Kind::NotFound => {
                self.backend.generate(object, &label, charter.alg)?
            }
            other => other?,
        };
        if !inspection.public_key.fits(charter.alg) {
            return Err(Error::new(
                Kind::Mismatch,
                format!(
                    "key {key}: object {object} is not a key for {}",
                    charter.alg
                ),
            ));
        }
        Ok(inspection.public_key)
    }

    /// Gives all versions of a key another charter. What a key is for and its algorithm stay.
    pub fn amend(&self, name: &KeyName, charter: &Charter) -> Result<(), Error> {
        check_charter(charter)?;
        let mut guard = self.lock();
        let versions: Vec<KeyId> = guard
            .1
            .keys
            .keys()
            .filter(|key| key.name == *name)
            .cloned()
            .collect();
        if versions.is_empty() {
            return Err(Error::new(
                Kind::NotFound,
                format!("key {name}: there is none to amend"),
            ));
        }
        for key in &versions {
            let known = &guard.1.keys[key].charter;
            if known.alg != charter.alg || known.purpose.kind() != charter.purpose.kind() {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "key {key}: a charter's algorithm and kind of purpose never change; \
                             destroy the key and make another"
                    ),
                ));
            }
        }
        replace(&mut guard, |stored| {
            for key in &versions {
                if let Some(record) = stored.keys.get_mut(key) {
                    record.charter = charter.clone();
                }
            }
        })?;
        let mut live = self.write_live();
        for key in versions {
            if let Some(old) = live.get(&key) {
                let amended = LiveKey {
                    charter: charter.clone(),
                    ..(**old).clone()
                };
                live.insert(key, Arc::new(amended));
            }
        }
        Ok(())
    }

    /// Destroys one version, in the token first and in the records then.
    pub fn destroy(&self, key: &KeyId) -> Result<(), Error> {
        let mut guard = self.lock();
        let record = guard
            .1
            .keys
            .get(key)
            .cloned()
            .ok_or_else(|| not_found(key))?;
        self.write_live().remove(key); // it signs nothing from here on, whatever fails below
        let public_key = match record.state {
            RecordState::Made { public_key } => Some(public_key),
            RecordState::Intended {} => match self.backend.inspect(record.object) {
                Ok(inspection) => Some(inspection.public_key),
                Err(error) if error.kind() == Kind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        if let Some(public_key) = public_key {
            self.backend.destroy(record.object, &public_key)?;
        }
        replace(&mut guard, |stored| drop(stored.keys.remove(key)))
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

    /// A key that gave a wrong signature, or is another one now, does not get a second chance.
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
        let (object, charter) = (was.object, &was.charter);
        let now = look(&self.backend, key, object, charter, &was.public_key);
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
        if live.values().any(|live| live.is_usable()) {
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

    fn lock(&self) -> MutexGuard<'_, (StateFile<Stored>, Stored)> {
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

/// Changes the stored value and the file, or neither.
fn replace(
    guard: &mut (StateFile<Stored>, Stored),
    change: impl FnOnce(&mut Stored),
) -> Result<(), Error> {
    let mut next = Stored {
        keys: guard.1.keys.clone(),
    };
    change(&mut next);
    guard.0.replace(&next)?;
    guard.1 = next;
    Ok(())
}
