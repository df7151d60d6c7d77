//! The mints that were sent to a keystore and are not answered, of all its lanes together, and how
//! long it has been silent about them. A silent keystore may be busy (a TPM that makes an RSA key)
//! or hang; nobody can tell until it speaks.
//!
//! Owns two numbers and the clock they are read against. Must never hold its lock across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a keystore that was asked may say nothing before it counts as silent: longer than any
/// signature takes, shorter than callers notice.
pub const SILENCE: Duration = Duration::from_secs(1);

/// What is under way.
pub struct Flights {
    state: Mutex<State>,
}

struct State {
    count: usize,
    /// When it last spoke, or was asked after a rest.
    heard: Instant,
}

impl Flights {
    /// None yet.
    pub fn new() -> Flights {
        let (count, heard) = (0, Instant::now());
        let state = Mutex::new(State { count, heard });
        Flights { state }
    }

    /// Notes that one was sent.
    pub fn take_off(&self) {
        let mut state = self.lock();
        if state.count == 0 {
            state.heard = Instant::now();
        }
        state.count += 1;
    }

    /// Notes that one was answered.
    pub fn land(&self) {
        let mut state = self.lock();
        state.count -= 1;
        state.heard = Instant::now();
    }

    /// Notes that the connection of so many has ended.
    pub fn lose(&self, count: usize) {
        self.lock().count -= count;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().count
    }

    /// When it was last heard of, while something is under way.
    pub fn heard(&self) -> Option<Instant> {
        let state = self.lock();
        (state.count > 0).then_some(state.heard)
    }

    /// How long it has been silent, if that is too long.
    pub fn silence(&self) -> Option<Duration> {
        let silence = self.heard()?.elapsed();
        (silence >= SILENCE).then_some(silence)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long_ago(flights: &Flights) {
        let ago = Instant::now().checked_sub(SILENCE * 2);
        flights.lock().heard = ago.expect("this machine has run for longer");
    }

    #[test]
    fn only_a_keystore_that_was_asked_can_be_silent() {
        let flights = Flights::new();
        long_ago(&flights);
        assert_eq!(flights.silence(), None, "at rest");
        flights.take_off();
        assert_eq!(flights.silence(), None, "asked just now, after a rest");
        long_ago(&flights);
        flights.take_off();
        assert!(
            flights.silence().is_some(),
            "asking again breaks no silence"
        );
        flights.land();
        assert_eq!(flights.silence(), None, "one answer does");
        long_ago(&flights);
        flights.lose(1);
        assert_eq!((flights.silence(), flights.count()), (None, 0));
    }
}
