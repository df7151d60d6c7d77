//! The writer thread: takes what is queued, makes lines of it, writes them in one piece, flushes
//! once, and only then says so. It alone knows the end of the chain and owns the current segment.
//!
//! After a failed write or flush it never trusts that file again (a second flush may succeed
//! although the first one lost the pages): the file is cut where the last flush succeeded, the
//! records, still in memory, get new lines in a fresh segment, and its first record, `repaired`,
//! says what the old file may hold beyond.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::chain::segment_name;
use super::record::{
    Body, Closed, ENVELOPE_BYTES_MAX, OWN_BYTES_MAX, RepairCause, Repaired, Stamp, append_line,
};
use super::records::{Haste, Queued, Records};
use super::scan::{GROUP_BYTES_MAX, Link};
use super::segment::Segment;
use super::shared::{Fault, Job, Phase, Shared, State};

/// Outcomes ride with the next decision; without one they are flushed after this time.
const SOON_MS: u64 = 100;
/// Denials alone are flushed this often at most, so that a flood costs one flush a second.
const WHENEVER_MS: u64 = 1_000;
/// The longest the writer sleeps: the watchdog watches `progress`.
const TICK_MS: u64 = 1_000;
/// Between two attempts on a disk that fails or is full.
pub(super) const RETRY_MS: u64 = 250;
/// Attempts of a closing log on a failing disk: about two seconds of a service manager's stop time.
const CLOSING_ATTEMPTS_MAX: u32 = 8;

pub(super) struct Writer {
    shared: Arc<Shared>,
    link: Link,
    current: Option<Segment>,
    /// Taken from the queue, not yet durable, oldest first.
    in_hand: Records,
    buffer: Vec<u8>,
    failed_attempts: u32,
}

/// How an attempt to make records durable went.
enum Progress {
    Done,
    /// No segment to write to, or the one there was failed.
    Stalled,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, link: Link, current: Option<Segment>) -> Writer {
        Writer {
            shared,
            link,
            current,
            in_hand: Records::default(),
            buffer: Vec::with_capacity(GROUP_BYTES_MAX as usize),
            failed_attempts: 0,
        }
    }

    /// Runs until the log is closed; the preparer outlives it.
    pub(super) fn run(mut self) {
        loop {
            let closing = self.take_records();
            match self.commit() {
                Progress::Done => {
                    self.failed_attempts = 0;
                    if closing {
                        break;
                    }
                }
                Progress::Stalled => {
                    self.count_attempt();
                    if closing && self.failed_attempts > CLOSING_ATTEMPTS_MAX {
                        return self.end(self.in_hand.len());
                    }
                    self.wait_for_segment();
                }
            }
        }
        self.append_closed();
        while let Progress::Stalled = self.commit() {
            self.count_attempt();
            if self.failed_attempts > CLOSING_ATTEMPTS_MAX {
                break;
            }
            self.wait_for_segment();
        }
        self.end(self.in_hand.len());
    }

    /// Waits until something is due and takes all that is queued. Answers whether the log is
    /// closing.
    fn take_records(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            shared.advance();
            let now = shared.now();
            if state.denials.window_is_over(now.boot_ms) {
                state.end_denials(now);
            }
            let closing = state.phase == Phase::Closing;
            if closing {
                state.end_denials(now);
            }
            let wait_ms = match due_in_ms(&state, now) {
                _ if closing || !self.in_hand.is_empty() => 0,
                wait_ms => wait_ms,
            };
            if wait_ms == 0 {
                self.in_hand.append(&mut state.queue);
                state.urgent = 0;
                state.in_hand = self.in_hand.len();
                return closing;
            }
            state.writer_waits = true;
            let timeout = Duration::from_millis(wait_ms);
            state = shared
                .writer_wake
                .wait_timeout(state, timeout)
                .expect("no thread panics while it holds the audit state")
                .0;
            state.writer_waits = false;
        }
    }

    /// Makes everything in hand durable, group by group.
    fn commit(&mut self) -> Progress {
        while !self.in_hand.is_empty() {
            if self.current.is_none() {
                self.adopt_next();
            }
            let Some(segment) = &self.current else {
                return Progress::Stalled;
            };
            let (count, link) = self.render(segment.free());
            if count == 0 {
                self.retire_current();
                continue;
            }
            let segment = self.current.as_mut().expect("looked at above");
            let disk = &self.shared.disk;
            let written = disk
                .write_at(&segment.file, &self.buffer, segment.end)
                .map_err(|error| ("write to", error))
                .and_then(|()| {
                    disk.sync_data(&segment.file)
                        .map_err(|error| ("flush", error))
                });
            match written {
                Ok(()) => self.acknowledge(count, link),
                Err((action, error)) => {
                    let why = format!("cannot {action} {}: {error}", segment.path.display());
                    self.abandon_current(why);
                    return Progress::Stalled;
                }
            }
            self.shared.advance();
        }
        Progress::Done
    }

    /// Fills the buffer with the lines of as many records as fit a group and `free`.
    fn render(&mut self, free: u64) -> (usize, Link) {
        self.buffer.clear();
        let (mut count, mut link) = (0, self.link);
        for (record, text) in self.in_hand.iter() {
            let before = self.buffer.len();
            let after = append_line(&mut self.buffer, &link, record.stamp, text);
            if self.buffer.len() as u64 > free.min(GROUP_BYTES_MAX) {
                self.buffer.truncate(before);
                break;
            }
            (count, link) = (count + 1, after);
        }
        (count, link)
    }

    /// The first `count` records in hand are durable: moves the chain on, settles their space and
    /// tells who waits.
    fn acknowledge(&mut self, count: usize, link: Link) {
        let segment = self
            .current
            .as_mut()
            .expect("a group was just written to it");
        let first_seq = self.link.seq;
        let begun = segment.end == 0;
        segment.end += self.buffer.len() as u64;
        self.link = link;
        let mut waiting = Vec::new();
        let mut state = self.shared.lock();
        let mut written = self.buffer.len() as u64;
        for _ in 0..count {
            let Some(record) = self.in_hand.pop() else {
                break;
            };
            state
                .space
                .settle(record.reserved, std::mem::take(&mut written));
            waiting.extend(record.durable);
        }
        state.in_hand = self.in_hand.len();
        state.durable_seq = link.seq;
        state.fault = None;
        if begun {
            segment.path = self.shared.dir.join(segment_name(first_seq));
            state.jobs.push_back(Job::Name { first_seq });
            self.shared.preparer_wake.notify_one();
        }
        self.shared.tell_watchers(&state);
        drop(state);
        for durable in waiting {
            // Nobody waits any more when the request's deadline has passed; the record stands all
            // the same.
            let _ = durable.send(());
        }
    }

    fn adopt_next(&mut self) {
        let mut state = self.shared.lock();
        if let Some(segment) = state.next.take() {
            state.space.rotate();
            state.unnamed = true;
            self.current = Some(segment);
        }
    }

    fn retire_current(&mut self) {
        let Some(Segment {
            file, size, end, ..
        }) = self.current.take()
        else {
            return;
        };
        let mut state = self.shared.lock();
        state.space.lose_current();
        state.jobs.push_back(Job::Finish {
            file,
            len: end,
            size,
        });
        self.shared.preparer_wake.notify_one();
    }

    /// The current segment failed under the group in the buffer. All records stay in hand.
    fn abandon_current(&mut self, why: String) {
        let Some(Segment {
            file,
            path,
            size,
            end,
        }) = self.current.take()
        else {
            return;
        };
        let now = self.shared.now();
        let mut state = self.shared.lock();
        state.space.lose_current();
        if end == 0 {
            // It never held a durable record and still has the provisional name.
            drop(file);
            state.jobs.push_back(Job::Discard { size });
        } else {
            state.jobs.push_back(Job::Cut {
                file,
                len: end,
                size,
            });
            let text = repaired(&path, end, self.buffer.len() as u64);
            self.in_hand.push_front(&text, own(now));
        }
        state.in_hand = self.in_hand.len();
        let remedy = "check the disk; assertd retries by itself".to_owned();
        let since_ms = state
            .fault
            .as_ref()
            .map_or(now.wall_ms, |fault| fault.since_ms);
        state.fault = Some(Fault {
            why,
            remedy,
            since_ms,
        });
        self.shared.preparer_wake.notify_one();
        self.shared.tell_watchers(&state);
    }

    /// Waits for the preparer, or for the back-off to pass.
    fn wait_for_segment(&mut self) {
        self.shared.advance();
        let mut state = self.shared.lock();
        if state.next.is_some() && state.fault.is_none() {
            return;
        }
        state.writer_waits = true;
        let timeout = Duration::from_millis(RETRY_MS);
        let (mut state, _) = self
            .shared
            .writer_wake
            .wait_timeout(state, timeout)
            .expect("no thread panics while it holds the audit state");
        state.writer_waits = false;
    }

    /// A segment that is merely not ready yet is no failed attempt.
    fn count_attempt(&mut self) {
        let state = self.shared.lock();
        if state.fault.is_some() || state.prepare_fault.is_some() {
            self.failed_attempts += 1;
        }
    }

    fn append_closed(&mut self) {
        let mut state = self.shared.lock();
        self.in_hand.append(&mut state.queue);
        state.in_hand = self.in_hand.len() + 1;
        let body = Body::Closed(Closed {
            denials_unrecorded: state.denials.counted(),
        })
        .encode();
        drop(state);
        debug_assert!(body.len() as u64 + ENVELOPE_BYTES_MAX <= OWN_BYTES_MAX);
        self.in_hand.push(&body, own(self.shared.now()));
    }

    fn end(&self, unwritten: usize) {
        let mut state = self.shared.lock();
        state.phase = Phase::Closed { unwritten };
        self.shared.preparer_wake.notify_one();
        self.shared.tell_watchers(&state);
    }
}

/// A record for which room has been kept from the first moment.
fn own(stamp: Stamp) -> Queued {
    Queued {
        stamp,
        reserved: 0,
        haste: Haste::Now,
        durable: None,
    }
}

fn repaired(path: &std::path::Path, at: u64, bytes: u64) -> Vec<u8> {
    let file = path.file_name().map(PathBuf::from).unwrap_or_default();
    let repaired = Repaired {
        file: file.to_string_lossy().as_ref().into(),
        at,
        bytes,
        sha256: None,
        cause: RepairCause::WriteFailed,
    };
    Body::Repaired(repaired).encode()
}

/// How long what is queued may wait; the idle tick when there is nothing. Outcomes do not wake the
/// writer: while any are to come it looks every `SOON_MS`.
fn due_in_ms(state: &State, now: Stamp) -> u64 {
    if state.urgent > 0 {
        return 0;
    }
    let waited_ms = |record: &Queued| now.boot_ms.saturating_sub(record.stamp.boot_ms);
    let due = state.queue.iter().take(DUE_LOOK_MAX).map(|(record, _)| {
        let limit_ms = if record.haste == Haste::Soon {
            SOON_MS
        } else {
            WHENEVER_MS
        };
        limit_ms.saturating_sub(waited_ms(record))
    });
    let idle_ms = if state.pending > 0 { SOON_MS } else { TICK_MS };
    due.min().unwrap_or(idle_ms).min(idle_ms)
}

/// The queue is in order of time, so its head is due first; a denial or two may stand before an
/// outcome.
const DUE_LOOK_MAX: usize = 64;
