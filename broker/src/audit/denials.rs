//! Which denials are recorded one by one and which are only counted. Pure: no clock, no file; the
//! caller says what time it is and how much may be written.
//!
//! The first denial per (uid, target, reason) in a window is recorded, the others are counted and
//! leave as one `denials` record when the window ends. Tables are bounded; what overflows is added
//! up per uid, then over all. No count is ever lost: what cannot be written in this window stays
//! for the next one.

use std::collections::HashMap;

use super::record::DENIED_BYTES_MAX;
use super::text::LongText;

/// How long equal denials are one record: an administrator reads minutes, not milliseconds.
pub const WINDOW_MS: u64 = 60_000;
/// Distinct (uid, target, reason) kept apart; about 200 KiB at worst with ordinary names.
pub const KEYS_MAX: usize = 1_024;
/// Of them for one uid, so that one uid cannot push the others into the sums.
pub const KEYS_PER_UID_MAX: usize = 16;
/// Uids whose overflow is added up apart; beyond, all share one sum.
pub const UIDS_MAX: usize = 256;
/// Bytes of denial records in one window: 160 ordinary records, and 90 MiB in a day of unbroken
/// flood.
pub const WINDOW_BYTES_MAX: u64 = 64 * 1024;
/// Of them for the sums of the window before, so that the first denials of this one are seen too.
const SUMS_BYTES_MAX: u64 = WINDOW_BYTES_MAX / 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub uid: u32,
    /// A configured target; `None` for every name that is not, since the caller chose it.
    pub target: Option<LongText>,
    pub reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Noted {
    /// Write a `denied` record and report its size with `spent`.
    Record,
    Counted,
}

/// Denials of one window added up, with the wall-clock times of the first and the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    pub over: Over,
    pub count: u64,
    pub first_ms: u64,
    pub last_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    Key(Key),
    Uid(u32),
    All,
}

#[derive(Default)]
pub struct Denials {
    /// When the window began, on the boot clock; none while there is nothing to remember.
    began_ms: Option<u64>,
    spent: u64,
    keys: HashMap<Key, Tally>,
    keys_per_uid: HashMap<u32, usize>,
    uids: HashMap<u32, Tally>,
    rest: Tally,
    counted: u64,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    count: u64,
    first_ms: u64,
    last_ms: u64,
}

impl Denials {
    /// Takes note of a denial at `boot_ms`; `wall_ms` is what a count will show as first and last.
    /// `room` is how many bytes the log can spare.
    pub fn note(&mut self, key: Key, boot_ms: u64, wall_ms: u64, room: u64) -> Noted {
        self.began_ms.get_or_insert(boot_ms);
        let may_record = room.min(WINDOW_BYTES_MAX - self.spent) >= DENIED_BYTES_MAX;
        if let Some(tally) = self.keys.get_mut(&key) {
            tally.add(wall_ms);
        } else {
            let of_uid = self.keys_per_uid.get(&key.uid).copied().unwrap_or(0);
            if self.keys.len() < KEYS_MAX && of_uid < KEYS_PER_UID_MAX {
                self.keys_per_uid.insert(key.uid, of_uid + 1);
                let tally = self.keys.entry(key).or_default();
                if may_record {
                    return Noted::Record;
                }
                tally.add(wall_ms);
            } else if self.uids.len() < UIDS_MAX || self.uids.contains_key(&key.uid) {
                self.uids.entry(key.uid).or_default().add(wall_ms);
            } else {
                self.rest.add(wall_ms);
            }
        }
        self.counted += 1;
        Noted::Counted
    }

    /// The record that `note` asked for could not be written after all.
    pub fn count(&mut self, key: &Key, wall_ms: u64) {
        match self.keys.get_mut(key) {
            Some(tally) => tally.add(wall_ms),
            None => self.rest.add(wall_ms),
        }
        self.counted += 1;
    }

    /// A denial record of `bytes` was accepted into the log.
    pub fn spent(&mut self, bytes: u64) {
        self.spent = (self.spent + bytes).min(WINDOW_BYTES_MAX);
    }

    pub fn window_is_over(&self, boot_ms: u64) -> bool {
        self.began_ms
            .is_some_and(|began| boot_ms.saturating_sub(began) >= WINDOW_MS)
    }

    /// Ends the window: offers the sums, oldest first, to `write`, which answers the bytes it took
    /// for a sum or `None` when it cannot. What is not written is kept and belongs to the window
    /// that begins at `boot_ms`.
    pub fn end_window(&mut self, boot_ms: u64, mut write: impl FnMut(&Sum) -> Option<u64>) {
        self.spent = 0;
        for sum in self.sums() {
            if self.spent + DENIED_BYTES_MAX > SUMS_BYTES_MAX {
                break;
            }
            let Some(bytes) = write(&sum) else { break };
            self.spent(bytes);
            self.forget(&sum);
        }
        self.keys.retain(|_, tally| tally.count > 0);
        self.keys_per_uid.clear();
        for key in self.keys.keys() {
            *self.keys_per_uid.entry(key.uid).or_default() += 1;
        }
        self.began_ms = (self.counted > 0 || self.spent > 0).then_some(boot_ms);
    }

    /// Denials that are in no record yet.
    pub fn counted(&self) -> u64 {
        self.counted
    }

    fn sums(&self) -> Vec<Sum> {
        let keys = self
            .keys
            .iter()
            .map(|(key, tally)| tally.sum(Over::Key(key.clone())));
        let uids = self
            .uids
            .iter()
            .map(|(uid, tally)| tally.sum(Over::Uid(*uid)));
        let rest = [self.rest.sum(Over::All)];
        let mut sums: Vec<Sum> = keys
            .chain(uids)
            .chain(rest)
            .filter(|sum| sum.count > 0)
            .collect();
        sums.sort_by_key(|sum| sum.first_ms);
        sums
    }

    fn forget(&mut self, sum: &Sum) {
        self.counted -= sum.count;
        match &sum.over {
            Over::Key(key) => drop(self.keys.remove(key)),
            Over::Uid(uid) => drop(self.uids.remove(uid)),
            Over::All => self.rest = Tally::default(),
        }
    }
}

impl Tally {
    fn add(&mut self, wall_ms: u64) {
        if self.count == 0 {
            self.first_ms = wall_ms;
        }
        self.count += 1;
        self.last_ms = wall_ms;
    }

    fn sum(&self, over: Over) -> Sum {
        let Tally {
            count,
            first_ms,
            last_ms,
        } = *self;
        Sum {
            over,
            count,
            first_ms,
            last_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(uid: u32, target: u32) -> Key {
        let target = LongText::from(format!("target-{target}").as_str());
        Key {
            uid,
            target: Some(target),
            reason: "no_rule",
        }
    }

    fn bounded(denials: &Denials) -> bool {
        denials.keys.len() <= KEYS_MAX
            && denials.uids.len() <= UIDS_MAX
            && denials
                .keys_per_uid
                .values()
                .all(|&keys| keys <= KEYS_PER_UID_MAX)
            && denials.spent <= WINDOW_BYTES_MAX
    }

    proptest! {
        /// recorded + summed + still counted = noted, whatever comes and however little can be
        /// written.
        #[test]
        fn no_denial_is_lost_and_the_tables_stay_bounded(
            steps in proptest::collection::vec(
                (0u32..2_000, 0u32..40, 0u64..3_000, 0u64..20_000, 0usize..30), 1..600),
        ) {
            let mut denials = Denials::default();
            let (mut now, mut noted, mut recorded, mut summed) = (0, 0, 0, 0);
            for (uid, target, wait, room, mut sums_max) in steps {
                now += wait;
                noted += 1;
                match denials.note(key(uid, target), now, now, room) {
                    Noted::Record => {
                        recorded += 1;
                        denials.spent(400);
                    }
                    Noted::Counted => {}
                }
                if denials.window_is_over(now) {
                    denials.end_window(now, |sum| {
                        sums_max = sums_max.checked_sub(1)?;
                        summed += sum.count;
                        Some(400)
                    });
                }
                prop_assert!(bounded(&denials));
                prop_assert_eq!(recorded + summed + denials.counted(), noted);
            }
        }
    }

    #[test]
    fn the_first_of_a_kind_is_recorded_once_in_a_window() {
        let mut denials = Denials::default();
        assert_eq!(denials.note(key(1, 1), 0, 100, u64::MAX), Noted::Record);
        assert_eq!(denials.note(key(1, 1), 1, 101, u64::MAX), Noted::Counted);
        assert_eq!(denials.note(key(1, 1), 2, 102, u64::MAX), Noted::Counted);
        assert_eq!(denials.note(key(2, 1), 3, 103, u64::MAX), Noted::Record);
        assert!(!denials.window_is_over(WINDOW_MS - 1));
        assert!(denials.window_is_over(WINDOW_MS));
        let mut sums = Vec::new();
        denials.end_window(WINDOW_MS, |sum| {
            sums.push(sum.clone());
            Some(400)
        });
        let expected = Sum {
            over: Over::Key(key(1, 1)),
            count: 2,
            first_ms: 101,
            last_ms: 102,
        };
        assert_eq!(sums, [expected]);
        assert_eq!(
            denials.note(key(1, 1), WINDOW_MS, 200, u64::MAX),
            Noted::Record
        );
    }

    #[test]
    fn one_uid_cannot_push_another_into_the_sums() {
        let mut denials = Denials::default();
        for target in 0..10_000 {
            let _ = denials.note(key(1, target), 0, 0, u64::MAX);
        }
        assert_eq!(denials.keys.len(), KEYS_PER_UID_MAX);
        assert_eq!(denials.note(key(2, 1), 0, 0, u64::MAX), Noted::Record);
    }

    #[test]
    fn a_flood_by_many_uids_fills_no_table() {
        let mut denials = Denials::default();
        for uid in 0..50_000 {
            if denials.note(key(uid, 0), 0, 0, u64::MAX) == Noted::Record {
                denials.spent(400);
            }
        }
        assert!(bounded(&denials));
        assert_eq!(
            (denials.keys.len(), denials.uids.len()),
            (KEYS_MAX, UIDS_MAX)
        );
    }
}
