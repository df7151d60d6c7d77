//! A plain web server on loopback, as a site has one to which documents are shipped: it shows a directory and says
//! nothing of caching.

use crate::process::Process;
use crate::{DEADLINE, wait_for};
use std::path::Path;
use std::process::{Command, Stdio};

/// A running one.
pub struct WebServer {
    _process: Process,
    port: u16,
    _said: tempfile::NamedTempFile,
}

impl WebServer {
    /// Shows a directory.
    pub fn start(directory: &Path) -> WebServer {
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("python3");
        command.args(["-I", "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]);
        command.arg("--directory").arg(directory);
        command.stdin(Stdio::null()).stdout(said.reopen().unwrap());
        let mut process = Process::start(&mut command);
        let port = wait_for(DEADLINE, || {
            assert!(process.ended().is_none(), "{}", process.stderr());
            let text = std::fs::read_to_string(said.path()).unwrap();
            text.split_once(" port ")?.1.split(' ').next()?.parse().ok()
        });
        WebServer {
            port: port.unwrap_or_else(|| panic!("not ready: {}", process.stderr())),
            _process: process,
            _said: said,
        }
    }

    /// Where a file of the directory is.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }
}
