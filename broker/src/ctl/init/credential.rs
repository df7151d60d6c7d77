//! The PIN as an encrypted systemd credential. `systemd-creds` gets the PIN on its standard input;
//! what comes back is bound to this host, and to its TPM if it has one, and can lie on disk.
//!
//! Never bound to PCRs: a firmware update changes them, and the keystore would not start again
//! (systemd/README.md). systemd 252 seals to a TPM without PCRs and then cannot open it, so
//! whatever is encrypted is decrypted once before it is kept.

use crate::ctl::failure::{Exit, Failure};
use crate::ctl::run;
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
    /// Why the TPM is not used, if there is one.
    pub without_tpm: Option<String>,
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
    pub fn encrypt(&self, keystore: &str, pin: &[u8]) -> Result<String, Failure> {
        self.seal(&id(keystore), pin).map_err(|why| {
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
        let mut decrypt = Command::new(&self.program);
        decrypt.args(["decrypt", &name, "-", "-"]);
        let opened = run::run_blindly(&mut decrypt, sealed.stdout.as_bytes(), DEADLINE)?;
        match opened.succeeded() {
            true => Ok(sealed.stdout),
            false => Err(format!(
                "what it encrypted it cannot decrypt: {}",
                opened.reason()
            )),
        }
    }

    /// For the list of what will be done.
    pub fn words(&self) -> String {
        match (self.key, &self.without_tpm) {
            (Key::HostAndTpm, _) => {
                "the PIN, encrypted with this host's key and its TPM".to_owned()
            }
            (Key::Host, None) => "the PIN, encrypted with this host's key".to_owned(),
            (Key::Host, Some(why)) => {
                format!("the PIN, encrypted with this host's key; its TPM is not used: {why}")
            }
        }
    }
}
