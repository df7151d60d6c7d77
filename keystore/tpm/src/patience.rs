//! How long a busy TPM is waited for. Owns the waits between one try of a command and the next, and
//! their end: whoever asked for a signature waits for it, and the TPM gets no storm of commands.

use std::time::{Duration, Instant};

/// How long a TPM may be too busy for every command before those who ask are told: most are busy for
/// well under a second (a self test, a write to NV), nobody waits for a signature longer than five
/// (the broker's deadline), and a call that takes four is taken for a hung one
/// ([`keystore::hang`]).
const BUSY_MAX: Duration = Duration::from_secs(1);

/// First and longest wait between two tries.
const WAIT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// With a TPM that says that it is busy, since it carried out something last.
pub struct Patience {
    since: Option<Instant>,
    wait: Duration,
}

impl Patience {
    /// All of it.
    pub fn new() -> Patience {
        Patience {
            since: None,
            wait: WAIT.0,
        }
    }

    /// How long to wait before the next try, having been told `now` that it is busy; `None` if there
    /// is to be none.
    pub fn next(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= BUSY_MAX {
            return None;
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(WAIT.1);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_tpm_is_asked_a_dozen_times_and_no_more() {
        let (mut patience, mut now) = (Patience::new(), Instant::now());
        let begun = now;
        let mut tries = 1;
        while let Some(wait) = patience.next(now) {
            assert!(wait >= WAIT.0 && wait <= WAIT.1);
            now += wait;
            tries += 1;
        }
        assert!((5..=12).contains(&tries), "{tries}");
        assert!(now.duration_since(begun) < BUSY_MAX + WAIT.1);
        // It stays so until the TPM has carried out something.
        assert_eq!(patience.next(now + BUSY_MAX * 10), None);
    }
}
