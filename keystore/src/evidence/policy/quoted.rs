//! `[quote]`, `[event_log]` and `[ima]`: in which state a host has to have been when its TPM stated the rest. What no state
//! could break is a mistake, and so is what none could meet.

use crate::evidence::bundle::{Bank, PcrIndex, PcrValue, Selection};
use crate::evidence::eventlog::{EXPLAINED_MAX, SECURE_BOOT_PCR};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// `[quote]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotePolicy {
    /// Exactly these must be quoted.
    pub select: Selection,
    /// Any state will do: what was quoted is only shown.
    #[serde(default)]
    pub any: bool,
    /// What they may be; those that are not here may be anything.
    #[serde(default)]
    pub values: BTreeMap<Bank, BTreeMap<PcrIndex, BTreeSet<PcrValue>>>,
}

/// `[event_log]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventLogPolicy {
    /// Whether there has to be one.
    #[serde(default)]
    pub required: bool,
    /// Whether Secure Boot has to have been on, or off.
    pub secure_boot: Option<bool>,
    /// What its events have to be.
    #[serde(default)]
    pub rule: Vec<EventRule>,
}

/// `[[event_log.rule]]`: about all events of a PCR. That there is one of some digest says nothing: PCRs can be extended by
/// whoever has the host, later as well.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventRule {
    /// Events of this PCR, whatever type they are said to be: the type is in nothing that is measured.
    pub pcr: PcrIndex,
    /// Each has one of these digests.
    pub only: Option<BTreeSet<PcrValue>>,
    /// None has one of these digests.
    pub none: Option<BTreeSet<PcrValue>>,
}

/// `[ima]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImaPolicy {
    /// Whether there has to be a list.
    #[serde(default)]
    pub required: bool,
}

impl QuotePolicy {
    /// The banks of which PCRs are selected.
    pub fn banks(&self) -> impl Iterator<Item = Bank> {
        let selected = self.select.iter().filter(|(_, of)| !of.is_empty());
        selected.map(|(bank, _)| *bank)
    }

    fn is_selected(&self, bank: Bank, pcr: PcrIndex) -> bool {
        self.select.get(&bank).is_some_and(|it| it.contains(&pcr))
    }

    /// Whether it means something, with what is wanted of the log.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn check(&self, log: &EventLogPolicy) -> Result<(), String> {
        if self.banks().next().is_none() {
            return Err("[quote] select names no PCR".into());
        }
        if self.select.contains_key(&Bank::Sha1) {
            let text =
                "[quote] select: the SHA-1 bank proves nothing; write sha256 or sha384".into();
            return Err(text);
        }
        let knows = self.values.values().any(|it| !it.is_empty());
        if !knows && !log.wants() && !self.any {
            return Err(
                "[quote] selects PCRs and wants nothing of them: give [quote.values.sha256], [event_log] \
                 secure_boot or rules, or say any = true if every state will do"
                    .into(),
            );
        }
        for (bank, values) in &self.values {
            if let Some(pcr) = values.keys().find(|pcr| !self.is_selected(*bank, **pcr)) {
                return Err(format!(
                    "[quote] values: PCR {pcr} of {bank} is not selected"
                ));
            }
            let pairs = values
                .iter()
                .flat_map(|(pcr, of)| of.iter().map(move |it| (pcr, it)));
            if let Some((pcr, other)) = pairs.into_iter().find(|(_, it)| !is_of(*bank, it)) {
                return Err(format!(
                    "[quote] values: {other} of PCR {pcr} is not as long as a digest of {bank}"
                ));
            }
        }
        if let (Some(_), Some(pcr)) = (log.secure_boot, PcrIndex::new(SECURE_BOOT_PCR)) {
            let explained = self.explains(pcr);
            explained.map_err(|why| format!("[event_log] secure_boot: {why}"))?;
        }
        log.rule.iter().try_for_each(|rule| {
            let pcr = rule.pcr;
            let checked = rule.check(self);
            checked.map_err(|why| format!("[[event_log.rule]] of PCR {pcr}: {why}"))
        })
    }

    /// Whether a log can be held against what is quoted of this PCR, in each bank.
    fn explains(&self, pcr: PcrIndex) -> Result<(), String> {
        if pcr.number() > EXPLAINED_MAX {
            return Err(format!(
                "the log explains PCRs 0 to {EXPLAINED_MAX}: others the running system extends as well"
            ));
        }
        match self.banks().find(|bank| !self.is_selected(*bank, pcr)) {
            None => Ok(()),
            Some(bank) => Err(format!("PCR {pcr} of {bank} is not selected")),
        }
    }
}

impl EventLogPolicy {
    /// Whether it wants something of the events, so that there has to be a log.
    pub fn wants(&self) -> bool {
        self.secure_boot.is_some() || !self.rule.is_empty()
    }
}

impl EventRule {
    /// Whether some log breaks it, in each bank that is selected: a digest of another hash is that of no event.
    fn check(&self, quote: &QuotePolicy) -> Result<(), String> {
        if self.only.is_none() && self.none.as_ref().is_none_or(BTreeSet::is_empty) {
            return Err("it wants nothing; give `only`, or `none` with digests".into());
        }
        quote.explains(self.pcr)?;
        for (name, digests) in [("only", &self.only), ("none", &self.none)] {
            let Some(digests) = digests.as_ref().filter(|it| !it.is_empty()) else {
                continue;
            };
            let is_known = |it: &&PcrValue| quote.banks().any(|bank| is_of(bank, it));
            if let Some(other) = digests.iter().find(|it| !is_known(it)) {
                return Err(format!(
                    "`{name}` has {other}, which is as long as no digest of a bank that is selected"
                ));
            }
            let has_one = |bank: Bank| digests.iter().any(|it| is_of(bank, it));
            if let Some(bank) = quote.banks().find(|bank| !has_one(*bank)) {
                return Err(format!(
                    "`{name}` has no digest of {bank}, which is selected"
                ));
            }
        }
        Ok(())
    }
}

fn is_of(bank: Bank, digest: &PcrValue) -> bool {
    digest.as_slice().len() == bank.digest_len()
}
