//! Rates: how often one workload may ask, over all its processes, and how often one uid may be
//! denied. The generic cell rate algorithm: one number per name, no history. The clock is handed
//! in.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most names remembered; beyond, those that are at rest are forgotten. Names of workloads are
/// bounded by the configuration, uids by nothing.
const NAMES_MAX: usize = 65_536;

/// Whether a request may go on.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Go,
    /// Not before so long.
    Wait(Duration),
}

/// A limiter for names of one kind.
#[derive(Debug)]
pub struct Limiter<K> {
    /// When each name would be at rest again.
    rest_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Hash + Eq> Limiter<K> {
    /// A limiter that has seen nothing.
    pub fn new() -> Limiter<K> {
        Limiter {
            rest_at: Mutex::new(HashMap::new()),
        }
    }

    /// Counts one request of `name` at `now` against `rate_per_s` with room for `burst` at once.
    pub fn check(&self, name: K, rate_per_s: u32, burst: u32, now: Instant) -> Verdict {
        let interval = Duration::from_secs(1) / rate_per_s.max(1);
        let tolerance = interval * burst.saturating_sub(1);
        let mut names = self.rest_at.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES_MAX && !names.contains_key(&name) {
            names.retain(|_, rest_at| *rest_at > now);
            if names.len() >= NAMES_MAX {
                return Verdict::Wait(interval);
            }
        }
        let rest_at = names.entry(name).or_insert(now);
        // A reload may have made the rate higher or the burst smaller: old debt is none of theirs.
        *rest_at = (*rest_at).min(now + interval * burst.max(1));
        let ahead = rest_at.saturating_duration_since(now);
        if ahead > tolerance {
            return Verdict::Wait(ahead - tolerance);
        }
        *rest_at = now.max(*rest_at) + interval;
        Verdict::Go
    }
}

impl<K: Hash + Eq> Default for Limiter<K> {
    fn default() -> Limiter<K> {
        Limiter::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn debt_of_a_rate_that_was_changed_does_not_outlive_the_change() {
        let (limiter, start) = (Limiter::new(), Instant::now());
        for _ in 0..10_000 {
            assert_eq!(limiter.check("a", 1, 10_000, start), Verdict::Go);
        }
        let Verdict::Wait(wait) = limiter.check("a", 100, 200, start) else {
            panic!("it has asked 10,000 times just now");
        };
        assert_eq!(wait, Duration::from_millis(10));
        assert_eq!(limiter.check("a", 100, 200, start + wait), Verdict::Go);
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let (limiter, start) = (Limiter::new(), Instant::now());
        for _ in 0..5 {
            assert_eq!(limiter.check("a", 10, 5, start), Verdict::Go);
        }
        assert_eq!(
            limiter.check("a", 10, 5, start),
            Verdict::Wait(Duration::from_millis(100))
        );
        assert_eq!(limiter.check("b", 10, 5, start), Verdict::Go);
        let later = start + Duration::from_millis(100);
        assert_eq!(limiter.check("a", 10, 5, later), Verdict::Go);
        assert!(matches!(limiter.check("a", 10, 5, later), Verdict::Wait(_)));
    }

    proptest! {
        #[test]
        fn no_pattern_gets_more_than_burst_and_rate(
            steps in proptest::collection::vec(0u64..200, 1..300), rate in 1u32..50, burst in 1u32..20,
        ) {
            let (limiter, start) = (Limiter::new(), Instant::now());
            let (mut now, mut passed) = (start, 0u32);
            for step in steps {
                now += Duration::from_millis(step);
                passed += u32::from(limiter.check((), rate, burst, now) == Verdict::Go);
            }
            let most = f64::from(burst) + (now - start).as_secs_f64() * f64::from(rate) + 1.0;
            prop_assert!(f64::from(passed) <= most);
        }
    }
}
