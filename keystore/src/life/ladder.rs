//! When the ladder of [`super::Life`] takes its steps, and when it ends: nothing but times and counts.

use crate::Kind;
use crate::backend::ObjectId;
use std::time::{Duration, Instant};

/// First and longest wait between attempts to open a token. The longest is also how late one that
/// is put back may be noticed, and each attempt is a few calls into the module.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Attempts in a row that fail although the token is there and was open before: then the module
/// itself is in doubt, and the process ends.
const TRIES_MAX: u32 = 5;

/// How long one process tries a token that is there and was never open: its users may be many.
const UNUSABLE_MAX: Duration = Duration::from_secs(600);

/// First and longest time that an open token without keys is left as it is.
const EMPTIED: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// A token that is open and shows no key of ours. Either they were deleted, and opening it anew finds
/// nothing; or the module has lost sight of them, and it may. So that is done more and more rarely.
pub struct Emptied {
    wait: Duration,
}

impl Emptied {
    /// Found for the first time.
    pub fn new() -> Emptied {
        Emptied { wait: EMPTIED.0 }
    }

    /// How long it is still left as it is, having been `opened` then.
    pub fn left(&self, opened: Instant) -> Duration {
        self.wait.saturating_sub(opened.elapsed())
    }

    /// It is opened anew.
    pub fn note(&mut self) {
        self.wait = (self.wait * 2).min(EMPTIED.1);
    }
}

/// Whether this process has had the token open: what never worked is no better in a new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// It has not.
    NeverOpen,
    /// It has.
    WasOpen,
}

/// Attempts in a row.
pub struct Row {
    past: Past,
    absence_max: Duration,
    /// When the first of them failed.
    since: Option<Instant>,
    ill: u32,
    wait: Duration,
}

impl Row {
    /// None yet.
    pub fn new(past: Past, absence_max: Duration) -> Row {
        Row {
            past,
            absence_max,
            since: None,
            ill: 0,
            wait: WAIT.0,
        }
    }

    /// One more failed.
    pub fn note(&mut self, kind: Kind) {
        self.since.get_or_insert_with(Instant::now);
        match kind {
            Kind::Absent => self.ill = 0,
            _ => self.ill += 1,
        }
    }

    /// Why this process should not go on trying.
    pub fn is_over(&self) -> Option<String> {
        if self.ill >= TRIES_MAX && self.past == Past::WasOpen {
            return Some(format!("could not be opened {} times in a row", self.ill));
        }
        let (most, what) = match self.ill {
            0 => (self.absence_max, "not there"),
            _ => (UNUSABLE_MAX, "could not be opened"),
        };
        let waited = self.since?.elapsed();
        (waited > most).then(|| format!("{what} for {} s", waited.as_secs()))
    }

    /// Whether this process has had it open.
    pub fn past(&self) -> Past {
        self.past
    }

    /// How long to wait before the next one: twice as long each time, and by a quarter more or
    /// less, so that many hosts do not come back to one network HSM at the same moment.
    pub fn wait(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(WAIT.1);
        let byte = ObjectId::random().map_or(128, |random| random.0[0]);
        wait.mul_f64(0.75 + f64::from(byte) / 255.0 / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENCE_MAX: Duration = Duration::from_secs(60);

    #[test]
    fn waits_grow_to_their_longest_and_differ() {
        let mut row = Row::new(Past::NeverOpen, ABSENCE_MAX);
        let waits: Vec<Duration> = (0..64).map(|_| row.wait()).collect();
        assert!(waits[0] >= WAIT.0.mul_f64(0.75) && waits[0] <= WAIT.0.mul_f64(1.25));
        assert!(waits.iter().all(|wait| *wait <= WAIT.1.mul_f64(1.25)));
        assert!(waits[8..].iter().all(|wait| *wait >= WAIT.1.mul_f64(0.75)));
        assert!(waits[8..].windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn an_absent_token_is_waited_for_and_an_ill_one_gets_a_new_process() {
        let mut row = Row::new(Past::WasOpen, ABSENCE_MAX);
        for _ in 0..TRIES_MAX * 2 {
            row.note(Kind::Absent);
        }
        assert_eq!(row.is_over(), None);
        for _ in 0..TRIES_MAX {
            assert_eq!(row.is_over(), None);
            row.note(Kind::Unavailable);
        }
        assert!(row.is_over().is_some());
        let mut never = Row::new(Past::NeverOpen, ABSENCE_MAX);
        (0..TRIES_MAX * 2).for_each(|_| never.note(Kind::Unavailable));
        assert_eq!(never.is_over(), None);
    }

    #[test]
    fn the_time_of_absence_is_that_of_a_token_that_is_not_there() {
        let ago = Instant::now().checked_sub(ABSENCE_MAX * 2);
        let since = Some(ago.expect("this machine has run for longer"));
        for (kind, is_over) in [(Kind::Absent, true), (Kind::Unavailable, false)] {
            let mut row = Row::new(Past::NeverOpen, ABSENCE_MAX);
            row.since = since;
            row.note(kind);
            assert_eq!(row.is_over().is_some(), is_over, "{kind:?}");
        }
    }
}
