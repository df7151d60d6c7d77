//! End to end: the real programs, a real token, really different users, real sockets. Nothing of
//! the product is called but over its sockets and by its command line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod ahead;
mod assertion;
mod attest;
mod attested;
mod certificates;
mod charter;
mod courier;
mod denial;
mod denylist;
mod explain;
mod fallback;
mod files;
mod hardening;
mod healthy;
mod import;
mod independent;
mod keys;
mod lifecycle;
mod notify;
mod oauth2;
mod profiles;
mod publish;
mod registered;
mod reload;
mod request;
mod revoked;
mod rollback;
mod rotation;
mod sdk;
mod selectors;
mod served;
mod several;
mod slow;
mod targets;
mod tpm;
mod verified;
mod who;
mod witness;
mod world;
