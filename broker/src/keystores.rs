//! The broker's side of every keystore: one [`Keystore`] each, with its queue, its *lanes* (one
//! connection for each of its signers), its *watch* (who it is, what it holds, how it is) and,
//! where no unit runs it, its *child process*. A dead keystore slows no other.

use crate::keyring::{Keyring, counters};
use crate::queue::{Job, Queue, Share, Turn, Work};
use assertd_client::api::CounterStatus;
use keystore::certificate::Validity;
use keystore::protocol::{
    CertificateForm, CounterPlace, Health, KeyEntry, Reply, Request, Standing, Welcome,
};
use keystore::{Error, KeyId, Kind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub mod child;
mod connection;
mod lane;
mod presence;
mod watch;

use connection::Connection;
pub use presence::Place;
use presence::{NoPlace, Presence, WAITING_SILENT_MAX};

/// How long a keystore may be unreachable before requests are refused at once instead of waiting
/// for it: a restart takes 10 to 100 ms.
const ABSENCE: Duration = Duration::from_secs(1);

/// How long the first answer of a keystore is waited for after the start: by the requests for its
/// keys, which are not refused over a restart, and by the word that assertd is ready.
pub const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// Above this a mint's round trip is the token's: two signatures of ten milliseconds. Below, the way
/// from one answer to the next request is felt; above, it is a hundredth, and the queue's order counts.
const FAST_ROUND_TRIP: Duration = Duration::from_millis(20);

/// A request that has so much of its time left is sent even if signatures seem to take longer.
const TRIED_WITH: Duration = Duration::from_millis(2500);

/// One keystore as the broker knows it.
pub struct Keystore {
    name: String,
    socket: PathBuf,
    queue: Arc<Queue>,
    keyring: Arc<Keyring>,
    state: RwLock<State>,
    /// Smoothed round trip of a mint, in nanoseconds.
    round_trip_ns: AtomicU64,
    presence: Presence,
    /// Mints that were sent and are not answered, of all lanes together.
    in_flight: AtomicUsize,
    minted: AtomicU64,
    restarts: AtomicU64,
    /// Whether it has answered since the start, if only that it cannot serve.
    answered: tokio::sync::watch::Sender<bool>,
    /// Wakes the watch when a lane has lost its connection.
    lost: tokio::sync::Notify,
}

/// How a keystore is, and since when.
#[derive(Clone)]
struct State {
    stage: Stage,
    since: Instant,
    welcome: Option<Welcome>,
    health: Option<Health>,
}

#[derive(Clone, PartialEq, Eq)]
enum Stage {
    Starting,
    Usable,
    /// It cannot serve now and says that it goes on trying; or it does not answer.
    Degraded {
        why: String,
    },
    /// It says what a person has to do first.
    Failed {
        kind: Kind,
        why: String,
    },
}

/// Why a request cannot wait for a keystore now.
#[derive(Debug)]
pub enum Busy {
    /// Too many do.
    Full,
    /// So many go before it that it could not be answered in time, but for so long.
    Late(Duration),
    /// It cannot serve.
    Down(String),
}

impl Keystore {
    /// A keystore that is reached through `socket`.
    pub fn new(name: &str, socket: PathBuf, keyring: Arc<Keyring>) -> Arc<Keystore> {
        let state = State {
            stage: Stage::Starting,
            since: Instant::now(),
            welcome: None,
            health: None,
        };
        Arc::new(Keystore {
            name: name.to_owned(),
            socket,
            queue: Arc::default(),
            keyring,
            state: RwLock::new(state),
            round_trip_ns: AtomicU64::new(0),
            presence: Presence::new(),
            in_flight: AtomicUsize::new(0),
            minted: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            answered: tokio::sync::watch::Sender::new(false),
            lost: tokio::sync::Notify::new(),
        })
    }

    /// Starts its tasks on the current runtime.
    pub fn start(self: &Arc<Self>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.since = Instant::now();
        drop(state);
        tokio::spawn(watch::run(self.clone()));
    }

    /// Waits for its first answer since the start, or until that has had its time.
    pub async fn answered(&self) {
        if *self.answered.borrow() {
            return;
        }
        let (since, mut answered) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            (state.since, self.answered.subscribe())
        };
        let first = answered.wait_for(|answered| *answered);
        let _ = tokio::time::timeout_at((since + FIRST_ANSWER).into(), first).await;
    }

    /// A place among those that wait for it, until `deadline`.
    ///
    /// # Errors
    /// If too many wait already, or so many that it would come too late.
    pub fn reserve(self: &Arc<Self>, share: &Share, deadline: Instant) -> Result<Place, Busy> {
        let place = self.place(share)?;
        let is_late = |wait| Instant::now() + wait > deadline;
        let mut wait = self.expected_wait(share);
        if is_late(wait) {
            self.queue.tidy(); // who has given up is ahead of nobody
            wait = self.expected_wait(share);
        }
        match is_late(wait) {
            true => Err(Busy::Late(wait)),
            false => Ok(place),
        }
    }

    /// A place for one that waits for what another has signed: nobody goes before it.
    ///
    /// # Errors
    /// If too many wait already.
    pub fn place(self: &Arc<Self>, share: &Share) -> Result<Place, Busy> {
        Place::take(self, &share.workload).map_err(|none| match (none, self.down()) {
            (NoPlace::Full, _) => Busy::Full,
            (NoPlace::Silent(_), Some(why)) => Busy::Down(why),
            (NoPlace::Silent(silence), None) => Busy::Down(self.silent(silence)),
        })
    }

    /// How long a request of this share that comes now is likely to take, at most. None at all while
    /// nearly nobody waits: what was measured may be of another time, and is measured anew by serving.
    fn expected_wait(&self, share: &Share) -> Duration {
        let ahead = self.queue.ahead_of(share);
        let signers = self.signers();
        if ahead < 2 * signers {
            return Duration::ZERO;
        }
        let in_a_round_trip = signers * self.jobs_per_lane();
        let rounds = u32::try_from(ahead / in_a_round_trip + 2).unwrap_or(u32::MAX);
        self.round_trip().saturating_mul(rounds)
    }

    /// Whether a job that is sent now comes back in time. Of one that has most of its time left that is
    /// tried, for the same reason.
    pub(crate) fn is_in_time(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        left > self.round_trip().min(TRIED_WITH)
    }

    /// Signatures that it makes at a time.
    fn signers(&self) -> usize {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let welcome = state.welcome.as_ref();
        welcome.map_or(1, |welcome| welcome.parallelism.max(1))
    }

    /// Smoothed, from sending a mint to its answer.
    fn round_trip(&self) -> Duration {
        Duration::from_nanos(self.round_trip_ns.load(Ordering::Relaxed))
    }

    /// Why it cannot serve, if it has been so for longer than a restart takes.
    pub fn down(&self) -> Option<String> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match &state.stage {
            Stage::Usable => None,
            _ if state.since.elapsed() <= ABSENCE => None,
            Stage::Failed { why, .. } | Stage::Degraded { why } => Some(why.clone()),
            Stage::Starting => Some(format!("keystore {}: does not answer yet", self.name)),
        }
    }

    fn silent(&self, silence: Duration) -> String {
        let seconds = silence.as_secs();
        format!(
            "keystore {}: has been silent for {seconds} s, and {WAITING_SILENT_MAX} requests wait \
             for it already",
            self.name
        )
    }

    /// Has a lane mint as soon as one can.
    pub fn enqueue(&self, job: Job) {
        self.queue.push(job);
    }

    /// Its turn for something that is no mint, among the workloads that wait, as if it were one of them.
    ///
    /// # Errors
    /// `Unavailable` if it does not come before `deadline`.
    pub async fn turn(&self, share: &Share, deadline: Instant) -> Result<Turn, Error> {
        if let Some(why) = self.down() {
            return Err(Error::new(Kind::Unavailable, why));
        }
        let (taker, turn) = oneshot::channel();
        self.queue.push(Job {
            work: Work::Turn(taker),
            share: share.clone(),
            since: Instant::now(),
            deadline,
        });
        let turn = tokio::time::timeout_at(deadline.into(), turn).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            let text = format!(
                "keystore {}: workloads kept it busy; do this again",
                self.name
            );
            Error::new(Kind::Unavailable, text)
        })
    }

    /// A connection of its own, for several questions one after the other.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn talk(&self) -> Result<Talk<'_>, Error> {
        let opened = Connection::open(&self.socket).await;
        let connection = opened.map_err(|error| self.named(&error))?;
        Ok(Talk {
            keystore: self,
            connection,
        })
    }

    fn named(&self, error: &Error) -> Error {
        let text = format!("keystore {}: {error}", self.name);
        Error::new(error.kind(), text)
    }

    /// What it shows of one key, asked now: after the key was made or its charter amended.
    pub async fn entry(&self, key: &KeyId) -> Result<Option<KeyEntry>, Error> {
        watch::entry(self, key).await
    }

    /// Asks it one thing that is no mint, on a connection of its own.
    ///
    /// # Errors
    /// What it refuses, or that it does not answer.
    pub async fn ask(&self, request: &Request) -> Result<Reply, Error> {
        let asked = watch::ask(self, request).await;
        asked.map_err(|error| self.named(&error))
    }

    /// Has it make the next version of a key.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn make_next(&self, key: &KeyId) -> Result<KeyEntry, Error> {
        match self.ask(&Request::Next { key: key.clone() }).await? {
            Reply::Made { key: entry, .. } if entry.key == *key => Ok(entry),
            _ => Err(keystore::client::unexpected()),
        }
    }

    /// Has it give a version a certificate by itself.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn certify(&self, key: &KeyId, validity: Validity) -> Result<KeyEntry, Error> {
        let form = CertificateForm::SelfSigned(validity);
        let key = key.clone();
        match self
            .ask(&Request::Certify {
                key: key.clone(),
                form,
            })
            .await?
        {
            Reply::Certified { key: entry } if entry.key == key => Ok(entry),
            _ => Err(keystore::client::unexpected()),
        }
    }

    /// Has the watch look again soon.
    pub fn look_soon(&self) {
        self.lost.notify_one();
    }

    /// Notes that its process had to be started again.
    pub fn note_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// How many assertions it has minted since we started.
    pub fn minted(&self) -> u64 {
        self.minted.load(Ordering::Relaxed)
    }

    /// How many requests wait for it now.
    pub fn waiting(&self) -> usize {
        self.queue.depth().jobs
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many jobs a lane has under way: one more than is signed while the token is fast.
    fn jobs_per_lane(&self) -> usize {
        if self.round_trip() > FAST_ROUND_TRIP {
            1
        } else {
            2
        }
    }

    /// Smooths with 1/8 of the new value, as TCP does (RFC 6298 §2). One that took much longer than
    /// others, behind a key that was being made, counts as four of them.
    fn note_round_trip(&self, took: Duration) {
        let old = self.round_trip_ns.load(Ordering::Relaxed);
        let new = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX / 8);
        let new = if old == 0 { new } else { new.min(4 * old) };
        let smooth = if old == 0 {
            new
        } else {
            old - old / 8 + new / 8
        };
        self.round_trip_ns.store(smooth, Ordering::Relaxed);
    }

    /// Sets how it is; says so once per change.
    fn set(&self, stage: Stage, welcome: Option<Welcome>, health: Option<Health>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let is_change = match (&state.stage, &stage) {
            (Stage::Degraded { .. }, Stage::Degraded { .. }) => false, // its reason may change often
            (old, new) => old != new,
        };
        if is_change {
            match &stage {
                Stage::Failed { why, .. } => {
                    eprintln!("assertd: keystore {}: failed: {why}", self.name)
                }
                Stage::Degraded { why } => {
                    eprintln!("assertd: keystore {}: degraded: {why}", self.name)
                }
                Stage::Usable => eprintln!("assertd: keystore {}: usable", self.name),
                Stage::Starting => {}
            }
            state.since = Instant::now();
        }
        *state = State {
            stage,
            since: state.since,
            welcome,
            health,
        };
        if state.stage == Stage::Usable {
            self.presence.greeted();
        }
        drop(state);
        let first = |answered: &mut bool| !std::mem::replace(answered, true);
        if self.answered.send_if_modified(first) {
            self.presence.heard(); // now its lanes come, which takes a moment
        }
    }

    /// Sets how it is from what it says of itself.
    fn set_from(&self, welcome: Welcome, health: Health) {
        let stage = match &health.standing {
            Standing::Usable {} => Stage::Usable,
            Standing::Degraded { why, .. } => Stage::Degraded { why: why.clone() },
            Standing::Failed { kind, why } => Stage::Failed {
                kind: *kind,
                why: why.clone(),
            },
        };
        self.set(stage, Some(welcome), Some(health));
    }

    fn unreachable(&self, error: &Error) {
        let why = format!("keystore {}: {error}", self.name);
        self.set(Stage::Degraded { why }, None, None);
    }

    /// Its line in `assertctl status`.
    pub fn status(&self) -> assertd_client::api::KeystoreStatus {
        let state = self
            .state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (name, why) = match state.stage {
            Stage::Starting => ("starting", None),
            Stage::Usable => ("usable", None),
            Stage::Degraded { why } => ("degraded", Some(why)),
            Stage::Failed { why, .. } => ("failed", Some(why)),
        };
        let health = state.health.as_ref();
        let depth = self.queue.depth();
        assertd_client::api::KeystoreStatus {
            name: self.name.clone(),
            state: name.to_owned(),
            why,
            since_s: state.since.elapsed().as_secs(),
            token: health.map_or_else(String::new, |health| health.token.clone()),
            algs: health.map_or_else(Vec::new, |h| {
                h.algs.iter().map(ToString::to_string).collect()
            }),
            strange: health.map_or_else(Vec::new, |health| health.strange.clone()),
            counter: self.keyring.counter(&self.name).map(|known| CounterStatus {
                why: counters::older(&self.name, &known).or(known.why),
                value: known.reached,
                place: match known.place {
                    CounterPlace::Tpm => "tpm".to_owned(),
                    CounterPlace::File => "file".to_owned(),
                },
            }),
            socket: self.socket.display().to_string(),
            pid: state.welcome.as_ref().map(|welcome| welcome.pid),
            restarts: self.restarts.load(Ordering::Relaxed),
            signers: state
                .welcome
                .as_ref()
                .map_or(0, |welcome| welcome.parallelism),
            queued: depth.jobs,
            oldest_ms: u64::try_from(depth.oldest.as_millis()).unwrap_or(u64::MAX),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            minted: self.minted(),
        }
    }
}

/// A connection to a keystore for what belongs together.
pub struct Talk<'a> {
    keystore: &'a Keystore,
    connection: Connection,
}

impl Talk<'_> {
    /// Asks one thing in this turn. After an error but a refusal it is of no more use.
    ///
    /// # Errors
    /// What it refuses, or that it does not answer before the turn ends.
    pub async fn ask(&mut self, request: &Request, turn: &Turn) -> Result<Reply, Error> {
        let asked = tokio::time::timeout_at(turn.end().into(), self.connection.call(request));
        let asked = asked.await.unwrap_or_else(|_| {
            let text = "no answer before its turn was over; workloads go first; do this again";
            Err(Error::new(Kind::Unavailable, text))
        });
        asked.map_err(|error| self.keystore.named(&error))
    }
}

#[cfg(test)]
mod tests;
