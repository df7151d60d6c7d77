//! A program in Python that serves by TLS on the loopback, with certificates of an authority made for the test.

use harness::public_dir;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// One that runs, until this goes.
pub struct Served {
    process: Child,
    dir: TempDir,
    said: String,
}

impl Served {
    /// Starts a program, which is given the directory with the certificates and these arguments, and waits for
    /// its first line.
    pub fn start(program: &str, arguments: &[&str]) -> Served {
        let dir = public_dir();
        let made = Command::new("sh")
            .args(["-c", include_str!("courier/certificates.sh"), "sh"])
            .arg(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "openssl: {said}");
        let mut process = Command::new("/usr/bin/python3")
            .args(["-I", "-c", program])
            .arg(dir.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        Served {
            process,
            dir,
            said: line,
        }
    }

    /// Its first line.
    pub fn said(&self) -> &str {
        self.said.trim()
    }

    /// Where its certificates are, and what it serves and writes.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Of the authority that certifies it.
    pub fn ca(&self) -> PathBuf {
        self.dir().join("ca.pem")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
