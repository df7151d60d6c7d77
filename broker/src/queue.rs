//! The queue in front of one keystore: with deadlines, plain messages in and out, in a [`fair`] order. How
//! many may wait is the keystore's business, which gives places; whoever has given up leaves a job
//! that is passed over, and so is one that would come too late.
//!
//! A share is a workload's, whatever it is made of: many processes, connections and requests that are
//! tried again are one workload's and share its share. What is not signed has not used it.

use crate::claims::Claims;
use fair::Fair;
use keystore::charter::PurposeKind;
use keystore::{Error, KeyId, Kind};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

pub mod fair;

/// With so many jobs in it at least, those that nobody waits for any more are taken out before another
/// comes in: behind a keystore that hangs it would grow without end.
const TIDY_FROM: usize = 256;

/// Whose a job is, and how much of the keystore is theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The workload section's name.
    pub workload: Arc<str>,
    /// Its part, against those of the others that ask at the same time.
    pub weight: u32,
}

/// Something to be done by the keystore.
pub struct Job {
    /// What.
    pub work: Work,
    /// Whose it is.
    pub share: Share,
    /// When it came.
    pub since: Instant,
    /// When nobody waits for it any more; it is not signed after.
    pub deadline: Instant,
}

/// What is to be done.
pub enum Work {
    /// An assertion.
    Mint(Mint),
    /// Something else, on another connection: the lane sends nothing until it is over. It takes one of the
    /// token's signers for as long, so that the keystore's other lanes, which have one each, go on.
    Turn(oneshot::Sender<Turn>),
}

/// One mint to be done.
pub struct Mint {
    /// Which key.
    pub key: KeyId,
    /// What for.
    pub purpose: PurposeKind,
    /// What it shall say.
    pub claims: Claims,
    /// Where the JWS goes.
    pub reply: oneshot::Sender<Result<String, Error>>,
}

/// For as long as it lives a lane leaves the keystore to whoever has it, but not for longer than until
/// its end.
#[derive(Debug)]
pub struct Turn {
    end: Instant,
    _over: oneshot::Sender<Infallible>,
}

impl Turn {
    /// One that ends then, and who waits for it to be over.
    pub fn new(end: Instant) -> (Turn, oneshot::Receiver<Infallible>) {
        let (over, wait) = oneshot::channel();
        (Turn { end, _over: over }, wait)
    }

    /// When workloads have the keystore again, whatever is still waited for.
    pub fn end(&self) -> Instant {
        self.end
    }
}

impl Job {
    /// Whether somebody waits for it still.
    pub fn is_awaited(&self) -> bool {
        match &self.work {
            Work::Mint(mint) => !mint.reply.is_closed(),
            Work::Turn(taker) => !taker.is_closed(),
        }
    }

    /// Tells who waits for it that it comes too late.
    fn refuse(self) {
        let Work::Mint(mint) = self.work else {
            return; // who waits for a turn is told by its end
        };
        let text = "it waited in the queue for too long to be answered in time, and was not signed";
        let _ = mint.reply.send(Err(Error::new(Kind::Unavailable, text))); // it may have gone now
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
    jobs: Mutex<Jobs>,
    arrived: Notify,
}

struct Jobs {
    order: Fair<Job>,
    /// With so many it is looked for those that nobody waits for: twice as many as the last look
    /// left, because it is at all of them.
    tidy_at: usize,
}

impl Default for Jobs {
    fn default() -> Jobs {
        Jobs {
            order: Fair::default(),
            tidy_at: TIDY_FROM,
        }
    }
}

impl Jobs {
    fn tidy(&mut self) {
        self.order.retain(Job::is_awaited);
        self.tidy_at = TIDY_FROM.max(2 * self.order.waiting());
    }
}

impl Queue {
    /// Puts a job in.
    pub fn push(&self, job: Job) {
        let mut jobs = self.jobs();
        if jobs.order.waiting() >= jobs.tidy_at {
            jobs.tidy();
        }
        let Share { workload, weight } = job.share.clone();
        jobs.order.push(&workload, weight, job);
        drop(jobs);
        self.arrived.notify_one();
    }

    /// The next job, as soon as there is one with a deadline that is met if it is sent now. Those with
    /// another are refused. Cancel-safe: a job is taken only by returning it.
    pub async fn next(&self, is_in_time: impl Fn(Instant) -> bool) -> Job {
        let take = |job: Job| match (job.is_awaited(), is_in_time(job.deadline)) {
            (true, true) => Some(job),
            (true, false) => {
                job.refuse();
                None
            }
            (false, _) => None,
        };
        loop {
            // Registered before the look: of two jobs that arrive after two lanes have looked,
            // each lane gets its own wake-up.
            let mut arrived = pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if let Some(job) = self.jobs().order.pop(take) {
                return job;
            }
            arrived.await;
        }
    }

    /// Takes out the jobs that nobody waits for any more.
    pub fn tidy(&self) {
        self.jobs().tidy();
    }

    /// How many jobs go before one of this share that comes now, at most. Those that nobody waits for
    /// any more are among them until they are taken out.
    pub fn ahead_of(&self, share: &Share) -> usize {
        self.jobs().order.ahead_of(&share.workload, share.weight)
    }

    /// How many jobs wait, and how long.
    pub fn depth(&self) -> Depth {
        let jobs = self.jobs();
        let awaited = || jobs.order.iter().filter(|job| job.is_awaited());
        let oldest = awaited().map(|job| job.since.elapsed()).max();
        Depth {
            jobs: awaited().count(),
            oldest: oldest.unwrap_or_default(),
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests;
