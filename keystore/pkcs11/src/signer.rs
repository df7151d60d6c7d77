//! The sessions that sign. Each is used by one caller at a time and knows the handles it found
//! itself: PKCS#11 v3.1 §3.4 promises a handle's meaning only to a session that can use it, for
//! as long as that session lives, so handles are not shared between sessions although most
//! modules would allow it. The search happens once per key and session.
//!
//! After any failed signature the session is closed: the module may have left its operation open
//! (CKR_OPERATION_ACTIVE for ever after). Where a handle, the session or the login had died, the
//! generation moves on as well and every session forgets its handles, for a handle that was given
//! away anew may be another key (pkcs11-provider 494). A key that the token refuses to use costs
//! its own session alone.

use crate::errors::Blame;
use crate::finder::Finder;
use crate::mechanism::Scheme;
use crate::object::Failure;
use crate::token::{Access, Token};
use cryptoki::object::ObjectHandle;
use keystore::backend::ObjectId;
use keystore::{Error, Kind, PublicKey};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a caller waits for a free session. The broker gives up on a mint before this; the
/// bound is for whoever gives up later than it should.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Most bytes of what the token calls a signature that are passed on: one more than the longest
/// right one has (RSA with 8192 bits), so what is cut was wrong and stays wrong, and fits a frame.
const SIGNATURE_LEN_MAX: usize = 8192 / 8 + 1;

/// Sessions we hold that do not sign: the login, and one that looks, makes or destroys.
const OTHER_SESSIONS: u64 = 2;

/// Keys that have signed in this process; their ids are random. A token is opened anew many times.
static SIGNED: LazyLock<Mutex<HashSet<ObjectId>>> = LazyLock::new(Mutex::default);

/// All signing sessions of a token.
pub struct Signers {
    count: usize,
    /// Free places; a place without a session opens one when it is taken.
    free: Mutex<Vec<Option<Signer>>>,
    freed: Condvar,
    generation: AtomicU64,
}

struct Signer {
    finder: Finder,
    generation: u64,
    keys: HashMap<ObjectId, FoundKey>,
}

struct FoundKey {
    handle: ObjectHandle,
    public_key: PublicKey,
    /// Whether it is in [`SIGNED`] for certain, so that not every signature has to look.
    signed: bool,
}

/// What is to be signed, by which key.
pub struct Order<'a> {
    /// CKA_ID of the key.
    pub object: ObjectId,
    /// The public key it must have.
    pub public_key: &'a PublicKey,
    /// How.
    pub scheme: Scheme,
    /// The whole message.
    pub message: &'a [u8],
}

impl Signers {
    /// Opens as many sessions as wanted, or as the token allows besides our other two.
    ///
    /// # Errors
    /// `Unavailable` if not even one can be opened.
    pub fn open(token: &Token, wanted: usize) -> Result<Signers, Error> {
        let allowed = allowed(wanted, token.sessions_max);
        let mut free = Vec::with_capacity(allowed);
        for _ in 0..allowed {
            match Signer::open(token, 0) {
                Ok(signer) => free.push(Some(signer)),
                Err(error) if free.is_empty() => return Err(error),
                Err(_) => break, // others use the token too; fewer signers are fewer signers
            }
        }
        Ok(Signers {
            count: free.len(),
            free: Mutex::new(free),
            freed: Condvar::new(),
            generation: AtomicU64::new(0),
        })
    }

    /// How many signatures can be made at a time.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Closes every session. Nobody signs any more.
    pub fn close(&self) {
        self.lock().clear();
    }

    /// Makes every session forget its handles before its next signature.
    pub fn forget_handles(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// A key was destroyed: nothing is known of it any more.
    pub fn forget(&self, object: ObjectId) {
        signed().remove(&object);
        self.forget_handles();
    }

    /// Signs in the first free session. If that session turns out to be dead, once more in a new
    /// one; any other failure is final.
    pub fn sign(&self, token: &Token, order: &Order<'_>) -> Result<Vec<u8>, Error> {
        let mut place = self.take(token)?;
        let first = self.attempt(token, order, &mut place);
        let verdict = match first {
            Err(Failure {
                blame: Blame::Session,
                ..
            }) => self.attempt(token, order, &mut place),
            other => other,
        };
        self.put_back(place);
        verdict.map_err(Error::from)
    }

    /// One try in the session of `place`, which is empty afterwards if the session is not to be
    /// used again.
    fn attempt(
        &self,
        token: &Token,
        order: &Order<'_>,
        place: &mut Option<Signer>,
    ) -> Result<Vec<u8>, Failure> {
        let generation = self.generation.load(Ordering::Relaxed);
        let mut signer = match place.take() {
            Some(signer) => signer,
            None => Signer::open(token, generation)?,
        };
        if signer.generation != generation {
            signer.keys.clear();
            signer.finder.forget();
            signer.generation = generation;
        }
        let handle = match signer.handle(token, order.object, order.public_key) {
            Ok(handle) => handle,
            Err(failure) if failure.blame == Blame::Nobody => {
                *place = Some(signer);
                return Err(failure);
            }
            Err(failure) => return Err(self.give_up(signer, failure)),
        };
        match signer.sign(token, order, handle) {
            Ok(signature) => {
                signer.note_signed(order.object);
                *place = Some(signer);
                Ok(signature)
            }
            Err(failure) => Err(self.give_up(signer, may_pass(order.object, failure))),
        }
    }

    /// Closes a session that failed; where more than it is in doubt, all sessions forget.
    fn give_up(&self, signer: Signer, failure: Failure) -> Failure {
        drop(signer);
        match failure.blame {
            Blame::Session | Blame::Login => self.forget_handles(),
            Blame::Other | Blame::Nobody => {}
        }
        failure
    }

    fn take(&self, token: &Token) -> Result<Option<Signer>, Error> {
        let (mut free, timeout) = self
            .freed
            .wait_timeout_while(self.lock(), WAIT_MAX, |free| free.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        match free.pop() {
            Some(place) => Ok(place),
            None => {
                debug_assert!(timeout.timed_out());
                let text = format!(
                    "{}: all {} signing sessions were busy for {} s; the token is too slow for \
                     what is asked of it",
                    token.place,
                    self.count,
                    WAIT_MAX.as_secs()
                );
                Err(Error::new(Kind::Unavailable, text))
            }
        }
    }

    fn put_back(&self, place: Option<Signer>) {
        self.lock().push(place);
        self.freed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Signer>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signer {
    fn open(token: &Token, generation: u64) -> Result<Signer, Error> {
        let finder = Finder::open(token, Access::ReadOnly)?;
        Ok(Signer {
            finder,
            generation,
            keys: HashMap::new(),
        })
    }

    /// What the token calls a signature. Whether it is one, its length included, is found
    /// out by whoever verifies it, and that stops the key (reliability row 13).
    fn sign(
        &self,
        token: &Token,
        order: &Order<'_>,
        handle: ObjectHandle,
    ) -> Result<Vec<u8>, Failure> {
        let mechanism = order.scheme.mechanism();
        let input = order.scheme.input(order.message);
        let view = self.finder.view(token);
        let signed = view.session.sign(&mechanism, handle, &input);
        let mut signature = signed.map_err(|error| {
            view.failed(&format!("signing with object {}", order.object))(error)
        })?;
        signature.truncate(SIGNATURE_LEN_MAX);
        Ok(signature)
    }

    fn note_signed(&mut self, object: ObjectId) {
        if let Some(found) = self.keys.get_mut(&object).filter(|found| !found.signed) {
            signed().insert(object);
            found.signed = true;
        }
    }

    /// The handle of a key whose public key is the expected one.
    fn handle(
        &mut self,
        token: &Token,
        object: ObjectId,
        expected: &PublicKey,
    ) -> Result<ObjectHandle, Failure> {
        let found = match self.keys.entry(object) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let handle = self.finder.private_key(token, object)?;
                let public_key = self.finder.public_key(token, object, Some(handle))?;
                entry.insert(FoundKey {
                    handle,
                    public_key,
                    signed: false,
                })
            }
        };
        if found.public_key != *expected {
            let text = format!(
                "object {object} has another public key (kid {}) than was recorded (kid {}); it \
                 is not used; find out who put it there",
                found.public_key.kid(),
                expected.kid()
            );
            return Err(self.finder.view(token).error(Kind::Mismatch, text));
        }
        Ok(found.handle)
    }
}

fn signed() -> MutexGuard<'static, HashSet<ObjectId>> {
    SIGNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A token that cannot do what it did before with the same key, or does not understand the same call,
/// is not itself now, whatever it answers.
fn may_pass(object: ObjectId, failure: Failure) -> Failure {
    let Failure { blame, error } = failure;
    let error = match error.kind() {
        Kind::Internal | Kind::Unsupported if signed().contains(&object) => {
            let text = format!("{error}; this key has signed before, so it is tried again");
            Error::new(Kind::Unavailable, text)
        }
        _ => error,
    };
    Failure { blame, error }
}

fn allowed(wanted: usize, sessions_max: Option<u64>) -> usize {
    let room = sessions_max.map_or(u64::MAX, |most| most.saturating_sub(OTHER_SESSIONS));
    wanted
        .min(usize::try_from(room).unwrap_or(usize::MAX))
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_did_before_it_is_able_to_do_again() {
        let (new, old) = (ObjectId([1; 16]), ObjectId([2; 16]));
        signed().insert(old);
        let kind = |object, kind| {
            let failure = Failure {
                blame: Blame::Other,
                error: Error::new(kind, "signing"),
            };
            may_pass(object, failure).error.kind()
        };
        for doubtful in [Kind::Internal, Kind::Unsupported] {
            assert_eq!(kind(new, doubtful), doubtful);
            assert_eq!(kind(old, doubtful), Kind::Unavailable);
        }
        assert_eq!(kind(old, Kind::Mismatch), Kind::Mismatch);
    }

    #[test]
    fn the_token_has_room_for_our_other_sessions() {
        assert_eq!(allowed(2, None), 2);
        assert_eq!(allowed(16, Some(16)), 14);
        assert_eq!(allowed(4, Some(3)), 1);
        assert_eq!(allowed(4, Some(1)), 1);
        assert_eq!(allowed(0, None), 1);
    }
}
