//! How often in a row the canary of a version was accepted, and when it goes again. Pure: the time is given.

use keystore::KeyVersion;
use std::time::{Duration, Instant};

/// So many in a row (standards §5.2): one may have met the one server of several that knows the key.
pub const NEEDED: u32 = 3;

/// The shortest time between two, whatever the span; and the longest after failures, unless the span wants more.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What is known of one version's canary since assertd started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    version: KeyVersion,
    passed: u32,
    /// When the first of them had passed.
    first: Option<Instant>,
    /// When the next one goes; none: now.
    due: Option<Instant>,
    /// The last pause after a failure.
    pause: Option<Duration>,
    why: Option<String>,
}

/// Whether it is enough.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// More have to pass.
    More,
    /// The version may be active.
    Enough,
}

impl Count {
    /// Of a version that was not tried yet.
    pub fn of(version: KeyVersion) -> Count {
        Count {
            version,
            passed: 0,
            first: None,
            due: None,
            pause: None,
            why: None,
        }
    }

    /// Whose canary it is.
    pub fn version(&self) -> KeyVersion {
        self.version
    }

    /// How many have passed in a row.
    pub fn passed(&self) -> u32 {
        self.passed
    }

    /// Why the last one has failed, if it has.
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// How long it is until the next one.
    pub fn wait(&self, now: Instant) -> Duration {
        self.due
            .map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// One was accepted, which had begun and was answered then.
    pub fn pass(&mut self, begun: Instant, answered: Instant, span: Duration) -> Standing {
        let first = *self.first.get_or_insert(answered);
        self.passed = self.passed.saturating_add(1);
        self.pause = None;
        self.why = None;
        self.due = Some(answered + pause(span));
        match self.passed >= NEEDED && begun.saturating_duration_since(first) >= span {
            true => Standing::Enough,
            false => Standing::More,
        }
    }

    /// One was not: the count begins anew. Whether that is news.
    pub fn fail(&mut self, now: Instant, span: Duration, why: String) -> bool {
        let is_news = self.why.as_ref() != Some(&why);
        let least = pause(span);
        let next = self.pause.map_or(least, |before| before * 2);
        let next = next.clamp(least, PAUSE_MAX.max(least));
        *self = Count {
            due: Some(now + next),
            pause: Some(next),
            why: Some(why),
            ..Count::of(self.version)
        };
        is_news
    }
}

/// From one to the next: the third is a span after the first.
fn pause(span: Duration) -> Duration {
    (span / (NEEDED - 1)).max(PAUSE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    fn count() -> Count {
        Count::of(KeyVersion::new(2).unwrap())
    }

    /// Tries as soon as it is due, and is answered a second later.
    fn pass(count: &mut Count, now: &mut Instant, span: Duration) -> Standing {
        *now += count.wait(*now);
        let begun = *now;
        *now += SECOND;
        count.pass(begun, *now, span)
    }

    #[test]
    fn three_in_a_row_over_a_span_are_enough() {
        for span in [SECOND, SECOND * 3, SPAN, SPAN * 60] {
            let (mut count, mut now) = (count(), Instant::now());
            assert_eq!(count.wait(now), Duration::ZERO);
            let begun = now;
            for _ in 1..NEEDED {
                assert_eq!(pass(&mut count, &mut now, span), Standing::More);
            }
            assert_eq!(pass(&mut count, &mut now, span), Standing::Enough);
            assert!(now - begun >= span, "{span:?}");
            assert!(now - begun <= span + SECOND * 5, "{span:?}");
        }
    }

    #[test]
    fn three_that_come_too_fast_are_not() {
        let (mut count, now) = (count(), Instant::now());
        for _ in 0..10 {
            assert_eq!(count.pass(now, now, SPAN), Standing::More);
        }
        let almost = now + SPAN - Duration::from_millis(1);
        assert_eq!(count.pass(almost, now + SPAN * 2, SPAN), Standing::More);
        assert_eq!(count.pass(now + SPAN, now + SPAN, SPAN), Standing::Enough);
    }

    #[test]
    fn a_failure_has_the_count_begin_anew() {
        let (mut count, mut now) = (count(), Instant::now());
        for _ in 1..NEEDED {
            let _more = pass(&mut count, &mut now, SPAN);
        }
        assert!(count.fail(now, SPAN, "no".to_owned()));
        assert_eq!((count.passed(), count.why()), (0, Some("no")));
        for _ in 1..NEEDED {
            assert_eq!(pass(&mut count, &mut now, SPAN), Standing::More);
            assert_eq!(count.why(), None);
        }
        assert_eq!(pass(&mut count, &mut now, SPAN), Standing::Enough);
    }

    #[test]
    fn who_refuses_is_asked_more_and_more_rarely_and_said_once() {
        let (mut count, mut now) = (count(), Instant::now());
        let mut waits = Vec::new();
        for at in 0..8 {
            assert_eq!(count.fail(now, SPAN, "no".to_owned()), at == 0);
            let wait = count.wait(now);
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [30, 60, 120, 240, 300, 300, 300, 300]);
        assert!(count.fail(now, SPAN, "never".to_owned()));
        let long = SPAN * 60;
        assert!(!count.fail(now, long, "never".to_owned()));
        assert_eq!(count.wait(now), long / 2, "no sooner than if it had passed");
        let _more = count.pass(now, now, SPAN);
        let _news = count.fail(now, SPAN, "no".to_owned());
        assert_eq!(count.wait(now), SPAN / 2, "and then from the beginning");
    }
}
