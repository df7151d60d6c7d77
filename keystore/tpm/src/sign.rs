//! From a message to what TPM2_Sign wants, and from its answer to what JWS wants. Pure. Hashing is
//! done here: the TPM gets a digest of exactly the right length, and its ECDSA answer, which may
//! lack leading zero octets, becomes r ‖ s, each full length (RFC 7518 §3.4).

use crate::template::left_padded;
use aws_lc_rs::digest;
use keystore::Alg;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::structures::{Digest, HashcheckTicket, Signature};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

/// The digest that the TPM signs.
pub fn digest_of(alg: Alg, message: &[u8]) -> Digest {
    let algorithm = match alg {
        Alg::ES384 => &digest::SHA384,
        Alg::ES256 | Alg::RS256 | Alg::PS256 | Alg::EdDSA => &digest::SHA256,
    };
    let digest = digest::digest(algorithm, message);
    Digest::try_from(digest.as_ref()).expect("48 bytes are fewer than the largest digest has")
}

/// Says that the digest was not made by the TPM, which an unrestricted key does not ask for.
pub fn no_ticket() -> HashcheckTicket {
    let ticket = TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    };
    HashcheckTicket::try_from(ticket).expect("tag and hierarchy are those of a null ticket")
}

/// The signature as JWS has it; `None` if it is not one of that algorithm.
pub fn jws_signature(alg: Alg, signature: &Signature) -> Option<Vec<u8>> {
    match (alg, signature) {
        (Alg::ES256 | Alg::ES384, Signature::EcDsa(pair)) => {
            let width = if alg == Alg::ES384 { 48 } else { 32 };
            let r = left_padded(pair.signature_r(), width)?;
            let s = left_padded(pair.signature_s(), width)?;
            Some([r, s].concat())
        }
        (Alg::RS256, Signature::RsaSsa(rsa)) | (Alg::PS256, Signature::RsaPss(rsa)) => {
            Some(rsa.signature().to_vec())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tss_esapi::interface_types::algorithm::HashingAlgorithm;
    use tss_esapi::structures::{EccParameter, EccSignature, PublicKeyRsa, RsaSignature};

    #[test]
    fn a_digest_has_the_length_of_the_algorithm() {
        for len in [0, 1, 48, 300] {
            let message = vec![7; len];
            assert_eq!(digest_of(Alg::ES256, &message).len(), 32);
            assert_eq!(digest_of(Alg::ES384, &message).len(), 48);
            assert_eq!(digest_of(Alg::RS256, &message).len(), 32);
            assert_eq!(digest_of(Alg::PS256, &message).len(), 32);
        }
    }

    #[test]
    fn r_and_s_are_full_length_whatever_the_tpm_leaves_out() {
        let pair = |r: &[u8], s: &[u8]| {
            let number = |bytes: &[u8]| EccParameter::try_from(bytes).unwrap();
            let hash = HashingAlgorithm::Sha256;
            Signature::EcDsa(EccSignature::create(hash, number(r), number(s)).unwrap())
        };
        let short = jws_signature(Alg::ES256, &pair(&[1], &[2; 31])).unwrap();
        assert_eq!(short.len(), 64);
        assert_eq!(short[..32], [[0; 31].as_slice(), &[1]].concat());
        assert_eq!(short[32..], [[0].as_slice(), &[2; 31]].concat());
        assert_eq!(
            jws_signature(Alg::ES384, &pair(&[1; 48], &[2]))
                .unwrap()
                .len(),
            96
        );
        assert_eq!(jws_signature(Alg::ES256, &pair(&[1; 33], &[2])), None);
        assert_eq!(jws_signature(Alg::RS256, &pair(&[1], &[2])), None);
    }

    #[test]
    fn a_signature_of_another_scheme_is_none() {
        let bytes = PublicKeyRsa::try_from(vec![9; 256]).unwrap();
        let rsa = RsaSignature::create(HashingAlgorithm::Sha256, bytes).unwrap();
        let (ssa, pss) = (Signature::RsaSsa(rsa.clone()), Signature::RsaPss(rsa));
        assert_eq!(jws_signature(Alg::RS256, &ssa), Some(vec![9; 256]));
        assert_eq!(jws_signature(Alg::PS256, &pss), Some(vec![9; 256]));
        assert_eq!(jws_signature(Alg::RS256, &pss), None);
        assert_eq!(jws_signature(Alg::PS256, &ssa), None);
        assert_eq!(jws_signature(Alg::ES256, &Signature::Null), None);
    }
}
