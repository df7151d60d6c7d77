//! The audit log: which decisions were made, in a chain of records that cannot be changed
//! unnoticed.
//!
//! It owns the files in the audit directory and the two threads that touch them. It promises that a
//! decision is accepted only when there is room for it *and* for its outcome, that `Durable`
//! resolves only after a flush that covers the record, and that nothing accepted is forgotten while
//! the process lives. It must never make a caller wait for a disk, never acknowledge by guess, and
//! never write over a record.
//!
//! Roads: `decision` → `Durable` (await it before releasing anything) → `Durable::outcome`;
//! `denied`; `key` and `configured`. `chain` reads and verifies, also without a running assertd.

pub mod chain;
pub mod denials;
pub mod error;
pub mod record;
mod records;
pub mod text;

mod durable;
mod preparer;
mod recovery;
mod scan;
mod segment;
mod shared;
mod space;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_chain;
#[cfg(test)]
mod tests_disk;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::Flock;
use tokio::sync::oneshot;

pub use chain::{Verdict, verify, verify_newest};
pub use durable::Durable;
pub use error::{Error, Lost, Unavailable};
pub use record::{
    Attested, Configured, Decision, Denied, KeyAction, KeyChange, Outcome, PeerProof, Record,
    Reuse, Stamp,
};
pub use shared::{Fault, PENDING_MAX, QUEUE_RECORDS_MAX};
pub use text::{LongText, Sha256, ShortText, Text};

use chain::SEGMENT_BYTES_MAX;
use denials::{Key, Noted};
use record::{Body, ENVELOPE_BYTES_MAX, LINE_BYTES_MAX, OUTCOME_BYTES_MAX, Opened};
use records::{Haste, Queued};
use segment::{Disk, RealDisk, Segment};
use shared::{Phase, Shared, State};
use space::Room;
use writer::Writer;

/// About 40,000 decisions with their outcomes; small enough to read whole when it is verified.
pub const SEGMENT_BYTES: u64 = 32 << 20;
/// Below this a segment would hold too few of the longest records to promise anything.
pub const SEGMENT_BYTES_MIN: u64 = 4 * LINE_BYTES_MAX;
/// How long `open` waits for the first segment and the first record; zeroing 32 MiB takes well
/// under a second.
const OPEN_WAIT: Duration = Duration::from_secs(30);
/// How long `close` waits for the disk, within a service manager's stop time.
const CLOSE_WAIT: Duration = Duration::from_secs(20);

/// Where the log lives and who writes it.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    pub dir: PathBuf,
    /// The size of each segment file; `SEGMENT_BYTES` but in tests.
    pub segment_bytes: u64,
    /// For the `opened` record.
    pub version: String,
    pub boot_id: String,
    pub host: String,
}

/// The log's handle; clones share one log.
#[derive(Clone)]
pub struct Audit {
    log: Arc<Log>,
}

struct Log {
    last_iat: Option<u64>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What `assertctl status` and the watchdog want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Why decisions are refused, if they are.
    pub failed: Option<Fault>,
    /// What will make them be refused once the current segment is full.
    pub warning: Option<Fault>,
    /// The last durable record.
    pub last_seq: Option<u64>,
    pub segments: u64,
    /// Allocated by segments, the empty ends included.
    pub disk_bytes: u64,
    pub reserved_bytes: u64,
    /// Records not yet durable.
    pub queued: usize,
    /// Decisions whose outcome is to come.
    pub pending: usize,
    /// Denials counted and not yet in a record.
    pub denials_counted: u64,
}

impl Audit {
    /// Opens the log in `config.dir`: locks it, verifies its newest part, repairs what a crash
    /// tore, writes `opened`.
    ///
    /// A full or failing disk is no error: `health` says so, decisions are refused, and service
    /// returns by itself. Blocks; call it before the runtime is busy.
    pub fn open(
        config: AuditConfig,
        now: impl Fn() -> Stamp + Send + Sync + 'static,
    ) -> Result<Audit, Error> {
        Audit::open_on(config, Arc::new(now), Arc::new(RealDisk))
    }

    fn open_on(
        config: AuditConfig,
        clock: shared::Clock,
        disk: Arc<dyn Disk>,
    ) -> Result<Audit, Error> {
        let dir = config.dir;
        segment::open_dir(&dir)?;
        // Held by the threads, so that it is free exactly when nothing touches the files any more.
        let lock = Arc::new(segment::lock(&dir)?);
        let found = recovery::recover(&dir)?;
        let shared = Arc::new(Shared::new(
            dir,
            config
                .segment_bytes
                .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
            clock,
            disk,
            found.current.as_ref().map_or(0, Segment::free),
            found.link.seq,
            found.segments,
            found.disk_bytes,
        ));
        let opened = Opened {
            version: config.version.as_str().into(),
            boot_id: config.boot_id.as_str().into(),
            host: config.host.as_str().into(),
        };
        let repaired = found.repaired.map(Body::Repaired);
        for body in repaired.into_iter().chain([Body::Opened(opened)]) {
            push_owed(&shared, &body);
        }
        let writer = Writer::new(Arc::clone(&shared), found.link, found.current);
        let preparing = Arc::clone(&shared);
        let threads = vec![
            spawn("audit-writer", &shared.dir, &lock, move || writer.run())?,
            spawn("audit-prepare", &shared.dir, &lock, move || {
                preparer::run(&preparing)
            })?,
        ];
        wait_until_open(&shared, found.link.seq);
        Ok(Audit {
            log: Arc::new(Log {
                last_iat: found.last_iat,
                shared,
                threads: Mutex::new(threads),
            }),
        })
    }

    /// `iat` of the last decision that was found when the log was opened, in seconds since 1970.
    pub fn last_iat(&self) -> Option<u64> {
        self.log.last_iat
    }

    /// Accepts a decision, or refuses it at once and for a reason that passes. Only an accepted one
    /// may be minted for, and only a durable one released.
    pub fn decision(&self, decision: Decision) -> Result<Durable, Unavailable> {
        let id = decision.id.clone();
        let receiver = self.accept(&Body::Decision(Box::new(decision)), Outcomes::One)?;
        Ok(Durable {
            receiver,
            settled: None,
            id: Some(id),
            shared: Arc::clone(&self.log.shared),
        })
    }

    /// Records what `assertctl apply` or a fault did to a key.
    pub fn key(&self, change: KeyChange) -> Result<Durable, Unavailable> {
        self.plain(&Body::Key(change))
    }

    /// Records which configuration is in force from here on.
    pub fn configured(&self, configured: Configured) -> Result<Durable, Unavailable> {
        self.plain(&Body::Configured(configured))
    }

    /// Records evidence that is to be handed out.
    pub fn attested(&self, attested: Attested) -> Result<Durable, Unavailable> {
        self.plain(&Body::Attested(attested))
    }

    /// Says what became of a decision; never waits. The same as `Durable::outcome`.
    pub fn outcome(&self, decision: Durable, outcome: Outcome) {
        decision.outcome(outcome);
    }

    /// Records or counts a denial; never waits and never fails. `target` is `None` unless it is
    /// configured, since otherwise the caller chose it; `reason` is one of our own words.
    pub fn denied(&self, denial: Denial<'_>) {
        let shared = &self.log.shared;
        let key = Key {
            uid: denial.uid,
            target: denial.target.map(LongText::from),
            reason: denial.reason,
        };
        let mut state = shared.lock();
        if state.phase != Phase::Serving {
            return;
        }
        let (now, room) = (shared.now(), state.denial_room());
        if state.denials.window_is_over(now.boot_ms) {
            state.end_denials(now);
        }
        let target = key.target.clone();
        if state
            .denials
            .note(key.clone(), now.boot_ms, now.wall_ms, room)
            == Noted::Counted
        {
            return;
        }
        let record = Body::Denied(Denied {
            id: denial.id.into(),
            uid: denial.uid,
            gid: denial.gid,
            pid: denial.pid,
            unit: denial.unit.map(LongText::from),
            target,
            reason: denial.reason.into(),
        });
        match state.push_denial(&record, now) {
            Some(bytes) => state.denials.spent(bytes),
            None => state.denials.count(&key, now.wall_ms),
        }
    }

    pub fn health(&self) -> Health {
        let state = self.log.shared.lock();
        let closed = state.phase != Phase::Serving;
        let no_room = || state.prepare_fault.clone().filter(|_| state.is_full());
        let failed = state.fault.clone().or_else(no_room);
        let warning = state
            .prepare_fault
            .clone()
            .filter(|_| failed.is_none() && !closed);
        Health {
            failed,
            warning,
            last_seq: state.durable_seq.checked_sub(1),
            segments: state.segments,
            disk_bytes: state.disk_bytes,
            reserved_bytes: state.space.reserved(),
            queued: state.queue.len() + state.in_hand,
            pending: state.pending,
            denials_counted: state.denials.counted(),
        }
    }

    /// A number that grows at least once a second while the writer lives and its disk answers.
    pub fn progress(&self) -> u64 {
        self.log.shared.progress.load(Ordering::Relaxed)
    }

    /// Writes what is queued and `closed`, flushes, and ends the threads. Decisions are refused
    /// from here on. Blocks.
    pub fn close(&self) -> Result<(), Error> {
        let shared = &self.log.shared;
        let mut state = shared.lock();
        if state.phase == Phase::Serving {
            state.phase = Phase::Closing;
            shared.wake_writer(&mut state);
        }
        let open = |state: &mut State| !matches!(state.phase, Phase::Closed { .. });
        let state = shared.wait_while(state, CLOSE_WAIT, open);
        let path = shared.dir.clone();
        let why = state
            .fault
            .as_ref()
            .or(state.prepare_fault.as_ref())
            .map(|f| f.why.clone());
        let why = why.unwrap_or_else(|| "the disk does not answer".to_owned());
        let unwritten = match state.phase {
            Phase::Closed { unwritten } => unwritten,
            // The threads hang in the disk; joining them would hang too.
            _ => {
                return Err(Error::Unwritten {
                    path,
                    records: state.in_hand,
                    why,
                });
            }
        };
        drop(state);
        let mut threads = self
            .log
            .threads
            .lock()
            .expect("no thread panics while it holds them");
        for thread in threads.drain(..) {
            let _ = thread.join();
        }
        match unwritten {
            0 => Ok(()),
            records => Err(Error::Unwritten { path, records, why }),
        }
    }

    fn plain(&self, body: &Body) -> Result<Durable, Unavailable> {
        let receiver = self.accept(body, Outcomes::None)?;
        Ok(Durable {
            receiver,
            settled: None,
            id: None,
            shared: Arc::clone(&self.log.shared),
        })
    }

    fn accept(
        &self,
        body: &Body,
        outcomes: Outcomes,
    ) -> Result<oneshot::Receiver<()>, Unavailable> {
        let shared = &self.log.shared;
        let body = body.encode();
        let reserved = body.len() as u64 + ENVELOPE_BYTES_MAX;
        let (ahead, pending) = match outcomes {
            Outcomes::One => (OUTCOME_BYTES_MAX, 1),
            Outcomes::None => (0, 0),
        };
        let (durable, receiver) = oneshot::channel();
        let mut state = shared.lock();
        if state.phase != Phase::Serving {
            return Err(unavailable(
                "the audit log is closing",
                "ask again when assertd runs",
            ));
        }
        if state.fault.is_some() {
            return Err(shared.refusal(&state));
        }
        if state.queue.len() >= QUEUE_RECORDS_MAX || state.pending + pending > PENDING_MAX {
            return Err(unavailable(
                "the audit queue is full",
                "ask again in a moment",
            ));
        }
        if state.space.reserve(reserved + ahead) == Room::Full {
            return Err(shared.refusal(&state));
        }
        state.pending += pending;
        let stamp = shared.now();
        let queued = Queued {
            stamp,
            reserved,
            haste: Haste::Now,
            durable: Some(durable),
        };
        state.push(&body, queued);
        shared.wake_writer(&mut state);
        Ok(receiver)
    }
}

/// How many records follow an accepted one in the room kept for it.
#[derive(Clone, Copy)]
enum Outcomes {
    None,
    One,
}

/// A denial as the request path knows it.
#[derive(Clone, Copy, Debug)]
pub struct Denial<'a> {
    pub id: &'a str,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub unit: Option<&'a str>,
    /// Only a configured target.
    pub target: Option<&'a str>,
    pub reason: &'static str,
}

impl Drop for Log {
    /// Without `close` the threads write what is queued and end by themselves; nobody waits for
    /// them.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.phase == Phase::Serving {
            state.phase = Phase::Closing;
            self.shared.wake_writer(&mut state);
        }
    }
}

fn unavailable(reason: &str, remedy: &str) -> Unavailable {
    Unavailable {
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// Queues a record of our own, whether or not there is room yet.
fn push_owed(shared: &Shared, body: &Body) {
    let body = body.encode();
    let reserved = body.len() as u64 + ENVELOPE_BYTES_MAX;
    let stamp = shared.now();
    let mut state = shared.lock();
    state.space.reserve_owed(reserved);
    let queued = Queued {
        stamp,
        reserved,
        haste: Haste::Now,
        durable: None,
    };
    state.push(&body, queued);
}

fn wait_until_open(shared: &Shared, link_seq: u64) {
    let opening = |state: &mut State| {
        let ready = state.durable_seq > link_seq && (state.next.is_some() || !state.is_full());
        !ready && state.fault.is_none() && state.prepare_fault.is_none()
    };
    drop(shared.wait_while(shared.lock(), OPEN_WAIT, opening));
}

fn spawn(
    name: &str,
    dir: &Path,
    lock: &Arc<Flock<std::fs::File>>,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let lock = Arc::clone(lock);
    let run = move || {
        run();
        drop(lock);
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(error::io_error("start the audit threads for", dir))
}
