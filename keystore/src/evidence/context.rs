//! What a TPM's statement is about: the bytes whose SHA-256 is the `extraData` that the TPM signs. They
//! begin with a text that no other protocol has, and name the kind of statement, so that none passes for
//! another; every part that varies in length has its length before it.

use super::bundle::{Host, Nonce};
use crate::KeyId;
use crate::charter::PurposeKind;
use aws_lc_rs::digest::{SHA256, digest};

const DOMAIN: &[u8] = b"assertd-attest-v1\0";

/// A SHA-256.
pub type Sha256 = [u8; 32];

/// `extraData` of TPM2_Certify: this nonce, this host, the key by what it is called here, its purpose,
/// its public half (SubjectPublicKeyInfo in DER). Without its id, who carries evidence could have one key
/// registered as another.
pub fn certify(
    nonce: &Nonce,
    host: &Host,
    key: &KeyId,
    purpose: PurposeKind,
    spki: &[u8],
) -> Sha256 {
    let mut bytes = begin(b"certify\0", nonce, host);
    sized(&mut bytes, key.to_string().as_bytes());
    sized(&mut bytes, purpose.name().as_bytes());
    bytes.extend(sha256(spki));
    sha256(&bytes)
}

/// `extraData` of TPM2_Quote: this nonce, this host, and the statements about keys that stand in the
/// same bundle ([`statements`]), so that one host's state goes with no other host's keys.
pub fn quote(nonce: &Nonce, host: &Host, statements: &Sha256) -> Sha256 {
    let mut bytes = begin(b"quote\0", nonce, host);
    bytes.extend(statements);
    sha256(&bytes)
}

/// The digest of the digests of these TPMS_ATTEST of TPM2_Certify, in the order of the bundle.
pub fn statements<'a>(attests: impl IntoIterator<Item = &'a [u8]>) -> Sha256 {
    let digests: Vec<u8> = attests.into_iter().flat_map(sha256).collect();
    sha256(&digests)
}

fn begin(kind: &[u8], nonce: &Nonce, host: &Host) -> Vec<u8> {
    let mut bytes = [DOMAIN, kind, &nonce.0].concat();
    sized(&mut bytes, host.as_str().as_bytes());
    bytes
}

/// Two bytes of length, big-endian, and the bytes.
fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("names of hosts, keys and purposes are short");
    out.extend(length.to_be_bytes());
    out.extend(bytes);
}

fn sha256(bytes: &[u8]) -> Sha256 {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::bundle::to_hex;

    /// `printf` of the parts into `sha256sum` says the same.
    #[test]
    fn a_context_is_what_the_documents_say() {
        let (nonce, host) = (Nonce([7; 32]), "web-1".parse().unwrap());
        let key = "ours/bank.1".parse().unwrap();
        let of = |purpose| to_hex(&certify(&nonce, &host, &key, purpose, b"spki"));
        assert_eq!(
            of(PurposeKind::Federation),
            "eb9583484d45d33ca18ca8d104dbbc39db736b51d869dfe1a923b6cd1d26ea5a"
        );
        assert_ne!(of(PurposeKind::Federation), of(PurposeKind::Account));
        let statements = statements([&b"one"[..], b"two"]);
        assert_eq!(
            to_hex(&quote(&nonce, &host, &statements)),
            "182baf8fbc9d1793788957aef06cc116ae7a0259c134985b726a8627a7925e9f"
        );
    }
}
