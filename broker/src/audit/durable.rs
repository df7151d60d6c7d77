//! The right that an accepted record gives: to wait until it is durable and, for a decision, to say
//! once what became of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::error::Lost;
use super::record::{Body, OUTCOME_BYTES_MAX, Outcome, OutcomeRecord};
use super::records::{Haste, Queued};
use super::shared::Shared;
use super::text::ShortText;

/// An accepted record: a future that resolves when it is durable, and for a decision the right to
/// one outcome, whose room is kept until it is used. Await it by reference (`(&mut
/// durable).await`), then say what became of it; dropping it without a word records the outcome
/// `abandoned`. Cancel-safe.
#[must_use = "nothing may be released before this resolves"]
pub struct Durable {
    pub(super) receiver: oneshot::Receiver<()>,
    pub(super) settled: Option<Result<(), Lost>>,
    pub(super) id: Option<ShortText>,
    pub(super) shared: Arc<Shared>,
}

impl Durable {
    /// Records what became of the decision, with the next group; never waits. Nothing for other
    /// records.
    pub fn outcome(mut self, outcome: Outcome) {
        self.say(Some(outcome));
    }

    fn say(&mut self, outcome: Option<Outcome>) {
        let Some(id) = self.id.take() else { return };
        let body = Body::Outcome(OutcomeRecord::new(id, outcome)).encode();
        let mut state = self.shared.lock();
        state.pending -= 1;
        let stamp = self.shared.now();
        let reserved = OUTCOME_BYTES_MAX;
        let queued = Queued {
            stamp,
            reserved,
            haste: Haste::Soon,
            durable: None,
        };
        state.push(&body, queued);
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.say(None);
    }
}

impl Future for Durable {
    type Output = Result<(), Lost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        if let Some(settled) = self.settled {
            return Poll::Ready(settled);
        }
        let Poll::Ready(told) = Pin::new(&mut self.receiver).poll(context) else {
            return Poll::Pending;
        };
        Poll::Ready(*self.settled.insert(told.map_err(|_| Lost)))
    }
}
