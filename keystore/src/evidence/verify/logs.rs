//! Event log and IMA list (standards §4.5, 5 and 6): they are anybody's bytes, and count as far as they lead to the
//! values that were quoted.

use super::Session;
use crate::evidence::bundle::{Bank, PcrIndex, PcrValue, Pcrs};
use crate::evidence::eventlog::{EXPLAINED_MAX, Event, EventLog, SECURE_BOOT_PCR};
use crate::evidence::ima::{self, List, Replay};
use crate::evidence::policy::EventRule;
use crate::evidence::verdict::{Check, Done, Finding, Report, both};
use std::collections::BTreeSet;

/// Looks at both, with the values that were quoted.
pub fn logs(session: &Session<'_>, values: Done<&Pcrs>, report: &mut Report) {
    let about = session.tpm.name.as_str();
    let policy = session.question.policy;
    let wants = policy.event_log.wants();
    let bytes = session.bundle.event_log.as_ref().map(|it| it.as_slice());
    let log = report.look(Check::EventLog, about, values, |values| match bytes {
        Some(bytes) => match event_log(bytes, values) {
            Ok(log) => Finding::Passed(Some(log)),
            Err(reason) if policy.event_log.required || wants => Finding::Failed(reason),
            Err(reason) => Finding::Skipped(None, format!("the policy wants none; {reason}")),
        },
        None if policy.event_log.required => Finding::Failed("there is none".into()),
        None => Finding::Skipped(None, "there is none".into()),
    });
    let log = log.as_ref().map_err(|it| *it);
    let _ = report.look(
        Check::EventRules,
        about,
        both(values, log),
        |(values, log)| match (log, wants) {
            (_, false) => Finding::Skipped((), "the policy has none".into()),
            (None, true) => Finding::Failed("there is no event log to hold them against".into()),
            (Some(log), true) => Finding::of(rules(session, values, log)),
        },
    );
    let list = session.bundle.ima.as_ref().map(|it| it.as_slice());
    let _ = report.look(Check::Ima, about, values, |values| {
        let found = match list {
            Some(list) => ima(list, values),
            None => Err("there is no list".into()),
        };
        match found {
            Ok(()) => Finding::Passed(()),
            Err(reason) if policy.ima.required => Finding::Failed(reason),
            Err(reason) => Finding::Skipped((), format!("the policy wants none; {reason}")),
        }
    });
}

/// The banks that were quoted and prove something.
fn banks(values: &Pcrs) -> impl Iterator<Item = Bank> {
    values.keys().copied().filter(|bank| bank.is_strong())
}

fn event_log<'a>(bytes: &'a [u8], values: &Pcrs) -> Result<EventLog<'a>, String> {
    let log = EventLog::parse(bytes).map_err(|wrong| format!("it {wrong}"))?;
    for bank in banks(values) {
        let replayed = log.replay(bank);
        let replayed = replayed.map_err(|wrong| format!("it {wrong}"))?;
        for (pcr, quoted) in &values[&bank] {
            if pcr.number() > EXPLAINED_MAX {
                continue;
            }
            let begun = PcrValue::new(&log.beginning(*pcr, bank));
            if replayed.get(pcr).unwrap_or(&begun) != quoted {
                return Err(format!("it does not lead to PCR {pcr} of {bank}"));
            }
        }
        log.handover(bank)?;
    }
    Ok(log)
}

fn rules(session: &Session<'_>, values: &Pcrs, log: &EventLog<'_>) -> Result<(), String> {
    let policy = &session.question.policy.event_log;
    for bank in banks(values) {
        let is_quoted = |pcr: PcrIndex| {
            let is_explained = pcr.number() <= EXPLAINED_MAX;
            is_explained && values[&bank].contains_key(&pcr)
        };
        if let Some(wanted) = policy.secure_boot {
            let is_quoted = PcrIndex::new(SECURE_BOOT_PCR).is_some_and(is_quoted);
            match log.secure_boot(bank).filter(|_| is_quoted) {
                Some(found) if found == wanted => {}
                Some(true) => return Err("Secure Boot was on".into()),
                Some(false) => return Err("Secure Boot was off".into()),
                None => return Err("it is not shown whether Secure Boot was on (PCR 7)".into()),
            }
        }
        for rule in &policy.rule {
            if !is_quoted(rule.pcr) {
                let pcr = rule.pcr;
                return Err(format!(
                    "a rule is about PCR {pcr}, which no quote and log explain"
                ));
            }
            let is_meant = |event: &&Event<'_>| event.pcr == rule.pcr;
            let digests = log
                .events
                .iter()
                .filter(is_meant)
                .filter_map(|it| it.digest(bank));
            one_rule(rule, &digests.map(PcrValue::new).collect())?;
        }
    }
    Ok(())
}

fn one_rule(rule: &EventRule, found: &BTreeSet<PcrValue>) -> Result<(), String> {
    let pcr = rule.pcr;
    let (only, none) = (&rule.only, &rule.none);
    if let Some(other) = only.as_ref().and_then(|it| found.difference(it).next()) {
        return Err(format!(
            "PCR {pcr} was extended by {other}, which the policy does not know"
        ));
    }
    if let Some(denied) = none.as_ref().and_then(|it| found.intersection(it).next()) {
        return Err(format!(
            "PCR {pcr} was extended by {denied}, which the policy denies"
        ));
    }
    Ok(())
}

/// Whether the list, from its first entry on, leads to PCR 10, which the kernel alone extends: what an event log
/// says of it is nothing.
fn ima(list: &[u8], values: &Pcrs) -> Result<(), String> {
    let list = List::parse(list).map_err(|wrong| format!("the list {wrong}"))?;
    let mut looked = false;
    for bank in banks(values) {
        let pcr = PcrIndex::new(ima::PCR);
        let Some(quoted) = pcr.and_then(|pcr| values[&bank].get(&pcr)) else {
            continue;
        };
        looked = true;
        match list.replay(bank, &vec![0; bank.digest_len()], quoted) {
            Replay::Entries(0) => return Err("nothing of the list was measured: IMA is off".into()),
            Replay::Entries(_) => {}
            Replay::Violation(index) => {
                let entry = index + 1;
                return Err(format!("entry {entry} of the list is a violation"));
            }
            Replay::None => return Err(format!("the list does not lead to PCR 10 of {bank}")),
        }
    }
    if !looked {
        return Err("PCR 10 was not quoted, so that the list proves nothing".into());
    }
    match aggregate(&list, values) {
        Some(true) => Ok(()),
        Some(false) => Err("boot_aggregate is not of the PCRs that were quoted".into()),
        None => Err(
            "the list does not begin with a boot_aggregate of PCRs that were quoted (0 to 9): it may \
             be another boot's"
                .into(),
        ),
    }
}

/// Whether the list begins with the PCRs of this boot; none if not all of them were quoted.
fn aggregate(list: &List<'_>, values: &Pcrs) -> Option<bool> {
    let (bank, found) = list.boot_aggregate()?;
    let values = values.get(&bank)?;
    let parts: Option<Vec<&[u8]>> = ima::aggregated(bank)
        .map(|pcr| values.get(&pcr).map(PcrValue::as_slice))
        .collect();
    Some(bank.of(&parts?) == found)
}
