//! Time, asked for in one place. Lifetimes are computed from the wall clock; a clock that is
//! before this program was built, or before the last time it showed, is not trusted (P10).

use crate::{Error, Kind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z, as in a JWT NumericDate (RFC 7519 §2), always an integer.
pub type Seconds = u64;

/// A moment of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Duration);

impl Time {
    /// From whole seconds since the epoch.
    pub fn from_unix_s(seconds: Seconds) -> Time {
        Time(Duration::from_secs(seconds))
    }

    /// Whole seconds since the epoch.
    pub fn unix_s(self) -> Seconds {
        self.0.as_secs()
    }

    /// Whole milliseconds since the epoch.
    pub fn unix_ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// No clock in use by us can be before this: 2026-11-01. A host without a real-time clock starts
/// in 1970 and jumps; it must not mint before the jump.
pub const EARLIEST_S: Seconds = 1_793_491_200;

/// How far the wall clock may go back without being suspected: NTP steps of a second are normal.
pub const BACKWARDS_TOLERANCE_S: Seconds = 2;

/// The wall clock with a memory of the latest time it showed.
#[derive(Debug, Default)]
pub struct Clock {
    latest_s: AtomicU64,
}

impl Clock {
    /// A clock that has shown nothing yet.
    pub fn new() -> Clock {
        Clock::default()
    }

    /// The time, whatever it is worth; for records and logs.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the wall clock"
    )]
    pub fn read(&self) -> Time {
        Time(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or(Duration::ZERO),
        )
    }

    /// The time, if it can be trusted for minting.
    ///
    /// # Errors
    /// [`Kind::Clock`] if it is before [`EARLIEST_S`] or went back by more than
    /// [`BACKWARDS_TOLERANCE_S`].
    pub fn trusted(&self) -> Result<Time, Error> {
        let now = self.read();
        let latest = self.latest_s.fetch_max(now.unix_s(), Ordering::Relaxed);
        judge(now.unix_s(), latest)?;
        Ok(now)
    }
}

fn judge(now: Seconds, latest: Seconds) -> Result<(), Error> {
    if now < EARLIEST_S {
        return Err(Error::new(
            Kind::Clock,
            format!(
                "clock: shows {now} s since 1970, which is before assertd was built; set the \
                     clock, for example by `timedatectl set-ntp true`"
            ),
        ));
    }
    if now + BACKWARDS_TOLERANCE_S < latest {
        return Err(Error::new(
            Kind::Clock,
            format!(
                "clock: went back {} s; nothing is minted until it shows {latest} s since \
                     1970 again; correct the clock or restart assertd and its keystores once it is right",
                latest - now
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_1970_mints_nothing() {
        assert_eq!(judge(0, 0).unwrap_err().kind(), Kind::Clock);
        assert_eq!(judge(EARLIEST_S - 1, 0).unwrap_err().kind(), Kind::Clock);
        assert!(judge(EARLIEST_S, 0).is_ok());
    }

    #[test]
    fn a_clock_that_went_back_mints_nothing_beyond_the_tolerance() {
        let latest = EARLIEST_S + 1_000;
        assert!(judge(latest - BACKWARDS_TOLERANCE_S, latest).is_ok());
        assert_eq!(
            judge(latest - BACKWARDS_TOLERANCE_S - 1, latest)
                .unwrap_err()
                .kind(),
            Kind::Clock
        );
    }
}
