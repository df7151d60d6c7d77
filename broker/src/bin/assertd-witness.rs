//! The witness: tells assertd what executable a process runs. Everything is in [`broker::witness`].

use std::process::ExitCode;

fn main() -> ExitCode {
    broker::witness::program::main()
}
