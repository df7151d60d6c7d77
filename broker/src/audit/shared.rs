//! What callers, the writer and the preparer share: the queue, the account of space, the state. One
//! mutex, held for a push or a look and never across a system call that touches a disk.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::denials::{Denials, Over, Sum};
use super::error::Unavailable;
use super::record::{
    Body, DENIED_BYTES_MAX, DenialCount, ENVELOPE_BYTES_MAX, LINE_BYTES_MAX, Stamp,
};
use super::records::{Haste, Queued, Records};
use super::segment::{Disk, Segment};
use super::space::{Room, Space};
use super::text::{ShortText, rfc3339};

/// Records waiting for the writer: at 20,000 a second, 200 ms of a stalled disk; about 4 MiB.
pub const QUEUE_RECORDS_MAX: usize = 4_096;
/// Decisions whose outcome is still to come; above what the broker lets in flight.
pub const PENDING_MAX: usize = 4_096;

pub type Clock = Arc<dyn Fn() -> Stamp + Send + Sync>;

pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) clock: Clock,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) progress: AtomicU64,
    /// For the writer: a record that must not wait, a prepared segment, or the end.
    pub(super) writer_wake: Condvar,
    /// For the preparer: a job, a taken segment, or the end.
    pub(super) preparer_wake: Condvar,
    /// For `open` and `close`: something became durable or failed.
    changed: Condvar,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) queue: Records,
    pub(super) urgent: usize,
    pub(super) pending: usize,
    /// Records that the writer took and has not yet made durable.
    pub(super) in_hand: usize,
    pub(super) writer_waits: bool,
    /// Who waits for a change.
    watchers: usize,
    pub(super) space: Space,
    pub(super) denials: Denials,
    pub(super) next: Option<Segment>,
    /// The writer's segment still has the provisional name.
    pub(super) unnamed: bool,
    pub(super) jobs: VecDeque<Job>,
    pub(super) fault: Option<Fault>,
    pub(super) prepare_fault: Option<Fault>,
    /// The number of the next record after the last durable one.
    pub(super) durable_seq: u64,
    pub(super) segments: u64,
    pub(super) disk_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    Closing,
    /// The writer is gone; `unwritten` records were given up.
    Closed {
        unwritten: usize,
    },
}

/// Why decisions are refused, since when (Unix ms).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub why: String,
    pub remedy: String,
    pub since_ms: u64,
}

/// What the preparer does to files behind the writer.
pub(super) enum Job {
    Name {
        first_seq: u64,
    },
    Finish {
        file: File,
        len: u64,
        size: u64,
    },
    /// Cuts a poisoned segment; best effort, for the log's next record tells of it in any case.
    Cut {
        file: File,
        len: u64,
        size: u64,
    },
    Discard {
        size: u64,
    },
}

impl Shared {
    #[allow(clippy::too_many_arguments, reason = "made in one place")]
    pub(super) fn new(
        dir: PathBuf,
        segment_bytes: u64,
        clock: Clock,
        disk: Arc<dyn Disk>,
        current_free: u64,
        durable_seq: u64,
        segments: u64,
        disk_bytes: u64,
    ) -> Shared {
        let state = State {
            phase: Phase::Serving,
            queue: Records::default(),
            urgent: 0,
            pending: 0,
            in_hand: 0,
            writer_waits: false,
            watchers: 0,
            space: Space::new(segment_bytes, current_free),
            denials: Denials::default(),
            next: None,
            unnamed: false,
            jobs: VecDeque::new(),
            fault: None,
            prepare_fault: None,
            durable_seq,
            segments,
            disk_bytes,
        };
        Shared {
            dir,
            segment_bytes,
            clock,
            disk,
            progress: AtomicU64::new(0),
            writer_wake: Condvar::new(),
            preparer_wake: Condvar::new(),
            changed: Condvar::new(),
            state: Mutex::new(state),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no thread panics while it holds the audit state")
    }

    pub(super) fn now(&self) -> Stamp {
        (self.clock)()
    }

    pub(super) fn advance(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Wakes the writer if it waits: at most once for all that is queued before it runs.
    pub(super) fn wake_writer(&self, state: &mut State) {
        if std::mem::take(&mut state.writer_waits) {
            self.writer_wake.notify_one();
        }
    }

    /// Waits until a change makes `on` false, or no longer than `timeout`.
    pub(super) fn wait_while<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        timeout: Duration,
        on: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        state.watchers += 1;
        let waited = self.changed.wait_timeout_while(state, timeout, on);
        let (mut state, _) = waited.expect("no thread panics while it holds the audit state");
        state.watchers -= 1;
        state
    }

    /// Wakes who waits for a change. Mostly nobody does, and telling nobody is a system call too.
    pub(super) fn tell_watchers(&self, state: &State) {
        if state.watchers > 0 {
            self.changed.notify_all();
        }
    }

    /// Why a record of this size cannot be promised now, if it cannot.
    pub(super) fn refusal(&self, state: &State) -> Unavailable {
        let dir = self.dir.display();
        let of = |fault: &Fault| Unavailable {
            reason: format!("audit directory {dir}: {}", fault.why),
            remedy: fault.remedy.clone(),
        };
        match (&state.fault, &state.prepare_fault) {
            (Some(fault), _) | (None, Some(fault)) => of(fault),
            (None, None) => Unavailable {
                reason: format!("audit directory {dir}: the next segment is not ready yet"),
                remedy: "ask again in a moment".to_owned(),
            },
        }
    }
}

impl State {
    pub(super) fn push(&mut self, text: &[u8], queued: Queued) {
        self.urgent += usize::from(queued.haste == Haste::Now);
        self.queue.push(text, queued);
    }

    /// Promises room for a denial record and queues it, or answers `None`. Denials never push
    /// grants aside.
    pub(super) fn push_denial(&mut self, body: &Body, stamp: Stamp) -> Option<u64> {
        let body = body.encode();
        let reserved = body.len() as u64 + ENVELOPE_BYTES_MAX;
        let spare = self.queue.len() < QUEUE_RECORDS_MAX / 2;
        if !spare || reserved > self.denial_room() || self.space.reserve(reserved) == Room::Full {
            return None;
        }
        let queued = Queued {
            stamp,
            reserved,
            haste: Haste::Whenever,
            durable: None,
        };
        self.push(&body, queued);
        Some(reserved)
    }

    pub(super) fn denial_room(&self) -> u64 {
        if self.fault.is_some() {
            0
        } else {
            self.space.denial_room()
        }
    }

    /// Writes the sums of a denial window that is over, as many as there is room for.
    pub(super) fn end_denials(&mut self, now: Stamp) {
        let mut denials = std::mem::take(&mut self.denials);
        denials.end_window(now.boot_ms, |sum| self.push_denial(&count_record(sum), now));
        self.denials = denials;
    }

    /// Whether a decision of ordinary size would be refused for want of room.
    pub(super) fn is_full(&self) -> bool {
        self.space.unpromised() < DENIED_BYTES_MAX.min(LINE_BYTES_MAX)
    }
}

fn count_record(sum: &Sum) -> Body {
    let (uid, target, reason) = match &sum.over {
        Over::Key(key) => (Some(key.uid), key.target.clone(), key.reason),
        Over::Uid(uid) => (Some(*uid), None, "other"),
        Over::All => (None, None, "other"),
    };
    Body::Denials(DenialCount {
        uid,
        target,
        reason: ShortText::from(reason),
        count: sum.count,
        first: rfc3339(sum.first_ms),
        last: rfc3339(sum.last_ms),
    })
}
