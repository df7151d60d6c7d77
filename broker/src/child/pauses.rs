//! How long a keystore's next process waits for its start, after the one before has ended, and how
//! often that is said. Owns the schedule: quick at first, because a module that crashes is back in
//! 10 ms and clients wait; rarer and rarer for one that ends soon after each start, so that it eats
//! neither a core nor the log. Pure: the moments and the random byte come in.

use std::time::{Duration, Instant};

/// A process that lived this long did not fail at its start.
const STEADY: Duration = Duration::from_secs(2);

/// First and longest pause. The longest is also how late a cure may be noticed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// Longest pause after a process that was of use: a crash now and then must not cost more.
pub const QUICK_MAX: Duration = Duration::from_millis(200);

/// How often the same sentence is said again.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// How far a process came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It ended soon after its start, or there was none.
    Short,
    /// So it did, but assertions were minted meanwhile.
    Useful,
    /// It lived a while.
    Steady,
}

impl Life {
    /// Of one that has just ended, and minted so many meanwhile.
    pub fn of(lived: Duration, minted: u64) -> Life {
        match minted {
            _ if lived >= STEADY => Life::Steady,
            0 => Life::Short,
            _ => Life::Useful,
        }
    }
}

/// The pauses of one keystore.
pub struct Pauses {
    next: Duration,
    /// Short lives in a row, until now.
    pub short: u32,
}

impl Pauses {
    /// Before anything has ended.
    pub fn new() -> Pauses {
        Pauses {
            next: PAUSE.0,
            short: 0,
        }
    }

    /// The pause after a process: twice as long each time, and by up to a quarter shorter, so that
    /// keystores that fall together do not rise together.
    pub fn after(&mut self, life: Life, random: u8) -> Duration {
        let pause = match life {
            Life::Short => self.next,
            Life::Useful => self.next.min(QUICK_MAX),
            Life::Steady => PAUSE.0,
        };
        self.short = match life {
            Life::Short => self.short.saturating_add(1),
            Life::Useful | Life::Steady => 0,
        };
        self.next = (pause * 2).min(PAUSE.1);
        pause.mul_f64(1.0 - f64::from(random) / 255.0 / 4.0)
    }
}

/// What was said last.
#[derive(Default)]
pub struct Said(Option<(String, Instant)>);

impl Said {
    /// Whether to say this now. The same again is said rarely.
    pub fn is_news(&mut self, text: &str, now: Instant) -> bool {
        let is_old = self.0.as_ref().is_some_and(|(said, at)| {
            said == text && now.saturating_duration_since(*at) < SAID_AGAIN
        });
        if !is_old {
            self.0 = Some((text.to_owned(), now));
        }
        !is_old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_JITTER: u8 = 0;

    fn pauses(pauses: &mut Pauses, life: Life, count: usize) -> Vec<Duration> {
        let after = |_| pauses.after(life, NO_JITTER);
        (0..count).map(after).collect()
    }

    #[test]
    fn a_process_that_ends_at_each_start_is_started_ever_more_rarely() {
        let mut row = Pauses::new();
        let waits = pauses(&mut row, Life::Short, 20);
        assert_eq!(waits[0], PAUSE.0);
        assert!(waits[..4].iter().all(|wait| *wait <= QUICK_MAX));
        assert!(waits.windows(2).all(|two| two[1] >= two[0]), "{waits:?}");
        assert!(waits[9..].iter().all(|wait| *wait == PAUSE.1), "{waits:?}");
        assert_eq!(row.short, 20);
    }

    #[test]
    fn one_that_lived_a_while_is_back_at_once() {
        let mut row = Pauses::new();
        pauses(&mut row, Life::Short, 20);
        assert_eq!(row.after(Life::Steady, NO_JITTER), PAUSE.0);
        assert_eq!(row.short, 0);
        assert_eq!(row.after(Life::Short, NO_JITTER), PAUSE.0 * 2);
    }

    #[test]
    fn one_that_was_of_use_never_waits_long() {
        let mut row = Pauses::new();
        pauses(&mut row, Life::Short, 20);
        for wait in pauses(&mut row, Life::Useful, 50) {
            assert!(wait <= QUICK_MAX, "{wait:?}");
        }
        assert_eq!(row.short, 0);
    }

    #[test]
    fn a_life_is_told_by_its_length_and_its_use() {
        let soon = STEADY / 2;
        assert_eq!(Life::of(soon, 0), Life::Short);
        assert_eq!(Life::of(soon, 1), Life::Useful);
        assert_eq!(Life::of(STEADY, 0), Life::Steady);
    }

    #[test]
    fn jitter_makes_a_pause_shorter_by_a_quarter_at_most() {
        for random in [0, 1, 128, 255] {
            let mut row = Pauses::new();
            pauses(&mut row, Life::Short, 20);
            let wait = row.after(Life::Short, random);
            assert!(
                (PAUSE.1.mul_f64(0.74)..=PAUSE.1).contains(&wait),
                "{wait:?}"
            );
        }
    }

    #[test]
    fn the_same_sentence_is_said_once_and_then_rarely() {
        let (mut said, now) = (Said::default(), Instant::now());
        let said_of = |said: &mut Said, text| {
            let moments = (0..SAID_AGAIN.as_secs() * 3).map(|s| now + Duration::from_secs(s));
            moments.filter(|at| said.is_news(text, *at)).count()
        };
        assert_eq!(said_of(&mut said, "it is missing"), 3);
        assert!(said.is_news("it may not be run", now));
        assert!(said.is_news("it is missing", now), "another came between");
    }
}
