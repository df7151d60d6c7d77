//! Serves documents with public keys. Everything is in [`broker::publisher`].

use std::process::ExitCode;

fn main() -> ExitCode {
    broker::publisher::program::main()
}
