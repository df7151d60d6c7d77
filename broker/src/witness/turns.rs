//! Turns at something that takes long: so many at a time, and of these only a few for one uid. So a
//! user whose executables are enormous, or lie where reading hangs, keeps nobody else waiting. Owns
//! who is in; what is done there is the caller's.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Something with a limited number of places.
pub struct Turns {
    most: usize,
    most_of_one: usize,
    within: Mutex<HashMap<u32, usize>>,
    left: Condvar,
}

/// A place, for as long as it is held.
pub struct Turn<'a> {
    turns: &'a Turns,
    uid: u32,
}

impl Turns {
    /// So many places, and so many of them for one uid.
    pub fn new(most: usize, most_of_one: usize) -> Turns {
        Turns {
            most,
            most_of_one,
            within: Mutex::default(),
            left: Condvar::new(),
        }
    }

    /// Waits for a place; `None` if there is none until the deadline.
    pub fn enter(&self, uid: u32, deadline: Instant) -> Option<Turn<'_>> {
        let mut within = self.within();
        while !self.has_place(&within, uid) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.left.wait_timeout(within, left);
            within = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *within.entry(uid).or_default() += 1;
        Some(Turn { turns: self, uid })
    }

    fn has_place(&self, within: &HashMap<u32, usize>, uid: u32) -> bool {
        let all: usize = within.values().sum(); // of no more than `most` uids
        all < self.most && within.get(&uid).is_none_or(|own| *own < self.most_of_one)
    }

    fn within(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.within.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut within = self.turns.within();
        if let Some(own) = within.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                within.remove(&self.uid);
            }
        }
        self.turns.left.notify_all(); // those who wait may be of different uids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn one_uid_takes_no_more_than_its_share_and_all_no_more_than_there_are() {
        let turns = Turns::new(3, 2);
        let first = turns.enter(1, now()).expect("a place");
        let _second = turns.enter(1, now()).expect("a place");
        assert!(turns.enter(1, now()).is_none(), "a third of one uid");
        let third = turns.enter(2, now()).expect("a place for another uid");
        assert!(turns.enter(3, now()).is_none(), "a fourth of all");
        drop(third);
        assert!(turns.enter(1, now()).is_none(), "still a third of one uid");
        drop(first);
        assert!(turns.enter(1, now()).is_some());
        assert_eq!(turns.within().len(), 1, "who has left is forgotten");
    }

    #[test]
    fn who_waits_enters_when_another_leaves() {
        let turns = Turns::new(1, 1);
        let (turns, inside) = (&turns, turns.enter(1, now()).expect("a place"));
        std::thread::scope(|threads| {
            let deadline = now() + Duration::from_secs(20);
            let waiting = threads.spawn(move || turns.enter(2, deadline).is_some());
            drop(inside);
            assert!(waiting.join().unwrap());
        });
    }
}
