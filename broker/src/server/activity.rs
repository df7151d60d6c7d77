//! What a connection is at, and how long it may be.

use crate::handover::Handover;
use crate::http;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a connection may be silent between requests.
const IDLE: Duration = Duration::from_secs(30);

/// How long a request's head may take from its first byte.
const HEAD_DEADLINE: Duration = Duration::from_secs(2);

/// How long a whole request may take, body, work and answer: what its parts may take and a second.
const BUSY_DEADLINE: Duration =
    Duration::from_secs(http::BODY_DEADLINE.as_secs() + http::REQUEST_DEADLINE.as_secs() + 1);

/// How long the kernel may take over an answer with an assertion in it: it keeps 200 KiB for a peer that
/// does not read, and whoever stops a key waits for it.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(5);

/// How long a new connection may take to ask once the daemon was told to stop: it was accepted, so
/// its request is on its way or in the socket already. Who keeps a connection and is silent may have
/// sent one at the same moment, which takes no longer than a message between two processes.
const LAST_WORDS_NEW: Duration = Duration::from_secs(2);
const LAST_WORDS_IDLE: Duration = Duration::from_millis(100);

/// What a connection is at, and since when.
pub(super) struct Activity {
    at: Mutex<(Phase, Instant)>,
    /// Assertions in answers that are being written: more than one only for who asks again before it has
    /// read.
    carries: Mutex<Vec<Handover>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    New,
    Idle,
    Head,
    Busy,
}

impl Activity {
    pub(super) fn new() -> Activity {
        Activity {
            at: Mutex::new((Phase::New, Instant::now())),
            carries: Mutex::default(),
        }
    }

    /// An answer is about to be written.
    pub(super) fn carry(&self, handover: Option<Handover>) {
        self.carries().extend(handover);
    }

    /// All that was to be written is with the kernel.
    pub(super) fn handed_over(&self) {
        self.carries().clear();
    }

    fn carries(&self) -> MutexGuard<'_, Vec<Handover>> {
        self.carries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, phase: Phase) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = (phase, Instant::now());
    }

    /// The first byte of a head ends the silence.
    pub(super) fn note_bytes(&self) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(at.0, Phase::New | Phase::Idle) {
            *at = (Phase::Head, Instant::now());
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        let (phase, since) = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        since
            + match phase {
                Phase::Idle if !self.carries().is_empty() => HANDOVER_DEADLINE,
                Phase::New | Phase::Idle => IDLE,
                Phase::Head => HEAD_DEADLINE,
                Phase::Busy => BUSY_DEADLINE,
            }
    }

    /// How long a request may still come when the daemon stops.
    pub(super) fn last_words(&self) -> Duration {
        match self.at.lock().unwrap_or_else(PoisonError::into_inner).0 {
            Phase::New => LAST_WORDS_NEW,
            Phase::Idle => LAST_WORDS_IDLE,
            Phase::Head | Phase::Busy => Duration::ZERO,
        }
    }
}
