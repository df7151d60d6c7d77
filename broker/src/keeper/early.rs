//! By how much the next version of a key is begun before its period ends: hosts are not to begin all at once,
//! and a certificate is not to end before its version does.

use crate::app::App;
use crate::audit;
use crate::config::Kept;
use crate::keyring::Seen;
use crate::lifecycle::{Lineage, Phase};
use keystore::KeyName;

/// In seconds; of a key without a period it is nobody's matter.
pub fn early_s(app: &App, name: &KeyName, want: &Kept, lineage: &Lineage) -> u64 {
    let Some(period_s) = want.schedule.period_s else {
        return 0;
    };
    jitter_s(app, name, want, period_s).max(certificate_s(app, name, want, lineage, period_s))
}

/// Up to a tenth of the period, the same for one host and key for ever, so that ten thousand hosts are
/// spread over it.
fn jitter_s(app: &App, name: &KeyName, want: &Kept, period_s: u64) -> u64 {
    let schedule = &want.schedule;
    let busy_s = schedule.lead_s() + schedule.lag_s(schedule.lifetime_max_s);
    let range_s = (period_s / 10).min(period_s.saturating_sub(busy_s));
    let digest = audit::Sha256::of(format!("{}\n{name}", app.host).as_bytes());
    digest.first_bytes() % (range_s + 1)
}

/// The configuration demands certificates that outlive a period. One of an older configuration may not, nor
/// one whose version waited long until somebody activated it.
fn certificate_s(app: &App, name: &KeyName, want: &Kept, lineage: &Lineage, period_s: u64) -> u64 {
    let Some((version, active)) = lineage.active() else {
        return 0;
    };
    let Seen::Shown {
        certificate: Some(certificate),
        ..
    } = app.keyring.seen(&name.version(version))
    else {
        return 0;
    };
    let Phase::Active { since } = active.phase else {
        return 0;
    };
    let lag_s = want.schedule.lag_s(active.lifetime_max_s);
    let due_s = app.keyring.now().wall_of(since.plus(period_s));
    before_its_end(due_s, lag_s, certificate.validity().not_after)
}

/// The last that is signed when the period is over has to be good until `not_after`.
fn before_its_end(due_s: u64, lag_s: u64, not_after: u64) -> u64 {
    due_s.saturating_add(lag_s).saturating_sub(not_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_ends_before_its_certificate_and_no_earlier_than_it_has_to() {
        assert_eq!(before_its_end(1000, 100, 1100), 0);
        assert_eq!(before_its_end(1000, 100, 5000), 0);
        assert_eq!(before_its_end(1000, 100, 1099), 1);
        assert_eq!(before_its_end(1000, 100, 0), 1100);
        assert_eq!(before_its_end(u64::MAX, u64::MAX, 1), u64::MAX - 1);
    }
}
