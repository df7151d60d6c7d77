//! What verifiers are to know of our keys: sets of public keys, and the documents that are made of
//! them. Pure: no I/O and no clock here, in [`render`], [`merge`] and [`documents`]; the same keys are the
//! same bytes on every host. [`files`] puts documents into a directory, by [`tree`].
//!
//! Nothing private can get here, because a [`PublicKey`] holds nothing of it. A set without a key
//! tells verifiers that every key is revoked (SPIFFE Trust Domain and Bundle §4.1.3), so there is no
//! such set by default, nor by forgetting: [`KeySet::all_revoked`] is the only way to it.

use keystore::keyid::KeyVersion;
use keystore::{Alg, Error, Kid, Kind, PublicKey};

pub mod documents;
pub mod files;
pub mod merge;
pub mod render;
pub mod tree;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

pub use documents::{Documents, Spiffe};
pub use files::{Change, Outcome, publish};

/// Most keys of one set (standards §2.2). Rotation needs two, one that was stopped in the middle
/// three; the rest is for what an operator does meanwhile.
pub const KEYS_MAX: usize = 8;

/// One version of a key, as verifiers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    version: KeyVersion,
    kid: Kid,
    public_key: PublicKey,
    alg: Alg,
}

impl Key {
    /// A version, by its public key and algorithm. Its `kid` is the key's thumbprint.
    ///
    /// # Errors
    /// `Mismatch` if the key cannot carry the algorithm.
    pub fn new(version: KeyVersion, public_key: PublicKey, alg: Alg) -> Result<Key, Error> {
        let kid = public_key.kid();
        if !public_key.fits(alg) {
            let text = format!("public key {kid}: is not for {alg}; it is not published");
            return Err(Error::new(Kind::Mismatch, text));
        }
        Ok(Key {
            version,
            kid,
            public_key,
            alg,
        })
    }

    /// What assertions of it carry.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// It itself.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Its one algorithm.
    pub fn alg(&self) -> Alg {
        self.alg
    }
}

/// The versions of one key that verifiers are to know: the one that signs comes first, because some
/// verifiers take the first if they find no `kid`; the others by version, the newest last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// The version that signs, or is the first that will, and the others in any order.
    ///
    /// # Errors
    /// `Refused` if they are more than [`KEYS_MAX`]; `Mismatch` if a version or a key is there twice.
    pub fn new(signs: Key, others: impl IntoIterator<Item = Key>) -> Result<KeySet, Error> {
        let mut keys: Vec<Key> = others.into_iter().take(KEYS_MAX).collect();
        keys.sort_by_key(|key| key.version);
        keys.insert(0, signs);
        if keys.len() > KEYS_MAX {
            let text = format!(
                "more than {KEYS_MAX} versions of one key are to be published, which verifiers need \
                 not take; destroy those that sign no more"
            );
            return Err(Error::new(Kind::Refused, text));
        }
        for (at, key) in keys.iter().enumerate() {
            let earlier = &keys[..at];
            if let Some(other) = earlier
                .iter()
                .find(|other| other.kid == key.kid || other.version == key.version)
            {
                let text = format!(
                    "version {} (kid {}) and version {} (kid {}) cannot both be published: each \
                     version has a number and a key of its own",
                    other.version.number(),
                    other.kid,
                    key.version.number(),
                    key.kid
                );
                return Err(Error::new(Kind::Mismatch, text));
            }
        }
        Ok(KeySet { keys })
    }

    /// No key at all, and on purpose: whoever reads it trusts nothing any more that was signed.
    pub fn all_revoked() -> KeySet {
        KeySet { keys: Vec::new() }
    }

    /// The one that signs first. None if all are revoked.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }
}
