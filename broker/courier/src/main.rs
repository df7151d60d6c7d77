//! assertd-courier: fetches what is published of an issuer's keys, and redeems the assertions of keys that are
//! tried, for assertd, which has no network.
//! It has no key and decides nothing. Its wire is [`broker::courier`]; the reasons are in
//! docs/decisions/0023 and 0031.
//!
//! The path of a question: [`serve`] (who asks?) → [`desk`] (which URL is that, and is it its turn?) →
//! [`fetch`] (one GET) or [`token`] (one POST), each by a [`visit`] within limits → [`serve`].
#![forbid(unsafe_code)]

mod desk;
mod edition;
mod fetch;
mod program;
mod serve;
mod token;
mod trust;
mod visit;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::main()
}
