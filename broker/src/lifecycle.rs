//! The life of a key, version by version: made, published, active, retired, withdrawn, destroyed
//! (standards §5, reliability §6). Pure: no I/O, and the time is given.
//!
//! A [`Lineage`] is what is written down of one key. [`Lineage::next`] says what is to be done now:
//! write a change, do one thing outside, or wait. A change is durable before anything follows from
//! it, and whatever is done outside is written as an intent before and as an outcome after, so that
//! a crash at any point leaves something that `next` goes on from (I6). `docs/decisions/0021` has the
//! reasons; `tests/enumeration.rs` walks all of it.

mod age;
mod lineage;
mod next;
mod schedule;
mod verb;
mod version;

pub use age::{Age, Boot, Mark, Reading, Sync};
pub use lineage::{Change, Hold, Lineage, Wrong};
pub use next::{Facts, Next, Outside, Shown, Trial, Waiting};
pub use schedule::{Activation, Gate, IN_FLIGHT_S, Impossible, Schedule, Span};
pub use verb::{Haste, Refused, Verb};
pub use version::{Cause, Phase, Version};

#[cfg(test)]
mod tests;
