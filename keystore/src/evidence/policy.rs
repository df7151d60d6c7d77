//! What a relying party wants of evidence (`policy.toml`): which roots, which hosts, which state. Strict, as
//! all our configuration is: a rule that is not understood would be one that is not enforced.

mod quoted;

pub use quoted::{EventLogPolicy, EventRule, ImaPolicy, QuotePolicy};

use super::bundle::{Firmware, Host, PolicyStep};
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
    /// It may: of where it was made nothing is wanted. That its keystore is of a kind that can reach `minimum` is.
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
            if policy.imported == Imported::Allow {
                return wrong(
                    "[healthy] and imported = \"allow\": who has a key from before it was imported signs with it \
                     in any state; write imported = \"refuse\"",
                );
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
        let state = match &policy.quote {
            Some(quote) => quote.check(&policy.event_log),
            None if policy.event_log != EventLogPolicy::default() || policy.ima.required => {
                Err("[quote] select is missing: without a quote no log proves anything".into())
            }
            None => Ok(()),
        };
        state.map_err(|why| Diagnostic::file(path, why))?;
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
