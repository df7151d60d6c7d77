//! The broker's program; see `broker::daemon`.

fn main() -> std::process::ExitCode {
    broker::daemon::main()
}
