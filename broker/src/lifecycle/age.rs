//! Time as the life of keys has it: seconds that have certainly passed, counted since the state
//! directory was made. It never runs faster than real time, so that no clock that is set wrongly
//! activates a key early or destroys one early (P10, reliability rows 32–35); it may stand still.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Seconds that have certainly passed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Age(u64);

/// Which boot of the machine (`/proc/sys/kernel/random/boot_id`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Boot(pub String);

/// Whether the wall clock is set by somebody who knows the time (adjtimex(2), `STA_UNSYNC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// It is.
    Synchronised,
    /// It is not, or nobody says so.
    Unknown,
}

/// All clocks at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Seconds since 1970.
    pub wall_s: u64,
    /// Seconds since boot, suspends included.
    pub boot_s: u64,
    /// Which boot.
    pub boot: Boot,
    /// What the wall clock is worth.
    pub sync: Sync,
}

/// How far the age had come at one moment. Written down with every change, so that the next boot can
/// go on from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The age then.
    pub age: Age,
    wall_s: u64,
    boot_s: u64,
    boot: Boot,
}

impl Age {
    /// So many seconds.
    pub const fn new(seconds: u64) -> Age {
        Age(seconds)
    }

    /// The number of seconds.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// So much later.
    pub const fn plus(self, seconds: u64) -> Age {
        Age(self.0.saturating_add(seconds))
    }

    /// When the second is over that this is cut to: what happened in it counts from there, or up to a second
    /// would be believed to have passed that has not.
    pub const fn over(self) -> Age {
        self.plus(1)
    }

    /// How long ago `earlier` was; 0 if it is not yet.
    pub const fn since(self, earlier: Age) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Mark {
    /// The first one of a state directory.
    pub fn first(now: &Reading) -> Mark {
        Mark {
            age: Age::default(),
            wall_s: now.wall_s,
            boot_s: now.boot_s,
            boot: now.boot.clone(),
        }
    }

    /// How far the age is now. Within one boot the boot clock alone counts, which nobody sets. Over a
    /// boot the time that the machine was off is believed of a wall clock that is synchronised; of
    /// another only the time since the boot counts.
    pub fn at(&self, now: &Reading) -> Mark {
        let passed_s = match self.boot == now.boot {
            true => now.boot_s.saturating_sub(self.boot_s),
            false => match now.sync {
                Sync::Synchronised => now.wall_s.saturating_sub(self.wall_s).max(now.boot_s),
                Sync::Unknown => now.boot_s,
            },
        };
        Mark {
            age: self.age.plus(passed_s),
            ..Mark::first(now)
        }
    }

    /// When it will be `age` by the wall clock as it was at this mark, in seconds since 1970; to be
    /// shown to people.
    pub fn wall_of(&self, age: Age) -> u64 {
        match age >= self.age {
            true => self.wall_s.saturating_add(age.since(self.age)),
            false => self.wall_s.saturating_sub(self.age.since(age)),
        }
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(boot: &str, boot_s: u64, wall_s: u64, sync: Sync) -> Reading {
        Reading {
            wall_s,
            boot_s,
            boot: Boot(boot.to_owned()),
            sync,
        }
    }

    #[test]
    fn within_a_boot_only_the_boot_clock_counts() {
        let mark = Mark::first(&reading("a", 100, 1_000_000, Sync::Synchronised));
        for wall_s in [0, 1_000_010, 999_999_999] {
            for sync in [Sync::Synchronised, Sync::Unknown] {
                let later = mark.at(&reading("a", 110, wall_s, sync));
                assert_eq!(later.age, Age::new(10));
            }
        }
    }

    #[test]
    fn over_a_boot_a_synchronised_clock_is_believed_and_no_other() {
        let mark = Mark::first(&reading("a", 100, 1_000_000, Sync::Synchronised));
        let age = |wall_s, sync| mark.at(&reading("b", 30, wall_s, sync)).age.seconds();
        assert_eq!(age(1_003_600, Sync::Synchronised), 3600);
        assert_eq!(age(1_003_600, Sync::Unknown), 30);
        assert_eq!(
            age(0, Sync::Synchronised),
            30,
            "the boot itself took so long"
        );
    }

    #[test]
    fn a_mark_shows_when_by_the_wall_clock() {
        let mark = Mark::first(&reading("a", 100, 1_000_000, Sync::Unknown));
        let mark = mark.at(&reading("a", 150, 1_000_050, Sync::Unknown));
        assert_eq!(mark.wall_of(Age::new(60)), 1_000_060);
        assert_eq!(mark.wall_of(Age::new(40)), 1_000_040);
    }

    proptest! {
        /// Whatever the clocks show, the age never runs back.
        #[test]
        fn it_never_runs_back(steps in proptest::collection::vec((0u8..3, any::<u64>(), any::<u64>(), any::<bool>()), 1..20)) {
            let mut mark = Mark::default();
            for (boot, boot_s, wall_s, sync) in steps {
                let sync = if sync { Sync::Synchronised } else { Sync::Unknown };
                let next = mark.at(&reading(&boot.to_string(), boot_s, wall_s, sync));
                prop_assert!(next.age >= mark.age);
                mark = next;
            }
        }
    }
}
