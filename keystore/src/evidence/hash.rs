//! The hashes of a TPM. A bank of PCRs is named by one, and so are they here.

use super::bundle::Bank;
use aws_lc_rs::{digest, hmac};

/// A hash that a TPM names (TCG Algorithm Registry).
pub type Hash = Bank;

impl Hash {
    /// By its TPM_ALG_ID.
    pub fn of_id(id: u16) -> Option<Hash> {
        let found = Bank::ALL.into_iter().find(|(_, of)| *of == id);
        found.map(|(hash, _)| hash)
    }

    /// Its TPM_ALG_ID.
    pub fn id(self) -> u16 {
        match self {
            Bank::Sha1 => 0x0004,
            Bank::Sha256 => 0x000b,
            Bank::Sha384 => 0x000c,
            Bank::Sha512 => 0x000d,
        }
    }

    /// Of these parts, one after the other.
    pub fn of(self, parts: &[&[u8]]) -> Vec<u8> {
        let algorithm = match self {
            Bank::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Bank::Sha256 => &digest::SHA256,
            Bank::Sha384 => &digest::SHA384,
            Bank::Sha512 => &digest::SHA512,
        };
        let mut context = digest::Context::new(algorithm);
        for part in parts {
            context.update(part);
        }
        context.finish().as_ref().to_vec()
    }

    /// HMAC of these parts.
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let algorithm = match self {
            Bank::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Bank::Sha256 => hmac::HMAC_SHA256,
            Bank::Sha384 => hmac::HMAC_SHA384,
            Bank::Sha512 => hmac::HMAC_SHA512,
        };
        let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
        for part in parts {
            context.update(part);
        }
        context.sign().as_ref().to_vec()
    }

    /// Whether a statement may rest on it: SHA-1 may not.
    pub fn is_strong(self) -> bool {
        self != Bank::Sha1
    }
}
