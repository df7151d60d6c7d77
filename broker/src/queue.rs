//! The queue in front of one keystore: with deadlines, plain messages in and out, in a [`fair`] order. How
//! many may wait is the keystore's business, which gives places; whoever has given up leaves a job
//! that is passed over.
//!
//! A share is a workload's, whatever it is made of: many processes, connections and requests that are
//! tried again are one workload's and share its share. Who gives up has not used it.

use crate::claims::Claims;
use fair::Fair;
use keystore::charter::PurposeKind;
use keystore::{Error, KeyId};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

pub mod fair;

/// With so many jobs in it, those that nobody waits for any more are taken out before another comes
/// in: behind a keystore that hangs it would grow without end.
const TIDY_AT: usize = 256;

/// Whose a job is, and how much of the keystore is theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The workload section's name.
    pub workload: Arc<str>,
    /// Its part, against those of the others that ask at the same time.
    pub weight: u32,
}

/// One mint to be done.
pub struct Job {
    /// Which key.
    pub key: KeyId,
    /// What for.
    pub purpose: PurposeKind,
    /// What it shall say.
    pub claims: Claims,
    /// Whose it is.
    pub share: Share,
    /// When it came.
    pub since: Instant,
    /// When nobody waits for it any more; it is not signed after.
    pub deadline: Instant,
    /// Where the JWS goes.
    pub reply: oneshot::Sender<Result<String, Error>>,
}

impl Job {
    /// Whether somebody waits for it still.
    pub fn is_awaited(&self) -> bool {
        !self.reply.is_closed()
    }
}

/// How a queue is, for status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Jobs that wait.
    pub jobs: usize,
    /// How long the first of them has.
    pub oldest: Duration,
}

/// The queue of one keystore.
#[derive(Default)]
pub struct Queue {
    jobs: Mutex<Fair<Job>>,
    arrived: Notify,
}

impl Queue {
    /// Puts a job in.
    pub fn push(&self, job: Job) {
        let mut jobs = self.jobs();
        if jobs.waiting() >= TIDY_AT {
            jobs.retain(Job::is_awaited);
        }
        let Share { workload, weight } = job.share.clone();
        jobs.push(&workload, weight, job);
        drop(jobs);
        self.arrived.notify_one();
    }

    /// The next job, as soon as there is one. Cancel-safe: a job is taken only by returning it.
    pub async fn next(&self) -> Job {
        loop {
            // Registered before the look: of two jobs that arrive after two lanes have looked,
            // each lane gets its own wake-up.
            let mut arrived = pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if let Some(job) = self.jobs().pop(Job::is_awaited) {
                return job;
            }
            arrived.await;
        }
    }

    /// How many jobs go before one of this share that comes now, at most.
    pub fn ahead_of(&self, share: &Share) -> usize {
        self.jobs().ahead_of(&share.workload, share.weight)
    }

    /// How many jobs wait, and how long.
    pub fn depth(&self) -> Depth {
        let jobs = self.jobs();
        let awaited = || jobs.iter().filter(|job| job.is_awaited());
        let oldest = awaited().map(|job| job.since.elapsed()).max();
        Depth {
            jobs: awaited().count(),
            oldest: oldest.unwrap_or_default(),
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Fair<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
