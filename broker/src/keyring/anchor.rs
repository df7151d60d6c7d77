//! Whether the records are as new as a keystore knows them to have been (standards §5.4, I7). The records
//! hold, for each keystore, how far its counter is to come; the counter goes there after they are written,
//! and never back. So records that are restored from a copy are behind it, and those of a crash in between
//! are ahead of it.
//!
//! The counter in a TPM wears (standards §7.4): most changes are counted together. One that stops a key is
//! counted by itself, before whoever asked for it is answered: no copy from before it passes for new.

use keystore::protocol::{Counter, CounterPlace};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// How far each keystore's counter is to come, as the records have it.
pub type Counts = BTreeMap<String, u64>;

/// Whether the records hold a keystore's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    Some,
    None,
}

/// What a counter says of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was counted yet: it begins.
    Begin,
    /// They are the newest; `due` is where the counter is to go, if a crash kept it from that.
    Newest {
        /// None: it is there.
        due: Option<u64>,
    },
    /// Nothing they hold could be older than anything: they go on from this value.
    Joins(u64),
    /// They are from before it was last advanced.
    Older,
    /// It is not there any more.
    Gone,
}

/// Compares the records with a counter. In them, 0 says that counting was about to begin.
pub fn judge(recorded: Option<u64>, keys: Keys, counter: Option<u64>) -> Verdict {
    match (recorded, counter) {
        (None | Some(0), None) => Verdict::Begin,
        (Some(0), Some(value)) => Verdict::Joins(value), // a crash in that moment
        (None, Some(value)) => match keys {
            Keys::None => Verdict::Joins(value),
            Keys::Some => Verdict::Older,
        },
        (Some(_), None) => Verdict::Gone,
        (Some(ours), Some(value)) => match ours.cmp(&value) {
            Ordering::Less => Verdict::Older,
            Ordering::Equal => Verdict::Newest { due: None },
            Ordering::Greater => Verdict::Newest { due: Some(ours) },
        },
    }
}

/// How soon a change is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// With others.
    Together,
    /// By itself, at once.
    AtOnce,
}

/// Where a counter is to go once a change is written, if it is to go where it is now recorded to and is
/// known to have come to `reached`.
pub fn after(recorded: u64, reached: Option<u64>, urgency: Urgency) -> u64 {
    match (recorded, urgency) {
        (0, _) => 0, // counting has not begun
        // Copies of the records from before this change say `recorded` too.
        (_, Urgency::AtOnce) => recorded + 1,
        (_, Urgency::Together) if reached == Some(recorded) => recorded + 1,
        (_, Urgency::Together) => recorded, // it is on its way already
    }
}

/// What is known of one keystore's counter since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Where it is.
    pub place: CounterPlace,
    /// How far it has come.
    pub reached: Option<u64>,
    /// What it says of the records as they were read.
    pub verdict: Verdict,
    /// Why it could not be advanced.
    pub why: Option<String>,
}

impl Known {
    /// Of a counter as it was first seen.
    pub fn of(counter: &Counter, verdict: Verdict) -> Known {
        Known {
            place: counter.place,
            reached: counter.value,
            verdict,
            why: None,
        }
    }

    /// Whether the records are older than they should be.
    pub fn is_older(&self) -> bool {
        matches!(self.verdict, Verdict::Older | Verdict::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_copy_is_older_and_a_crash_is_not() {
        let judge = |ours, counter| judge(ours, Keys::Some, counter);
        assert_eq!(judge(Some(7), Some(7)), Verdict::Newest { due: None });
        assert_eq!(judge(Some(9), Some(7)), Verdict::Newest { due: Some(9) });
        assert_eq!(judge(Some(6), Some(7)), Verdict::Older);
        assert_eq!(judge(Some(7), None), Verdict::Gone);
        assert_eq!(judge(None, None), Verdict::Begin);
        assert_eq!(judge(None, Some(7)), Verdict::Older);
        assert_eq!(super::judge(None, Keys::None, Some(7)), Verdict::Joins(7));
        assert_eq!(judge(Some(0), Some(7)), Verdict::Joins(7));
    }

    /// What happens to records and counter, in turn.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Change(Urgency),
        /// The counter is advanced to where the records say.
        Count,
        /// The process ends and starts again, with the records as they are.
        Crash,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Change(Urgency::Together)),
            Just(Event::Change(Urgency::AtOnce)),
            Just(Event::Count),
            Just(Event::Crash),
        ]
    }

    proptest! {
        #[test]
        fn no_copy_from_before_an_urgent_change_that_was_counted_passes(
            events in proptest::collection::vec(event(), 0..14),
        ) {
            let (mut counter, mut recorded, mut reached) = (5, 5, Some(5));
            // Every state that was ever written, and from where on none may pass any more.
            let (mut copies, mut sealed, mut urgent) = (vec![5], 0, None);
            for event in events {
                match event {
                    Event::Change(urgency) => {
                        recorded = after(recorded, reached, urgency);
                        if urgency == Urgency::AtOnce {
                            urgent = Some(copies.len());
                        }
                        copies.push(recorded);
                    }
                    Event::Count => {
                        counter = counter.max(recorded);
                        reached = Some(counter);
                        sealed = urgent.take().unwrap_or(sealed);
                    }
                    Event::Crash => {
                        // Never refused; what is due is counted before anything else.
                        let verdict = judge(Some(recorded), Keys::Some, Some(counter));
                        prop_assert!(matches!(verdict, Verdict::Newest { .. }), "{verdict:?}");
                        reached = Some(counter);
                    }
                }
            }
            for copy in &copies[..sealed] {
                prop_assert_eq!(judge(Some(*copy), Keys::Some, Some(counter)), Verdict::Older);
            }
        }
    }
}
