//! Federation assertions that are handed out again: to the same workload, for the same target, until
//! half of their life is over, so that a token with ten signatures a second is enough for a busy host.
//! Requests for the same thing at the same time are one signature: the first has the [`Ticket`], the
//! others wait for what it gets; if it gets nothing, the next of them has it.
//!
//! What makes two requests the same is all in [`Use`]. Whether a workload may have anything is decided
//! and recorded for each request anew before it comes here. Never holds an assertion for client
//! authentication: those are used once (RFC 7523 §3, OIDC Core §9).

use keystore::{Kid, Time};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Assertions that live shorter are signed for one request each, in seconds: of half of this life more
/// is left than a request may take ([`crate::http::REQUEST_DEADLINE`]), so that nobody gets one that
/// is about to expire.
pub const LIFETIME_MIN_S: u32 = 30;

/// How many lifetimes of one target are remembered: a caller may ask for thousands.
const LIFETIMES_MAX: usize = 4;

/// So many targets are remembered at least before it is looked for those whose assertions are over.
const SWEEP_FROM: usize = 64;

/// Whether a target's assertions may be handed out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Each request has its own signature.
    Never,
    /// Until half of their life is over.
    UntilHalf,
}

/// What requests must have in common to get the same assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The workload section's name.
    pub workload: Arc<str>,
    /// The target's.
    pub target: String,
    /// What else.
    pub terms: Terms,
}

/// What an assertion for a target was made under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Seconds it lives: the least of request, target and profile.
    pub lifetime_s: u32,
    /// Which configuration.
    pub generation: u64,
    /// Which key.
    pub kid: Kid,
}

/// A moment by both clocks: the one that anybody may set, and the one that nobody does.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The wall clock, trusted.
    pub wall: Time,
    /// CLOCK_MONOTONIC.
    pub mono: Instant,
}

/// What to do about a request.
pub enum Turn<A> {
    /// Hand out this one.
    Kept(Arc<Kept<A>>),
    /// Have one signed. Others may be waiting for it.
    Mint(Ticket<A>),
}

/// What is handed out again.
pub struct Kept<A> {
    /// The assertion, and what belongs to it.
    pub what: A,
    made: Moment,
    half: Duration,
}

/// The right, and the duty, to have an assertion signed. Dropped unfilled, it is the next one's.
pub struct Ticket<A>(Option<Held<A>>);

struct Held<A> {
    slot: Arc<Slot<A>>,
    _permit: OwnedSemaphorePermit,
    /// Of the key that is to sign.
    kid: Kid,
}

/// All that is kept.
pub struct Shelf<A> {
    targets: Mutex<Targets<A>>,
}

struct Targets<A> {
    /// By workload and target.
    slots: HashMap<(Arc<str>, String), Slots<A>>,
    /// With so many targets it is looked for those whose assertions are over: twice as many as the
    /// last look left, because it is at all of them.
    sweep_at: usize,
}

type Slots<A> = Vec<(Terms, Arc<Slot<A>>)>;

/// The place of one assertion, from the first request for it on.
struct Slot<A> {
    /// One permit; closed when it is filled.
    turn: Arc<Semaphore>,
    kept: OnceLock<Arc<Kept<A>>>,
}

impl Moment {
    /// Now, where the wall clock shows this.
    pub fn at(wall: Time) -> Moment {
        Moment {
            wall,
            mono: Instant::now(),
        }
    }
}

impl<A> Default for Targets<A> {
    fn default() -> Targets<A> {
        Targets {
            slots: HashMap::new(),
            sweep_at: SWEEP_FROM,
        }
    }
}

impl<A> Default for Shelf<A> {
    fn default() -> Shelf<A> {
        Shelf {
            targets: Mutex::default(),
        }
    }
}

impl<A> Shelf<A> {
    /// Waits until there is one to hand out, or it is this request's turn to have it signed. Whoever
    /// calls has a deadline, and may stop waiting at any time.
    ///
    /// # Errors
    /// What `now` says if there is no time to go by.
    pub async fn turn<E>(
        &self,
        of: &Use,
        now: impl Fn() -> Result<Moment, E>,
    ) -> Result<Turn<A>, E> {
        if of.terms.lifetime_s < LIFETIME_MIN_S {
            return Ok(Turn::Mint(Ticket::alone()));
        }
        loop {
            let slot = self.slot(of, now()?);
            if let Some(kept) = slot.kept.get() {
                return Ok(Turn::Kept(kept.clone()));
            }
            let Ok(permit) = slot.turn.clone().acquire_owned().await else {
                continue; // it has been filled meanwhile
            };
            return Ok(Turn::Mint(Ticket(Some(Held {
                slot,
                _permit: permit,
                kid: of.terms.kid.clone(),
            }))));
        }
    }

    /// Forgets everything: another configuration is in force.
    pub fn clear(&self) {
        *self.targets() = Targets::default();
    }

    /// Forgets what this key has signed.
    pub fn forget_key(&self, kid: &Kid) {
        let mut targets = self.targets();
        targets.slots.retain(|_, slots| {
            slots.retain(|(terms, _)| terms.kid != *kid);
            !slots.is_empty()
        });
    }

    /// The place for this: an empty one, or one whose assertion can be handed out now.
    fn slot(&self, of: &Use, now: Moment) -> Arc<Slot<A>> {
        let mut targets = self.targets();
        if targets.slots.len() >= targets.sweep_at {
            targets.sweep(now);
        }
        let name = (of.workload.clone(), of.target.clone());
        let slots = targets.slots.entry(name).or_default();
        slots.retain(|(_, slot)| !slot.is_over(now));
        if let Some((_, slot)) = slots.iter().find(|(terms, _)| *terms == of.terms) {
            return slot.clone();
        }
        if slots.len() >= LIFETIMES_MAX {
            slots.remove(0);
        }
        let slot = Arc::new(Slot {
            turn: Arc::new(Semaphore::new(1)),
            kept: OnceLock::new(),
        });
        slots.push((of.terms.clone(), slot.clone()));
        slot
    }

    fn targets(&self) -> MutexGuard<'_, Targets<A>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> Targets<A> {
    /// Takes out what nobody will get any more.
    fn sweep(&mut self, now: Moment) {
        self.slots.retain(|_, slots| {
            slots.retain(|(_, slot)| !slot.is_over(now) && !slot.is_idle());
            !slots.is_empty()
        });
        self.sweep_at = SWEEP_FROM.max(2 * self.slots.len());
        self.slots.shrink_to(self.sweep_at);
    }
}

impl<A> Slot<A> {
    /// Whether what it holds is not to be handed out any more.
    fn is_over(&self, now: Moment) -> bool {
        self.kept.get().is_some_and(|kept| !kept.is_fresh(now))
    }

    /// Whether it is empty and nobody is about to fill it.
    fn is_idle(self: &Arc<Self>) -> bool {
        self.kept.get().is_none() && Arc::strong_count(self) == 1
    }
}

impl<A> Kept<A> {
    /// Whether it is in the first half of its life, by both clocks. The wall clock may be set back to
    /// before it was made.
    fn is_fresh(&self, now: Moment) -> bool {
        let from_s = self.made.wall.unix_s();
        let lived_s = now.wall.unix_s().checked_sub(from_s);
        let lived = now.mono.saturating_duration_since(self.made.mono);
        lived < self.half && lived_s.is_some_and(|lived_s| lived_s < self.half.as_secs())
    }
}

impl<A> Ticket<A> {
    /// For an assertion that nobody else will get.
    pub fn alone() -> Ticket<A> {
        Ticket(None)
    }

    /// The same if it is this key that signs. If another does by now, what it signs is for nobody else, and
    /// the duty is the next one's.
    pub fn under(self, kid: &Kid) -> Ticket<A> {
        Ticket(self.0.filter(|held| held.kid == *kid))
    }

    /// Keeps what was signed; whoever waits for it gets it. `made` is its `iat`.
    pub fn fill(self, what: A, made: Moment, lifetime_s: u32) {
        let Some(Held { slot, .. }) = self.0 else {
            return;
        };
        let kept = Kept {
            what,
            made,
            half: Duration::from_secs(u64::from(lifetime_s / 2)),
        };
        let first = slot.kept.set(Arc::new(kept));
        debug_assert!(first.is_ok(), "one ticket at a time, and none after it");
        slot.turn.close();
    }
}

#[cfg(test)]
mod tests;
