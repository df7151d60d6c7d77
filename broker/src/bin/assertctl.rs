//! assertctl: asks assertd, and makes keys by `apply`. Everything is in [`broker::ctl`].

use std::process::ExitCode;

fn main() -> ExitCode {
    broker::ctl::run(std::env::args_os().skip(1))
}
