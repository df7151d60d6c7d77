//! Tries what a sandbox should refuse, from inside it, and says for each whether it was allowed.
//!
//!   sandbox-probe PROBE…      one JSON object a line: {"probe":…,"allowed":…,"detail":…}
//!   sandbox-probe --one PROBE what each of them is run by: a process of its own
//!   sandbox-probe --listen    what probes connect to; ready when it says so to systemd
//!
//! A probe is `NAME` or `NAME:ARGUMENT`; [`probes::try_one`] lists them. It is run by copies of the
//! installed units whose program alone is another (`tests/units/sandbox`).

mod probes;
mod sys;

use serde_json::json;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

/// Where `--listen` listens: TCP and UDP, and the name of an abstract Unix socket.
const PORT: u16 = 7777;
const ABSTRACT: &[u8] = b"assertd-probe";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--one", probe] => match probes::try_one(probe) {
            Ok(detail) => {
                print!("{detail}");
                ExitCode::SUCCESS
            }
            Err(why) => {
                print!("{why}");
                ExitCode::FAILURE
            }
        },
        ["--listen"] => match listen() {
            Ok(never) => match never {},
            Err(e) => {
                eprintln!("sandbox-probe: {e}");
                ExitCode::FAILURE
            }
        },
        _ => {
            for probe in &words {
                let line = verdict(probe).to_string() + "\n";
                if std::io::stdout().write_all(line.as_bytes()).is_err() {
                    return ExitCode::FAILURE;
                }
            }
            ExitCode::SUCCESS
        }
    }
}

/// A process of its own for each: what one probe does to itself, or is killed for, is no matter to
/// the next.
fn verdict(probe: &str) -> serde_json::Value {
    let this = std::env::args_os().next().unwrap_or_default();
    let (allowed, detail) = match Command::new(this).args(["--one", probe]).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            match (output.status.code(), output.status.signal()) {
                (Some(0), _) => (true, said),
                (Some(1), _) => (false, said),
                (_, Some(signal)) => (false, format!("killed by signal {signal}")),
                (code, _) => (false, format!("exit {code:?}: {errors}")),
            }
        }
        Err(e) => (false, format!("the probe cannot start itself: {e}")),
    };
    json!({ "probe": probe, "allowed": allowed, "detail": detail })
}

fn listen() -> std::io::Result<std::convert::Infallible> {
    let tcp = TcpListener::bind(("127.0.0.1", PORT))?;
    let _udp = UdpSocket::bind(("127.0.0.1", PORT))?;
    let _unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(ABSTRACT)?)?;
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        UnixDatagram::unbound()?.send_to(b"READY=1", socket)?;
    }
    loop {
        drop(tcp.accept()?);
    }
}
