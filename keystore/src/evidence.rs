//! Evidence that keys live in hardware, and its verification (standards §4): what a host hands out, and
//! what anybody, anywhere, can conclude from it.
//!
//! Pure: no I/O, no clock, no TPM library, so that the verifier runs where no TPM is. What is read here
//! was written by a host that may lie: every reader is bounded and strict, and none panics.

pub mod bundle;
pub mod context;

pub use bundle::Bundle;
