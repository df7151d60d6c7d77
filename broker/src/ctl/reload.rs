//! `assertctl reload`.

use super::args::Args;
use super::failure::{Exit, Failure};
use super::out::Out;

/// Reloads.
pub fn run(_args: &Args, _out: &mut Out) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Internal, "not built yet"))
}
