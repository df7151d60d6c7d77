//! The TPM 2.0 backend: keys that are made in a TPM and can be used in that one alone.
//!
//! From the outside there is [`TpmBackend::open`] and [`keystore::backend::Backend`]; no type of
//! the binding appears in either. Inside, from the TPM outwards: [`tcti`] (open, start, flush) →
//! [`primary`] (the parent of our keys) → [`connection`] with [`slots`] (which keys are in it now),
//! [`session`] (how it is shown that we may use them) and [`sign`]. [`template`] says what our keys
//! are, [`keydir`] and [`keyfile`] how they lie in files, [`auth`] what their auth values
//! are made of. [`survey`] is what the TPM tells of itself, [`trial`] a key that is never stored,
//! [`duplicate`] one that comes from elsewhere, [`counter`] a number that never goes back.
//! [`bond`], [`health`] and [`approvals`] are keys that sign in some states of the host alone.
//! [`attestationkey`], [`endorsement`] (with [`nv`]), [`identity`], [`statement`] and [`pcrs`] are what it
//! proves to somebody far away. [`codes`] turns every response code into a [`keystore::Kind`] and a remedy; [`patience`] is how long a busy TPM is
//! waited for.
#![forbid(unsafe_code)]

mod approvals;
mod attestationkey;
mod auth;
mod backend;
mod bond;
mod chip;
mod codes;
mod connection;
mod counter;
mod duplicate;
mod endorsement;
mod failure;
mod health;
mod identity;
mod keydir;
mod keyfile;
mod nv;
mod patience;
mod pcrs;
mod primary;
mod session;
mod sign;
mod slots;
mod statement;
mod survey;
mod tcti;
mod template;
mod trial;

pub use auth::Secrets;
pub use backend::{Settings, TpmBackend};

/// The pure parts, for tests/fuzz alone: they read what a TPM or a file gives, and a fuzz target is
/// another crate. Nothing here is promised to anybody.
#[doc(hidden)]
pub mod fuzzed {
    pub use crate::codes::{Code, Cure, Layer, explain};
    pub use crate::keyfile::{FILE_LEN_MAX, KeyFile};
    pub use crate::sign::jws_signature;
    pub use crate::template::{
        is_storage_primary, left_padded, marshalled, name, read_signing_key, signing_key,
        storage_primary, unmarshalled,
    };
}
