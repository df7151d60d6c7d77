//! What all statements of one TPM share: how often it had been reset, and which firmware it ran. Both are
//! signed, and true as they stand, since the attestation key is in the endorsement hierarchy ([`Check::AkHierarchy`]; TPM 2.0
//! Part 1 §36.7: in others they are blurred).

use super::Session;
use super::ak::Vetted;
use crate::evidence::attest::ClockInfo;
use crate::evidence::bundle::{Firmware, Text};
use crate::evidence::enrolment::registry::Counters;
use crate::evidence::policy::FirmwareRange;
use crate::evidence::verdict::{Check, Counted, Done, Finding, Report, both};
use crate::evidence::weak;

/// Of one statement whose signature is right.
#[derive(Clone, Copy)]
pub struct Stated {
    /// When.
    pub clock: ClockInfo,
    /// Of what.
    pub firmware: u64,
}

/// Compares the statements with each other, with what was accepted last, and with the policy.
pub fn compare(
    session: &Session<'_>,
    vetted: Done<&Vetted>,
    statements: Vec<Done<Stated>>,
    report: &mut Report,
) {
    let about = session.tpm.name.as_str();
    let statements: Done<Vec<Stated>> = statements.into_iter().collect();
    let statements = statements.as_deref().map_err(|it| *it);
    let all = both(vetted, statements);
    let counted = report.look(Check::Counters, about, all, |(vetted, all)| {
        counters(session, vetted, all)
    });
    if let Ok(counters) = counted {
        report.counted.push(Counted {
            keystore: about.to_owned(),
            counters,
        });
    }
    let _ = report.look(Check::Firmware, about, all, |(vetted, all)| {
        firmware(session, vetted, all)
    });
}

fn counters(session: &Session<'_>, vetted: &Vetted, all: &[Stated]) -> Finding<Counters> {
    let of = |it: &Stated| Counters {
        reset: it.clock.reset_count,
        restart: it.clock.restart_count,
    };
    let Some(found) = all.first().map(of) else {
        return Finding::Failed("the TPM has stated nothing: it may not even be there".into());
    };
    if all.iter().any(|it| of(it) != found) {
        return Finding::Failed("the statements were not made between two boots".into());
    }
    let by_policy = session.question.policy.host.get(&session.bundle.host);
    let last = vetted
        .enrolled
        .counters
        .max(by_policy.and_then(|it| it.counters));
    match last {
        Some(last) if found < last => Finding::Failed(format!(
            "the TPM was reset {} times and restarted {} times, and {} and {} were accepted before: \
             it was cleared or replaced (enrol it again), or this is an older state",
            found.reset, found.restart, last.reset, last.restart
        )),
        _ => Finding::Passed(found),
    }
}

fn firmware(session: &Session<'_>, vetted: &Vetted, all: &[Stated]) -> Finding<()> {
    let policy = &session.question.policy.firmware;
    let tpm = &session.tpm.tpm;
    let Some(found) = all.first().map(|it| Firmware(it.firmware)) else {
        return Finding::Skipped((), "the TPM has stated nothing".into());
    };
    if all.iter().any(|it| it.firmware != found.0) || found != tpm.firmware {
        let said = tpm.firmware;
        return Finding::Failed(format!(
            "it states firmware {found}, and the host says {said}"
        ));
    }
    // Whose it is stands in a certificate, shown now or when it was enrolled. What the host says is no maker: it would
    // name one that no list has. So nobody's version is another's.
    let recorded = vetted.enrolled.manufacturer.as_ref();
    let maker = vetted.manufacturer.as_ref().or(recorded);
    let maker = maker.map(Text::as_str);
    let shown = maker.unwrap_or("(by no certificate known whose)");
    let is_it = |range: &&FirmwareRange| range.contains(maker, found);
    if let Some(hole) = weak::known_hole(maker, found) {
        return Finding::Failed(format!("{shown} {found}: {hole}"));
    }
    if let Some(range) = policy.deny.iter().find(is_it) {
        let why = range.reason.as_deref().unwrap_or("the policy denies it");
        return Finding::Failed(format!("{shown} {found}: {why}"));
    }
    let is_allowed = maker.is_some() && policy.allow.iter().any(|it| is_it(&it));
    match policy.allow.is_empty() || is_allowed {
        true => Finding::Passed(()),
        false => Finding::Failed(format!("{shown} {found} is not one that the policy allows")),
    }
}
