//! Tries what a sandbox should refuse, from inside it, and says for each how it went.
//!
//!   sandbox-probe PROBE…      one JSON object a line: {"probe":…,"verdict":…,"detail":…}
//!   sandbox-probe --one PROBE what each of them is run by: a process of its own
//!   sandbox-probe --listen    what probes connect to; ready when it says so to systemd
//!
//! The verdict is `allowed`, `refused`, or `failed`: the probe could not be tried, which shows
//! nothing. Whatever is not known to be a refusal is `failed`.
//! A probe is `NAME` or `NAME:ARGUMENT`; [`probes::try_one`] lists them. It is run by copies of the
//! installed units whose program alone is another (`tests/units/sandbox`).

mod probes;
mod sys;

use probes::Not;
use serde_json::json;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Output};

/// Where `--listen` listens: TCP and UDP, and the name of an abstract Unix socket.
const PORT: u16 = 7777;
const ABSTRACT: &[u8] = b"assertd-probe";

/// How `--one` ends. A panic (101), a program that cannot be executed (126, 127) or any other end is
/// none of these.
const ALLOWED: u8 = 0;
const REFUSED: u8 = 3;
const NOT_TRIED: u8 = 4;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--one", probe] => {
            let (code, detail) = match probes::try_one(probe) {
                Ok(seen) => (ALLOWED, seen),
                Err(Not::Refused(how)) => (REFUSED, how),
                Err(Not::Tried(why)) => (NOT_TRIED, why),
            };
            print!("{detail}");
            ExitCode::from(code)
        }
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
    let (verdict, detail) = match Command::new(this).args(["--one", probe]).output() {
        Ok(output) => judge(probe, &output),
        Err(e) => ("failed", format!("the probe cannot start itself: {e}")),
    };
    json!({ "probe": probe, "verdict": verdict, "detail": detail })
}

fn judge(probe: &str, output: &Output) -> (&'static str, String) {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if let Some(signal) = output.status.signal() {
        let verdict = match probes::refused_by_signal(probe) == Some(signal) {
            true => "refused",
            false => "failed",
        };
        return (verdict, format!("killed by signal {signal}"));
    }
    let is = |code: u8| output.status.code() == Some(i32::from(code));
    if is(ALLOWED) {
        ("allowed", said)
    } else if is(REFUSED) {
        ("refused", said)
    } else if is(NOT_TRIED) {
        ("failed", said)
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        ("failed", format!("{}: {said}{errors}", output.status))
    }
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
