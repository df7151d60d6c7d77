//! Ends the process when one call into the token takes too long: nothing else can be done about a
//! thread inside a vendor's module, and a new process is better than a stuck one. Under systemd the
//! watchdog does it: it is fed here, only while no call is overdue.

use crate::backend::{Backend, Inspection, ObjectId, Trial};
use crate::notify::notify;
use crate::survey::Line;
use crate::{Alg, Error, PublicKey};
use sd_notify::NotifyState;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the service manager may take to end us when it was asked to.
const TRIGGER_WAIT: Duration = Duration::from_secs(2);

/// Calls under way, and how long one may take.
pub struct HangWatch {
    limit: Duration,
    next: AtomicU64,
    calls: Mutex<HashMap<u64, (Instant, &'static str)>>,
}

/// One call under way; over when dropped.
pub struct Call<'a> {
    watch: &'a HangWatch,
    number: u64,
}

impl HangWatch {
    /// A watch without calls.
    pub fn new(limit: Duration) -> HangWatch {
        HangWatch {
            limit,
            next: AtomicU64::new(0),
            calls: Mutex::default(),
        }
    }

    /// A call begins.
    pub fn enter(&self, what: &'static str) -> Call<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.calls().insert(number, (Instant::now(), what));
        Call {
            watch: self,
            number,
        }
    }

    /// Watches for ever, and feeds the service manager's watchdog, if it has one (sd_notify(3)).
    /// Ends the process over a call that outlives the limit.
    pub fn watch(&self) {
        let watchdog = sd_notify::watchdog_enabled();
        let look = self.limit.min(Duration::from_secs(4)) / 4;
        let every = watchdog.map_or(look, |timeout| look.min(timeout / 3));
        loop {
            thread::sleep(every);
            let overdue = |(since, _): &&(Instant, &str)| since.elapsed() > self.limit;
            let hung = self.calls().values().find(overdue).copied();
            if let Some((since, what)) = hung {
                eprintln!(
                    "keystore: {what} has taken {} s, longer than hang_limit_s; the module hangs, \
                     this process ends so that a new one can start",
                    since.elapsed().as_secs()
                );
                if watchdog.is_some() && notify(&[NotifyState::WatchdogTrigger]).is_ok() {
                    thread::sleep(TRIGGER_WAIT); // it ends us, and says so in its own log
                }
                std::process::abort();
            }
            if watchdog.is_some()
                && let Err(error) = notify(&[NotifyState::Watchdog])
            {
                eprintln!("keystore: {error}");
            }
        }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u64, (Instant, &'static str)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.watch.calls().remove(&self.number);
    }
}

/// A backend every call of which is watched by itself: opening a token with thousands of keys is
/// many short calls, not one long one.
pub struct Watched<B> {
    backend: B,
    watch: Arc<HangWatch>,
}

impl<B: Backend> Watched<B> {
    /// Watches `backend`.
    pub fn new(backend: B, watch: Arc<HangWatch>) -> Watched<B> {
        Watched { backend, watch }
    }
}

impl<B: Backend> Backend for Watched<B> {
    fn describe(&self) -> String {
        self.backend.describe()
    }

    fn algs(&self) -> Vec<Alg> {
        self.backend.algs()
    }

    fn parallelism(&self) -> usize {
        self.backend.parallelism()
    }

    fn generate(&self, object: ObjectId, label: &str, alg: Alg) -> Result<Inspection, Error> {
        let _call = self.watch.enter("making a key");
        self.backend.generate(object, label, alg)
    }

    fn inspect(&self, object: ObjectId) -> Result<Inspection, Error> {
        let _call = self.watch.enter("looking at a key");
        self.backend.inspect(object)
    }

    fn sign(
        &self,
        object: ObjectId,
        public_key: &PublicKey,
        alg: Alg,
        message: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let _call = self.watch.enter("a signature");
        self.backend.sign(object, public_key, alg, message)
    }

    fn destroy(&self, object: ObjectId, public_key: &PublicKey) -> Result<(), Error> {
        let _call = self.watch.enter("destroying a key");
        self.backend.destroy(object, public_key)
    }

    fn strange(&self, known: &[ObjectId]) -> Result<Vec<String>, Error> {
        let _call = self.watch.enter("looking at the token's objects");
        self.backend.strange(known)
    }

    fn survey(&self) -> Vec<Line> {
        let _call = self.watch.enter("asking the token about itself");
        self.backend.survey()
    }

    fn trial(&self, alg: Alg) -> Result<Box<dyn Trial + '_>, Error> {
        let _call = self.watch.enter("making a key for a trial");
        let trial = self.backend.trial(alg)?;
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
        let _call = self.watch.enter("a signature for a trial");
        self.trial.sign(message)
    }

    fn end(self: Box<Self>) -> Result<(), Error> {
        let _call = self.watch.enter("destroying a trial's key");
        self.trial.end()
    }
}
