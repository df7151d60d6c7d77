//! Keys that are used on a healthy machine only: in which state of the host (a [`State`]: values of PCRs), and
//! who may approve other states ([`Authority`], by an [`Approval`]). What the TPM holds a key to follows from
//! these: the keystore makes keys by it, `assertctl approve` makes approvals, the verifier computes it again.
//!
//! An approval is what TPM2_PolicyAuthorize wants: the authority's signature over the digest of the policy
//! "PCRs as here", and over the number of its generation. It names no host and no key: machines of one kind
//! need one.

mod approval;

pub use approval::{APPROVAL_LEN_MAX, Approval, ApprovalType, SIGNED_LEN, VERSION};

use super::bundle::{
    Bank, Bytes, PCRS, PUBLIC_LEN_MAX, PcrIndex, PcrValue, Pcrs, PolicyStep, Selection, hex, to_hex,
};
use super::context::Sha256;
use super::hash::Hash;
use super::public::PublicArea;
use super::steps::policy_digest;
use crate::PublicKey;
use crate::der::{BIT_STRING, Elements, SEQUENCE};
use crate::publickey::ALGORITHM_P256;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Longest file with an authority's public key.
pub const AUTHORITY_LEN_MAX: usize = 16 * 1024;

/// Bytes of a Name of SHA-256.
const NAME_LEN: usize = 34;

/// PCRs that are no state to be bound to: 10 changes with whatever runs, 16 and 23 can be reset at any time.
pub const UNFIT: [u8; 3] = [10, 16, 23];

/// What policyRef is the SHA-256 of, with the number of the generation.
const REFERENCE: &[u8] = b"assertd-approval-v1\0";

/// What stands before the point in the public area of an authority: TPM_ALG_ECC, named by SHA-256, for
/// signing, no policy; no cipher, ECDSA with SHA-256, P-256, no key derivation (TPM 2.0 Part 2 §12.2.4).
const AREA: [u8; 22] = [
    0x00, 0x23, 0x00, 0x0b, 0x00, 0x04, 0x00, 0x40, 0x00, 0x00, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0b,
    0x00, 0x03, 0x00, 0x10, 0x00, 0x20,
];

/// A state of the host: values of some PCRs, of bank sha256.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<PcrIndex, PcrValue>")]
pub struct State(BTreeMap<PcrIndex, PcrValue>);

/// Which approvals are meant: a key takes those of its own generation alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

/// The public key of who approves states of hosts. It is in no TPM; its private half is never ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    key: PublicKey,
    area: Bytes<PUBLIC_LEN_MAX>,
    name: AuthorityName,
}

/// By which keys and policies know an authority: TPM_ALG_SHA256 and the digest of its public area, 68
/// hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuthorityName([u8; NAME_LEN]);

impl State {
    /// Of these values of bank sha256.
    ///
    /// # Errors
    /// A sentence: there is none, or one is unfit or too short.
    pub fn new(values: BTreeMap<PcrIndex, PcrValue>) -> Result<State, String> {
        if values.is_empty() {
            return Err("names no PCR".to_owned());
        }
        for (index, value) in &values {
            check_index(index.number())?;
            if value.as_slice().len() != Bank::Sha256.digest_len() {
                return Err(format!("PCR {index}: a value of bank sha256 has 32 bytes"));
            }
        }
        Ok(State(values))
    }

    /// What a TPM has shown.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(pcrs: &Pcrs) -> Result<State, String> {
        State::new(pcrs.get(&Bank::Sha256).cloned().unwrap_or_default())
    }

    /// They.
    pub fn values(&self) -> &BTreeMap<PcrIndex, PcrValue> {
        &self.0
    }

    /// Which.
    pub fn selection(&self) -> Selection {
        selection(self.0.keys().copied())
    }

    /// The digest of the values, as TPM2_PolicyPCR has it.
    pub fn digest(&self) -> Sha256 {
        let values: Vec<&[u8]> = self.0.values().map(PcrValue::as_slice).collect();
        sha256(&values)
    }

    /// TPM2_PolicyPCR of these values.
    pub fn step(&self) -> PolicyStep {
        PolicyStep::Pcr {
            selection: self.selection(),
            digest: Bytes::new(self.digest().to_vec()).expect("SHA-256 has 32 bytes"),
        }
    }

    /// The digest of the policy that wants this state: what an authority approves.
    pub fn policy(&self) -> Sha256 {
        digest_of(&[self.step()])
    }

    /// The PCRs that are different there, or not there; both in the order of their numbers.
    pub fn differs<'a>(&'a self, there: &'a State) -> Vec<Difference<'a>> {
        let indices: BTreeSet<&PcrIndex> = self.0.keys().chain(there.0.keys()).collect();
        let of = |index: &'a PcrIndex| Difference {
            index: *index,
            here: self.0.get(index),
            there: there.0.get(index),
        };
        let all = indices.into_iter().map(of);
        all.filter(|it| it.here != it.there).collect()
    }
}

/// A PCR in two states.
pub struct Difference<'a> {
    /// Which.
    pub index: PcrIndex,
    /// In the one.
    pub here: Option<&'a PcrValue>,
    /// In the other.
    pub there: Option<&'a PcrValue>,
}

/// These PCRs, of bank sha256.
pub fn selection(indices: impl IntoIterator<Item = PcrIndex>) -> Selection {
    Selection::from([(Bank::Sha256, indices.into_iter().collect())])
}

/// Whether a key can be bound to it.
///
/// # Errors
/// Why not, as a sentence.
pub fn check_index(index: u8) -> Result<PcrIndex, String> {
    match PcrIndex::new(index) {
        None => Err(format!(
            "there is no PCR {index}: they have 0 to {}",
            PCRS - 1
        )),
        Some(_) if index == UNFIT[0] => Err(format!(
            "PCR {index} changes with whatever runs (IMA): no state of it lasts; leave it out"
        )),
        Some(_) if UNFIT.contains(&index) => Err(format!(
            "PCR {index} can be reset by programs at any time, so that it says nothing; leave it out"
        )),
        Some(index) => Ok(index),
    }
}

impl TryFrom<BTreeMap<PcrIndex, PcrValue>> for State {
    type Error = String;
    fn try_from(values: BTreeMap<PcrIndex, PcrValue>) -> Result<State, String> {
        State::new(values)
    }
}

/// `7=…, 14=…`
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (index, value)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{index}={value}")?;
        }
        Ok(())
    }
}

impl Generation {
    /// The first.
    pub const FIRST: Generation = Generation(1);

    /// policyRef of its approvals.
    pub fn reference(self) -> Sha256 {
        sha256(&[REFERENCE, &self.0.to_be_bytes()])
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Authority {
    /// Of this key.
    ///
    /// # Errors
    /// It is no P-256 key.
    pub fn new(key: PublicKey) -> Result<Authority, String> {
        let PublicKey::P256 { x, y } = &key else {
            return Err("is no P-256 key".to_owned());
        };
        let area = [&AREA[..], x, &[0, 32], y].concat();
        let name = AuthorityName::of(&area).ok_or("has no Name")?;
        let area = Bytes::new(area).expect("a public area of P-256 has 90 bytes");
        Ok(Authority { key, area, name })
    }

    /// From a public area that was made of one.
    ///
    /// # Errors
    /// It was not.
    pub fn from_area(area: &[u8]) -> Result<Authority, String> {
        let parsed = PublicArea::parse(area).map_err(str::to_owned)?;
        let authority = Authority::new(parsed.public_key().map_err(str::to_owned)?)?;
        match authority.area.as_slice() == area {
            true => Ok(authority),
            false => Err("has another public area than an authority of ours".to_owned()),
        }
    }

    /// From the text of a file: `openssl pkey -pubout`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn from_pem(text: &str) -> Result<Authority, String> {
        let wrong = || "has no P-256 public key in PEM (`openssl pkey -pubout`)".to_owned();
        let (_, rest) = text
            .split_once("-----BEGIN PUBLIC KEY-----")
            .ok_or_else(wrong)?;
        let (body, _) = rest
            .split_once("-----END PUBLIC KEY-----")
            .ok_or_else(wrong)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = BASE64.decode(body).map_err(|_| wrong())?;
        let point = spki_point(&der).ok_or_else(wrong)?;
        let key = PublicKey::from_sec1(point).map_err(|error| error.to_string())?;
        Authority::new(key)
    }

    /// The public key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// TPMT_PUBLIC
    pub fn area(&self) -> &Bytes<PUBLIC_LEN_MAX> {
        &self.area
    }

    /// Its Name, by which keys and policies know it.
    pub fn name(&self) -> &AuthorityName {
        &self.name
    }

    /// TPM2_PolicyAuthorize by it.
    pub fn step(&self, generation: Generation) -> PolicyStep {
        let reference = generation.reference().to_vec();
        PolicyStep::Authorize {
            authority: self.area.clone(),
            reference: Bytes::new(reference).expect("SHA-256 has 32 bytes"),
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl AuthorityName {
    /// Of a public area that is one.
    pub fn of(area: &[u8]) -> Option<AuthorityName> {
        let area = PublicArea::parse(area).ok()?;
        area.name().try_into().ok().map(AuthorityName)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for AuthorityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl From<AuthorityName> for String {
    fn from(name: AuthorityName) -> String {
        name.to_string()
    }
}

impl TryFrom<String> for AuthorityName {
    type Error = String;
    fn try_from(text: String) -> Result<AuthorityName, String> {
        let bytes: Option<[u8; NAME_LEN]> = hex(&text).and_then(|it| it.try_into().ok());
        bytes
            .filter(|bytes| bytes.starts_with(&Bank::Sha256.id().to_be_bytes()))
            .map(AuthorityName)
            .ok_or_else(|| {
                "an authority is named by 68 hexadecimal digits, which begin with 000b: `assertctl approve \
                 bytes --authority FILE` shows them"
                    .to_owned()
            })
    }
}

/// The steps of a key that wants this state, or one that an authority has approved; and, always, its auth
/// value. The state is of no account where there is an authority: it is what was approved that counts.
pub fn steps(state: &State, authority: Option<(&Authority, Generation)>) -> Vec<PolicyStep> {
    let first = match authority {
        None => state.step(),
        Some((authority, generation)) => authority.step(generation),
    };
    vec![first, PolicyStep::AuthValue {}]
}

/// authPolicy of these, for a key named by SHA-256.
pub fn digest_of(steps: &[PolicyStep]) -> Sha256 {
    let digest = policy_digest(steps, Hash::Sha256).expect("an authority's public area is one");
    digest.try_into().expect("SHA-256 has 32 bytes")
}

/// The point in a SubjectPublicKeyInfo of a P-256 key.
fn spki_point(der: &[u8]) -> Option<&[u8]> {
    let mut whole = Elements::of(der);
    let content = whole.take(SEQUENCE).ok()?;
    whole.end().ok()?;
    let mut rest = Elements::of(content.strip_prefix(ALGORITHM_P256)?);
    let bits = rest.take(BIT_STRING).ok()?;
    rest.end().ok()?;
    bits.strip_prefix(&[0])
}

fn sha256(parts: &[&[u8]]) -> Sha256 {
    let digest = Hash::Sha256.of(parts);
    digest.try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests;
