//! An approval: a state that an authority has approved, with its signature; or is to.

use super::{Authority, Generation, State};
use crate::Alg;
use crate::der::{Elements, INTEGER, SEQUENCE, magnitude};
use crate::evidence::bundle::{Bytes, to_hex};
use crate::shown::unread;
use serde::{Deserialize, Serialize};

/// Longest approval, in bytes of JSON: 24 values have some 2 KiB.
pub const APPROVAL_LEN_MAX: usize = 16 * 1024;

/// The version of the format.
pub const VERSION: u32 = 1;

/// Bytes of each digest in the name of a file.
const NAMED_BY: usize = 8;

/// Bytes that an authority signs: two digests.
pub const SIGNED_LEN: usize = 64;

/// A state that was approved, or is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// What this document is.
    pub r#type: ApprovalType,
    /// [`VERSION`]
    pub version: u32,
    /// For keys of this generation.
    pub generation: Generation,
    /// The values, of bank sha256.
    pub pcrs: State,
    /// Of the authority: r ‖ s. None while it is to be signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Bytes<SIGNED_LEN>>,
}

/// The one value of `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApprovalType {
    /// An approval.
    #[serde(rename = "assertd-approval")]
    AssertdApproval,
}

impl Approval {
    /// Of this state; to be signed.
    pub fn draft(state: State, generation: Generation) -> Approval {
        Approval {
            r#type: ApprovalType::AssertdApproval,
            version: VERSION,
            generation,
            pcrs: state,
            signature: None,
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(json: &[u8]) -> Result<Approval, String> {
        if json.len() > APPROVAL_LEN_MAX {
            return Err(format!("is longer than {APPROVAL_LEN_MAX} bytes"));
        }
        let approval: Approval = serde_json::from_slice(json)
            .map_err(|error| format!("is no approval, or not a whole one: {}", unread(&error)))?;
        match approval.version {
            VERSION => Ok(approval),
            other => Err(format!(
                "has version {other}, and this program knows {VERSION}"
            )),
        }
    }

    /// As it is written: one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("its map has texts as keys, and it has no float")
    }

    /// By what name it is kept: of the state, the authority and the generation, so that what is approved later
    /// takes the place of nothing else.
    pub fn file_name(&self, authority: &Authority) -> String {
        let state = to_hex(&self.pcrs.policy()[..NAMED_BY]);
        // Behind the two bytes that all Names have.
        let whose = to_hex(&authority.name().as_slice()[2..2 + NAMED_BY]);
        format!("{}-{state}-{whose}.json", self.generation)
    }

    /// What the authority signs, with ECDSA and SHA-256: the digest of the policy, and policyRef.
    pub fn to_be_signed(&self) -> [u8; SIGNED_LEN] {
        let mut bytes = [0; SIGNED_LEN];
        bytes[..32].copy_from_slice(&self.pcrs.policy());
        bytes[32..].copy_from_slice(&self.generation.reference());
        bytes
    }

    /// With the authority's signature: as openssl writes it, DER.
    ///
    /// # Errors
    /// It is none of this authority's over this approval.
    pub fn signed(self, der: &[u8], authority: &Authority) -> Result<Approval, String> {
        let pair = fixed(der).ok_or("the signature is none of ECDSA on P-256, in DER")?;
        let signed = Approval {
            signature: Bytes::new(pair.to_vec()),
            ..self
        };
        signed.check(authority)?;
        Ok(signed)
    }

    /// Whether this authority has signed it.
    ///
    /// # Errors
    /// A sentence's end.
    pub fn check(&self, authority: &Authority) -> Result<(), String> {
        let signature = self.signature.as_ref().ok_or("is not signed yet")?;
        let verifier = authority.key.verifier(Alg::ES256);
        let verifier = verifier.map_err(|error| error.to_string())?;
        match verifier.verify(&self.to_be_signed(), signature.as_slice()) {
            Ok(_valid) => Ok(()),
            Err(_) => Err(format!(
                "is not signed by the authority ({authority}), or was changed"
            )),
        }
    }
}

/// r ‖ s of an ECDSA-Sig-Value (RFC 5480 appendix A).
fn fixed(der: &[u8]) -> Option<[u8; SIGNED_LEN]> {
    let mut whole = Elements::of(der);
    let mut pair = Elements::of(whole.take(SEQUENCE).ok()?);
    whole.end().ok()?;
    let mut fixed = [0; SIGNED_LEN];
    for half in fixed.chunks_mut(32) {
        let number = magnitude(pair.take(INTEGER).ok()?).ok()?;
        let at = half.len().checked_sub(number.len())?;
        half[at..].copy_from_slice(number);
    }
    pair.end().ok()?;
    Some(fixed)
}
