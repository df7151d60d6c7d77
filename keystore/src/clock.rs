//! Time, asked for in one place. Lifetimes are computed from the wall clock, which anybody may have
//! set wrongly; so it is held against the boot clock, which nobody sets and which counts suspends
//! (CLOCK_BOOTTIME, clock_gettime(2)). The two go at the same rate, and the difference between them
//! changes by a step of the wall clock alone.
//!
//! A clock that is before this program was built, that went back, or that went far ahead at once, is
//! not trusted: nothing is minted by it (P10). Nothing here waits, or decides what follows from that.

use crate::{Error, Kind};
use std::fmt;
use std::sync::{Mutex, PoisonError};
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

/// How far it may go ahead at once without being suspected: what an assertion for client
/// authentication lives, and less than verifiers allow clocks to differ. An assertion that was
/// minted then lives so much longer, once the clock is back.
pub const AHEAD_TOLERANCE_S: Seconds = 60;

/// How long a clock that went further ahead must have stayed there, by the boot clock, before it is
/// believed. A machine that was paused, or has no clock of its own and finds the time late, must come
/// to serve without anybody; a step that is taken back at once must not be minted by.
pub const SETTLED_S: Seconds = 60;

/// The wall clock with a memory of what it showed. One for each process: the memory is its use.
#[derive(Debug, Default)]
pub struct Clock {
    past: Mutex<Past>,
}

/// Why the wall clock is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is before [`EARLIEST_S`].
    Early {
        /// What it shows.
        now_s: Seconds,
    },
    /// It went back by more than [`BACKWARDS_TOLERANCE_S`].
    Back {
        /// By how much it is behind the latest time it showed.
        by_s: Seconds,
        /// That time.
        latest_s: Seconds,
    },
    /// It is behind the time that was trusted last before this process was started.
    Behind {
        /// By how much.
        by_s: Seconds,
        /// That time.
        minted_s: Seconds,
    },
    /// It went ahead by more than [`AHEAD_TOLERANCE_S`], and has not stayed there for [`SETTLED_S`].
    Ahead {
        /// By how much.
        by_s: Seconds,
        /// How long it has yet to stay there.
        left_s: Seconds,
    },
}

/// Both clocks at one moment.
#[derive(Clone, Copy)]
struct Reading {
    wall_ms: i64,
    boot_ms: i64,
}

/// What was believed so far. A *line* is the difference between wall clock and boot clock.
#[derive(Debug, Default)]
struct Past {
    /// What is known from before this process.
    minted_ms: Option<i64>,
    /// Until somebody has minted by it, a clock may be set wherever it belongs: a host may find the
    /// time late, and harms nobody.
    used: Used,
    believed: Option<Believed>,
    /// A line further ahead, and since when the clock is on it.
    ahead: Option<Ahead>,
    /// The line that was left for one ahead. A clock that comes back to it was wrong in between.
    left: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Used {
    #[default]
    NotYet,
    Yes,
}

/// What for the time is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Mint,
    Look,
}

#[derive(Clone, Copy, Debug)]
struct Believed {
    line_ms: i64,
    latest_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct Ahead {
    line_ms: i64,
    since_boot_ms: i64,
}

impl Clock {
    /// A clock that has shown nothing yet.
    pub fn new() -> Clock {
        Clock::default()
    }

    /// A clock that was trusted at this time, before this process was started.
    pub fn after(minted_s: Option<Seconds>) -> Clock {
        let minted_ms = minted_s.map(|seconds| ms(seconds.min(LATEST_S)));
        let past = Past {
            minted_ms,
            ..Past::default()
        };
        let past = Mutex::new(past);
        Clock { past }
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

    /// The time to mint by, if it can be trusted.
    ///
    /// # Errors
    /// [`Kind::Clock`] while there is a [`Doubt`].
    pub fn trusted(&self) -> Result<Time, Error> {
        match self.look(Use::Mint) {
            (now, None) => Ok(now),
            (_, Some(doubt)) => Err(Error::new(Kind::Clock, doubt.to_string())),
        }
    }

    /// What there is against it now, if anything. To be asked now and then when nothing is minted: a
    /// step that nobody saw is none.
    pub fn doubt(&self) -> Option<Doubt> {
        self.look(Use::Look).1
    }

    fn look(&self, what_for: Use) -> (Time, Option<Doubt>) {
        // Read while nobody else is remembered, so that times come in their order.
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let boot_ms = boot_ms();
        let now = self.read();
        let wall_ms = i64::try_from(now.unix_ms()).unwrap_or(i64::MAX);
        let verdict = past.judge(Reading { wall_ms, boot_ms });
        if verdict.is_ok() && what_for == Use::Mint {
            past.used = Used::Yes;
        }
        (now, verdict.err())
    }
}

/// Milliseconds since boot, suspends included. The call cannot fail on a Linux we run on (2.6.39).
fn boot_ms() -> i64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or(0, |now| now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000)
}

impl Reading {
    fn line_ms(self) -> i64 {
        self.wall_ms.saturating_sub(self.boot_ms)
    }
}

const BACKWARDS_TOLERANCE_MS: i64 = ms(BACKWARDS_TOLERANCE_S);

const fn ms(seconds: Seconds) -> i64 {
    seconds as i64 * 1000
}

/// No time that is read from a file makes the arithmetic overflow: the year 9999.
const LATEST_S: Seconds = 253_402_300_799;

/// Rounded up: no step is called one of 0 s.
fn seconds(ms: i64) -> Seconds {
    ms.unsigned_abs().div_ceil(1000)
}

impl Past {
    /// Believes a reading and remembers it, or says what is against it.
    fn judge(&mut self, now: Reading) -> Result<(), Doubt> {
        if now.wall_ms < ms(EARLIEST_S) {
            return Err(Doubt::Early {
                now_s: now.wall_ms.unsigned_abs() / 1000,
            });
        }
        let unseen_ms = self
            .minted_ms
            .map_or(0, |minted_ms| minted_ms - now.wall_ms);
        if unseen_ms > BACKWARDS_TOLERANCE_MS {
            return Err(Doubt::Behind {
                by_s: seconds(unseen_ms),
                minted_s: seconds(now.wall_ms + unseen_ms),
            });
        }
        self.minted_ms = None; // from here on there is a better memory
        let line_ms = now.line_ms();
        let on = |other_ms: i64| (line_ms - other_ms).abs() <= BACKWARDS_TOLERANCE_MS;
        let believed = self.believed.filter(|_| self.used == Used::Yes);
        let Some(believed) = believed else {
            self.believe(line_ms, now.wall_ms);
            return Ok(());
        };
        if self.left.is_some_and(on) {
            self.left = None;
            self.believe(line_ms, now.wall_ms);
            return Ok(());
        }
        let behind_ms = believed.latest_ms - now.wall_ms;
        if behind_ms > BACKWARDS_TOLERANCE_MS {
            self.ahead = None;
            return Err(Doubt::Back {
                by_s: seconds(behind_ms),
                latest_s: seconds(believed.latest_ms),
            });
        }
        let step_ms = line_ms - believed.line_ms;
        if step_ms <= ms(AHEAD_TOLERANCE_S) {
            self.believe(line_ms, now.wall_ms.max(believed.latest_ms));
            return Ok(());
        }
        let ahead = self.ahead.filter(|ahead| on(ahead.line_ms));
        let since_boot_ms = ahead.map_or(now.boot_ms, |ahead| ahead.since_boot_ms);
        let left_ms = since_boot_ms + ms(SETTLED_S) - now.boot_ms;
        if left_ms > 0 {
            self.ahead = Some(Ahead {
                line_ms,
                since_boot_ms,
            });
            return Err(Doubt::Ahead {
                by_s: seconds(step_ms),
                left_s: seconds(left_ms),
            });
        }
        self.left = Some(believed.line_ms);
        self.believe(line_ms, now.wall_ms);
        Ok(())
    }

    fn believe(&mut self, line_ms: i64, latest_ms: i64) {
        self.ahead = None;
        self.believed = Some(Believed { line_ms, latest_ms });
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Early { now_s } => write!(
                f,
                "clock: shows {now_s} s since 1970, which is before assertd was built; set the \
                 clock, for example by `timedatectl set-ntp true`"
            ),
            Doubt::Back { by_s, latest_s } => write!(
                f,
                "clock: went back {by_s} s; nothing is minted until it shows {latest_s} s since \
                 1970 again; correct the clock. If it is right now and was wrong before, restart assertd \
                 and its keystores; what was minted meanwhile may keep them waiting, and they say how \
                 to go on then"
            ),
            Doubt::Behind { by_s, minted_s } => write!(
                f,
                "clock: shows a time {by_s} s before the last assertion in the audit log; nothing \
                 is minted until it shows {minted_s} s since 1970; correct the clock, or, if it is \
                 right and was wrong then, stop assertd, move the audit log's directory away and \
                 start it again"
            ),
            Doubt::Ahead { by_s, left_s } => write!(
                f,
                "clock: went ahead {by_s} s at once; nothing is minted until it is back, or has \
                 stayed there for {left_s} s more; if that time is wrong, correct it before \
                 (`timedatectl` says who sets it)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock whose line is where a test puts it.
    struct World {
        past: Past,
        now: Reading,
    }

    const YEARS_10_S: i64 = 315_576_000;

    impl World {
        fn new() -> World {
            World {
                past: Past {
                    used: Used::Yes,
                    ..Past::default()
                },
                now: Reading {
                    wall_ms: ms(EARLIEST_S) + 1_000_000_000,
                    boot_ms: 5_000_000,
                },
            }
        }

        /// So many seconds go by.
        fn pass(&mut self, seconds: i64) -> &mut World {
            self.now.boot_ms += seconds * 1000;
            self.step(seconds)
        }

        /// Somebody sets the clock.
        fn step(&mut self, seconds: i64) -> &mut World {
            self.now.wall_ms += seconds * 1000;
            self
        }

        fn look(&mut self) -> Result<(), Doubt> {
            self.past.judge(self.now)
        }
    }

    #[test]
    fn a_clock_in_1970_mints_nothing_and_is_not_remembered() {
        let mut past = Past::default();
        let at = |s| Reading {
            wall_ms: ms(s),
            boot_ms: 1,
        };
        assert_eq!(past.judge(at(0)), Err(Doubt::Early { now_s: 0 }));
        assert!(past.judge(at(EARLIEST_S - 1)).is_err());
        assert_eq!(past.judge(at(EARLIEST_S)), Ok(()));
        assert!(past.judge(at(7)).is_err());
        assert_eq!(past.judge(at(EARLIEST_S)), Ok(()));
    }

    #[test]
    fn a_clock_that_went_back_mints_nothing_beyond_the_tolerance_until_it_is_there_again() {
        let mut world = World::new();
        assert_eq!(world.look(), Ok(()));
        assert_eq!(world.step(-2).look(), Ok(()));
        // Two steps of two seconds are one of four.
        let latest_s = seconds(world.now.wall_ms) + 2;
        let back = |by_s| Err(Doubt::Back { by_s, latest_s });
        assert_eq!(world.step(-1).look(), back(3));
        assert_eq!(world.step(-3597).look(), back(3600));
        assert_eq!(world.pass(3597).look(), back(3));
        assert_eq!(world.pass(1).look(), Ok(()));
        assert_eq!(
            world.step(-YEARS_10_S).look(),
            Err(Doubt::Early {
                now_s: seconds(world.now.wall_ms)
            })
        );
        assert_eq!(world.step(YEARS_10_S).look(), Ok(()));
    }

    #[test]
    fn a_clock_that_went_far_ahead_mints_nothing_until_it_is_back() {
        let mut world = World::new();
        assert_eq!(world.look(), Ok(()));
        assert_eq!(world.step(60).look(), Ok(()));
        for step in [61, YEARS_10_S] {
            let by_s = step.unsigned_abs();
            assert_eq!(
                world.step(step).look(),
                Err(Doubt::Ahead { by_s, left_s: 60 })
            );
            assert_eq!(world.pass(59).look(), Err(Doubt::Ahead { by_s, left_s: 1 }));
            assert_eq!(world.step(-step).look(), Ok(()));
        }
    }

    #[test]
    fn a_clock_that_stays_ahead_is_believed_and_may_come_back_once() {
        let mut world = World::new();
        assert_eq!(world.look(), Ok(()));
        assert!(world.step(YEARS_10_S).look().is_err());
        // One that goes on stepping has stayed nowhere.
        assert!(world.pass(59).step(3600).look().is_err());
        assert!(world.pass(59).look().is_err());
        assert_eq!(world.pass(1).look(), Ok(()));
        assert_eq!(world.pass(1000).look(), Ok(()));
        assert_eq!(world.step(-YEARS_10_S - 3600).look(), Ok(()));
        assert_eq!(world.pass(1).look(), Ok(()));
        assert!(world.step(-3600).look().is_err());
    }

    #[test]
    fn a_clock_behind_the_last_assertion_mints_nothing_until_it_has_caught_up() {
        let mut world = World::new();
        let minted_s = seconds(world.now.wall_ms) + 100;
        world.past.minted_ms = Some(ms(minted_s));
        let behind = |by_s| Err(Doubt::Behind { by_s, minted_s });
        assert_eq!(world.look(), behind(100));
        assert_eq!(world.pass(97).look(), behind(3));
        assert_eq!(world.pass(1).look(), Ok(()));
        assert_eq!(world.step(-1).look(), Ok(()));
        // A step ahead from there is none that anybody could have seen.
        let mut world = World::new();
        world.past.minted_ms = Some(ms(minted_s));
        assert_eq!(world.look(), behind(100));
        assert_eq!(world.step(YEARS_10_S).look(), Ok(()));
    }

    #[test]
    fn a_time_in_a_file_that_is_none_stops_nothing_else() {
        let clock = Clock::after(Some(Seconds::MAX));
        assert!(matches!(clock.doubt(), Some(Doubt::Behind { .. })));
        assert_eq!(Clock::after(None).doubt(), None);
        assert_eq!(Clock::after(Some(0)).doubt(), None);
    }

    #[test]
    fn a_clock_that_nobody_has_minted_by_may_be_set_anywhere() {
        let mut world = World::new();
        world.past.used = Used::NotYet;
        assert_eq!(world.look(), Ok(()));
        assert_eq!(world.step(YEARS_10_S).look(), Ok(()));
        assert_eq!(world.step(-YEARS_10_S - 3600).look(), Ok(()));
        world.past.used = Used::Yes;
        assert!(world.step(61).look().is_err());
        assert_eq!(world.step(-61).look(), Ok(()));
        assert!(world.step(-3).look().is_err());
    }

    #[test]
    fn to_look_is_not_to_mint() {
        let clock = Clock::new();
        assert_eq!(clock.doubt(), None);
        let used = || clock.past.lock().unwrap().used;
        assert_eq!(used(), Used::NotYet);
        clock.trusted().unwrap();
        assert_eq!(used(), Used::Yes);
    }

    #[test]
    fn a_suspend_is_no_step() {
        let mut world = World::new();
        assert_eq!(world.look(), Ok(()));
        assert_eq!(world.pass(8 * 3600).look(), Ok(()));
        assert_eq!(world.pass(YEARS_10_S).look(), Ok(()));
    }

    #[test]
    fn a_step_back_that_shows_no_earlier_time_is_believed() {
        let mut world = World::new();
        assert_eq!(world.look(), Ok(()));
        assert_eq!(world.pass(7200).step(-3600).look(), Ok(()));
    }
}
