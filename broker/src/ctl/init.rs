//! `assertctl init`: from a token to a first configuration.

use super::args::{Args, Consent};
use super::failure::{Exit, Failure};
use super::out::Out;
use std::path::Path;

/// What the command line says already.
pub struct Wishes<'a> {
    /// Whether to ask.
    pub consent: Consent,
    /// The module.
    pub module: Option<&'a Path>,
    /// The token's label.
    pub token: Option<&'a str>,
    /// The keystore's name.
    pub name: Option<&'a str>,
}

/// Writes a first configuration.
pub fn run(_args: &Args, wishes: &Wishes<'_>, _out: &mut Out) -> Result<Exit, Failure> {
    let _ = (wishes.consent, wishes.module, wishes.token, wishes.name);
    Err(Failure::new(Exit::Internal, "not built yet"))
}
