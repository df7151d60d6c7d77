//! `rotation` of an issuer or of a target with a key of its own: when the key's versions follow each
//! other. What is not said is as the other side is: whoever fetches the set keeps it for a day, and whoever
//! is told by hand is told before.

use super::super::file::{Activated, RotationSection};
use super::*;
use crate::lifecycle::{Activation, Gate, Schedule};

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

/// Default for `period` where the set is read back: rotation that never runs is rotation that does not
/// work (standards §5.1).
const PERIOD_S: u64 = 90 * DAY_S;

/// Default for `publish_latency`, if the set is fetched.
const PUBLISH_S: u64 = 5 * MINUTE_S;

/// Default for `verifier_cache`: Entra keeps a set for so long, and of others it is not known.
const VERIFIER_CACHE_S: u64 = DAY_S;

/// Defaults for `skew`, `leeway` and `rollback`.
const SKEW_S: u64 = 2 * MINUTE_S;
const LEEWAY_S: u64 = 5 * MINUTE_S;
const ROLLBACK_S: u64 = DAY_S;

/// Longest time that may be written: ten years.
const LONGEST_S: u64 = 3653 * DAY_S;

/// How the other side learns of a version if nobody says so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It fetches the set; whether it is known what it would find is the gate's.
    Fetches(Gate),
    /// Somebody registers it there.
    ByHand,
}

/// The schedule of a key.
pub fn schedule(
    file: &File,
    section: Option<&Spanned<RotationSection>>,
    told: Told,
    lifetime_max_s: u32,
) -> Result<Schedule> {
    let none = RotationSection::default();
    let written = section.map_or(&none, Spanned::as_ref);
    let or = |key, value, default| span(file, key, value).map(|s| s.unwrap_or(default));
    let activation = match (&written.activation, told) {
        (Some(activated), _) => match activated.as_ref() {
            Activated::Time => Activation::ByTime,
            Activated::Hand => Activation::ByHand,
            Activated::Canary => Activation::ByCanary,
        },
        (None, Told::Fetches(_)) => Activation::ByTime,
        (None, Told::ByHand) => Activation::ByHand,
    };
    let gate = match told {
        Told::Fetches(gate) => gate,
        Told::ByHand => Gate::Written,
    };
    let period_s = match (span(file, "period", &written.period)?, gate) {
        (Some(period_s), _) => Some(period_s),
        (None, Gate::ReadBack) => Some(PERIOD_S),
        (None, Gate::Written) => None,
    };
    // Who is told by hand is told before it is said to be so.
    let (publish_s, cache_s) = match activation {
        Activation::ByTime => (PUBLISH_S, VERIFIER_CACHE_S),
        Activation::ByHand | Activation::ByCanary => (0, 0),
    };
    let schedule = Schedule {
        period_s,
        publish_s: or("publish_latency", &written.publish_latency, publish_s)?,
        verifier_cache_s: or("verifier_cache", &written.verifier_cache, cache_s)?,
        skew_s: or("skew", &written.skew, SKEW_S)?,
        leeway_s: or("leeway", &written.leeway, LEEWAY_S)?,
        rollback_s: or("rollback", &written.rollback, ROLLBACK_S)?,
        lifetime_max_s: lifetime_max_s.into(),
        activation,
        gate,
    };
    match (schedule.check(), section) {
        (Ok(()), _) => Ok(schedule),
        (Err(impossible), Some(section)) => {
            let at = written
                .period
                .as_ref()
                .map_or(section.span(), Spanned::span);
            file.error(at, format!("`rotation`: {impossible}"))
        }
        (Err(impossible), None) => unreachable!("the defaults go together: {impossible}"),
    }
}

/// A length of time: a number and its unit.
pub fn span(file: &File, key: &str, written: &Option<Spanned<String>>) -> Result<Option<u64>> {
    let Some(written) = written else {
        return Ok(None);
    };
    let text = written.as_ref();
    let seconds = seconds(text).filter(|seconds| *seconds <= LONGEST_S);
    match seconds {
        Some(0) if key == "period" => {
            let message = "`period` of 0: leave it out for a key that is rotated by hand";
            file.error(written.span(), message)
        }
        Some(seconds) => Ok(Some(seconds)),
        None => {
            let message = format!(
                "`{key}`: `{text}` is no length of time; write a number and one of s, m, h, d, such as \
                 \"90d\", 3653d at most"
            );
            file.error(written.span(), message)
        }
    }
}

fn seconds(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let number = &text[..text.len() - unit.len_utf8()];
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None; // no sign, no blank
    }
    let unit_s = match unit {
        's' => 1,
        'm' => MINUTE_S,
        'h' => HOUR_S,
        'd' => DAY_S,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_a_number_and_a_unit() {
        for (text, expected) in [("90d", 90 * DAY_S), ("0s", 0), ("5m", 300), ("24h", DAY_S)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "d",
            "90",
            "-1d",
            "+1d",
            "1 d",
            "1w",
            "1é",
            "99999999999999999999d",
            "1.5h",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
