//! The preparer thread: everything about files that must not stand in front of a request. It makes
//! the next segment ahead of need, names the one just begun, and finishes the one just filled.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::error::Error;
use super::segment::{Segment, discard_prepared, name_segment};
use super::shared::{Fault, Job, Phase, Shared, State};
use super::writer::RETRY_MS;

enum Task {
    Job(Job),
    Prepare,
    End,
}

pub(super) fn run(shared: &Arc<Shared>) {
    loop {
        match next_task(shared) {
            Task::End => return,
            Task::Prepare => prepare(shared),
            Task::Job(job) => {
                if let Err((job, error)) = perform(shared, job) {
                    let closed = {
                        let mut state = shared.lock();
                        set_fault(shared, &mut state, &error);
                        state.jobs.push_front(job);
                        matches!(state.phase, Phase::Closed { .. })
                    };
                    if closed {
                        // The next start names what is left unnamed.
                        return;
                    }
                    back_off(shared);
                }
            }
        }
    }
}

fn next_task(shared: &Shared) -> Task {
    let mut state = shared.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            return Task::Job(job);
        }
        match state.phase {
            Phase::Closed { .. } => return Task::End,
            // A closing log still needs a segment when it has none to write to.
            Phase::Serving | Phase::Closing if state.next.is_none() && !state.unnamed => {
                return Task::Prepare;
            }
            Phase::Serving | Phase::Closing => {}
        }
        state = shared
            .preparer_wake
            .wait(state)
            .expect("no thread panics while it holds the audit state");
    }
}

fn prepare(shared: &Shared) {
    let prepared = Segment::prepare(&shared.dir, shared.segment_bytes, shared.disk.as_ref());
    let mut state = shared.lock();
    match prepared {
        Ok(segment) => {
            state.space.prepared(segment.size);
            state.segments += 1;
            state.disk_bytes += segment.size;
            state.next = Some(segment);
            state.prepare_fault = None;
            // Unlike a caller, the writer may wait for nothing but this.
            shared.wake_writer(&mut state);
            shared.tell_watchers(&state);
        }
        Err(error) => {
            set_fault(shared, &mut state, &error);
            shared.tell_watchers(&state);
            drop(state);
            back_off(shared);
        }
    }
}

/// A job that failed comes back with its error; one whose failure leaves only zeros on the disk
/// does not.
fn perform(shared: &Shared, job: Job) -> Result<(), (Job, Error)> {
    match job {
        Job::Name { first_seq } => {
            name_segment(&shared.dir, first_seq).map_err(|error| (job, error))?;
            let mut state = shared.lock();
            state.unnamed = false;
            state.prepare_fault = None;
        }
        Job::Discard { size } => {
            discard_prepared(&shared.dir).map_err(|error| (job, error))?;
            let mut state = shared.lock();
            state.unnamed = false;
            state.segments -= 1;
            state.disk_bytes -= size;
        }
        Job::Finish { file, len, size } => {
            // A reader takes the zeros for empty space, so failing to cut them costs space and
            // nothing else.
            if file.set_len(len).and_then(|()| file.sync_all()).is_ok() {
                shared.lock().disk_bytes -= size - len;
            }
        }
        Job::Cut { file, len, size } => {
            // No flush: this file's flushes prove nothing any more.
            if file.set_len(len).is_ok() {
                shared.lock().disk_bytes -= size - len;
            }
        }
    }
    Ok(())
}

fn set_fault(shared: &Shared, state: &mut State, error: &Error) {
    let full = match error {
        Error::Io { source, .. } => {
            matches!(
                source.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            )
        }
        _ => false,
    };
    let (why, remedy) = if full {
        (
            "no space left for the next segment".to_owned(),
            "free space there, assertd retries by itself",
        )
    } else {
        (error.to_string(), "assertd retries by itself")
    };
    let now = shared.now();
    let since_ms = state
        .prepare_fault
        .as_ref()
        .map_or(now.wall_ms, |fault| fault.since_ms);
    state.prepare_fault = Some(Fault {
        why,
        remedy: remedy.to_owned(),
        since_ms,
    });
}

/// Waits before the next attempt; the end of the log cuts it short.
fn back_off(shared: &Shared) {
    let state = shared.lock();
    let timeout = Duration::from_millis(RETRY_MS);
    let _ = shared
        .preparer_wake
        .wait_timeout_while(state, timeout, |state| {
            !matches!(state.phase, Phase::Closed { .. })
        })
        .expect("no thread panics while it holds the audit state");
}
