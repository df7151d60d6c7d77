//! `assertd-publish` on loopback, and requests to it as bytes.

use crate::http::Answer;
use crate::process::Process;
use crate::programs::Programs;
use crate::{DEADLINE, public_dir, wait_for};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A running one.
pub struct Publisher {
    process: Process,
    address: SocketAddr,
    _dir: TempDir,
}

impl Publisher {
    /// Shows what is in `directory` of these issuers, by name and URL.
    pub fn start(programs: &Programs, directory: &Path, issuers: &[(&str, &str)]) -> Publisher {
        let dir = public_dir();
        let mut text = format!("[publication]\ndirectory = \"{}\"\n", directory.display());
        for (name, url) in issuers {
            text += &format!("[issuer.{name}]\nurl = \"{url}\"\n");
        }
        let config = dir.path().join("assertd.toml");
        std::fs::write(&config, text).unwrap();
        let mut command = command(programs, &config);
        let mut process = Process::start(command.args(["--listen", "127.0.0.1:0"]));
        let said = format!("assertd-publish: {} at ", directory.display());
        let address = wait_for(DEADLINE, || {
            let text = process.stderr();
            assert!(process.ended().is_none(), "{text}");
            let rest = &text[text.find(&said)? + said.len()..];
            rest.split_once('\n')?.0.parse().ok()
        });
        let address = address.unwrap_or_else(|| panic!("not ready: {}", process.stderr()));
        Publisher {
            process,
            address,
            _dir: dir,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A connection to it.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// All that it says to these bytes, until it closes.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Vec<u8> {
        let mut stream = self.connect();
        // It may have closed before it has read all of what it does not want.
        let _ = stream.write_all(request.as_ref());
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said); // likewise
        said
    }

    /// Its answer to a GET with more lines of a head, each with its end.
    pub fn get(&self, path: &str, lines: &str) -> Answer {
        let said = self.ask(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{lines}\r\n"));
        let shown = String::from_utf8_lossy(&said).into_owned();
        Answer::parse(said).unwrap_or_else(|| panic!("{path}: no answer: {shown:?}"))
    }
}

/// The program with a configuration, and nothing else said yet.
pub fn command(programs: &Programs, config: &Path) -> Command {
    let mut command = Command::new(programs.path("assertd-publish"));
    command.arg("-c").arg(config).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}
