//! The queue in front of one keystore: with deadlines, plain messages in and out. How many may wait is
//! the keystore's business, which gives places; whoever has given up leaves a job that is passed over.
//! It serves in the order of arrival for now; the fair order will come in here, behind [`Queue::push`]
//! and [`Queue::next`], without touching either side.

mod fair;

use crate::claims::Claims;
use crate::config::Target;
use keystore::charter::PurposeKind;
use keystore::{Error, KeyId};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

/// With so many jobs in it, those that nobody waits for any more are taken out before another comes
/// in: behind a keystore that hangs it would grow without end.
const TIDY_AT: usize = 256;

/// One mint to be done.
pub struct Job {
    /// Which key.
    pub key: KeyId,
    /// What for.
    pub purpose: PurposeKind,
    /// What it shall say.
    pub claims: Claims,
    /// Whose it is: what a fair order goes by.
    pub target: Arc<Target>,
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

/// The queue of one keystore.
#[derive(Default)]
pub struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    arrived: Notify,
}

impl Queue {
    /// Puts a job in.
    pub fn push(&self, job: Job) {
        let mut jobs = self.jobs();
        if jobs.len() >= TIDY_AT {
            jobs.retain(Job::is_awaited);
        }
        jobs.push_back(job);
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
            if let Some(job) = self.jobs().pop_front() {
                return job;
            }
            arrived.await;
        }
    }

    /// How many jobs wait.
    pub fn depth(&self) -> usize {
        let jobs = self.jobs();
        jobs.iter().filter(|job| job.is_awaited()).count()
    }

    fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
