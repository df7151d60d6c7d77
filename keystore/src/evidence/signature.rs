//! TPMT_SIGNATURE (TPM 2.0 Part 2 §11.3.4), and whether it is right. An attestation key has one algorithm, by its
//! public area, and nothing that a signature says about itself changes it.

use super::hash::Hash;
use super::public::{PublicArea, Scheme};
use super::wire::{Reader, Wrong};
use crate::Alg;
use crate::publickey::SignatureValid;

/// Longest part of a signature: RSA-4096.
const PART_LEN_MAX: usize = 512;

/// A signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// By what.
    pub scheme: Scheme,
    /// It.
    pub parts: Parts,
}

/// Numbers, big-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// RSA's one.
    Rsa(Vec<u8>),
    /// ECDSA's r and s; a TPM may leave out the zeros that they begin with.
    Ecdsa(Vec<u8>, Vec<u8>),
}

impl Signature {
    /// Reads one; nothing may follow it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Signature, Wrong> {
        let mut reader = Reader::of(bytes);
        let id = reader.u16()?;
        if ![Scheme::RSASSA, Scheme::RSAPSS, Scheme::ECDSA].contains(&id) {
            return Err("is of an unknown scheme");
        }
        let hash = Hash::of_id(reader.u16()?).ok_or("is of an unknown hash")?;
        let mut part = || reader.sized(PART_LEN_MAX).map(<[u8]>::to_vec);
        let parts = match id {
            Scheme::ECDSA => Parts::Ecdsa(part()?, part()?),
            _ => Parts::Rsa(part()?),
        };
        reader.end()?;
        let scheme = Scheme { id, hash };
        Ok(Signature { scheme, parts })
    }

    /// Whether this key has signed these bytes.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(&self, key: &PublicArea, bytes: &[u8]) -> Result<SignatureValid, Wrong> {
        if key.scheme != Some(self.scheme) {
            return Err("is of another scheme than the attestation key has");
        }
        let alg = key.alg().ok_or("is of a scheme that is not accepted")?;
        let signature = match (&self.parts, alg) {
            (Parts::Rsa(signature), _) => signature.clone(),
            (Parts::Ecdsa(r, s), Alg::ES384) => fixed::<48>(r, s)?,
            (Parts::Ecdsa(r, s), _) => fixed::<32>(r, s)?,
        };
        let verifier = key.public_key()?.verifier(alg);
        let verifier = verifier.map_err(|_| "is of a scheme that the key cannot have")?;
        let verified = verifier.verify(bytes, &signature);
        verified.map_err(|_| "is not the attestation key's over this statement")
    }
}

/// r ‖ s, each full length.
fn fixed<const N: usize>(r: &[u8], s: &[u8]) -> Result<Vec<u8>, Wrong> {
    let mut out = Vec::with_capacity(2 * N);
    for number in [r, s] {
        let zeros = N.checked_sub(number.len());
        let zeros = zeros.ok_or("has a number that is too long")?;
        out.extend(std::iter::repeat_n(0, zeros));
        out.extend(number);
    }
    Ok(out)
}
