//! Evidence that keys live in hardware, and its verification (standards §4): what a host hands out, and
//! what anybody, anywhere, can conclude from it.
//!
//! Pure: no I/O, no clock, no TPM library, so that the verifier runs where no TPM is. What is read here
//! was written by a host that may lie: every reader is bounded and strict, and none panics.
//!
//! [`bundle`] (what is read) → [`public`], [`attest`], [`signature`], [`eventlog`], [`ima`] (what is in it) →
//! [`verify`] by a [`policy`] and what was [`enrolment::registry`] recorded → [`verdict`] → [`eat`]. [`steps`] and
//! [`healthy`] are about keys that are used in some states of the host alone.

pub mod attest;
pub mod bundle;
pub mod context;
pub mod eat;
pub mod ekcert;
pub mod enrolment;
pub mod eventlog;
pub mod hash;
pub mod healthy;
pub mod ima;
pub mod nonces;
pub mod policy;
pub mod public;
pub mod signature;
pub mod steps;
pub mod verdict;
pub mod verify;
mod weak;
pub mod wire;

pub use bundle::Bundle;
