//! The seam every backend fills: one PKCS#11 token or one TPM. Its library's types never appear
//! here. All calls may block; a call that blocks too long ends the process (`crate::hang`).

use crate::evidence::bundle::{ATTEST_LEN_MAX, PUBLIC_LEN_MAX, PolicyStep, SIGNATURE_LEN_MAX};
use crate::evidence::bundle::{Attributes, Bytes, Module, Quote, Selection, Tpm};
use crate::evidence::context::Sha256;
use crate::evidence::healthy::State;
use crate::protocol::{Credential, Evidence};
use crate::survey::Line;
use crate::{Alg, Error, Kind, PrivateKey, PublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use zeroize::Zeroizing;

/// Our id of an object in the token: 16 random bytes (CKA_ID). Random, not derived from the name,
/// so that two hosts with the same configuration can share a network HSM.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub [u8; 16]);

/// A key's id in the token (CKA_ID), whoever gave it: 1 to 64 bytes, shown in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(Vec<u8>);

/// A label (CKA_LABEL), whoever gave it: 1 to 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// How a person says which of the token's keys is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Existing {
    /// By its id.
    Id(TokenId),
    /// By its label.
    Label(Label),
}

/// What a look at an object showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The public half, read from the token.
    pub public_key: PublicKey,
    /// The level its attributes support.
    pub evidence: Evidence,
}

/// What it says of a key for somebody far away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Testimony {
    /// A TPM's own signed statement.
    Certified {
        /// TPMT_PUBLIC of the key.
        public: Bytes<PUBLIC_LEN_MAX>,
        /// TPMS_ATTEST of TPM2_Certify.
        attest: Bytes<ATTEST_LEN_MAX>,
        /// TPMT_SIGNATURE over it, by the attestation key.
        signature: Bytes<SIGNATURE_LEN_MAX>,
        /// How it may be used, if its auth value is not all that it needs.
        policy: Option<Vec<PolicyStep>>,
    },
    /// Attributes, as they were read back.
    Asserted(Attributes),
}

/// What it says of itself for somebody far away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// A TPM.
    Tpm(Box<Tpm>),
    /// A token, in the words of its module.
    Token(Module),
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

    /// Brings in a private key that was made elsewhere, as [`Self::generate`] makes one. It may be
    /// copied on the way into the token, in memory that is wiped.
    ///
    /// # Errors
    /// As making one; `Unsupported` if the token takes no such key.
    fn import(
        &self,
        object: ObjectId,
        label: &str,
        alg: Alg,
        key: &PrivateKey,
    ) -> Result<Inspection, Error>;

    /// Finds the one key that is meant, which is checked as a look at one of ours checks it.
    /// Nothing is changed.
    ///
    /// # Errors
    /// `NotFound`; `Mismatch` if two keys are meant, or a mandatory attribute is wrong.
    fn find(&self, which: &Existing) -> Result<(TokenId, Inspection), Error>;

    /// From here on the object of this id is the key that has that one in the token.
    fn alias(&self, object: ObjectId, id: &TokenId);

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

    /// How far its counter in hardware has come that never goes back; none in it before it was first
    /// advanced. `None`: it has no such counter.
    ///
    /// # Errors
    /// `Mismatch` if somebody else's is in its place.
    fn counted(&self) -> Option<Result<Option<u64>, Error>> {
        None
    }

    /// Has it come to `to` at least, and makes it if it is not there. What it has come to then: one that is
    /// not new is never further than `to`, however often the TPM had to be asked again.
    ///
    /// # Errors
    /// As [`Self::counted`]; `Unsupported` where there is none, or the TPM lets us have none.
    fn count(&self, _to: u64) -> Result<u64, Error> {
        Err(Error::new(Kind::Unsupported, "the token has no counter"))
    }

    /// What it says of a key; a TPM signs `about` with it, which says what for. The key is attested only
    /// while its public key is `public_key`.
    ///
    /// # Errors
    /// As signing.
    fn attest(
        &self,
        _object: ObjectId,
        _public_key: &PublicKey,
        _about: &Sha256,
    ) -> Result<Testimony, Error> {
        Err(Error::new(
            Kind::Unsupported,
            "the token says nothing of its keys",
        ))
    }

    /// What it says of itself. It may take as long as making a key.
    ///
    /// # Errors
    /// `Refused` with the reason if it has no attestation key.
    fn likeness(&self) -> Result<Likeness, Error> {
        Err(Error::new(
            Kind::Unsupported,
            "the token says nothing of itself",
        ))
    }

    /// The state of the host as a TPM signs it, with `about`.
    ///
    /// # Errors
    /// `Unsupported` for a token, and for a bank that the TPM does not have.
    fn quote(&self, _selection: &Selection, _about: &Sha256) -> Result<Quote, Error> {
        Err(Error::new(
            Kind::Unsupported,
            "no token knows the state of the host",
        ))
    }

    /// The state of the host that keys are bound to from now on, as it is.
    ///
    /// # Errors
    /// `Unsupported` where keys are bound to none.
    fn state(&self) -> Result<State, Error> {
        Err(Error::new(Kind::Unsupported, NOT_BOUND))
    }

    /// What somebody encrypted to the endorsement key for the attestation key of the same TPM.
    ///
    /// # Errors
    /// `Mismatch` if it is for others; `Unsupported` for a token.
    fn activate(&self, _credential: &Credential) -> Result<Zeroizing<Vec<u8>>, Error> {
        Err(Error::new(Kind::Unsupported, "only a TPM is enrolled"))
    }

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

/// Of a keystore that binds no keys to a state of the host.
pub const NOT_BOUND: &str = "its keys are bound to no state of the host: a keystore with a TPM binds them, \
                             where its section has [healthy]";

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

/// Longest id of a key in a token, in bytes; most have 20 or fewer.
const TOKEN_ID_LEN_MAX: usize = 64;

/// Longest label of a key in a token, in bytes.
const LABEL_LEN_MAX: usize = 255;

impl TokenId {
    /// From the token.
    ///
    /// # Errors
    /// `Refused` if it is empty or too long.
    pub fn new(bytes: Vec<u8>) -> Result<TokenId, Error> {
        match (1..=TOKEN_ID_LEN_MAX).contains(&bytes.len()) {
            true => Ok(TokenId(bytes)),
            false => {
                let text = format!("an id of a key has 1 to {TOKEN_ID_LEN_MAX} bytes");
                Err(Error::new(Kind::Refused, text))
            }
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same as one of ours, if it is as long.
    pub fn object(&self) -> Option<ObjectId> {
        self.0.as_slice().try_into().ok().map(ObjectId)
    }
}

impl From<ObjectId> for TokenId {
    fn from(object: ObjectId) -> TokenId {
        TokenId(object.0.to_vec())
    }
}

impl TryFrom<String> for TokenId {
    type Error = Error;
    fn try_from(text: String) -> Result<TokenId, Error> {
        let digits = text.as_bytes();
        let bad = || {
            Error::new(
                Kind::Refused,
                "an id of a key is pairs of hexadecimal digits",
            )
        };
        let pair = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).ok()?;
            let is_hex = pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
        TokenId::new(bytes.ok_or_else(bad)?)
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> String {
        id.to_string()
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Label {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = Error;
    fn try_from(text: String) -> Result<Label, Error> {
        match (1..=LABEL_LEN_MAX).contains(&text.len()) {
            true => Ok(Label(text)),
            false => {
                let text = format!("a label of a key has 1 to {LABEL_LEN_MAX} bytes");
                Err(Error::new(Kind::Refused, text))
            }
        }
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        label.0
    }
}

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Existing::Id(id) => write!(f, "the id {id}"),
            Existing::Label(label) => write!(f, "the label {:?}", label.0),
        }
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
