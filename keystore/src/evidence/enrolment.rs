//! Enrolment by files: how a verifier learns that an attestation key is in the same TPM as an
//! endorsement key (standards §4.3). The host writes a [`Request`]; the verifier answers with a [`Challenge`],
//! which only that TPM can open, and keeps a [`Pending`]; the host writes what was in it into a
//! [`Response`]; the verifier compares. The files may be carried by hand, and many at once.

pub mod approval;
pub mod credential;
pub mod registry;
pub mod vetting;

use super::bundle::{Bytes, Host, NAME_LEN_MAX, Text, Tpm, check_keystore};
use super::context::Sha256;
use crate::shown::unread;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// Longest file of an enrolment, in bytes of JSON: certificates are what is long in it.
pub const FILE_LEN_MAX: usize = 128 * 1024;

/// The version of the formats.
pub const VERSION: u32 = 1;

/// How long a challenge may be answered: standards §4.3.
pub const EXPIRES_S: u64 = 5 * 60;

/// And where hands carry it.
pub const EXPIRES_MAX_S: u64 = 30 * 86_400;

/// Bytes of the secret in a challenge: no more than the digest of any endorsement key.
pub const SECRET_LEN: usize = 32;

/// Longest TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, without their sizes: RSA-4096 has 512.
pub const BLOB_LEN_MAX: usize = 1024;

/// Which enrolment: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Bytes<16>", into = "Bytes<16>")]
pub struct EnrolmentId(pub [u8; 16]);

/// What a host says about its TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What this document is.
    pub r#type: RequestType,
    /// [`VERSION`]
    pub version: u32,
    /// What the operator calls the host.
    pub host: Host,
    /// The keystore's, in the host's configuration.
    pub keystore: Text,
    /// Its TPM.
    pub tpm: Tpm,
}

/// What only that TPM can open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// What this document is.
    pub r#type: ChallengeType,
    /// [`VERSION`]
    pub version: u32,
    /// This enrolment.
    pub id: EnrolmentId,
    /// The request's.
    pub host: Host,
    /// The request's.
    pub keystore: Text,
    /// Name of the attestation key that it is for.
    pub ak_name: Bytes<NAME_LEN_MAX>,
    /// Until when it is answered, in seconds since 1970, on the verifier's clock.
    pub expires_at: u64,
    /// TPM2B_ID_OBJECT, without its size: `credentialBlob` of TPM2_ActivateCredential.
    pub credential: Bytes<BLOB_LEN_MAX>,
    /// TPM2B_ENCRYPTED_SECRET, without its size: `secret` of TPM2_ActivateCredential.
    pub secret: Bytes<BLOB_LEN_MAX>,
}

/// What was in it: `certInfo` of TPM2_ActivateCredential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// What this document is.
    pub r#type: ResponseType,
    /// [`VERSION`]
    pub version: u32,
    /// The challenge's.
    pub id: EnrolmentId,
    /// The challenge's.
    pub host: Host,
    /// It.
    pub secret: Bytes<SECRET_LEN>,
}

/// What the verifier keeps until the response: no secret, but the digest of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// What this document is.
    pub r#type: PendingType,
    /// [`VERSION`]
    pub version: u32,
    /// The challenge's.
    pub id: EnrolmentId,
    /// The challenge's.
    pub expires_at: u64,
    /// What is recorded then.
    pub enrolled: registry::Enrolled,
    /// SHA-256 of the secret.
    pub secret_digest: Bytes<32>,
}

/// The one value of `type` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestType {
    #[serde(rename = "assertd-enrolment-request")]
    Request,
}

/// The one value of `type` of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChallengeType {
    #[serde(rename = "assertd-enrolment-challenge")]
    Challenge,
}

/// The one value of `type` of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseType {
    #[serde(rename = "assertd-enrolment-response")]
    Response,
}

/// The one value of `type` of what is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PendingType {
    #[serde(rename = "assertd-enrolment-pending")]
    Pending,
}

/// A file of an enrolment.
pub trait File: Serialize + DeserializeOwned {
    /// Its version.
    fn version(&self) -> u32;

    /// What the types do not say.
    ///
    /// # Errors
    /// A sentence's end.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Reads one.
    ///
    /// # Errors
    /// A sentence's end: what is wrong with it.
    fn parse(json: &[u8]) -> Result<Self, String> {
        if json.len() > FILE_LEN_MAX {
            return Err(format!("it is longer than {FILE_LEN_MAX} bytes"));
        }
        let file: Self = serde_json::from_slice(json).map_err(|error| unread(&error))?;
        match file.version() {
            VERSION => {}
            other => {
                return Err(format!(
                    "its version is {other}, and this program knows {VERSION}"
                ));
            }
        }
        file.check()?;
        Ok(file)
    }

    /// As it is written: one line of JSON.
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("these types have no map and no float")
    }
}

impl File for Request {
    fn version(&self) -> u32 {
        self.version
    }

    fn check(&self) -> Result<(), String> {
        check_keystore(&self.keystore)
    }
}

impl File for Challenge {
    fn version(&self) -> u32 {
        self.version
    }

    fn check(&self) -> Result<(), String> {
        check_keystore(&self.keystore)
    }
}

impl File for Response {
    fn version(&self) -> u32 {
        self.version
    }
}

impl File for Pending {
    fn version(&self) -> u32 {
        self.version
    }

    fn check(&self) -> Result<(), String> {
        check_keystore(&self.enrolled.keystore)
    }
}

/// Why a response enrols nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// It answers another challenge.
    Other,
    /// It is too late.
    Expired,
    /// It is not what was in the challenge.
    Wrong,
}

impl Pending {
    /// Whether the response shows that the attestation key is in the TPM of the endorsement key.
    pub fn proven(&self, response: &Response, now: u64) -> Result<&registry::Enrolled, Unproven> {
        if (response.id, &response.host) != (self.id, &self.enrolled.host) {
            return Err(Unproven::Other);
        }
        if now > self.expires_at {
            return Err(Unproven::Expired);
        }
        let digest = secret_digest(response.secret.as_slice());
        match verify_slices_are_equal(&digest, self.secret_digest.as_slice()) {
            Ok(()) => Ok(&self.enrolled),
            Err(_) => Err(Unproven::Wrong),
        }
    }
}

/// A challenge to a request whose TPM has been approved, and what is kept of it.
///
/// # Errors
/// A sentence: no secret can be made for this endorsement key.
pub fn challenge(
    request: &Request,
    enrolled: registry::Enrolled,
    ek: &super::public::PublicArea,
    expires_at: u64,
) -> Result<(Challenge, Pending), String> {
    let mut id = [0; 16];
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    for bytes in [&mut id[..], &mut secret[..]] {
        aws_lc_rs::rand::fill(bytes).map_err(|_| "no random bytes from the operating system")?;
    }
    let ak_name = enrolled.ak_name.as_slice();
    let made = credential::make(ek, ak_name, &secret[..])?;
    let too_long = || "the endorsement key is too large".to_owned();
    let challenge = Challenge {
        r#type: ChallengeType::Challenge,
        version: VERSION,
        id: EnrolmentId(id),
        host: request.host.clone(),
        keystore: request.keystore.clone(),
        ak_name: enrolled.ak_name.clone(),
        expires_at,
        credential: Bytes::new(made.credential).ok_or_else(too_long)?,
        secret: Bytes::new(made.secret).ok_or_else(too_long)?,
    };
    let digest = secret_digest(&secret[..]).to_vec();
    let pending = Pending {
        r#type: PendingType::Pending,
        version: VERSION,
        id: EnrolmentId(id),
        expires_at,
        enrolled,
        secret_digest: Bytes::new(digest).expect("SHA-256 has 32 bytes"),
    };
    Ok((challenge, pending))
}

fn secret_digest(secret: &[u8]) -> Sha256 {
    let digest = digest(&SHA256, secret);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl TryFrom<Bytes<16>> for EnrolmentId {
    type Error = &'static str;
    fn try_from(bytes: Bytes<16>) -> Result<EnrolmentId, &'static str> {
        let bytes = bytes.as_slice().try_into();
        bytes.map(EnrolmentId).map_err(|_| "an id has 16 bytes")
    }
}

impl From<EnrolmentId> for Bytes<16> {
    fn from(id: EnrolmentId) -> Bytes<16> {
        Bytes::new(id.0.to_vec()).expect("there are 16")
    }
}

impl fmt::Display for EnrolmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL.encode(self.0))
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unproven::Other => "it answers another challenge",
            Unproven::Expired => "the challenge has expired: make a new one (`assertctl enroll challenge`)",
            Unproven::Wrong => {
                "it is not what was in the challenge: the attestation key is not in the TPM of the endorsement key"
            }
        })
    }
}
