//! Ends the process when one call into the token takes too long: nothing else can be done about a
//! thread inside a vendor's module, and a new process is better than a stuck one. Under systemd the
//! watchdog does it: it is fed here, only while no call is overdue.

use crate::backend::{
    Backend, Existing, Inspection, Likeness, ObjectId, Testimony, TokenId, Trial,
};
use crate::evidence::bundle::{Quote, Selection};
use crate::evidence::context::Sha256;
use crate::evidence::healthy::State;
use crate::notify::notify;
use crate::protocol::Credential;
use crate::survey::Line;
use crate::{Alg, Error, PrivateKey, PublicKey};
use sd_notify::NotifyState;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long the service manager may take to end us when it was asked to.
const TRIGGER_WAIT: Duration = Duration::from_secs(2);

/// How long a signature may take, if `hang_limit_s` is not shorter: nobody waits longer for one (the
/// broker gives up after 5 s), and what hangs is to be over soon.
const SIGNATURE_MAX: Duration = Duration::from_secs(4);

/// How often calls under way are looked at: a hung one is not to go on for longer than it has to.
const CLOSE_LOOK: Duration = Duration::from_millis(100);

/// What kind of call it is: how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A signature.
    Signature,
    /// Anything else: `hang_limit_s`.
    Look,
    /// The same, and signatures may have to wait for it: making a key, opening a token.
    Making,
}

/// Calls under way, and how long one may take.
pub struct HangWatch {
    /// Name of the keystore, for the log.
    name: String,
    limit: Duration,
    next: AtomicU64,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    under_way: HashMap<u64, Begun>,
    /// When a key was made last: signatures may have waited for it.
    made: Option<Instant>,
    /// When a signature ended last, if the token makes one at a time: the next may have waited for it.
    signed: Option<Instant>,
    signers: Signers,
    /// Whether the process is ending, which nothing is to disturb.
    is_ending: bool,
}

/// How many signatures the token makes at a time.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Signers {
    #[default]
    Several,
    One,
}

#[derive(Clone, Copy)]
struct Begun {
    at: Instant,
    what: &'static str,
    pace: Pace,
}

/// One call under way; over when dropped.
pub struct Call<'a> {
    watch: &'a HangWatch,
    number: u64,
}

impl Calls {
    /// One that takes too long. A TPM does one thing at a time, so that a signature's time does not
    /// count while a key is being made.
    fn overdue(&self, limit: Duration, now: Instant) -> Option<Begun> {
        let is_making = self.is_making();
        let is_overdue = |begun: &&Begun| match begun.pace {
            Pace::Look | Pace::Making => now.duration_since(begun.at) > limit,
            Pace::Signature if is_making => false,
            Pace::Signature => {
                let waited = [self.made, self.signed].into_iter().flatten().max();
                let since = waited.map_or(begun.at, |until| until.max(begun.at));
                now.duration_since(since) > limit.min(SIGNATURE_MAX)
            }
        };
        let overdue = self.under_way.values().find(is_overdue);
        overdue.filter(|_| !self.is_ending).copied()
    }

    fn is_making(&self) -> bool {
        let mut paces = self.under_way.values().map(|begun| begun.pace);
        paces.any(|pace| pace == Pace::Making)
    }
}

impl HangWatch {
    /// A watch without calls, of the keystore of this name.
    pub fn new(name: &str, limit: Duration) -> HangWatch {
        HangWatch {
            name: name.to_owned(),
            limit,
            next: AtomicU64::new(0),
            calls: Mutex::default(),
        }
    }

    /// A call begins.
    pub fn enter(&self, what: &'static str, pace: Pace) -> Call<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let at = Instant::now();
        self.calls()
            .under_way
            .insert(number, Begun { at, what, pace });
        Call {
            watch: self,
            number,
        }
    }

    /// Whether a call has been under way for longer than this, which nothing explains.
    pub fn is_stuck(&self, limit: Duration) -> bool {
        let calls = self.calls();
        let is_long = |begun: &Begun| begun.pace != Pace::Making && begun.at.elapsed() > limit;
        !calls.is_making() && calls.under_way.values().any(is_long)
    }

    /// The process ends by itself, in its own time: no call is overdue any more.
    pub fn end(&self) {
        self.calls().is_ending = true;
    }

    /// Watches for ever, and feeds the service manager's watchdog, if it has one (sd_notify(3)).
    /// Ends the process over a call that outlives the limit.
    pub fn watch(&self) {
        let watchdog = sd_notify::watchdog_enabled();
        let look = self.limit.min(SIGNATURE_MAX) / 8;
        let every = watchdog.map_or(look, |timeout| look.min(timeout / 3));
        loop {
            let pause = match self.calls().under_way.is_empty() {
                true => every,
                false => every.min(CLOSE_LOOK),
            };
            thread::sleep(pause);
            let hung = self.calls().overdue(self.limit, Instant::now());
            if let Some(Begun { at, what, .. }) = hung {
                eprintln!(
                    "keystore {}: {what} has taken {} s, longer than it may (hang_limit_s); the \
                     module hangs, this process ends so that a new one can start",
                    self.name,
                    at.elapsed().as_secs()
                );
                if watchdog.is_some() && notify(&[NotifyState::WatchdogTrigger]).is_ok() {
                    thread::sleep(TRIGGER_WAIT); // it ends us, and says so in its own log
                }
                std::process::abort();
            }
            if watchdog.is_some()
                && let Err(error) = notify(&[NotifyState::Watchdog])
            {
                eprintln!("keystore {}: {error}", self.name);
            }
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut calls = self.watch.calls();
        let ended = calls.under_way.remove(&self.number);
        match ended.map(|begun| begun.pace) {
            Some(Pace::Making) => calls.made = Some(Instant::now()),
            Some(Pace::Signature) if calls.signers == Signers::One => {
                calls.signed = Some(Instant::now());
            }
            Some(Pace::Signature | Pace::Look) | None => {}
        }
    }
}

/// A backend every call of which is watched by itself: opening a token with thousands of keys is
/// many short calls, not one long one.
pub struct Watched<B> {
    /// There until this is dropped.
    backend: Option<B>,
    watch: Arc<HangWatch>,
}

impl<B: Backend> Watched<B> {
    /// Watches `backend`.
    pub fn new(backend: B, watch: Arc<HangWatch>) -> Watched<B> {
        watch.calls().signers = match backend.parallelism() {
            1 => Signers::One,
            _ => Signers::Several,
        };
        let backend = Some(backend);
        Watched { backend, watch }
    }
}

impl<B> Watched<B> {
    fn backend(&self) -> &B {
        self.backend.as_ref().expect("it is there until the drop")
    }
}

impl<B> Drop for Watched<B> {
    /// Closing a token is calls into its module too.
    fn drop(&mut self) {
        let _call = self.watch.enter("closing the token", Pace::Look);
        drop(self.backend.take());
    }
}

impl<B: Backend> Backend for Watched<B> {
    fn describe(&self) -> String {
        self.backend().describe()
    }

    fn algs(&self) -> Vec<Alg> {
        self.backend().algs()
    }

    fn parallelism(&self) -> usize {
        self.backend().parallelism()
    }

    fn generate(&self, object: ObjectId, label: &str, alg: Alg) -> Result<Inspection, Error> {
        let _call = self.watch.enter("making a key", Pace::Making);
        self.backend().generate(object, label, alg)
    }

    fn import(
        &self,
        object: ObjectId,
        label: &str,
        alg: Alg,
        key: &PrivateKey,
    ) -> Result<Inspection, Error> {
        let _call = self.watch.enter("importing a key", Pace::Making);
        self.backend().import(object, label, alg, key)
    }

    fn find(&self, which: &Existing) -> Result<(TokenId, Inspection), Error> {
        let _call = self.watch.enter("looking for a key", Pace::Look);
        self.backend().find(which)
    }

    fn alias(&self, object: ObjectId, id: &TokenId) {
        self.backend().alias(object, id);
    }

    fn mend(&self) -> Result<(), Error> {
        let _call = self.watch.enter("logging in again", Pace::Look);
        self.backend().mend()
    }

    fn inspect(&self, object: ObjectId) -> Result<Inspection, Error> {
        let _call = self.watch.enter("looking at a key", Pace::Look);
        self.backend().inspect(object)
    }

    fn sign(
        &self,
        object: ObjectId,
        public_key: &PublicKey,
        alg: Alg,
        message: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let _call = self.watch.enter("a signature", Pace::Signature);
        self.backend().sign(object, public_key, alg, message)
    }

    fn destroy(&self, object: ObjectId, public_key: &PublicKey) -> Result<(), Error> {
        let _call = self.watch.enter("destroying a key", Pace::Look);
        self.backend().destroy(object, public_key)
    }

    fn strange(&self, known: &[ObjectId]) -> Result<Vec<String>, Error> {
        let _call = self
            .watch
            .enter("looking at the token's objects", Pace::Look);
        self.backend().strange(known)
    }

    fn counted(&self) -> Option<Result<Option<u64>, Error>> {
        let _call = self.watch.enter("reading the counter", Pace::Look);
        self.backend().counted()
    }

    fn count(&self, to: u64) -> Result<u64, Error> {
        let _call = self.watch.enter("advancing the counter", Pace::Look);
        self.backend().count(to)
    }

    fn attest(
        &self,
        object: ObjectId,
        public_key: &PublicKey,
        about: &Sha256,
    ) -> Result<Testimony, Error> {
        let _call = self.watch.enter("a statement about a key", Pace::Making);
        self.backend().attest(object, public_key, about)
    }

    fn likeness(&self) -> Result<Likeness, Error> {
        let _call = self.watch.enter("asking the token who it is", Pace::Making);
        self.backend().likeness()
    }

    fn quote(&self, selection: &Selection, about: &Sha256) -> Result<Quote, Error> {
        let _call = self.watch.enter("a quote", Pace::Making);
        self.backend().quote(selection, about)
    }

    fn state(&self) -> Result<State, Error> {
        let _call = self.watch.enter("reading PCRs", Pace::Look);
        self.backend().state()
    }

    fn activate(&self, credential: &Credential) -> Result<Zeroizing<Vec<u8>>, Error> {
        let _call = self.watch.enter("activating a credential", Pace::Making);
        self.backend().activate(credential)
    }

    fn survey(&self) -> Vec<Line> {
        let _call = self
            .watch
            .enter("asking the token about itself", Pace::Look);
        self.backend().survey()
    }

    fn trial(&self, alg: Alg) -> Result<Box<dyn Trial + '_>, Error> {
        let _call = self.watch.enter("making a key for a trial", Pace::Making);
        let trial = self.backend().trial(alg)?;
        let watch = &self.watch;
        Ok(Box::new(WatchedTrial { trial, watch }))
    }
}

/// A trial every call of which is watched by itself.
struct WatchedTrial<'a> {
    trial: Box<dyn Trial + 'a>,
    watch: &'a HangWatch,
}

impl Trial for WatchedTrial<'_> {
    fn public_key(&self) -> &PublicKey {
        self.trial.public_key()
    }

    fn sign(&mut self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let _call = self.watch.enter("a signature for a trial", Pace::Signature);
        self.trial.sign(message)
    }

    fn end(self: Box<Self>) -> Result<(), Error> {
        let _call = self.watch.enter("destroying a trial's key", Pace::Look);
        self.trial.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn overdue(calls: &[(u64, Pace)], made: Option<u64>, now: u64) -> Option<Pace> {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let begun = |(n, (second, pace)): (usize, &(u64, Pace))| {
            let begun = Begun {
                at: at(*second),
                what: "a call",
                pace: *pace,
            };
            (n as u64, begun)
        };
        let calls = Calls {
            under_way: calls.iter().enumerate().map(begun).collect(),
            made: made.map(at),
            ..Calls::default()
        };
        calls.overdue(LIMIT, at(now)).map(|begun| begun.pace)
    }

    #[test]
    fn a_signature_has_seconds_and_everything_else_its_limit() {
        use Pace::{Look, Making, Signature};
        assert_eq!(overdue(&[(0, Signature)], None, 4), None);
        assert_eq!(overdue(&[(0, Signature)], None, 5), Some(Signature));
        for pace in [Look, Making] {
            assert_eq!(overdue(&[(0, pace)], None, 60), None);
            assert_eq!(overdue(&[(0, pace)], None, 61), Some(pace));
        }
        assert_eq!(
            overdue(&[(0, Look), (1, Signature)], None, 6),
            Some(Signature)
        );
    }

    #[test]
    fn what_waited_for_another_signature_of_a_slow_token_does_not_hang() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut calls = Calls::default();
        let (what, pace) = ("a signature", Pace::Signature);
        calls.under_way.insert(
            0,
            Begun {
                at: at(0),
                what,
                pace,
            },
        );
        calls.signed = Some(at(3));
        assert!(calls.overdue(LIMIT, at(7)).is_none());
        assert!(calls.overdue(LIMIT, at(8)).is_some());
        calls.is_ending = true;
        assert!(calls.overdue(LIMIT, at(8)).is_none());
    }

    #[test]
    fn the_time_in_which_a_key_is_made_is_not_a_signatures() {
        use Pace::{Making, Signature};
        assert_eq!(overdue(&[(0, Making), (1, Signature)], None, 60), None);
        assert_eq!(overdue(&[(1, Signature)], Some(50), 54), None);
        assert_eq!(overdue(&[(1, Signature)], Some(50), 55), Some(Signature));
        assert_eq!(overdue(&[(51, Signature)], Some(50), 55), None);
    }
}
