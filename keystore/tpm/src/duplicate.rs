//! A private key on its way into the TPM, as TPM2_Import takes it (TPM 2.0 Part 1 §23.3): encrypted to
//! the primary, so that it passes in the clear neither over a bus nor through the binding's memory.
//! The primary is a P-256 key with AES-128-CFB and SHA-256, like every parent of ours. Pure.

use aws_lc_rs::agreement::{self, ECDH_P256, EphemeralPrivateKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::{digest, hmac, iv::FixedLength};
use keystore::privatekey::Parts;
use keystore::{Error, Kind};
use zeroize::Zeroizing;

/// TPM_ALG_RSA and TPM_ALG_ECC, as a sensitive area begins (Part 2 §12.3.2).
const RSA: u16 = 0x0001;
const ECC: u16 = 0x0023;

/// Bytes of SHA-256, of a P-256 coordinate and of an AES-128 key.
const DIGEST_LEN: usize = 32;
const COORDINATE_LEN: usize = 32;
const AES_KEY_LEN: usize = 16;

/// Bytes of a prime of an RSA key with 2048 bits.
pub const PRIME_LEN: usize = 128;

/// What TPM2_Import gets beside the public area.
pub struct Duplicate {
    /// TPM2B_PRIVATE, without its size.
    pub private: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET, without its size.
    pub secret: Vec<u8>,
}

impl Duplicate {
    /// Of a key whose public area has this name, with this auth value, for the parent with this point
    /// (0x04 ‖ x ‖ y).
    ///
    /// # Errors
    /// `Mismatch` if the parent's point is none.
    pub fn new(
        parts: &Parts<'_>,
        auth: &[u8],
        name: &[u8],
        parent: &[u8],
    ) -> Result<Duplicate, Error> {
        let (seed, secret) = shared(parent)?;
        let mut encrypted = sensitive(parts, auth);
        let key = derived(&seed, "STORAGE", name, AES_KEY_LEN);
        encrypt(&key, &mut encrypted)?;
        let key = derived(&seed, "INTEGRITY", &[], DIGEST_LEN);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let tag = hmac::sign(&key, &[&encrypted, name].concat());
        Ok(Duplicate {
            private: [&sized(tag.as_ref())[..], &encrypted].concat(),
            secret,
        })
    }
}

/// TPM2B_SENSITIVE: kind, auth value, no seed, and the prime or number from which the TPM computes the
/// rest. Its memory is as long as it will be, and is encrypted in place.
fn sensitive(parts: &Parts<'_>, auth: &[u8]) -> Zeroizing<Vec<u8>> {
    let (kind, secret): (u16, &[u8]) = match parts {
        Parts::Rsa(numbers) => (RSA, numbers.prime_1),
        Parts::P256(number) => (ECC, &number[..]),
    };
    // A TPM counts no zeros at the end of an auth value (Part 1 §19.6.4.3).
    let zeros = auth.iter().rev().take_while(|byte| **byte == 0).count();
    let auth = &auth[..auth.len() - zeros];
    let length = 2 + 2 + auth.len() + 2 + 2 + secret.len();
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 + length));
    let size = |length: usize| {
        let length = u16::try_from(length).expect("a prime of 128 bytes and a digest");
        length.to_be_bytes()
    };
    bytes.extend(size(length));
    bytes.extend(kind.to_be_bytes());
    bytes.extend(size(auth.len()));
    bytes.extend(auth);
    bytes.extend(size(0));
    bytes.extend(size(secret.len()));
    bytes.extend(secret);
    bytes
}

/// A seed that the parent alone can compute, and what it needs for that: our point (Part 1 C.6.1).
fn shared(parent: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), Error> {
    let no_random = |_| Error::new(Kind::Internal, "no random bytes from the operating system");
    let ours =
        EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(no_random)?;
    let point = ours.compute_public_key().map_err(no_random)?;
    let (_, point) = point.as_ref().split_at(1); // uncompressed
    let (x, y) = point.split_at(COORDINATE_LEN);
    let parent_key = agreement::UnparsedPublicKey::new(&ECDH_P256, parent);
    let no_point = Error::new(
        Kind::Mismatch,
        "the primary's public key is no point on P-256",
    );
    let parent_x = parent.get(1..1 + COORDINATE_LEN).unwrap_or_default();
    let seed = agreement::agree_ephemeral(ours, parent_key, no_point, |z| {
        // KDFe (Part 1 §11.4.10.3).
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [&1u32.to_be_bytes()[..], z, b"DUPLICATE\0", x, parent_x] {
            context.update(part);
        }
        Ok(Zeroizing::new(context.finish().as_ref().to_vec()))
    })?;
    Ok((seed, [sized(x), sized(y)].concat()))
}

/// KDFa (Part 1 §11.4.10.2), of which one block is enough.
fn derived(seed: &[u8], label: &str, context: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let bits = (length as u32 * 8).to_be_bytes();
    let parts = [
        &1u32.to_be_bytes()[..],
        label.as_bytes(),
        &[0],
        context,
        &bits,
    ];
    let key = hmac::Key::new(hmac::HMAC_SHA256, seed);
    let block = hmac::sign(&key, &parts.concat());
    Zeroizing::new(block.as_ref()[..length].to_vec())
}

/// AES-128-CFB. Its initial value is zero (Part 1 §24.5): a key encrypts once.
fn encrypt(key: &[u8], bytes: &mut [u8]) -> Result<(), Error> {
    let failed = |_| Error::new(Kind::Internal, "AES-128-CFB does not encrypt");
    let key = UnboundCipherKey::new(&AES_128, key).map_err(failed)?;
    let zero = EncryptionContext::Iv128(FixedLength::from([0; AES_KEY_LEN]));
    let key = EncryptingKey::cfb128(key).map_err(failed)?;
    key.less_safe_encrypt(bytes, zero).map_err(failed)?;
    Ok(())
}

/// A TPM2B: its size, then it.
fn sized(content: &[u8]) -> Vec<u8> {
    let size = u16::try_from(content.len()).expect("a digest or a coordinate");
    [&size.to_be_bytes(), content].concat()
}
