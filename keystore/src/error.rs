//! The one error of this crate and of every backend. [`Kind`] is the contract: it says what a
//! caller can *do* about the error. The text is for people, and names the object and the remedy.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What can be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The token does not answer now; may be retried.
    Unavailable,
    /// The token or TPM is not there; waited for.
    Absent,
    /// The PIN is locked; never retried, an operator acts.
    Locked,
    /// The PIN is wrong; never retried, an operator acts.
    BadPin,
    /// No key has this id.
    NotFound,
    /// A key with this id is already there.
    Exists,
    /// The object under this id has another public key or other attributes; that key stops.
    Mismatch,
    /// State or key material fails its integrity check; never retried, never replaced by itself.
    Corrupt,
    /// The token cannot do this.
    Unsupported,
    /// The request is outside the key's charter, or the peer may not ask for this verb.
    Refused,
    /// The message breaks the protocol; the connection ends.
    Protocol,
    /// The clock cannot be trusted, so nothing is minted (P10).
    Clock,
    /// The host is in another state than the key is bound to. It signs again, by itself, in that state or
    /// once this one is approved.
    Unhealthy,
    /// A defect of ours or of the module.
    Internal,
}

/// An error with its kind, its sentence, and what caused it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with the sentence people read.
    pub fn new(kind: Kind, context: impl Into<String>) -> Error {
        Error {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// Adds the cause, shown after the sentence.
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.source = Some(Box::new(source));
        self
    }

    /// What can be done about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
