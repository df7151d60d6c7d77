//! A private key that was made elsewhere, on its way into a token: what a vendor made for us and gave
//! away once. It is here for as long as one request takes, in memory that is wiped, and is never
//! shown. What it holds is looked at as strictly as what a TPM's key files hold: one that is not
//! whole, or not the key that it says it is, is refused before a token sees it.

use crate::der::{
    CONTEXT_0, CONTEXT_1, Elements, INTEGER, OCTET_STRING, SEQUENCE, Wrong, magnitude, unsigned,
};
use crate::publickey::{ALGORITHM_P256, ALGORITHM_RSA};
use crate::{Error, Kind, PublicKey};
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use std::fmt;
use std::ops::RangeInclusive;
use zeroize::Zeroizing;

/// Longest DER in bytes: RSA with 4096 bits has less than 2.5 KiB.
pub const PRIVATE_KEY_LEN_MAX: usize = 4 * 1024;

/// Bits of an RSA modulus that is brought in.
pub const RSA_BITS: RangeInclusive<usize> = 2048..=4096;

/// One, as PKCS #8 (RFC 5208), PKCS #1 (RFC 8017 A.1.2: GitHub) or SEC 1 (RFC 5915) has it in DER.
#[derive(PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<Vec<u8>>);

/// What it consists of, as big-endian numbers without leading zeros.
pub enum Parts<'a> {
    /// RFC 8017 §3.2, in the order of A.1.2.
    Rsa(RsaParts<'a>),
    /// P-256: 32 bytes, of which the first may be zero.
    P256(&'a [u8; 32]),
}

/// The numbers of an RSA key.
#[derive(Clone, Copy)]
pub struct RsaParts<'a> {
    /// `n`
    pub modulus: &'a [u8],
    /// `e`
    pub public_exponent: &'a [u8],
    /// `d`
    pub private_exponent: &'a [u8],
    /// `p`
    pub prime_1: &'a [u8],
    /// `q`
    pub prime_2: &'a [u8],
    /// `dP`
    pub exponent_1: &'a [u8],
    /// `dQ`
    pub exponent_2: &'a [u8],
    /// `qInv`
    pub coefficient: &'a [u8],
}

impl PrivateKey {
    /// From DER.
    ///
    /// # Errors
    /// `Refused` if it is too long to be one of ours; what it is shows when it is read.
    pub fn new(der: Zeroizing<Vec<u8>>) -> Result<PrivateKey, Error> {
        match (1..=PRIVATE_KEY_LEN_MAX).contains(&der.len()) {
            true => Ok(PrivateKey(der)),
            false => Err(refused("is empty or too long")),
        }
    }

    /// Its parts and the public key that belongs to them, which is computed and compared with what
    /// stands beside them.
    ///
    /// # Errors
    /// `Refused`; nothing of the key is in it.
    pub fn read(&self) -> Result<(PublicKey, Parts<'_>), Error> {
        let mut whole = Elements::of(&self.0);
        let content = whole.take(SEQUENCE).map_err(refused)?;
        whole.end().map_err(refused)?;
        let mut content = Elements::of(content);
        let version = content.take(INTEGER).and_then(unsigned).map_err(refused)?;
        if let Some(algorithm) = content.take_optional(SEQUENCE).map_err(refused)? {
            let inner = content.take(OCTET_STRING).map_err(refused)?;
            content.take_optional(CONTEXT_0).map_err(refused)?; // attributes
            content.end().map_err(refused)?;
            return match (version, algorithm) {
                (0, algorithm) if algorithm == &ALGORITHM_RSA[2..] => rsa(inner),
                (0, algorithm) if algorithm == &ALGORITHM_P256[2..] => p256(inner),
                (0, _) => Err(refused("is neither RSA nor on the curve P-256")),
                _ => Err(refused("is not of PKCS #8 version 0")),
            };
        }
        match version {
            0 => rsa(&self.0),
            1 => p256(&self.0),
            _ => Err(refused("is none of PKCS #8, PKCS #1 and SEC 1")),
        }
    }

    /// PKCS #8 of a key that was read, which is what can be wrapped for a token.
    pub fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        use crate::der::{element, unsigned_element};
        let mut content = Elements::of(&self.0);
        let mut content = Elements::of(content.take(SEQUENCE).map_err(refused)?);
        content.take(INTEGER).map_err(refused)?;
        if content.take_optional(SEQUENCE).map_err(refused)?.is_some() {
            return Ok(self.0.clone());
        }
        let algorithm = match self.read()?.1 {
            Parts::Rsa(_) => ALGORITHM_RSA,
            Parts::P256(_) => ALGORITHM_P256,
        };
        let inner = Zeroizing::new(element(OCTET_STRING, &self.0));
        let content = [&unsigned_element(0), algorithm, &inner].concat();
        let content = Zeroizing::new(content);
        Ok(Zeroizing::new(element(SEQUENCE, &content)))
    }
}

/// RSAPrivateKey with two primes.
fn rsa(der: &[u8]) -> Result<(PublicKey, Parts<'_>), Error> {
    let parts = rsa_parts(der).map_err(refused)?;
    let bits = parts.modulus.len() * 8
        - parts
            .modulus
            .first()
            .map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(refused(format!(
            "has an RSA modulus of {bits} bits, which is outside {} to {}",
            RSA_BITS.start(),
            RSA_BITS.end()
        )));
    }
    let public_key = PublicKey::from_rsa(parts.modulus, parts.public_exponent)?;
    // Whether the numbers belong together; what it copies it wipes.
    RsaKeyPair::from_der(der).map_err(|_| refused("has numbers that do not belong together"))?;
    Ok((public_key, Parts::Rsa(parts)))
}

fn rsa_parts(der: &[u8]) -> Result<RsaParts<'_>, Wrong> {
    let mut whole = Elements::of(der);
    let mut content = Elements::of(whole.take(SEQUENCE)?);
    whole.end()?;
    if content.take(INTEGER).and_then(unsigned)? != 0 {
        return Err("has more than two primes");
    }
    let mut next = || content.take(INTEGER).and_then(magnitude);
    let parts = RsaParts {
        modulus: next()?,
        public_exponent: next()?,
        private_exponent: next()?,
        prime_1: next()?,
        prime_2: next()?,
        exponent_1: next()?,
        exponent_2: next()?,
        coefficient: next()?,
    };
    content.end()?;
    Ok(parts)
}

/// ECPrivateKey on P-256; the curve may stand in it again, and the public key.
fn p256(der: &[u8]) -> Result<(PublicKey, Parts<'_>), Error> {
    let (secret, parameters, public) = p256_parts(der).map_err(refused)?;
    // `id-ecPublicKey` and its length go before the curve.
    if parameters.is_some_and(|curve| curve != &ALGORITHM_P256[11..]) {
        return Err(refused("is on another curve than P-256"));
    }
    let key = p256::SecretKey::from_slice(secret)
        .map_err(|_| refused("has a number that is no P-256 key"))?;
    let point = key.public_key().to_sec1_bytes(); // uncompressed
    let public_key = PublicKey::from_sec1(&point)?;
    // A BIT STRING begins with how many bits of its last byte do not count.
    if public.is_some_and(|bits| bits != [&[0], &point[..]].concat()) {
        return Err(refused("has a public key that does not belong to it"));
    }
    Ok((public_key, Parts::P256(secret)))
}

type EcParts<'a> = (&'a [u8; 32], Option<&'a [u8]>, Option<&'a [u8]>);

fn p256_parts(der: &[u8]) -> Result<EcParts<'_>, Wrong> {
    use crate::der::BIT_STRING;
    let mut whole = Elements::of(der);
    let mut content = Elements::of(whole.take(SEQUENCE)?);
    whole.end()?;
    if content.take(INTEGER).and_then(unsigned)? != 1 {
        return Err("is not an EC key of version 1");
    }
    let secret = content.take(OCTET_STRING)?;
    let secret = secret
        .try_into()
        .map_err(|_| "has another length than 32 bytes")?;
    let parameters = content.take_optional(CONTEXT_0)?;
    let public = match content.take_optional(CONTEXT_1)? {
        Some(inner) => {
            let mut inner = Elements::of(inner);
            let bits = inner.take(BIT_STRING)?;
            inner.end()?;
            Some(bits)
        }
        None => None,
    };
    content.end()?;
    Ok((secret, parameters, public))
}

pub(crate) fn refused(what: impl fmt::Display) -> Error {
    Error::new(
        Kind::Refused,
        format!("the private key {what}; give an unencrypted RSA (2048 to 4096 bits) or P-256 key"),
    )
}

/// Nothing of it.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

#[cfg(test)]
mod tests;
