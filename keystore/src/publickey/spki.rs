//! A public key as SubjectPublicKeyInfo in DER (RFC 5280 §4.1, RFC 8017 A.1, RFC 5480 §2, RFC 8410
//! §4), and its fingerprint. Written here, because what is written has four shapes and what reads
//! it is elsewhere.

use super::PublicKey;
use crate::der::{BIT_STRING, SEQUENCE, element, positive};
use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

/// Length of a fingerprint: 32 bytes in padded base64.
pub const FINGERPRINT_LEN: usize = 44;

/// AlgorithmIdentifier: rsaEncryption with NULL (RFC 8017 A.1).
pub const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// AlgorithmIdentifier: id-ecPublicKey on secp256r1 (RFC 5480 §2.1).
pub const P256: &[u8] =
    b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

/// AlgorithmIdentifier: id-ecPublicKey on secp384r1.
const P384: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";

/// AlgorithmIdentifier: id-Ed25519 (RFC 8410 §3).
const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";

impl PublicKey {
    /// SubjectPublicKeyInfo in DER: what `openssl pkey -pubout` has between its lines.
    pub fn spki(&self) -> Vec<u8> {
        let algorithm = match self {
            PublicKey::P256 { .. } => P256,
            PublicKey::P384 { .. } => P384,
            PublicKey::Ed25519 { .. } => ED25519,
            PublicKey::Rsa { .. } => RSA,
        };
        let no_unused_bits = [&[0], &self.bits()[..]].concat();
        let members = [algorithm, &element(BIT_STRING, &no_unused_bits)].concat();
        element(SEQUENCE, &members)
    }

    /// SHA-256 of what stands in its BIT STRING, of which certificates have the beginning as key
    /// identifier (RFC 7093 §2).
    pub fn identifier(&self) -> digest::Digest {
        digest::digest(&digest::SHA256, &self.bits())
    }

    /// The `subjectPublicKey`.
    fn bits(&self) -> Vec<u8> {
        match self {
            PublicKey::P256 { x, y } => [&[4], &x[..], &y[..]].concat(),
            PublicKey::P384 { x, y } => [&[4], &x[..], &y[..]].concat(),
            PublicKey::Ed25519 { x } => x.to_vec(),
            PublicKey::Rsa { n, e } => element(SEQUENCE, &[positive(n), positive(e)].concat()),
        }
    }

    /// SHA-256 of the SubjectPublicKeyInfo in padded standard base64: what Snowflake shows as
    /// RSA_PUBLIC_KEY_FP behind `SHA256:`.
    pub fn fingerprint(&self) -> String {
        BASE64.encode(digest::digest(&digest::SHA256, &self.spki()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64` says the same.
    #[test]
    fn a_fingerprint_is_that_of_openssl() {
        for (jwk, fingerprint) in [
            (
                r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}"#,
                "rTIyDPbFltiEsFOBulc6uo3dV0m03o9KI6efmondrrI=",
            ),
            (
                r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
                "K9G7DESol8MKeqCZHN442AYv5EHeUNoPRoJTRPYC6Cc=",
            ),
            (
                r#"{"kty":"EC","crv":"P-384","x":"Z9f-si5y3yHpA-zKG7dZvQrLvxoZY7TNRRjSs5TBXOM6hm_8535BQK1gelvMvMmN","y":"QkwbR_XD_-vp1UUr2qqKpRS9-4A0UwEbUOATIHL2M7EBAHobXJY8a6NZ_uWFQIVl"}"#,
                "JG3qlRjL7munN32RtnRKQiAytT/SqcnCH7fA7RhF6Ik=",
            ),
            (
                r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
                "BuP9j9opu2CrWVV95h7bCuzbIxE0vjDnW0Vfjht5L6k=",
            ),
        ] {
            let key: PublicKey = serde_json::from_str(jwk).unwrap();
            assert_eq!(key.fingerprint(), fingerprint, "{jwk}");
            assert_eq!(fingerprint.len(), FINGERPRINT_LEN);
        }
    }
}
