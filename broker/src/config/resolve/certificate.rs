//! `certificate` of a target whose profile has certificates: how long they are valid. A certificate is its
//! version's for as long as that is used, since another one would be another `x5t#S256` that nobody has
//! registered; so one that ends before its version does is refused here, with the arithmetic.

use super::super::file::CertificateSection;
use super::rotation::span;
use super::*;
use crate::lifecycle::{IN_FLIGHT_S, Schedule, Span};
use keystore::certificate::LIFE_MAX_S;

const DAY_S: u64 = 86_400;

/// Default for `validity`, in seconds: a year, which is what portals suggest at most.
const VALIDITY_S: u64 = 365 * DAY_S;

/// Seconds that each certificate of a key with this schedule is valid. What is wrong is said of `place`, if
/// it is written nowhere.
pub fn validity_s(
    file: &File,
    section: Option<&Spanned<CertificateSection>>,
    schedule: &Schedule,
    place: Range<usize>,
) -> Result<u64> {
    let written = section.and_then(|section| section.as_ref().validity.as_ref());
    let validity_s = match written {
        Some(written) => span(file, "validity", &Some(written.clone()))?.unwrap_or(VALIDITY_S),
        None => VALIDITY_S,
    };
    let at = written.map_or(place, Spanned::span);
    if validity_s == 0 || validity_s > LIFE_MAX_S {
        let message = format!(
            "`validity` of {}: a certificate is valid for {} at most, and for some time",
            Span(validity_s),
            Span(LIFE_MAX_S)
        );
        return file.error(at, message);
    }
    match too_short(validity_s, schedule) {
        None => Ok(validity_s),
        Some(why) => file.error(at, format!("`certificate`: {why}")),
    }
}

/// Why a version may be in use when its certificate has ended. How long an operator takes to activate one
/// is nobody's number, and comes on top.
fn too_short(validity_s: u64, schedule: &Schedule) -> Option<String> {
    let period_s = schedule.period_s?;
    let (lead_s, lag_s) = (schedule.lead_s(), schedule.lag_s(schedule.lifetime_max_s));
    let least_s = lead_s.saturating_add(period_s).saturating_add(lag_s);
    if validity_s >= least_s {
        return None;
    }
    let remedy = match least_s {
        ..=LIFE_MAX_S => format!("write validity = \"{}d\" at least", least_s.div_ceil(DAY_S)),
        _ => format!(
            "no certificate is valid for longer than {}: write a shorter period",
            Span(LIFE_MAX_S)
        ),
    };
    Some(format!(
        "a validity of {} is too short: a version has its certificate {} before it signs (publish_latency \
         {} + verifier_cache {} + skew {}), signs for {} (period), and what it signed last is valid for {} \
         after (lifetime {} + skew {} + leeway {} + {} for requests in flight), which is {} together; {remedy}",
        Span(validity_s),
        Span(lead_s),
        Span(schedule.publish_s),
        Span(schedule.verifier_cache_s),
        Span(schedule.skew_s),
        Span(period_s),
        Span(lag_s),
        Span(schedule.lifetime_max_s),
        Span(schedule.skew_s),
        Span(schedule.leeway_s),
        Span(IN_FLIGHT_S),
        Span(least_s)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Activation, Gate};

    #[test]
    fn a_certificate_that_ends_a_second_early_is_refused() {
        let mut schedule = Schedule {
            period_s: Some(90 * DAY_S),
            publish_s: 0,
            verifier_cache_s: 0,
            skew_s: 120,
            leeway_s: 300,
            rollback_s: 0,
            lifetime_max_s: 60,
            activation: Activation::ByHand,
            gate: Gate::Written,
        };
        let least_s = 120 + 90 * DAY_S + 60 + 120 + 300 + IN_FLIGHT_S;
        assert_eq!(too_short(least_s, &schedule), None);
        let why = too_short(least_s - 1, &schedule).unwrap();
        let end = format!("which is {least_s}s together; write validity = \"91d\" at least");
        assert!(why.contains("(period)") && why.ends_with(&end), "{why}");
        schedule.period_s = Some(LIFE_MAX_S);
        let why = too_short(LIFE_MAX_S, &schedule).unwrap();
        assert!(why.ends_with("write a shorter period"), "{why}");
        schedule.period_s = None;
        assert_eq!(too_short(1, &schedule), None);
    }
}
