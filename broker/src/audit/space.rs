//! How much room the segments have, and how much of it is promised. Pure arithmetic: no file, no
//! clock.
//!
//! A record never crosses from one segment into the next, so filling a segment wastes less than one
//! line. Each segment therefore counts as its free bytes less `LINE_BYTES_MAX`, and what is
//! promised never exceeds the sum, so that a promise cannot be broken by where the records happen
//! to fall.

use super::record::{LINE_BYTES_MAX, OWN_BYTES_MAX};

/// Kept from the first moment for the log's own `repaired` and `closed` records.
const KEPT_BYTES: u64 = 2 * OWN_BYTES_MAX;

pub(super) struct Space {
    segment_bytes: u64,
    current: u64,
    next: Option<u64>,
    reserved: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Room {
    Held,
    Full,
}

impl Space {
    pub(super) fn new(segment_bytes: u64, current_free: u64) -> Space {
        Space {
            segment_bytes,
            current: current_free,
            next: None,
            reserved: KEPT_BYTES,
        }
    }

    /// Promises `bytes`, or nothing. One segment must hold all that is promised, for after a failed
    /// write everything that is not durable moves to a fresh one.
    pub(super) fn reserve(&mut self, bytes: u64) -> Room {
        let limit = self.room().min(usable(self.segment_bytes));
        if self.reserved + bytes > limit {
            return Room::Full;
        }
        self.reserved += bytes;
        Room::Held
    }

    /// Promises `bytes` whether or not there is room: for records that are no one's to refuse.
    pub(super) fn reserve_owed(&mut self, bytes: u64) {
        self.reserved += bytes;
    }

    /// A record for which `reserved` bytes were promised took `written` in the current segment.
    pub(super) fn settle(&mut self, reserved: u64, written: u64) {
        self.reserved -= reserved;
        self.current = self.current.saturating_sub(written);
    }

    pub(super) fn prepared(&mut self, bytes: u64) {
        self.next = Some(bytes);
    }

    /// The current segment is full or lost; the prepared one, if any, takes its place.
    pub(super) fn rotate(&mut self) {
        self.current = self.next.take().unwrap_or(0);
    }

    pub(super) fn lose_current(&mut self) {
        self.current = 0;
    }

    /// What denials may take: half of what is not promised, and nothing while the next segment is
    /// missing, for then all that is left belongs to grants.
    pub(super) fn denial_room(&self) -> u64 {
        match self.next {
            Some(_) => self.unpromised() / 2,
            None => 0,
        }
    }

    pub(super) fn unpromised(&self) -> u64 {
        self.room().saturating_sub(self.reserved)
    }

    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    fn room(&self) -> u64 {
        usable(self.current) + self.next.map_or(0, usable)
    }
}

fn usable(free: u64) -> u64 {
    free.saturating_sub(LINE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is promised can be placed, line by line, in the segments that are there.
        #[test]
        fn a_promise_is_never_broken(
            current in 0u64..200_000,
            next in proptest::option::of(Just(128 * 1024u64)),
            lines in proptest::collection::vec((1u64..LINE_BYTES_MAX, 0u64..2_000), 0..60),
        ) {
            let mut space = Space::new(128 * 1024, current);
            if let Some(bytes) = next {
                space.prepared(bytes);
            }
            let held: Vec<_> = lines
                .into_iter()
                .filter(|(bytes, spare)| space.reserve(bytes + spare) == Room::Held)
                .collect();
            let (mut free, mut following) = (current, next);
            for (bytes, spare) in held {
                if bytes > free {
                    free = following.take().expect("a promised record finds a segment");
                    space.rotate();
                }
                prop_assert!(bytes <= free);
                free -= bytes;
                space.settle(bytes + spare, bytes);
            }
            prop_assert_eq!(space.reserved(), KEPT_BYTES);
        }
    }

    #[test]
    fn denials_get_nothing_while_the_next_segment_is_missing() {
        let mut space = Space::new(128 * 1024, 128 * 1024);
        assert_eq!(space.denial_room(), 0);
        space.prepared(128 * 1024);
        assert_eq!(space.denial_room(), space.unpromised() / 2);
    }
}
