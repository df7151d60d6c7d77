//! assertd, the broker: who is calling, what it may have, and the record of it.
//!
//! The path of a request: [`server`] accepts → [`peer`] (the kernel says who) → [`http`] reads the
//! request → [`workload`] (attested) → [`policy`] (a grant, or none) → [`claims`] (from the grant
//! and its [`profile`]) → [`audit`] (the decision, durable) beside [`keystores`] (the mint, through
//! the [`queue`]) → the signature verified → the answer.
//!
//! The security argument is in the types: `Peer` → `Workload` → `Grant` → `Claims` → `Assertion`,
//! each made only from the one before. No network, no device, no PIN, no vendor library here.

pub mod admin;
pub mod app;
pub mod attestation;
pub mod audit;
pub mod child;
pub mod children;
pub mod claims;
pub mod complaints;
pub mod config;
pub mod courier;
pub mod ctl;
pub mod daemon;
pub mod denylist;
pub mod evidence;
pub mod handover;
pub mod http;
pub mod id;
pub mod keeper;
pub mod keyring;
pub mod keystores;
pub mod lifecycle;
pub mod listen;
pub mod minting;
pub mod notify;
pub mod peer;
pub mod policy;
pub mod profile;
pub mod publication;
pub mod publisher;
pub mod queue;
pub mod rate;
pub mod recent;
pub mod reply;
pub mod reuse;
pub mod rules;
pub mod sandbox;
pub mod selector;
pub mod server;
pub mod service;
pub mod sys;
pub mod terms;
pub mod witness;
pub mod workload;
