//! What a verifier says: for every check whether it passed, and if not, why. A check that rests on one that
//! did not pass is unreachable, so that what is wrong is named once.

use super::bundle::Host;
use super::enrolment::registry::Counters;
use crate::charter::PurposeKind;
use crate::protocol::EvidenceLevel;
use crate::{Alg, KeyId, PublicKey};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A check, in the order of standards §4: the bundle, the TPM, its keys, its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// It is one, within its limits.
    Bundle,
    /// It answers this nonce.
    Nonce,
    /// The nonce was handed out here, a short while ago, and was not answered before.
    NonceUse,
    /// It is young enough.
    Age,
    /// The attestation key's public area is one, and its Name is computed.
    AkPublic,
    /// What the TPM enforces about it: it signs only what the TPM has made.
    AkAttributes,
    /// It is one of the endorsement hierarchy, so that counters and firmware are stated as they are.
    AkHierarchy,
    /// The endorsement key's public area is one.
    EkPublic,
    /// It is not one of those whose private half can be computed.
    EkStrength,
    /// Its certificate leads to a root that is trusted, and is one of an endorsement key.
    EkCertificate,
    /// The certificate is about this key.
    EkMatch,
    /// It is this host's.
    Host,
    /// The attestation key was shown to be in its TPM.
    AkEnrolled,
    /// The attestation key has signed the statement about a key.
    CertifySignature,
    /// The statement is one about a key, made by a TPM.
    CertifyStatement,
    /// It says that it was signed by this attestation key.
    CertifySigner,
    /// The key's public area is one.
    KeyPublic,
    /// The statement is about this public area.
    CertifyName,
    /// It was made for this nonce, host and purpose.
    CertifyContext,
    /// The private half was made in the TPM, and stays there.
    KeyOrigin,
    /// It is a signing key and nothing else.
    KeyAttributes,
    /// It has the algorithm that it is registered with.
    KeyScheme,
    /// It is the key that is registered.
    KeyJwk,
    /// It can be used in the way that is said, and in no other.
    KeyPolicy,
    /// What a token says of its key is what a key of ours has.
    AssertedAttributes,
    /// There is a statement about the state of the host, if one is wanted.
    Quote,
    /// The attestation key has signed it.
    QuoteSignature,
    /// It is one about PCRs, made by a TPM.
    QuoteStatement,
    /// It says that it was signed by this attestation key.
    QuoteSigner,
    /// It was made for this nonce and host, with the statements about these keys.
    QuoteContext,
    /// It is about the PCRs that the policy wants, in a bank that is strong.
    QuoteSelection,
    /// The values are those that it is about.
    QuoteValues,
    /// They are what the policy knows.
    PcrReference,
    /// The event log leads to them, and is one of a firmware that handed over in good order.
    EventLog,
    /// Its events are what the policy wants.
    EventRules,
    /// The kernel's list leads to its PCR.
    Ima,
    /// The TPM has not gone back, and all was stated between two boots.
    Counters,
    /// The TPM's firmware is one that the policy trusts.
    Firmware,
    /// The key is as well proven as the policy wants.
    Level,
    /// There is something that it proves.
    Proof,
}

/// What came of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not.
    Failed {
        /// Why.
        reason: String,
    },
    /// It was not looked at.
    Unreachable {
        /// What it rests on, which did not pass.
        after: Check,
    },
    /// The policy does not ask for it, or there is nothing to look at.
    Skipped {
        /// Which of them.
        reason: String,
    },
}

/// One check of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which.
    pub check: Check,
    /// Of what: a keystore's name, a key's id, or empty for the whole.
    pub about: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyVerdict {
    /// Its id.
    pub key: KeyId,
    /// In which keystore.
    pub keystore: String,
    /// The key that is registered at the other side.
    pub jwk: PublicKey,
    /// Its algorithm.
    pub alg: Alg,
    /// What it is for.
    pub purpose: PurposeKind,
    /// How well it is known that it lives in hardware.
    pub level: EvidenceLevel,
    /// Whether it existed outside.
    pub imported: bool,
    /// What whoever uses it needs beside the TPM, if that is known.
    pub use_by: Option<UseBy>,
}

/// By what a key in a TPM is used (standards §4.4, 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UseBy {
    /// Its auth value alone, which no evidence shows: it may be empty.
    AuthValue,
    /// A policy that asks for a state of the host, which is shown. Whether that state is a good one, or who
    /// approves it, is not.
    Policy,
}

/// What a TPM has counted to in evidence that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The keystore.
    pub keystore: String,
    /// Its TPM's.
    pub counters: Counters,
}

/// All that a verifier says of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose it is, by its own word; verified if [`Check::Host`] passed.
    pub host: Option<Host>,
    /// In order.
    pub verdicts: Vec<Verdict>,
    /// What is known of the keys.
    pub keys: Vec<KeyVerdict>,
    /// For the next time.
    pub counted: Vec<Counted>,
}

/// The whole in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// Every check passed that was asked for.
    Passed,
    /// One did not.
    Failed,
}

/// What a check yields for those that rest on it; or which one did not pass.
pub type Done<T> = Result<T, Check>;

/// What a look at something found.
pub enum Finding<T> {
    /// It is as it should be.
    Passed(T),
    /// It does not matter, and why.
    Skipped(T, String),
    /// It is not, and why.
    Failed(String),
}

impl Report {
    /// Looks at one thing, unless what it rests on did not pass.
    pub(super) fn look<D, T>(
        &mut self,
        check: Check,
        about: &str,
        rests_on: Done<D>,
        look: impl FnOnce(D) -> Finding<T>,
    ) -> Done<T> {
        let (outcome, done) = match rests_on.map(look) {
            Ok(Finding::Passed(value)) => (Outcome::Passed, Ok(value)),
            Ok(Finding::Skipped(value, reason)) => (Outcome::Skipped { reason }, Ok(value)),
            Ok(Finding::Failed(reason)) => (Outcome::Failed { reason }, Err(check)),
            Err(after) => (Outcome::Unreachable { after }, Err(after)),
        };
        self.verdicts.push(Verdict {
            check,
            about: about.to_owned(),
            outcome,
        });
        done
    }

    /// Whose it is, if that was verified of every TPM in it, and there is one.
    pub fn verified_host(&self) -> Option<&Host> {
        let mut of_host = self
            .verdicts
            .iter()
            .filter(|it| it.check == Check::Host)
            .peekable();
        of_host.peek()?;
        match of_host.all(|it| it.outcome == Outcome::Passed) {
            true => self.host.as_ref(),
            false => None,
        }
    }

    /// The whole.
    pub fn overall(&self) -> Overall {
        let is_fine =
            |it: &Verdict| matches!(it.outcome, Outcome::Passed | Outcome::Skipped { .. });
        match !self.verdicts.is_empty() && self.verdicts.iter().all(is_fine) {
            true => Overall::Passed,
            false => Overall::Failed,
        }
    }
}

impl<T> Finding<T> {
    /// Of a result with a sentence.
    pub fn of<E: fmt::Display>(result: Result<T, E>) -> Finding<T> {
        match result {
            Ok(value) => Finding::Passed(value),
            Err(error) => Finding::Failed(error.to_string()),
        }
    }
}

impl fmt::Display for UseBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UseBy::AuthValue => "auth-value",
            UseBy::Policy => "policy",
        })
    }
}

/// Two that something rests on; of two that did not pass, the first.
pub fn both<A, B>(a: Done<A>, b: Done<B>) -> Done<(A, B)> {
    Ok((a?, b?))
}

impl Check {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Check::Bundle => "bundle",
            Check::Nonce => "nonce",
            Check::NonceUse => "nonce-use",
            Check::Age => "age",
            Check::AkPublic => "ak-public",
            Check::AkAttributes => "ak-attributes",
            Check::AkHierarchy => "ak-hierarchy",
            Check::EkPublic => "ek-public",
            Check::EkStrength => "ek-strength",
            Check::EkCertificate => "ek-certificate",
            Check::EkMatch => "ek-match",
            Check::Host => "host",
            Check::AkEnrolled => "ak-enrolled",
            Check::CertifySignature => "certify-signature",
            Check::CertifyStatement => "certify-statement",
            Check::CertifySigner => "certify-signer",
            Check::KeyPublic => "key-public",
            Check::CertifyName => "certify-name",
            Check::CertifyContext => "certify-context",
            Check::KeyOrigin => "key-origin",
            Check::KeyAttributes => "key-attributes",
            Check::KeyScheme => "key-scheme",
            Check::KeyJwk => "key-jwk",
            Check::KeyPolicy => "key-policy",
            Check::AssertedAttributes => "asserted-attributes",
            Check::Quote => "quote",
            Check::QuoteSignature => "quote-signature",
            Check::QuoteStatement => "quote-statement",
            Check::QuoteSigner => "quote-signer",
            Check::QuoteContext => "quote-context",
            Check::QuoteSelection => "quote-selection",
            Check::QuoteValues => "quote-values",
            Check::PcrReference => "pcr-reference",
            Check::EventLog => "event-log",
            Check::EventRules => "event-rules",
            Check::Ima => "ima",
            Check::Counters => "counters",
            Check::Firmware => "firmware",
            Check::Level => "level",
            Check::Proof => "proof",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Outcome {
    /// In one word.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed { .. } => "failed",
            Outcome::Unreachable { .. } => "unreachable",
            Outcome::Skipped { .. } => "skipped",
        }
    }

    /// The reason, if it needs one.
    pub fn reason(&self) -> Option<String> {
        match self {
            Outcome::Passed => None,
            Outcome::Failed { reason } | Outcome::Skipped { reason } => Some(reason.clone()),
            Outcome::Unreachable { after } => Some(format!("after {after}")),
        }
    }
}
