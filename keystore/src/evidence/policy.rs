//! What a relying party wants of evidence (`policy.toml`): which roots, which hosts, which state. Strict, as
//! all our configuration is: a rule that is not understood would be one that is not enforced.

use super::bundle::{Bank, Firmware, Host, PcrIndex, PcrValue, PolicyStep, Selection};
use super::enrolment::registry::{Counters, EkFingerprint};
use super::healthy::{AuthorityName, Generation, State};
use crate::config::Diagnostic;
use crate::protocol::EvidenceLevel;
use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest policy in bytes: ten thousand hosts fit.
pub const POLICY_LEN_MAX: usize = 16 * 1024 * 1024;

/// Default of `max_age_s`: standards §4.4.
pub const MAX_AGE_S: u64 = 300;

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// How well every key must be proven.
    pub minimum: EvidenceLevel,
    /// Keys that existed outside.
    #[serde(default)]
    pub imported: Imported,
    /// How old evidence may be, by the host's clock, in seconds.
    #[serde(default = "max_age_s")]
    pub max_age_s: u64,
    /// Endorsement keys.
    #[serde(default)]
    pub ek: EkPolicy,
    /// What `assertctl enroll finish` has recorded: a path, from the policy's directory.
    pub registry: Option<PathBuf>,
    /// What is known of hosts besides.
    #[serde(default)]
    pub host: BTreeMap<Host, HostPolicy>,
    /// TPMs' firmware.
    #[serde(default)]
    pub firmware: FirmwarePolicy,
    /// In which states of their hosts keys sign; none: in any.
    pub healthy: Option<HealthyPolicy>,
    /// The state of hosts.
    pub quote: Option<QuotePolicy>,
    /// What the firmware measured.
    #[serde(default)]
    pub event_log: EventLogPolicy,
    /// What the kernel measured.
    #[serde(default)]
    pub ima: ImaPolicy,
}

/// Whether a key may have existed outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Imported {
    /// It must not.
    #[default]
    Refuse,
    /// It may; it is not held to `minimum` then, which it cannot reach.
    Allow,
}

/// `[ek]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EkPolicy {
    /// Files (PEM) with the roots that are trusted, from the policy's directory.
    #[serde(default)]
    pub roots: Vec<PathBuf>,
    /// Whether there has to be a certificate.
    #[serde(default)]
    pub certificate: Certificates,
    /// Who may be enrolled.
    #[serde(default)]
    pub enroll: Enroll,
}

/// Whose TPM is challenged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enroll {
    /// One that a list of approved TPMs or `[host.NAME]` has.
    #[default]
    Approved,
    /// Also any other with a certificate that is trusted, as whatever host that is not enrolled yet: who has a
    /// genuine TPM chooses his name.
    AnyCertified,
}

/// Whether an endorsement key has to have a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certificates {
    /// It has to: its maker's word that there is a TPM around it.
    #[default]
    Required,
    /// Who has recorded its fingerprint knows it; one that is there is checked all the same, if there are roots.
    Optional,
}

/// `[host.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPolicy {
    /// The endorsement keys that are its own.
    #[serde(default)]
    pub ek: BTreeSet<EkFingerprint>,
    /// What its TPM has counted to at least.
    pub counters: Option<Counters>,
}

/// `[firmware]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwarePolicy {
    /// If there are any, it must be one of these.
    #[serde(default)]
    pub allow: Vec<FirmwareRange>,
    /// It must be none of these.
    #[serde(default)]
    pub deny: Vec<FirmwareRange>,
}

/// Versions of one maker's firmware, both ends among them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareRange {
    /// As certificates name it: `IFX`
    pub manufacturer: String,
    /// None: from the first on.
    pub from: Option<Firmware>,
    /// None: to the last.
    pub to: Option<Firmware>,
    /// Why.
    pub reason: Option<String>,
}

/// `[healthy]`: each key signs only while its host is in one of these states, or in one that one of these
/// authorities has approved. Its TPM sees to that, later than any quote.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthyPolicy {
    /// Who may approve states.
    #[serde(default)]
    pub authorities: BTreeSet<AuthorityName>,
    /// Whose approvals: those of these generations.
    #[serde(default = "first_generation")]
    pub generations: BTreeSet<Generation>,
    /// The states, of bank sha256.
    #[serde(default)]
    pub state: Vec<State>,
}

impl HealthyPolicy {
    /// Whether what a key's policy begins with is wanted.
    pub fn wants(&self, step: &PolicyStep) -> bool {
        match step {
            PolicyStep::Authorize {
                authority,
                reference,
            } => {
                let is_its = |it: &Generation| it.reference() == reference.as_slice();
                let name = AuthorityName::of(authority.as_slice());
                name.is_some_and(|name| self.authorities.contains(&name))
                    && self.generations.iter().any(is_its)
            }
            PolicyStep::Pcr { .. } => self.state.iter().any(|state| state.step() == *step),
            PolicyStep::AuthValue {} => false,
        }
    }
}

fn first_generation() -> BTreeSet<Generation> {
    [Generation::FIRST].into()
}

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

/// `[[event_log.rule]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventRule {
    /// Events of this PCR, whatever type they are said to be: the type is in nothing that is measured.
    pub pcr: PcrIndex,
    /// Each has one of these digests.
    pub only: Option<BTreeSet<PcrValue>>,
    /// One of them has one of these digests.
    pub some: Option<BTreeSet<PcrValue>>,
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

impl Policy {
    /// Reads one; `path` is what a mistake is shown with.
    ///
    /// # Errors
    /// The mistake, with its line.
    pub fn parse(path: &Path, text: &str) -> Result<Policy, Diagnostic> {
        let wrong = |message: &str| Err(Diagnostic::file(path, message));
        if text.len() > POLICY_LEN_MAX {
            return wrong(&format!("a policy has {POLICY_LEN_MAX} bytes at most"));
        }
        let policy: Policy =
            toml::from_str(text).map_err(|error| Diagnostic::from_toml(path, text, &error))?;
        if policy.ek.certificate == Certificates::Required
            && policy.ek.roots.is_empty()
            && policy.minimum > EvidenceLevel::Asserted
        {
            return wrong(
                "[ek] roots is missing: name the files with the roots of your TPMs' makers, or say \
                 certificate = \"optional\" if the fingerprints of your endorsement keys come from \
                 where you trust them",
            );
        }
        if let Some(healthy) = &policy.healthy {
            if healthy.authorities.is_empty() && healthy.state.is_empty() {
                return wrong(
                    "[healthy] names neither authorities nor a state: no key could be in order; name who \
                     approves states, or write [[healthy.state]] with the values of PCRs",
                );
            }
            if policy.minimum < EvidenceLevel::TpmCertified {
                return wrong("[healthy] is of keys in a TPM: write minimum = \"tpm-certified\"");
            }
        }
        if policy.ek.enroll == Enroll::AnyCertified && policy.ek.roots.is_empty() {
            return wrong(
                "[ek] enroll = \"any-certified\" needs roots, by which a TPM is certified",
            );
        }
        let mut hosts = BTreeMap::new();
        for (host, ek) in policy
            .host
            .iter()
            .flat_map(|(host, it)| it.ek.iter().map(move |ek| (host, ek)))
        {
            if let Some(other) = hosts.insert(ek, host) {
                return wrong(&format!("[host] {other} and {host} have one TPM ({ek})"));
            }
        }
        if let Some(quote) = &policy.quote {
            if quote.select.values().all(BTreeSet::is_empty) {
                return wrong("[quote] select names no PCR");
            }
            let log = &policy.event_log;
            let wants = log.secure_boot.is_some() || !log.rule.is_empty();
            let knows = quote.values.values().any(|it| !it.is_empty());
            if !knows && !wants && !quote.any {
                return wrong(
                    "[quote] selects PCRs and wants nothing of them: give [quote.values.sha256], [event_log] \
                     secure_boot or rules, or say any = true if every state will do",
                );
            }
            if quote.select.contains_key(&Bank::Sha1) {
                return wrong(
                    "[quote] select: the SHA-1 bank proves nothing; write sha256 or sha384",
                );
            }
            let is_selected = |bank: &Bank, pcr: &PcrIndex| {
                quote.select.get(bank).is_some_and(|it| it.contains(pcr))
            };
            for (bank, values) in &quote.values {
                if let Some(pcr) = values.keys().find(|pcr| !is_selected(bank, pcr)) {
                    return wrong(&format!(
                        "[quote] values: PCR {pcr} of {bank} is not selected"
                    ));
                }
                let is_its = |value: &PcrValue| value.as_slice().len() == bank.digest_len();
                if !values.values().flatten().all(is_its) {
                    return wrong(&format!(
                        "[quote] values: one of {bank} is not as long as its hash"
                    ));
                }
            }
        } else if policy.event_log != EventLogPolicy::default() || policy.ima.required {
            return wrong("[quote] select is missing: without a quote no log proves anything");
        }
        Ok(policy)
    }

    /// SHA-256 of a policy's text: by which it is told which one was applied.
    pub fn digest(text: &str) -> [u8; 32] {
        let digest = digest(&SHA256, text.as_bytes());
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl FirmwareRange {
    /// Whether this firmware is among them, or could be, where nobody knows whose it is.
    pub fn contains(&self, manufacturer: Option<&str>, firmware: Firmware) -> bool {
        manufacturer.is_none_or(|it| self.manufacturer == it)
            && self.from.is_none_or(|from| from <= firmware)
            && self.to.is_none_or(|to| firmware <= to)
    }
}

fn max_age_s() -> u64 {
    MAX_AGE_S
}

#[cfg(test)]
mod tests;
