//! MakeCredential without a TPM (TPM 2.0 Part 1 §24, B.10.4 and C.6.4): a secret that the TPM of an
//! endorsement key alone gives out, and only if an object with a given Name is loaded there too.

use crate::PublicKey;
use crate::evidence::hash::Hash;
use crate::evidence::public::{PublicArea, Symmetric};
use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, ParsedPublicKey, PrivateKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
    OaepPublicEncryptingKey, PublicEncryptingKey,
};
use zeroize::Zeroizing;

/// With the zero that ends it, as both schemes have it.
const IDENTITY: &[u8] = b"IDENTITY\0";

/// What TPM2_ActivateCredential takes.
pub struct Credential {
    /// TPM2B_ID_OBJECT, without its size.
    pub credential: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET, without its size.
    pub secret: Vec<u8>,
}

/// The seed of the keys, and how only that TPM gets it.
type Seed = (Zeroizing<Vec<u8>>, Vec<u8>);

/// Encloses `secret` for the object of this Name, in the TPM of this endorsement key.
///
/// # Errors
/// A sentence: what is unusual about the endorsement key.
pub fn make(ek: &PublicArea, name: &[u8], secret: &[u8]) -> Result<Credential, String> {
    let hash = ek.name_alg;
    if !hash.is_strong() || secret.len() > hash.digest_len() {
        return Err("the endorsement key's Name is no SHA-256 or better".into());
    }
    let (algorithm, bits) = match ek.symmetric {
        Symmetric::Aes128Cfb => (&AES_128, 128),
        Symmetric::Aes256Cfb => (&AES_256, 256),
        Symmetric::None => return Err(no_parent()),
    };
    let (seed, enclosed_seed) = seed(ek, hash)?;
    let key = kdfa(hash, &seed, b"STORAGE", name, bits);
    let mut identity = sized(secret);
    // The key is used for this and nothing else, so that the IV may be zero, as the TPM has it.
    let context = EncryptionContext::Iv128(FixedLength::from([0; 16]));
    UnboundCipherKey::new(algorithm, &key)
        .and_then(EncryptingKey::cfb128)
        .and_then(|key| key.less_safe_encrypt(&mut identity, context))
        .map_err(|_| no_parent())?;
    let key = kdfa(hash, &seed, b"INTEGRITY", &[], hash.digest_len() * 8);
    let integrity = hash.hmac(&key, &[&identity, name]);
    Ok(Credential {
        credential: [sized(&integrity), identity].concat(),
        secret: enclosed_seed,
    })
}

fn no_parent() -> String {
    "the endorsement key is no storage key: nothing can be enclosed for it".into()
}

fn seed(ek: &PublicArea, hash: Hash) -> Result<Seed, String> {
    let key = ek.public_key();
    let key = key.map_err(|wrong| format!("the endorsement key {wrong}"))?;
    let seed = match &key {
        PublicKey::Rsa { .. } => by_oaep(&key, hash),
        PublicKey::P256 { x, .. } => by_ecdh(&key, &ECDH_P256, x, hash),
        PublicKey::P384 { x, .. } => by_ecdh(&key, &ECDH_P384, &x[..], hash),
        PublicKey::Ed25519 { .. } => None,
    };
    seed.ok_or_else(no_parent)
}

fn by_oaep(key: &PublicKey, hash: Hash) -> Option<Seed> {
    let algorithm = match hash {
        Hash::Sha1 => return None,
        Hash::Sha256 => &OAEP_SHA256_MGF1SHA256,
        Hash::Sha384 => &OAEP_SHA384_MGF1SHA384,
        Hash::Sha512 => &OAEP_SHA512_MGF1SHA512,
    };
    let key = PublicEncryptingKey::from_der(&key.spki()).ok()?;
    let key = OaepPublicEncryptingKey::new(key).ok()?;
    let mut seed = Zeroizing::new(vec![0; hash.digest_len()]);
    aws_lc_rs::rand::fill(&mut seed).ok()?;
    let mut out = vec![0; key.ciphertext_size()];
    let enclosed = key.encrypt(algorithm, &seed, &mut out, Some(IDENTITY));
    let enclosed = enclosed.ok()?.to_vec();
    Some((seed, enclosed))
}

fn by_ecdh(
    key: &PublicKey,
    algorithm: &'static agreement::Algorithm,
    x: &[u8],
    hash: Hash,
) -> Option<Seed> {
    let own = PrivateKey::generate(algorithm).ok()?;
    let point = own.compute_public_key().ok()?; // 4, x, y
    let (own_x, own_y) = point.as_ref().get(1..)?.split_at_checked(x.len())?;
    let peer = agreement::UnparsedPublicKey::new(algorithm, key.spki());
    let peer = ParsedPublicKey::try_from(peer).ok()?;
    let seed = agreement::agree(&own, peer, (), |z| Ok(kdfe(hash, z, own_x, x))).ok()?;
    Some((seed, [sized(own_x), sized(own_y)].concat()))
}

/// A TPM2B.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("digests, secrets and coordinates are short");
    [&length.to_be_bytes(), bytes].concat()
}

/// KDFa with one context (TPM 2.0 Part 1 §11.4.10.2), of whole bytes.
fn kdfa(hash: Hash, key: &[u8], label: &[u8], context: &[u8], bits: usize) -> Zeroizing<Vec<u8>> {
    let size = u32::try_from(bits).expect("a key has few bits");
    let mut out = Zeroizing::new(Vec::with_capacity(128));
    for counter in 1u32.. {
        if out.len() * 8 >= bits {
            break;
        }
        let (counter, size) = (counter.to_be_bytes(), size.to_be_bytes());
        out.extend(hash.hmac(key, &[&counter, label, &[0], context, &size]));
    }
    out.truncate(bits / 8);
    out
}

/// KDFe for `IDENTITY` (TPM 2.0 Part 1 §11.4.10.3), as long as the hash.
fn kdfe(hash: Hash, z: &[u8], party_u: &[u8], party_v: &[u8]) -> Zeroizing<Vec<u8>> {
    let counter = 1u32.to_be_bytes();
    Zeroizing::new(hash.of(&[&counter, z, IDENTITY, party_u, party_v]))
}
