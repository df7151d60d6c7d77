//! What happens when something breaks: a keystore that is killed, a disk that is full or lies, a
//! user who floods. The faults are real ones (SIGKILL, a small tmpfs, strace), injected from
//! outside; the programs under test have no hooks.
//!
//! Each test counts every answer it got, because a fault must cost availability and nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bytes;
mod clock;
mod crash;
mod cut;
mod defences;
mod descriptors;
mod fair;
mod flood;
mod flush;
#[path = "../bench/load.rs"]
mod generator;
mod load;
mod memory;
mod observed;
mod reload;
mod reloads;
mod respawn;
mod reuse;
mod rotating;
#[path = "../crashes/rotation/mod.rs"]
mod rotation;
mod rows;
#[path = "../outages/scene/mod.rs"]
mod scene;
mod slow;
mod soak;
mod stop;
mod token;
mod tools;
mod tpm;
mod vulnerabilities;
