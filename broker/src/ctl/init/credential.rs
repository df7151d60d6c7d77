//! The PIN as an encrypted systemd credential. `systemd-creds` gets the PIN on its standard input;
//! what comes back is bound to this host, and to its TPM if it has one, and can lie on disk.
//!
//! Never bound to PCRs: a firmware update changes them, and the keystore would not start again
//! (systemd/README.md).

use super::child;
use crate::ctl::failure::{Exit, Failure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where PID 1 looks for it by the name in the unit (systemd.exec(5), LoadCredentialEncrypted=).
const DIRECTORY: &str = "/etc/credstore.encrypted";

/// How long encrypting may take: a TPM makes a key for it.
const DEADLINE: Duration = Duration::from_secs(60);

/// What decrypts the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A file that root alone can read, /var/lib/systemd/credential.secret.
    Host,
    /// That and the TPM, so that a copy of the disk is worth nothing.
    HostAndTpm,
}

/// systemd-creds, and with which key it works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creds {
    program: PathBuf,
    /// The key.
    pub key: Key,
}

/// The credential's name: what the keystore reads, and what the file's content is bound to.
pub fn id(keystore: &str) -> String {
    format!("{keystore}.pin")
}

/// Its file.
pub fn path(keystore: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("assertd.{}", id(keystore)))
}

impl Creds {
    /// If this host has it (systemd 250 and newer).
    pub fn find() -> Option<Creds> {
        let program = child::program("systemd-creds")?;
        // 0 says that firmware, driver and library are all there.
        let tpm = child::run(Command::new(&program).arg("has-tpm2"), b"", DEADLINE);
        let key = match tpm {
            Ok(ended) if ended.succeeded() => Key::HostAndTpm,
            _ => Key::Host,
        };
        Some(Creds { program, key })
    }

    /// The file's text.
    pub fn encrypt(&self, keystore: &str, pin: &[u8]) -> Result<String, Failure> {
        let mut command = Command::new(&self.program);
        command
            .arg("encrypt")
            .arg(format!("--name={}", id(keystore)));
        match self.key {
            Key::Host => command.arg("--with-key=host"),
            Key::HostAndTpm => command.args(["--with-key=host+tpm2", "--tpm2-pcrs="]),
        };
        let failed = |why: String| {
            let text = format!("systemd-creds encrypt: {why}; nothing was written");
            Failure::new(Exit::Unavailable, text)
        };
        let ended = child::run(command.args(["-", "-"]), pin, DEADLINE).map_err(failed)?;
        match ended.succeeded() && !ended.stdout.trim().is_empty() {
            true => Ok(ended.stdout),
            false => Err(failed(ended.reason())),
        }
    }
}

impl Key {
    /// For the list of what will be done.
    pub fn words(self) -> &'static str {
        match self {
            Key::Host => "the PIN, encrypted with this host's key",
            Key::HostAndTpm => "the PIN, encrypted with this host's key and its TPM",
        }
    }
}
