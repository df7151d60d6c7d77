//! From a JWS algorithm to a mechanism and what is handed to it. Hashing happens here wherever
//! the token allows it: modules sign "digests" of any length (SoftHSM signs 0 and 70 bytes with
//! CKM_ECDSA), so that exactly the right length goes in is ours to keep.

use aws_lc_rs::digest;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use keystore::Alg;
use std::borrow::Cow;

/// One way to make a signature of one algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// CKM_ECDSA over the digest: 32 bytes for ES256, 48 for ES384.
    EcdsaOverDigest(Alg),
    /// CKM_ECDSA_SHA256 or CKM_ECDSA_SHA384 over the message, for tokens without the bare one.
    EcdsaOverMessage(Alg),
    /// CKM_SHA256_RSA_PKCS over the message.
    Sha256RsaPkcs,
    /// CKM_RSA_PKCS over the DigestInfo (RFC 8017 §9.2).
    RsaPkcsOverDigestInfo,
    /// CKM_SHA256_RSA_PKCS_PSS over the message.
    Sha256RsaPss,
    /// CKM_RSA_PKCS_PSS over the digest: this mechanism does not hash.
    RsaPssOverDigest,
    /// CKM_EDDSA without parameters, which is PureEdDSA, over the message.
    Eddsa,
}

/// DER of DigestInfo for SHA-256 up to the digest itself (RFC 8017 §9.2 note 1).
const SHA256_DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// Bytes of salt in a PS256 signature: as many as the digest has (RFC 7518 §3.5).
const PS256_SALT_LEN: u64 = 32;

impl Scheme {
    /// The first way to sign `alg` that is among `listed`.
    pub fn choose(alg: Alg, listed: &[MechanismType]) -> Option<Scheme> {
        let preferred = match alg {
            Alg::ES256 | Alg::ES384 => {
                [Scheme::EcdsaOverDigest(alg), Scheme::EcdsaOverMessage(alg)]
            }
            Alg::RS256 => [Scheme::Sha256RsaPkcs, Scheme::RsaPkcsOverDigestInfo],
            Alg::PS256 => [Scheme::Sha256RsaPss, Scheme::RsaPssOverDigest],
            Alg::EdDSA => [Scheme::Eddsa, Scheme::Eddsa],
        };
        preferred
            .into_iter()
            .find(|scheme| listed.contains(&scheme.mechanism_type()))
    }

    /// The mechanism to name in C_SignInit.
    pub fn mechanism(self) -> Mechanism<'static> {
        let pss = PkcsPssParams {
            hash_alg: MechanismType::SHA256,
            mgf: PkcsMgfType::MGF1_SHA256,
            s_len: PS256_SALT_LEN.into(),
        };
        match self {
            Scheme::EcdsaOverDigest(_) => Mechanism::Ecdsa,
            Scheme::EcdsaOverMessage(Alg::ES384) => Mechanism::EcdsaSha384,
            Scheme::EcdsaOverMessage(_) => Mechanism::EcdsaSha256,
            Scheme::Sha256RsaPkcs => Mechanism::Sha256RsaPkcs,
            Scheme::RsaPkcsOverDigestInfo => Mechanism::RsaPkcs,
            Scheme::Sha256RsaPss => Mechanism::Sha256RsaPkcsPss(pss),
            Scheme::RsaPssOverDigest => Mechanism::RsaPkcsPss(pss),
            Scheme::Eddsa => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
        }
    }

    /// Its CKM_ number, for CKA_ALLOWED_MECHANISMS.
    pub fn mechanism_type(self) -> MechanismType {
        self.mechanism().mechanism_type()
    }

    /// What C_Sign gets for `message`.
    pub fn input(self, message: &[u8]) -> Cow<'_, [u8]> {
        let sha256 = || digest::digest(&digest::SHA256, message);
        match self {
            Scheme::EcdsaOverDigest(Alg::ES384) => {
                Cow::Owned(digest::digest(&digest::SHA384, message).as_ref().to_vec())
            }
            Scheme::EcdsaOverDigest(_) | Scheme::RsaPssOverDigest => {
                Cow::Owned(sha256().as_ref().to_vec())
            }
            Scheme::RsaPkcsOverDigestInfo => {
                Cow::Owned([&SHA256_DIGEST_INFO, sha256().as_ref()].concat())
            }
            Scheme::EcdsaOverMessage(_)
            | Scheme::Sha256RsaPkcs
            | Scheme::Sha256RsaPss
            | Scheme::Eddsa => Cow::Borrowed(message),
        }
    }
}

/// The mechanism that makes key pairs for `alg`.
pub fn key_pair_mechanism(alg: Alg) -> Mechanism<'static> {
    match alg {
        Alg::ES256 | Alg::ES384 => Mechanism::EccKeyPairGen,
        Alg::RS256 | Alg::PS256 => Mechanism::RsaPkcsKeyPairGen,
        Alg::EdDSA => Mechanism::EccEdwardsKeyPairGen,
    }
}

/// The algorithms a token with these mechanisms can both make keys for and sign with.
pub fn algs(listed: &[MechanismType]) -> Vec<Alg> {
    Alg::ALL
        .into_iter()
        .filter(|alg| listed.contains(&key_pair_mechanism(*alg).mechanism_type()))
        .filter(|alg| Scheme::choose(*alg, listed).is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_algorithm_needs_key_generation_and_signing() {
        let ec = MechanismType::ECC_KEY_PAIR_GEN;
        assert_eq!(algs(&[]), []);
        assert_eq!(algs(&[ec]), []);
        assert_eq!(algs(&[MechanismType::ECDSA]), []);
        assert_eq!(algs(&[ec, MechanismType::ECDSA]), [Alg::ES256, Alg::ES384]);
        assert_eq!(algs(&[ec, MechanismType::ECDSA_SHA384]), [Alg::ES384]);
        assert_eq!(
            algs(&[
                MechanismType::RSA_PKCS_KEY_PAIR_GEN,
                MechanismType::RSA_PKCS
            ]),
            [Alg::RS256]
        );
    }

    #[test]
    fn a_bare_mechanism_gets_exactly_a_digest() {
        for len in [0, 1, 32, 300] {
            let message = vec![7; len];
            assert_eq!(
                Scheme::EcdsaOverDigest(Alg::ES256).input(&message).len(),
                32
            );
            assert_eq!(
                Scheme::EcdsaOverDigest(Alg::ES384).input(&message).len(),
                48
            );
            assert_eq!(Scheme::RsaPssOverDigest.input(&message).len(), 32);
            assert_eq!(Scheme::RsaPkcsOverDigestInfo.input(&message).len(), 51);
            assert_eq!(&*Scheme::Eddsa.input(&message), &message[..]);
            assert_eq!(&*Scheme::Sha256RsaPss.input(&message), &message[..]);
        }
    }
}
