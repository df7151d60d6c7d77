//! Keys, charters, the keystore protocol, and the server loop every keystore backend uses.
//!
//! A *keystore* is the process that holds the private keys of one PKCS#11 token or one TPM. It
//! mints: the broker sends a key id and claims, the keystore checks them against the key's
//! *charter*, builds the header, hashes, signs and returns the JWS. No verb signs bytes.
//!
//! The path of a mint request:
//! [`protocol`] (frame in) → [`server`] (who asks?) → [`mint`] and [`charter`] (may this key say that
//! now?) → [`jws`] (header and signing input) → [`backend`] (the token signs) → [`protocol`] (frame out).
//!
//! This crate holds no C code, no tokio, no policy, and knows nothing about workloads.
#![forbid(unsafe_code)]

pub mod alg;
pub mod backend;
pub mod bounded;
pub mod certificate;
pub mod charter;
pub mod check;
pub mod claims;
pub mod client;
pub mod clock;
pub mod config;
mod conversation;
mod counter;
pub mod crash;
pub mod credential;
pub mod der;
pub mod error;
pub mod evidence;
mod hand;
pub mod hang;
pub mod hardening;
pub mod incoming;
pub mod inventory;
pub mod jws;
pub mod keyfile;
pub mod keyid;
mod life;
pub mod listen;
pub mod livekey;
pub mod mint;
pub mod notify;
pub mod privatekey;
pub mod program;
pub mod protocol;
pub mod publickey;
pub mod records;
pub mod role;
pub mod server;
pub mod shown;
pub mod statefile;
pub mod stop;
pub mod survey;
pub mod tcti;
mod textual;
pub mod trail;

pub use alg::Alg;
pub use certificate::Certificate;
pub use charter::{CertificateUse, Charter, KidMember, Purpose, Typ};
pub use claims::Claims;
pub use clock::{Clock, Time};
pub use error::{Error, Kind};
pub use jws::Assertion;
pub use keyfile::KeyFile;
pub use keyid::{KeyId, KeyName, KeyVersion};
pub use privatekey::PrivateKey;
pub use publickey::{Kid, PublicKey};
