//! Certificates over a key of ours: a self-signed X.509 certificate (RFC 5280) or a request for one
//! (PKCS #10, RFC 2986). What is signed is built here, from the key, its id and a time; a caller
//! has no say in any other byte of it. An assertion's header is text and begins with `ey`, what is
//! signed here is DER and begins with 0x30, so that neither can be taken for the other.

use crate::clock::Time;
use crate::der::{
    BIT_STRING, BOOLEAN, CONTEXT_0, CONTEXT_3, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER,
    OCTET_STRING, SEQUENCE, SET, UTC_TIME, UTF8_STRING, element, positive, unsigned_element,
};
use crate::{Alg, Error, KeyId, Kind, PublicKey};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How far from now a certificate may begin, in seconds: whoever asks reads a clock of the same host,
/// and a verifier's may go behind.
pub const NOT_BEFORE_OFF_MAX_S: u64 = 5 * 60;

/// Longest life of a certificate, in seconds: two years, one of which may be a leap year.
pub const LIFE_MAX_S: u64 = 731 * 86_400;

/// Longest DER of ours, in bytes: RSA with 8192 bits has about 2.5 KiB.
pub const LEN_MAX: usize = 4 * 1024;

/// Longest common name (RFC 5280 A.1, ub-common-name).
const COMMON_NAME_LEN_MAX: usize = 64;

/// Bytes of a serial number (RFC 5280 §4.1.2.2 allows 20).
const SERIAL_LEN: usize = 16;

/// Bytes of a key identifier: the first 160 bits of SHA-256 (RFC 7093 §2 method 1).
const KEY_IDENTIFIER_LEN: usize = 20;

const COMMON_NAME: &[u8] = b"\x55\x04\x03";
const SUBJECT_KEY_IDENTIFIER: &[u8] = b"\x55\x1d\x0e";
const KEY_USAGE: &[u8] = b"\x55\x1d\x0f";
const BASIC_CONSTRAINTS: &[u8] = b"\x55\x1d\x13";

/// KeyUsage with digitalSignature alone: bit 0 of 1, the others unused (X.690 §11.2.2).
const DIGITAL_SIGNATURE: &[u8] = b"\x03\x02\x07\x80";

/// BasicConstraints with cA at its default, which is false and so not written (X.690 §11.5).
const NO_CA: &[u8] = b"\x30\x00";

/// AlgorithmIdentifiers of signatures: RFC 5758 §3.2, RFC 4055 §5, RFC 8410 §3.
const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const ECDSA_SHA384: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";
const RSA_SHA256: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";
const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";

/// id-RSASSA-PSS with SHA-256, MGF1 with SHA-256 and 32 bytes of salt: what PS256 is (RFC 4055 §3.1).
const RSA_PSS_SHA256: &[u8] = b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
    \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
    \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
    \xa2\x03\x02\x01\x20";

/// From when until when, in seconds since 1970; both moments are part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validity {
    /// `notBefore`
    pub not_before: u64,
    /// `notAfter`
    pub not_after: u64,
}

/// DER as messages and records have it: standard base64 of at most [`LEN_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Der(Vec<u8>);

/// A certificate of ours.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Certificate {
    der: Der,
    validity: Validity,
    thumbprint: String,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    der: Der,
    validity: Validity,
}

/// What a key is to sign, and how.
pub struct Unsigned {
    alg: Alg,
    content: Vec<u8>,
}

impl Validity {
    /// So many seconds from now on.
    pub fn from(now: Time, seconds: u64) -> Validity {
        let not_before = now.unix_s();
        Validity {
            not_before,
            not_after: not_before.saturating_add(seconds),
        }
    }

    /// Whether a certificate may be made for it now.
    ///
    /// # Errors
    /// `Refused`, with what may be.
    pub fn check(self, now: Time) -> Result<(), Error> {
        let Validity {
            not_before,
            not_after,
        } = self;
        let refuse = |text: String| Err(Error::new(Kind::Refused, format!("validity: {text}")));
        let now = now.unix_s();
        if not_before.abs_diff(now) > NOT_BEFORE_OFF_MAX_S {
            return refuse(format!(
                "not_before {not_before} is not within {NOT_BEFORE_OFF_MAX_S} s of now ({now} on the \
                 keystore's clock)"
            ));
        }
        let life = not_after.saturating_sub(not_before);
        if life == 0 || life > LIFE_MAX_S || not_after <= now {
            return refuse(format!(
                "not_after {not_after} is not within 1 to {LIFE_MAX_S} s (two years) after \
                 not_before {not_before} and after now ({now})"
            ));
        }
        Ok(())
    }

    fn der(self) -> Vec<u8> {
        let times = [time(self.not_before), time(self.not_after)];
        element(SEQUENCE, &times.concat())
    }
}

impl Unsigned {
    /// A certificate of a key by itself.
    ///
    /// # Errors
    /// The operating system has no random bytes for the serial number.
    pub fn certificate(
        subject: &KeyId,
        key: &PublicKey,
        alg: Alg,
        validity: Validity,
    ) -> Result<Unsigned, Error> {
        let name = name(subject, key);
        let content = [
            element(CONTEXT_0, &unsigned_element(2)), // v3
            element(INTEGER, &serial()?),
            signature_algorithm(alg).to_vec(),
            name.clone(),
            validity.der(),
            name,
            key.spki(),
            element(CONTEXT_3, &extensions(key)),
        ];
        Ok(Unsigned {
            alg,
            content: element(SEQUENCE, &content.concat()),
        })
    }

    /// A request for one, to be sent to an authority, who knows what the certificate is to say; its
    /// signature shows that we have the key.
    pub fn request(subject: &KeyId, key: &PublicKey, alg: Alg) -> Unsigned {
        let content = [
            unsigned_element(0), // v1
            name(subject, key),
            key.spki(),
            element(CONTEXT_0, &[]), // no attributes
        ];
        Unsigned {
            alg,
            content: element(SEQUENCE, &content.concat()),
        }
    }

    /// What is signed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.content
    }

    /// The whole, with a signature as JWS has it, which the caller has verified.
    pub fn with_signature(self, signature: &[u8]) -> Der {
        let signature = match self.alg {
            Alg::ES256 | Alg::ES384 => {
                // Ecdsa-Sig-Value (RFC 5480 A).
                let (r, s) = signature.split_at(signature.len() / 2);
                element(SEQUENCE, &[positive(r), positive(s)].concat())
            }
            Alg::RS256 | Alg::PS256 | Alg::EdDSA => signature.to_vec(),
        };
        let algorithm = signature_algorithm(self.alg);
        let whole = [&self.content, algorithm, &bits(&signature)].concat();
        Der(element(SEQUENCE, &whole))
    }
}

impl Certificate {
    /// Of DER that was made here.
    pub fn new(der: Der, validity: Validity) -> Certificate {
        let thumbprint = BASE64URL.encode(digest::digest(&digest::SHA256, &der.0));
        Certificate {
            der,
            validity,
            thumbprint,
        }
    }

    /// It.
    pub fn der(&self) -> &Der {
        &self.der
    }

    /// What it says about its time.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// `x5t#S256`: base64url of its SHA-256 (RFC 7515 §4.1.8).
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }
}

impl Der {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Between its lines (RFC 7468): `label` is `CERTIFICATE` or `CERTIFICATE REQUEST`.
    pub fn pem(&self, label: &str) -> String {
        let base64 = BASE64.encode(&self.0);
        let mut pem = format!("-----BEGIN {label}-----\n");
        for line in base64.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            pem.push('\n');
        }
        pem.push_str(&format!("-----END {label}-----\n"));
        pem
    }
}

impl TryFrom<String> for Der {
    type Error = Error;
    fn try_from(text: String) -> Result<Der, Error> {
        let corrupt = |what| Error::new(Kind::Corrupt, format!("certificate: {what}"));
        let der = BASE64.decode(text).map_err(|_| corrupt("not base64"))?;
        match (1..=LEN_MAX).contains(&der.len()) {
            true => Ok(Der(der)),
            false => Err(corrupt("empty or too long")),
        }
    }
}

impl From<Der> for String {
    fn from(der: Der) -> String {
        BASE64.encode(der.0)
    }
}

impl From<Stored> for Certificate {
    fn from(stored: Stored) -> Certificate {
        Certificate::new(stored.der, stored.validity)
    }
}

impl From<Certificate> for Stored {
    fn from(certificate: Certificate) -> Stored {
        Stored {
            der: certificate.der,
            validity: certificate.validity,
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {:?})", self.thumbprint, self.validity)
    }
}

/// One common name: the key's id, or where that is too long for one, its thumbprint.
fn name(subject: &KeyId, key: &PublicKey) -> Vec<u8> {
    let id = subject.to_string();
    let text = match id.len() <= COMMON_NAME_LEN_MAX {
        true => id,
        false => key.kid().to_string(),
    };
    let attribute = [
        element(OBJECT_IDENTIFIER, COMMON_NAME),
        element(UTF8_STRING, text.as_bytes()),
    ];
    let attribute = element(SEQUENCE, &attribute.concat());
    element(SEQUENCE, &element(SET, &attribute))
}

/// Positive, of always the same length, and random but for two bits.
fn serial() -> Result<[u8; SERIAL_LEN], Error> {
    let mut serial = [0; SERIAL_LEN];
    aws_lc_rs::rand::fill(&mut serial)
        .map_err(|_| Error::new(Kind::Internal, "no random bytes from the operating system"))?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

fn extensions(key: &PublicKey) -> Vec<u8> {
    let identifier = key.identifier();
    let identifier = &identifier.as_ref()[..KEY_IDENTIFIER_LEN];
    let all = [
        extension(BASIC_CONSTRAINTS, Critical::Yes, NO_CA),
        extension(KEY_USAGE, Critical::Yes, DIGITAL_SIGNATURE),
        extension(
            SUBJECT_KEY_IDENTIFIER,
            Critical::No,
            &element(OCTET_STRING, identifier),
        ),
    ];
    element(SEQUENCE, &all.concat())
}

/// Whether who does not know an extension has to refuse the certificate.
#[derive(PartialEq, Eq)]
enum Critical {
    Yes,
    No,
}

fn extension(oid: &[u8], critical: Critical, value: &[u8]) -> Vec<u8> {
    let mut content = element(OBJECT_IDENTIFIER, oid);
    if critical == Critical::Yes {
        content.extend(element(BOOLEAN, &[0xff]));
    }
    content.extend(element(OCTET_STRING, value));
    element(SEQUENCE, &content)
}

fn signature_algorithm(alg: Alg) -> &'static [u8] {
    match alg {
        Alg::ES256 => ECDSA_SHA256,
        Alg::ES384 => ECDSA_SHA384,
        Alg::RS256 => RSA_SHA256,
        Alg::PS256 => RSA_PSS_SHA256,
        Alg::EdDSA => ED25519,
    }
}

/// A BIT STRING of whole bytes.
fn bits(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes].concat())
}

/// UTCTime before 2050, GeneralizedTime from then on (RFC 5280 §4.1.2.5).
fn time(unix_s: u64) -> Vec<u8> {
    let (days, of_day) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    match year {
        ..2050 => element(UTC_TIME, format!("{:02}{rest}", year % 100).as_bytes()),
        _ => element(GENERALIZED_TIME, format!("{year:04}{rest}").as_bytes()),
    }
}

/// The day so many days after 1970-01-01, in the Gregorian calendar. A year is counted from March, so
/// that the day that a leap year has more is its last.
fn civil(days: u64) -> (u64, u64, u64) {
    const OF_400_YEARS: u64 = 146_097;
    let days = days + 719_468; // since 0000-03-01
    let (era, day) = (days / OF_400_YEARS, days % OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = from_march % 12 + 3;
    match month {
        13.. => (era * 400 + year + 1, month - 12, day),
        _ => (era * 400 + year, month, day),
    }
}

#[cfg(test)]
mod tests;
