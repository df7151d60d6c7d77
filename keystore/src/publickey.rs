//! Public keys: checked when made, shown as JWK (RFC 7517), named by their RFC 7638 thumbprint,
//! and able to verify. Verification is strict: fixed-length ECDSA signatures, PSS salt equal to
//! the hash length, RSA of 2048 bits and more.

use crate::{Alg, Error, Kind};
use aws_lc_rs::{digest, signature};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::{Deserialize, Serialize};
use std::fmt;

mod spki;

pub use spki::FINGERPRINT_LEN;
pub(crate) use spki::{P256 as ALGORITHM_P256, RSA as ALGORITHM_RSA};

/// Smallest and largest RSA modulus in bits: 2048 by SP 800-131A and FAPI 2.0 §5.4, 8192 by the
/// verifier.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// RFC 7638 SHA-256 thumbprint of a public key, base64url: 43 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kid(String);

impl Kid {
    /// The text verifiers see.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A public key whose parameters have been checked: the point is on its curve, the modulus has an
/// accepted size. Serialises as the JWK's required members.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Jwk", into = "Jwk")]
pub enum PublicKey {
    /// P-256; x and y, 32 bytes each.
    P256 { x: [u8; 32], y: [u8; 32] },
    /// P-384; x and y, 48 bytes each.
    P384 { x: Box<[u8; 48]>, y: Box<[u8; 48]> },
    /// RSA; modulus and exponent, big-endian without leading zero octets.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// Ed25519; 32 bytes.
    Ed25519 { x: [u8; 32] },
}

/// The required members of a JWK (RFC 7518 §6.2.1 and §6.3.1, RFC 8037 §2), in the
/// lexicographic order that RFC 7638 §3.2 hashes them in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    kty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<String>,
}

/// A key as it stands in a JWKS: `kid` and `use` beside the required members, and for OpenID Connect
/// an `alg` (standards §2.2: never a `key_ops`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishedKey {
    #[serde(flatten)]
    key: PublicKey,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<Alg>,
    kid: Kid,
    r#use: &'static str,
}

impl PublicKey {
    /// From an uncompressed SEC 1 point (0x04 ‖ x ‖ y), 65 bytes for P-256 or 97 for P-384.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it is of another length or not on the curve.
    pub fn from_sec1(point: &[u8]) -> Result<PublicKey, Error> {
        match point.len() {
            65 => {
                p256::PublicKey::from_sec1_bytes(point).map_err(|_| off_curve("P-256"))?;
                let (x, y) = halves::<32>(point)?;
                Ok(PublicKey::P256 { x, y })
            }
            97 => {
                signature::ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                    .map_err(|_| off_curve("P-384"))?;
                let (x, y) = halves::<48>(point)?;
                Ok(PublicKey::P384 {
                    x: Box::new(x),
                    y: Box::new(y),
                })
            }
            len => Err(Error::new(
                Kind::Corrupt,
                format!("public key: a point of {len} bytes is neither P-256 (65) nor P-384 (97)"),
            )),
        }
    }

    /// From an RSA modulus and exponent, big-endian; leading zero octets are removed.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if the modulus is outside [`RSA_BITS`] or the exponent is even or < 3.
    pub fn from_rsa(n: &[u8], e: &[u8]) -> Result<PublicKey, Error> {
        let (n, e) = (strip_zeros(n), strip_zeros(e));
        let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(Error::new(
                Kind::Corrupt,
                format!("public key: an RSA modulus of {bits} bits is outside 2048 to 8192"),
            ));
        }
        let odd = e.last().is_some_and(|byte| byte % 2 == 1);
        if !odd || e == [1] || e.len() > 8 {
            return Err(Error::new(
                Kind::Corrupt,
                "public key: unusable RSA exponent",
            ));
        }
        Ok(PublicKey::Rsa {
            n: n.to_vec(),
            e: e.to_vec(),
        })
    }

    /// From the 32 bytes of an Ed25519 key (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it is of another length or no point.
    pub fn from_ed25519(x: &[u8]) -> Result<PublicKey, Error> {
        signature::ParsedPublicKey::new(&signature::ED25519, x)
            .map_err(|_| off_curve("Ed25519"))?;
        let x = x.try_into().map_err(|_| off_curve("Ed25519"))?;
        Ok(PublicKey::Ed25519 { x })
    }

    /// Whether this key can carry that algorithm.
    pub fn fits(&self, alg: Alg) -> bool {
        matches!(
            (self, alg),
            (PublicKey::P256 { .. }, Alg::ES256)
                | (PublicKey::P384 { .. }, Alg::ES384)
                | (PublicKey::Rsa { .. }, Alg::RS256 | Alg::PS256)
                | (PublicKey::Ed25519 { .. }, Alg::EdDSA)
        )
    }

    /// The RFC 7638 thumbprint.
    pub fn kid(&self) -> Kid {
        let json = serde_json::to_vec(&Jwk::from(self.clone()))
            .expect("a struct of strings serialises to JSON");
        Kid(BASE64URL.encode(digest::digest(&digest::SHA256, &json)))
    }

    /// The key as it is published for `alg`.
    pub fn published(&self, alg: Alg) -> PublishedKey {
        PublishedKey {
            key: self.clone(),
            alg: Some(alg),
            kid: self.kid(),
            r#use: "sig",
        }
    }

    /// The key as it stands in a SPIFFE bundle, of JWT-SVIDs: a member that the SVID's specification
    /// does not define, such as `alg`, should not be there (SPIFFE Trust Domain and Bundle §4.2.2).
    pub fn published_in_bundle(&self) -> PublishedKey {
        PublishedKey {
            key: self.clone(),
            alg: None,
            kid: self.kid(),
            r#use: "jwt-svid",
        }
    }

    /// A verifier for signatures under this key and algorithm, parsed once.
    ///
    /// # Errors
    /// [`Kind::Mismatch`] if the key cannot carry the algorithm.
    pub fn verifier(&self, alg: Alg) -> Result<Verifier, Error> {
        let mismatch = || {
            Error::new(
                Kind::Mismatch,
                format!("public key {}: not a key for {alg}", self.kid()),
            )
        };
        if !self.fits(alg) {
            return Err(mismatch());
        }
        let parse = |algorithm, bytes: &[u8]| {
            signature::ParsedPublicKey::new(algorithm, bytes)
                .map(Verifier::Parsed)
                .map_err(|_| mismatch())
        };
        match self {
            PublicKey::P256 { x, y } => parse(
                &signature::ECDSA_P256_SHA256_FIXED,
                &[&[4], &x[..], &y[..]].concat(),
            ),
            PublicKey::P384 { x, y } => parse(
                &signature::ECDSA_P384_SHA384_FIXED,
                &[&[4], &x[..], &y[..]].concat(),
            ),
            PublicKey::Ed25519 { x } => parse(&signature::ED25519, x),
            PublicKey::Rsa { n, e } => {
                let parameters = match alg {
                    Alg::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
                    _ => &signature::RSA_PKCS1_2048_8192_SHA256,
                };
                Ok(Verifier::Rsa {
                    parameters,
                    n: n.clone(),
                    e: e.clone(),
                })
            }
        }
    }
}

/// Verifies signatures under one public key and algorithm.
pub enum Verifier {
    /// EC and Ed25519.
    Parsed(signature::ParsedPublicKey),
    /// RSA, checked from modulus and exponent.
    Rsa {
        parameters: &'static signature::RsaParameters,
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// Proof that a signature verified; made by [`Verifier::verify`] alone (cf. rustls'
/// `HandshakeSignatureValid`: the absence of an error is a poor sign of success).
#[must_use]
pub struct SignatureValid(());

/// The signature does not verify under this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongSignature;

impl Verifier {
    /// Checks `signature` over the whole `message`.
    pub fn verify(&self, message: &[u8], sig: &[u8]) -> Result<SignatureValid, WrongSignature> {
        let verdict = match self {
            Verifier::Parsed(key) => key.verify_sig(message, sig),
            Verifier::Rsa { parameters, n, e } => {
                signature::RsaPublicKeyComponents { n, e }.verify(parameters, message, sig)
            }
        };
        verdict
            .map(|()| SignatureValid(()))
            .map_err(|_| WrongSignature)
    }
}

impl From<PublicKey> for Jwk {
    fn from(key: PublicKey) -> Jwk {
        let text = |bytes: &[u8]| Some(BASE64URL.encode(bytes));
        let jwk = |kty: &str, crv: Option<&str>| Jwk {
            crv: crv.map(str::to_owned),
            e: None,
            kty: kty.to_owned(),
            n: None,
            x: None,
            y: None,
        };
        match key {
            PublicKey::P256 { x, y } => Jwk {
                x: text(&x),
                y: text(&y),
                ..jwk("EC", Some("P-256"))
            },
            PublicKey::P384 { x, y } => Jwk {
                x: text(&x[..]),
                y: text(&y[..]),
                ..jwk("EC", Some("P-384"))
            },
            PublicKey::Rsa { n, e } => Jwk {
                n: text(&n),
                e: text(&e),
                ..jwk("RSA", None)
            },
            PublicKey::Ed25519 { x } => Jwk {
                x: text(&x),
                ..jwk("OKP", Some("Ed25519"))
            },
        }
    }
}

impl TryFrom<Jwk> for PublicKey {
    type Error = Error;
    fn try_from(jwk: Jwk) -> Result<PublicKey, Error> {
        let bytes = |member: &Option<String>| -> Result<Vec<u8>, Error> {
            let text = member.as_deref().unwrap_or_default();
            BASE64URL
                .decode(text)
                .map_err(|_| Error::new(Kind::Corrupt, "JWK: not base64url"))
        };
        let sec1 = |len: usize| -> Result<Vec<u8>, Error> {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            if x.len() != len || y.len() != len {
                return Err(Error::new(
                    Kind::Corrupt,
                    "JWK: coordinates are not full length",
                ));
            }
            Ok([&[4], &x[..], &y[..]].concat())
        };
        let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("EC", Some("P-256")) => PublicKey::from_sec1(&sec1(32)?)?,
            ("EC", Some("P-384")) => PublicKey::from_sec1(&sec1(48)?)?,
            ("OKP", Some("Ed25519")) => PublicKey::from_ed25519(&bytes(&jwk.x)?)?,
            ("RSA", None) => PublicKey::from_rsa(&bytes(&jwk.n)?, &bytes(&jwk.e)?)?,
            _ => {
                return Err(Error::new(
                    Kind::Unsupported,
                    "JWK: unknown key type or curve",
                ));
            }
        };
        Ok(key)
    }
}

fn off_curve(curve: &str) -> Error {
    Error::new(Kind::Corrupt, format!("public key: not a point on {curve}"))
}

fn strip_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

fn halves<const N: usize>(point: &[u8]) -> Result<([u8; N], [u8; N]), Error> {
    let half = |range: std::ops::Range<usize>| {
        point
            .get(range)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| off_curve("curve"))
    };
    if point.first() != Some(&4) {
        return Err(off_curve("the curve in uncompressed form"));
    }
    Ok((half(1..1 + N)?, half(1 + N..1 + 2 * N)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7638 §3.1.
    const RFC7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        let json = format!(r#"{{"kty":"RSA","n":"{RFC7638_N}","e":"AQAB"}}"#);
        let key: PublicKey = serde_json::from_str(&json).unwrap();
        assert_eq!(
            key.kid().as_str(),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
    }

    #[test]
    fn the_ed25519_thumbprint_is_that_of_rfc_8037() {
        let json =
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let key: PublicKey = serde_json::from_str(json).unwrap();
        assert_eq!(
            key.kid().as_str(),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
    }

    #[test]
    fn a_point_off_the_curve_is_no_key() {
        let mut point = [7u8; 65];
        point[0] = 4;
        assert_eq!(
            PublicKey::from_sec1(&point).unwrap_err().kind(),
            Kind::Corrupt
        );
        let mut point = [7u8; 97];
        point[0] = 4;
        assert_eq!(
            PublicKey::from_sec1(&point).unwrap_err().kind(),
            Kind::Corrupt
        );
    }

    #[test]
    fn an_rsa_key_below_2048_bits_is_no_key() {
        let mut n = vec![0xff; 256];
        assert!(PublicKey::from_rsa(&n, &[1, 0, 1]).is_ok());
        n[0] = 0x7f;
        assert_eq!(
            PublicKey::from_rsa(&n, &[1, 0, 1]).unwrap_err().kind(),
            Kind::Corrupt
        );
    }

    #[test]
    fn a_private_member_in_a_jwk_is_refused() {
        let json = r#"{"kty":"OKP","crv":"Ed25519","d":"AA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        assert!(serde_json::from_str::<PublicKey>(json).is_err());
    }
}
