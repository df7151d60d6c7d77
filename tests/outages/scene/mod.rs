//! What a fault of a token is tried on: one assertd with both kinds of keystores, each behind its
//! fault tool, a client that asks at a steady rate and logs every request, the faults, and how an
//! outage is read from that log. `make outages` measures with it, and the soak goes on with it.
#![allow(
    dead_code,
    reason = "the program and the soak use different parts of it"
)]

pub mod client;
pub mod fault;
pub mod log;
pub mod place;
