//! The seam every backend fills: one PKCS#11 token or one TPM. Its library's types never appear
//! here. All calls may block; a call that blocks too long ends the process (`crate::hang`).

use crate::protocol::Evidence;
use crate::survey::Line;
use crate::{Alg, Error, Kind, PublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Our id of an object in the token: 16 random bytes (CKA_ID). Random, not derived from the name,
/// so that two hosts with the same configuration can share a network HSM.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub [u8; 16]);

/// What a look at an object showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The public half, read from the token.
    pub public_key: PublicKey,
    /// The level its attributes support.
    pub evidence: Evidence,
}

/// One token or TPM.
pub trait Backend: Send + Sync + 'static {
    /// What it is, in words, for status: module, token label, serial.
    fn describe(&self) -> String;

    /// The algorithms it can make keys for.
    fn algs(&self) -> Vec<Alg>;

    /// How many signatures it makes at a time; at least 1.
    fn parallelism(&self) -> usize;

    /// Makes a key: sensitive, not extractable, for signing alone; reads every attribute back.
    ///
    /// # Errors
    /// `Exists` if an object has this id; `Unsupported` for an algorithm not in [`Self::algs`];
    /// `Mismatch` if the token did not do as told (the object is destroyed again then).
    fn generate(&self, object: ObjectId, label: &str, alg: Alg) -> Result<Inspection, Error>;

    /// Renews what holds for more than one request: the login, the connection. Called when
    /// signatures failed; harmless where nothing was wrong.
    ///
    /// # Errors
    /// As opening the token has them: `BadPin` and `Locked` are not tried again.
    fn mend(&self) -> Result<(), Error>;

    /// Looks at an object without using it.
    ///
    /// # Errors
    /// `NotFound`; `Mismatch` if two objects have this id, or a mandatory attribute is wrong.
    fn inspect(&self, object: ObjectId) -> Result<Inspection, Error>;

    /// Signs `message`, hashing it as `alg` demands. ECDSA comes as r ‖ s, each full length.
    /// The object is used only while its public key is `public_key`.
    fn sign(
        &self,
        object: ObjectId,
        public_key: &PublicKey,
        alg: Alg,
        message: &[u8],
    ) -> Result<Vec<u8>, Error>;

    /// Destroys both halves. An object that is not there is success.
    ///
    /// # Errors
    /// `Mismatch` if the object's public key is another: it is not ours to destroy.
    fn destroy(&self, object: ObjectId, public_key: &PublicKey) -> Result<(), Error>;

    /// Labels of objects that look like ours (`assertd/…`) but are not among `known`.
    fn strange(&self, known: &[ObjectId]) -> Result<Vec<String>, Error>;

    /// What it alone can tell of its token or TPM, asked now, for people. What cannot be read is a
    /// line as well. Changes nothing.
    fn survey(&self) -> Vec<Line>;

    /// Makes a key for trying the token out: it is in no record and no file, its object carries no
    /// label of ours, and it is destroyed when the trial ends.
    ///
    /// # Errors
    /// As [`Self::generate`]; `Unavailable` if the token has no room for one more key now.
    fn trial(&self, alg: Alg) -> Result<Box<dyn Trial + '_>, Error>;
}

/// A key that lives for one trial. Dropping it destroys the key, too, and cannot say that it failed.
pub trait Trial {
    /// Its public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs as [`Backend::sign`] does. Nothing is held between two signatures that would keep
    /// other callers from signing.
    fn sign(&mut self, message: &[u8]) -> Result<Vec<u8>, Error>;

    /// Destroys it.
    ///
    /// # Errors
    /// `Unavailable` if the token did not say that it is gone.
    fn end(self: Box<Self>) -> Result<(), Error>;
}

/// Every label we give starts with this.
pub const LABEL_PREFIX: &str = "assertd/";

impl ObjectId {
    /// A new one.
    ///
    /// # Errors
    /// The operating system has no random bytes.
    pub fn random() -> Result<ObjectId, Error> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| Error::new(Kind::Internal, "no random bytes from the operating system"))?;
        Ok(ObjectId(bytes))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

impl Serialize for ObjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ObjectId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bad = || serde::de::Error::custom("an object id is 32 hexadecimal digits");
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        u128::from_str_radix(&text, 16)
            .map(|n| ObjectId(n.to_be_bytes()))
            .map_err(|_| bad())
    }
}
