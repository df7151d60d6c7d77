//! The `[keystore.NAME]` sections of assertd.toml. Both processes read them: the broker to know
//! which keystores there are, the keystore process to find its module, token and PIN.
//!
//! Strict: an unknown key is an error with file, line, column, a caret and a suggestion.

pub use crate::tcti::Tcti;

use crate::keyid::check_part;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

mod broker;
mod diagnostic;

pub use broker::STATE_DIR;
pub use diagnostic::{Diagnostic, suggest};

/// Largest configuration file in bytes; 10,000 workloads at 1 KiB fit.
pub const CONFIG_LEN_MAX: u64 = 16 * 1024 * 1024;

/// Default for [`Section::hang_limit_s`]: no token we know of takes longer for one call, RSA key
/// generation on a smart card included.
pub const HANG_LIMIT_S: u32 = 60;

/// The same for a TPM: a chip may need a minute for an RSA key, others' keys come before ours, and
/// what we ask of it is made up of several commands.
pub const TPM_HANG_LIMIT_S: u32 = 180;

/// One `[keystore.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// What kind of token.
    pub backend: BackendKind,
    /// PKCS#11: absolute path of the module.
    pub module: Option<PathBuf>,
    /// PKCS#11: which token; slots move, so labels and serials only.
    pub token: Option<TokenSelector>,
    /// Where the PIN comes from.
    pub pin: Option<PinSource>,
    /// PKCS#11: variables the module needs; set before it is loaded.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// PKCS#11: string for C_Initialize's pReserved, as NSS softokn wants it.
    pub init_args: Option<String>,
    /// PKCS#11: directories outside the state directory that the module writes to, and device nodes
    /// of its own. The process can write nowhere else ([`crate::hardening::reach`]).
    #[serde(default)]
    pub module_state: Vec<PathBuf>,
    /// PKCS#11: whether the module may use TCP, as one of a network HSM must.
    #[serde(default)]
    pub network: bool,
    /// Where the keystore process listens, when it is a unit of its own. Without it the broker
    /// starts the process itself (`isolation: none`).
    pub socket: Option<PathBuf>,
    /// How many signatures at a time; default: cores, never above the token's own maximum.
    pub signers: Option<usize>,
    /// Seconds after which a call into the module counts as hung and the process ends itself.
    pub hang_limit_s: Option<u32>,
    /// TPM: how it is reached; default: [`TCTI`].
    pub tcti: Option<String>,
    /// TPM: where the 32 bytes come from of which every key's auth value is made; default: the
    /// credential `NAME.auth`.
    pub auth: Option<PinSource>,
    /// TPM: how auth values are shown to it; default: by the kind of TPM.
    pub sessions: Option<Sessions>,
}

/// The kernel's resource manager: others may use the TPM beside us.
pub const TCTI: &str = "device:/dev/tpmrm0";

/// Backends are an enum: a name from the configuration never becomes a program path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// A PKCS#11 module.
    Pkcs11,
    /// A TPM 2.0.
    Tpm,
}

/// How the TPM is shown that we may use a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sessions {
    /// By a salted HMAC session: the auth value never passes between processor and TPM.
    Encrypted,
    /// By the auth value itself: faster, and readable for who can listen to the TPM's bus.
    Password,
}

/// Which token; at least one of the two, and it must fit exactly one token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSelector {
    /// Its label, without the padding.
    pub label: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
}

/// Where the PIN comes from: never from this file, an argument or the environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum PinSource {
    /// Name of a systemd credential of the keystore's unit.
    Credential(String),
    /// A file that the keystore's user alone can read.
    File(PathBuf),
}

impl BackendKind {
    /// The program that serves it; its units are called after it.
    pub fn program(self) -> &'static str {
        match self {
            BackendKind::Pkcs11 => "assertd-keystore-pkcs11",
            BackendKind::Tpm => "assertd-keystore-tpm",
        }
    }

    /// The user of its units.
    pub fn user(self) -> &'static str {
        match self {
            BackendKind::Pkcs11 => "assertd-pkcs11",
            BackendKind::Tpm => "assertd-tpm",
        }
    }

    /// The unit of one keystore; `suffix` is `service` or `socket`.
    pub fn unit(self, keystore: &str, suffix: &str) -> String {
        format!("{}@{keystore}.{suffix}", self.program())
    }
}

impl Section {
    /// Which program serves this backend.
    pub fn program(&self) -> &'static str {
        self.backend.program()
    }

    /// How long one call into the token may take.
    pub fn hang_limit(&self) -> Duration {
        let standard = match self.backend {
            BackendKind::Pkcs11 => HANG_LIMIT_S,
            BackendKind::Tpm => TPM_HANG_LIMIT_S,
        };
        Duration::from_secs(self.hang_limit_s.unwrap_or(standard).into())
    }

    /// What serde cannot check. Names the missing or wrong key.
    pub fn check(&self) -> Result<(), String> {
        match self.backend {
            BackendKind::Pkcs11 => self.check_pkcs11()?,
            BackendKind::Tpm => self.check_tpm()?,
        }
        if self
            .socket
            .as_ref()
            .is_some_and(|socket| !socket.is_absolute())
        {
            return Err("`socket` must be an absolute path".into());
        }
        if self.hang_limit_s == Some(0) {
            return Err("`hang_limit_s` must be at least 1".into());
        }
        Ok(())
    }

    fn check_pkcs11(&self) -> Result<(), String> {
        for (key, there) in [
            ("tcti", self.tcti.is_some()),
            ("auth", self.auth.is_some()),
            ("sessions", self.sessions.is_some()),
        ] {
            if there {
                return Err(format!("`{key}` is for backend = \"tpm\" alone"));
            }
        }
        match &self.module {
            None => {
                return Err("`module` is missing: the absolute path of the PKCS#11 module".into());
            }
            Some(module) if !module.is_absolute() => {
                return Err("`module` must be an absolute path".into());
            }
            Some(_) => {}
        }
        match &self.token {
            Some(TokenSelector {
                label: None,
                serial: None,
            })
            | None => {
                return Err(
                    "`token` is missing: write token = { label = \"…\" }, or its serial".into(),
                );
            }
            Some(_) => {}
        }
        let Some(pin) = &self.pin else {
            return Err(
                "`pin` is missing: write pin = { credential = \"…\" } or { file = \"…\" }".into(),
            );
        };
        if let Some(path) = self.module_state.iter().find(|path| !is_place(path)) {
            return Err(format!(
                "`module_state`: {}: must be the absolute path of a directory below /",
                path.display()
            ));
        }
        check_credential("pin", pin)?;
        if self.signers == Some(0) {
            return Err("`signers` must be at least 1".into());
        }
        Ok(())
    }

    fn check_tpm(&self) -> Result<(), String> {
        for (key, there) in [
            ("module", self.module.is_some()),
            ("token", self.token.is_some()),
            ("environment", !self.environment.is_empty()),
            ("init_args", self.init_args.is_some()),
            ("module_state", !self.module_state.is_empty()),
            ("network", self.network),
            ("signers", self.signers.is_some()),
        ] {
            if there {
                return Err(format!("`{key}` is for backend = \"pkcs11\" alone"));
            }
        }
        if self.pin.is_some() {
            return Err("`pin` is for backend = \"pkcs11\" alone; a TPM has `auth`".into());
        }
        if let Some(auth) = &self.auth {
            check_credential("auth", auth)?;
            if matches!(auth, PinSource::File(path) if !path.is_absolute()) {
                return Err("`auth.file` must be an absolute path".into());
            }
        }
        match Tcti::parse(self.tcti.as_deref().unwrap_or(TCTI)) {
            Ok(_) => Ok(()),
            Err(text) => Err(format!("`tcti`: {text}")),
        }
    }
}

fn check_credential(key: &str, source: &PinSource) -> Result<(), String> {
    match source {
        PinSource::Credential(name) if name.is_empty() || name.contains('/') => Err(format!(
            "`{key}.credential` is a credential's name, not a path"
        )),
        _ => Ok(()),
    }
}

/// Absolute, not the root, and no way up: `/tmp/..` would be the root.
fn is_place(path: &Path) -> bool {
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The part of assertd.toml a keystore process reads; the rest is the broker's.
#[derive(Deserialize)]
struct KeystoreView {
    #[serde(default)]
    keystore: BTreeMap<String, toml::Spanned<Section>>,
    #[serde(default)]
    server: broker::Server,
    #[serde(default)]
    audit: broker::Audit,
}

/// What a keystore process takes from the file.
#[derive(Debug)]
pub struct Loaded {
    /// Its own section.
    pub section: Section,
    /// Where the broker keeps its state and its audit log: nothing of that is a keystore's to read.
    pub broker_directories: Vec<PathBuf>,
}

/// Reads section `[keystore.name]` of the file, and what it says of the broker's directories.
///
/// # Errors
/// A [`Diagnostic`] that cites the line.
pub fn load(path: &Path, name: &str) -> Result<Loaded, Diagnostic> {
    let text = read_text(path)?;
    let view: KeystoreView =
        toml::from_str(&text).map_err(|error| Diagnostic::from_toml(path, &text, &error))?;
    let section = view.keystore.get(name).ok_or_else(|| {
        let names: Vec<&str> = view.keystore.keys().map(String::as_str).collect();
        Diagnostic::file(
            path,
            format!(
                "no section [keystore.{name}]; there are: {}",
                names.join(", ")
            ),
        )
    })?;
    let at = |message: String| Diagnostic::at(path, &text, section.span(), message, None);
    check_part(name).map_err(|error| at(format!("keystore `{name}`: {error}")))?;
    section
        .as_ref()
        .check()
        .map_err(|error| at(format!("keystore `{name}`: {error}")))?;
    Ok(Loaded {
        section: section.as_ref().clone(),
        broker_directories: broker::directories(view.server, view.audit),
    })
}

/// Reads a configuration file as text, within [`CONFIG_LEN_MAX`]. Nothing else than a file is read: a
/// pipe would have whoever asked wait for its writer, a device for what it is.
pub fn read_text(path: &Path) -> Result<String, Diagnostic> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |error: std::io::Error| Diagnostic::file(path, format!("cannot be read: {error}"));
    let mut options = std::fs::OpenOptions::new();
    // O_NONBLOCK: opening a pipe waits for nobody (fifo(7)); it changes nothing for a file.
    let options = options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let file = options.open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if kind.is_dir() {
        return Err(Diagnostic::file(path, "is a directory; a file is read"));
    }
    if !kind.is_file() {
        let text = "is a pipe or a device; a file is read";
        return Err(Diagnostic::file(path, text));
    }
    let mut text = String::new();
    file.take(CONFIG_LEN_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > CONFIG_LEN_MAX {
        return Err(Diagnostic::file(
            path,
            format!("is longer than {CONFIG_LEN_MAX} bytes"),
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
