//! The queue in front of one keystore: bounded, with deadlines, plain messages in and out. It
//! serves in the order of arrival for now; the fair order will come in here, behind
//! [`Job::enqueue`] and [`Queue::next`], without touching either side.

use crate::claims::Claims;
use crate::config::Target;
use keystore::charter::PurposeKind;
use keystore::{Error, KeyId};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

/// Most requests waiting for one keystore. A PKCS#11 token works this off in 50 ms, and a TPM
/// with ten signatures a second has no use for more than its request deadline's worth (50).
pub const QUEUE_MAX: usize = 256;

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
    /// Its place in the queue.
    pub place: Place,
}

impl Job {
    /// Puts the job into the queue its place was taken in.
    pub fn enqueue(self) {
        let queue = self.place.queue.clone();
        queue.jobs().push_back(self);
        queue.arrived.notify_one();
    }
}

/// The queue of one keystore.
#[derive(Default)]
pub struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    taken: AtomicUsize,
    arrived: Notify,
}

/// A place in the queue, taken before the decision is recorded, so that what is recorded is also
/// tried. Travels with its job and is given back when dropped.
pub struct Place {
    queue: Arc<Queue>,
}

/// All places are taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Queue {
    /// Takes a place, if fewer than `limit` are taken.
    pub fn reserve(self: &Arc<Queue>, limit: usize) -> Result<Place, Full> {
        self.take(limit).or_else(|Full| {
            // Behind a keystore that hangs, the queue fills with jobs nobody waits for any more.
            drop(self.forgotten());
            self.take(limit)
        })
    }

    fn take(self: &Arc<Queue>, limit: usize) -> Result<Place, Full> {
        if self.taken.fetch_add(1, Ordering::Relaxed) < limit {
            let queue = self.clone();
            return Ok(Place { queue });
        }
        self.taken.fetch_sub(1, Ordering::Relaxed);
        Err(Full)
    }

    fn forgotten(&self) -> Vec<Job> {
        let mut jobs = self.jobs();
        let all: Vec<Job> = jobs.drain(..).collect();
        let (dead, alive): (Vec<Job>, Vec<Job>) =
            all.into_iter().partition(|job| job.reply.is_closed());
        jobs.extend(alive);
        dead
    }

    /// Takes out the latest jobs, so that `keep` are left.
    pub fn shed(&self, keep: usize) -> Vec<Job> {
        drop(self.forgotten());
        let mut jobs = self.jobs();
        let keep = keep.min(jobs.len());
        jobs.split_off(keep).into()
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
        self.jobs().len()
    }

    fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_ends_at_its_limit_and_places_come_back() {
        let queue = Arc::new(Queue::default());
        let mut places: Vec<Place> = (0..QUEUE_MAX)
            .map(|_| queue.reserve(QUEUE_MAX).unwrap())
            .collect();
        assert_eq!(queue.reserve(QUEUE_MAX).err(), Some(Full));
        places.pop();
        assert!(queue.reserve(QUEUE_MAX).is_ok());
    }
}
