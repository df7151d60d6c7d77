//! What is said about a keystore's secret, and what is done about it. A PIN is in somebody's head, so
//! that its file can be made again; a TPM's secret is nowhere else, and keys that were made with it
//! sign with no other: where there are keys no remedy makes a new one.

use super::STORES;
use crate::ctl::doctor::access::quoted;
use keystore::config::BackendKind;
use std::path::{Path, PathBuf};

/// A keystore's secret, to be spoken of.
pub struct Noun {
    /// The keystore's name.
    pub keystore: String,
    /// Its kind.
    pub kind: BackendKind,
    /// Whether keys depend on the secret.
    pub keys: Keys,
}

/// Keys that are lost with the secret they were made with.
pub enum Keys {
    /// There are none.
    None,
    /// The state directory that has them.
    In(PathBuf),
}

/// What makes the credential of a PIN, as a phrase without its end; asks for the PIN.
pub fn make(id: &str, path: &Path) -> String {
    let ask = "systemd-ask-password -n 'user PIN:'";
    format!("`{ask} | {}`", seal(id, path))
}

/// Where a keystore's credential belongs.
pub fn place(id: &str) -> PathBuf {
    Path::new(STORES[0]).join(format!("assertd.{id}"))
}

/// Encrypts its standard input.
fn seal(id: &str, path: &Path) -> String {
    let path = quoted(path);
    format!("systemd-creds encrypt --with-key=host --name={id} - {path}")
}

impl Noun {
    /// The credential that its unit loads, as it is shipped.
    pub fn usual(&self) -> String {
        match self.kind {
            BackendKind::Pkcs11 => format!("{}.pin", self.keystore),
            BackendKind::Tpm => format!("{}.auth", self.keystore),
        }
    }

    /// What it is.
    pub fn secret(&self) -> &'static str {
        match self.kind {
            BackendKind::Pkcs11 => "PIN",
            BackendKind::Tpm => "auth secret",
        }
    }

    /// The key of the section that says where it is.
    pub fn key(&self) -> &'static str {
        match self.kind {
            BackendKind::Pkcs11 => "pin",
            BackendKind::Tpm => "auth",
        }
    }

    /// What has the keystore read it.
    pub fn restart(&self) -> String {
        format!(
            "`systemctl restart {}@{}`",
            self.kind.program(),
            self.keystore
        )
    }

    /// A credential is not there.
    pub fn give(&self, id: &str, path: &Path) -> String {
        let restart = self.restart();
        let dir = path.parent().unwrap_or(Path::new(STORES[0])).display();
        match (self.kind, &self.keys) {
            (BackendKind::Pkcs11, _) => {
                let make = make(id, path);
                format!("run `install -d -m 0700 {dir}`, {make}, then {restart}")
            }
            (BackendKind::Tpm, Keys::None) => {
                format!("run {}, then {restart}", self.anew(id, path))
            }
            (BackendKind::Tpm, Keys::In(state)) => {
                format!(
                    "bring {} back from a backup of this host, {}",
                    path.display(),
                    self.or_lose(state, id, path)
                )
            }
        }
    }

    /// A credential is there, and is of no use.
    pub fn mend(&self, id: &str, path: &Path) -> String {
        let restart = self.restart();
        match (self.kind, &self.keys) {
            (BackendKind::Pkcs11, _) => format!("run {}, then {restart}", make(id, path)),
            (BackendKind::Tpm, Keys::None) => {
                let (file, anew) = (quoted(path), self.anew(id, path));
                format!("run `mv {file} {file}.old`, {anew}, then {restart}")
            }
            (BackendKind::Tpm, Keys::In(state)) => {
                let lose = self.or_lose(state, id, path);
                format!(
                    "bring back what it was when it opened, from a backup of this host (the file, and \
                     /var/lib/systemd/credential.secret), {lose}"
                )
            }
        }
    }

    /// A credential is not encrypted: what it holds is kept.
    pub fn encrypt(&self, id: &str) -> String {
        let restart = self.restart();
        let make = match self.kind {
            BackendKind::Pkcs11 => make(id, &place(id)),
            BackendKind::Tpm => format!("`{} <FILE` with that file", seal(id, &place(id))),
        };
        format!(
            "run {make}, remove that LoadCredential= line, then `systemctl daemon-reload` and \
             {restart}"
        )
    }

    /// A file's secret becomes a credential.
    pub fn encrypt_file(&self, file: &str) -> String {
        let (own, restart) = (self.usual(), self.restart());
        let make = match self.kind {
            BackendKind::Pkcs11 => make(&own, &place(&own)),
            BackendKind::Tpm => format!("`{} <{file}`", seal(&own, &place(&own))),
        };
        let (key, name) = (self.key(), &self.keystore);
        format!(
            "encrypt it for this host: run {make}, write `{key} = {{ credential = \"{own}\" }}` in \
             [keystore.{name}], then {restart}"
        )
    }

    /// A file is to be written for its one reader.
    pub fn write_file(&self, owner: &str, file: &str) -> String {
        match (self.kind, &self.keys) {
            (BackendKind::Pkcs11, _) => format!(
                "run `read -rsp 'user PIN: ' pin && printf %s \"$pin\" | install -m 0400 -o {owner} \
                 /dev/stdin {file}; unset pin` in a bash of root"
            ),
            (BackendKind::Tpm, Keys::None) => {
                format!(
                    "run `head -c 32 /dev/urandom | install -m 0400 -o {owner} /dev/stdin {file}`"
                )
            }
            (BackendKind::Tpm, Keys::In(state)) => format!(
                "bring it back from a backup: the keys in {} sign with no other",
                state.join("keys").display()
            ),
        }
    }

    /// A TPM's secret where there was none: init makes that of the shipped unit, and sees before
    /// that no keys depend on another.
    fn anew(&self, id: &str, path: &Path) -> String {
        match id == self.usual() && path == place(id) {
            true => format!("`assertctl init --yes --name {}`", self.keystore),
            false => format!("`head -c 32 /dev/urandom | {}`", seal(id, path)),
        }
    }

    fn or_lose(&self, state: &Path, id: &str, path: &Path) -> String {
        let (shown, state) = (state.join("keys"), quoted(state));
        let (anew, restart) = (self.anew(id, path), self.restart());
        let away = match path.exists() {
            true => format!(" && mv {0} {0}.old", quoted(path)),
            false => String::new(),
        };
        format!(
            "then run {restart}: the keys in {} sign with no other secret. If none of them is needed \
             any more: give every target and issuer of theirs another name in the configuration, \
             run `mv {state} {state}.old{away}`, {anew}, {restart}, then `assertctl reload` and \
             `assertctl apply`, which makes new keys",
            shown.display()
        )
    }
}

#[cfg(test)]
pub mod tests;
