//! When a key's versions follow each other: the numbers of one key, and what follows from them
//! (standards §5.2). All in seconds.

use std::fmt;

/// How long after a version was retired a request that had begun before may still sign with it: the
/// deadline of a request (5 s), with as much again for one that has yet to be answered.
pub const IN_FLIGHT_S: u64 = 10;

/// Most versions of one key that a schedule may need at a time: of the keystore's eight one is left
/// for an emergency.
const VERSIONS_MAX: u64 = 7;

/// How a version gets from published to active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// When its time has come: whoever verifies fetches the set by itself.
    ByTime,
    /// By `assertctl keys activate`, once somebody has registered it at the other side.
    ByHand,
    /// By its canary: once the other side has shown that it knows it ([`super::Trial`]). No time is trusted.
    ByCanary,
}

/// What must be known before the time until activation begins to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// That the documents are written.
    Written,
    /// That the version was seen at the public URL (`verify_url`).
    ReadBack,
}

/// The numbers of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How long a version is active (τ); none: until somebody says `rotate`.
    pub period_s: Option<u64>,
    /// From writing the documents to seeing them everywhere (P).
    pub publish_s: u64,
    /// The longest that a verifier keeps a set (C).
    pub verifier_cache_s: u64,
    /// By how much clocks may differ (S).
    pub skew_s: u64,
    /// By how much verifiers accept what has expired (V).
    pub leeway_s: u64,
    /// For how long a version is kept after another took its place (R).
    pub rollback_s: u64,
    /// The longest lifetime of what is signed (L).
    pub lifetime_max_s: u64,
    /// Who says that a version becomes active.
    pub activation: Activation,
    /// From when on its lead counts.
    pub gate: Gate,
}

/// Numbers that cannot go together, with the arithmetic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible(String);

impl Schedule {
    /// From the publication of a version to its first signature: P + C + S.
    pub fn lead_s(&self) -> u64 {
        self.publish_s
            .saturating_add(self.verifier_cache_s)
            .saturating_add(self.skew_s)
    }

    /// From the last signature of a version, of this lifetime at most, until nobody can need its
    /// public key any more: L + S + V, and what was in flight.
    pub fn lag_s(&self, lifetime_max_s: u64) -> u64 {
        lifetime_max_s
            .saturating_add(self.skew_s)
            .saturating_add(self.leeway_s)
            .saturating_add(IN_FLIGHT_S)
    }

    /// Whether the numbers go together (standards §5.2).
    ///
    /// # Errors
    /// The arithmetic, in words.
    pub fn check(&self) -> Result<(), Impossible> {
        let Some(period_s) = self.period_s else {
            return Ok(());
        };
        let (lead_s, lag_s) = (self.lead_s(), self.lag_s(self.lifetime_max_s));
        let least_s = lead_s.saturating_add(lag_s);
        if period_s < least_s {
            return Err(Impossible(format!(
                "a period of {} is too short: a version is published {} before it signs \
                 (publish_latency {} + verifier_cache {} + skew {}) and stays published {} after \
                 (lifetime {} + skew {} + leeway {} + {} for requests in flight), which is {} together",
                Span(period_s),
                Span(lead_s),
                Span(self.publish_s),
                Span(self.verifier_cache_s),
                Span(self.skew_s),
                Span(lag_s),
                Span(self.lifetime_max_s),
                Span(self.skew_s),
                Span(self.leeway_s),
                Span(IN_FLIGHT_S),
                Span(least_s)
            )));
        }
        let kept_s = least_s.max(lead_s.saturating_add(self.rollback_s));
        let versions = 1 + kept_s.div_ceil(period_s.max(1));
        if versions > VERSIONS_MAX {
            return Err(Impossible(format!(
                "with a period of {} and a rollback of {} there would be {versions} versions of the \
                 key at a time, and {VERSIONS_MAX} is the most; a rollback of {} at most goes with \
                 that period",
                Span(period_s),
                Span(self.rollback_s),
                Span(
                    period_s
                        .saturating_mul(VERSIONS_MAX - 1)
                        .saturating_sub(lead_s)
                ),
            )));
        }
        Ok(())
    }
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A length of time as it is written in the configuration: in the largest unit that it is whole in.
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        match s {
            0 => f.write_str("0s"),
            _ if s.is_multiple_of(86_400) => write!(f, "{}d", s / 86_400),
            _ if s.is_multiple_of(3600) => write!(f, "{}h", s / 3600),
            _ if s.is_multiple_of(60) => write!(f, "{}m", s / 60),
            _ => write!(f, "{s}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of standards §5.2: an issuer's key with Entra and AWS.
    fn entra() -> Schedule {
        Schedule {
            period_s: Some(30 * 86_400),
            publish_s: 300,
            verifier_cache_s: 86_400,
            skew_s: 120,
            leeway_s: 300,
            rollback_s: 86_400,
            lifetime_max_s: 600,
            activation: Activation::ByTime,
            gate: Gate::Written,
        }
    }

    #[test]
    fn the_worked_example_comes_out() {
        assert_eq!(entra().lead_s(), 24 * 3600 + 7 * 60);
        assert_eq!(entra().lag_s(600), 17 * 60 + IN_FLIGHT_S);
        assert_eq!(entra().check(), Ok(()));
    }

    #[test]
    fn a_period_that_is_too_short_is_refused_with_the_arithmetic_and_the_least_is_not() {
        let mut schedule = entra();
        let least_s = schedule.lead_s() + schedule.lag_s(600);
        schedule.period_s = Some(least_s - 1);
        let refused = schedule.check().unwrap_err().to_string();
        assert!(refused.contains("verifier_cache 1d"), "{refused}");
        assert!(refused.contains("87850s together"), "{refused}");
        schedule.period_s = Some(least_s);
        assert_eq!(schedule.check(), Ok(()));
    }

    #[test]
    fn a_rollback_that_would_fill_the_token_is_refused_and_the_named_one_is_not() {
        let mut schedule = entra();
        schedule.rollback_s = 365 * 86_400;
        let refused = schedule.check().unwrap_err().to_string();
        assert!(refused.contains("14 versions"), "{refused}");
        schedule.rollback_s = 30 * 86_400 * 6 - schedule.lead_s();
        assert!(
            refused.contains(&Span(schedule.rollback_s).to_string()),
            "{refused}"
        );
        assert_eq!(schedule.check(), Ok(()));
    }

    #[test]
    fn numbers_of_any_size_do_not_overflow() {
        let most = Schedule {
            period_s: Some(u64::MAX),
            publish_s: u64::MAX,
            verifier_cache_s: u64::MAX,
            skew_s: u64::MAX,
            leeway_s: u64::MAX,
            rollback_s: u64::MAX,
            lifetime_max_s: u64::MAX,
            ..entra()
        };
        let _either = most.check();
        let _either = Schedule {
            period_s: Some(0),
            ..most
        }
        .check();
    }
}
