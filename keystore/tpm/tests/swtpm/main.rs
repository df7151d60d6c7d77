//! The backend on a real TPM 2.0 in software. Each test has its own, in a directory that goes away
//! with it: three slots for objects, three for sessions and no resource manager, so that a leak of
//! ours is felt at once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod device;
mod evidence;
mod foreign;
mod healthy;
mod import;
mod keys;
mod leaving;
mod program;
mod recovery;
mod survey;
mod tools;
mod verified;
mod world;
