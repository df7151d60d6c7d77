//! A keystore's secret as an encrypted systemd credential: a token's PIN, or the bytes that a TPM's
//! keys ask for. `systemd-creds` gets it on its standard input; what comes back is bound to this
//! host, and to its TPM if it has one, and can lie on disk.
//!
//! Never bound to PCRs: a firmware update changes them, and the keystore would not start again
//! (systemd/README.md). systemd 252 seals to a TPM without PCRs and then cannot open it, so
//! whatever is encrypted is decrypted once before it is kept.

use crate::ctl::failure::{Exit, Failure};
use crate::ctl::run;
use keystore::config::BackendKind;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use zeroize::Zeroizing;

/// Where PID 1 looks for it by the name in the unit (systemd.exec(5), LoadCredentialEncrypted=).
const DIRECTORY: &str = "/etc/credstore.encrypted";

/// How long encrypting may take: a TPM makes a key for it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Bytes of a TPM's auth secret: exactly as many as the keystore wants.
const AUTH_LEN: usize = 32;

/// Where its bytes come from.
const RANDOM: &str = "/dev/urandom";

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
    /// Why the TPM is not used, if there is one.
    pub without_tpm: Option<String>,
}

/// The credential's name: what the keystore reads, and what the file's content is bound to.
pub fn id(kind: BackendKind, keystore: &str) -> String {
    match kind {
        BackendKind::Pkcs11 => format!("{keystore}.pin"),
        BackendKind::Tpm => format!("{keystore}.auth"),
    }
}

/// Its file.
pub fn path(id: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("assertd.{id}"))
}

/// A new auth secret for a TPM's keys, from the kernel.
pub fn new_auth() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(vec![0; AUTH_LEN]);
    let read = File::open(RANDOM).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| {
        let text = format!("{RANDOM}: {error}; nothing was done");
        Failure::new(Exit::Internal, text)
    })?;
    Ok(bytes)
}

impl Creds {
    /// If this host has it (systemd 250 and newer).
    pub fn find() -> Option<Creds> {
        let host = Creds {
            program: run::program("systemd-creds")?,
            key: Key::Host,
            without_tpm: None,
        };
        // 0 says that firmware, driver and library are all there.
        let asked = run::run(Command::new(&host.program).arg("has-tpm2"), b"", DEADLINE);
        if !asked.is_ok_and(|answer| answer.succeeded()) {
            return Some(host);
        }
        let with_tpm = Creds {
            key: Key::HostAndTpm,
            ..host.clone()
        };
        Some(match with_tpm.seal("probe", b"probe") {
            Ok(_) => with_tpm,
            Err(why) => Creds {
                without_tpm: Some(why),
                ..host
            },
        })
    }

    /// The file's text.
    pub fn encrypt(&self, id: &str, secret: &[u8]) -> Result<String, Failure> {
        self.seal(id, secret).map_err(|why| {
            let text = format!("systemd-creds: {why}; nothing was written");
            Failure::new(Exit::Unavailable, text)
        })
    }

    /// Encrypts, and sees that it can be decrypted.
    fn seal(&self, name: &str, secret: &[u8]) -> Result<String, String> {
        let name = format!("--name={name}");
        let mut encrypt = Command::new(&self.program);
        encrypt.args(["encrypt", &name]);
        match self.key {
            Key::Host => encrypt.arg("--with-key=host"),
            Key::HostAndTpm => encrypt.args(["--with-key=host+tpm2", "--tpm2-pcrs="]),
        };
        let sealed = run::run(encrypt.args(["-", "-"]), secret, DEADLINE)?;
        if !sealed.succeeded() || sealed.stdout.trim().is_empty() {
            return Err(format!("encrypting: {}", sealed.reason()));
        }
        let opened = self.open(&name, sealed.stdout.as_bytes());
        opened.map_err(|why| format!("what it encrypted it cannot decrypt: {why}"))?;
        Ok(sealed.stdout)
    }

    /// Whether what stands in its file can be decrypted here; what it holds goes nowhere.
    ///
    /// # Errors
    /// Why not.
    pub fn opens(&self, id: &str) -> Result<(), String> {
        let file = std::fs::read(path(id)).map_err(|error| error.to_string())?;
        self.open(&format!("--name={id}"), &file)
    }

    fn open(&self, name: &str, sealed: &[u8]) -> Result<(), String> {
        let mut decrypt = Command::new(&self.program);
        decrypt.args(["decrypt", name, "-", "-"]);
        let opened = run::run_blindly(&mut decrypt, sealed, DEADLINE)?;
        match opened.succeeded() {
            true => Ok(()),
            false => Err(opened.reason()),
        }
    }

    /// For the list of what will be done; `what` is the secret.
    pub fn words(&self, what: &str) -> String {
        match (self.key, &self.without_tpm) {
            (Key::HostAndTpm, _) => {
                format!("{what}, encrypted with this host's key and its TPM")
            }
            (Key::Host, None) => format!("{what}, encrypted with this host's key"),
            (Key::Host, Some(why)) => {
                format!("{what}, encrypted with this host's key; its TPM is not used: {why}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_secret_is_as_long_as_the_keystore_wants_and_never_the_same() {
        let (one, other) = (new_auth().unwrap(), new_auth().unwrap());
        assert_eq!((one.len(), other.len()), (AUTH_LEN, AUTH_LEN));
        assert_ne!(*one, *other);
        assert_eq!(id(BackendKind::Tpm, "tpm"), "tpm.auth");
        let place = "/etc/credstore.encrypted/assertd.tpm.auth";
        assert_eq!(path("tpm.auth"), Path::new(place));
    }
}
