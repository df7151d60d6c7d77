//! The `[keystore.NAME]` sections of assertd.toml. Both processes read them: the broker to know
//! which keystores there are, the keystore process to find its module, token and PIN.
//!
//! Strict: an unknown key is an error with file, line, column, a caret and a suggestion.

pub use crate::tcti::Tcti;

use crate::keyid::check_part;
#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

mod broker;
mod diagnostic;
mod healthy;
#[cfg(feature = "schema")]
mod schema;
mod secret;
mod wording;

pub use broker::STATE_DIR;
pub use diagnostic::{Diagnostic, suggest};
pub use healthy::Healthy;

/// Largest configuration file in bytes; 10,000 workloads at 1 KiB fit.
pub const CONFIG_LEN_MAX: u64 = 16 * 1024 * 1024;

/// Default for [`Section::hang_limit_s`]: no token we know of takes longer for one call, RSA key
/// generation on a smart card included.
pub const HANG_LIMIT_S: u32 = 60;

/// The same for a TPM: a chip may need a minute for an RSA key, others' keys come before ours, and
/// what we ask of it is made up of several commands.
pub const TPM_HANG_LIMIT_S: u32 = 180;

// What stands above a key is shown to users: editors have it from the JSON Schema of the file, which
// is made of these types. So it says unit and default, and links to nothing.

/// A keystore: a PKCS#11 token or a TPM, in which keys are made and used.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "KeystoreSection", transform = schema::by_backend))]
pub struct Section {
    /// What kind of token: "pkcs11" or "tpm".
    pub backend: BackendKind,
    /// PKCS#11: absolute path of the module. The file and its directory must be root's, or the
    /// keystore user's, and not writable by others.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^/")))]
    pub module: Option<PathBuf>,
    /// PKCS#11: which token, by its label or serial number, or both; they must fit exactly one. Slots
    /// move, so they cannot be given.
    pub token: Option<TokenSelector>,
    /// PKCS#11: where the PIN comes from. Tried once; a wrong PIN is never tried again by itself.
    pub pin: Option<PinSource>,
    /// PKCS#11: variables that the module needs, such as SOFTHSM2_CONF.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// PKCS#11: text for C_Initialize's reserved argument, as NSS softokn wants it.
    pub init_args: Option<String>,
    /// PKCS#11: directories outside the keystore's state directory that the module writes to, such as
    /// SoftHSM's token directory, and device nodes of its own. It can write nowhere else. Default: none
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(inner(regex(pattern = "^/"))))]
    pub module_state: Vec<PathBuf>,
    /// PKCS#11: whether the module may use TCP, as that of a network HSM must.
    #[serde(default)]
    pub network: bool,
    /// Absolute path of the socket on which the keystore's own unit listens. Without it assertd starts
    /// the keystore itself (`isolation: none`).
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^/")))]
    pub socket: Option<PathBuf>,
    /// PKCS#11: signatures at a time, never above what the token allows. Default: the number of cores
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub signers: Option<usize>,
    /// Seconds in one call after which the module or the TPM counts as hung, and the keystore's process
    /// ends itself. Default: 60; 180 for a TPM
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub hang_limit_s: Option<u32>,
    /// TPM: how it is reached: a device node, or, for tests, "swtpm:host=127.0.0.1,port=2321". Default:
    /// "device:/dev/tpmrm0"
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^(device:/|swtpm:)")))]
    pub tcti: Option<String>,
    /// TPM: where the 32 random bytes come from of which every key's auth value is made. Keys are lost
    /// with them. Default: { credential = "NAME.auth" }
    pub auth: Option<PinSource>,
    /// TPM: how auth values are shown to it. Default: by its maker
    pub sessions: Option<Sessions>,
    /// TPM: keys that are made from now on sign only while the host is in a certain state. Default: in any
    pub healthy: Option<Healthy>,
}

const AT_LEAST_1: &str = "must be at least 1; leave it out for the default";

/// The kernel's resource manager: others may use the TPM beside us.
pub const TCTI: &str = "device:/dev/tpmrm0";

// An enum: a name from the configuration never becomes a program path.
/// What kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
pub enum BackendKind {
    /// A PKCS#11 token.
    Pkcs11,
    /// A TPM 2.0.
    Tpm,
}

/// How the TPM is shown that we may use a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
pub enum Sessions {
    /// By a salted HMAC session: the auth value never passes between processor and TPM.
    Encrypted,
    /// By the auth value itself: faster, and readable for who can listen to the TPM's bus.
    Password,
}

/// Which token; at least one of the two, and it must fit exactly one token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(extend("minProperties" = 1)))]
pub struct TokenSelector {
    /// Its label, without the padding.
    pub label: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
}

/// Where a secret comes from: never from this file, an argument or the environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[cfg_attr(
    feature = "schema",
    derive(JsonSchema),
    schemars(rename = "SecretSource")
)]
pub enum PinSource {
    /// Name of a systemd credential of the keystore's unit.
    Credential(#[cfg_attr(feature = "schema", schemars(regex(pattern = "^[^/]+$")))] String),
    /// Absolute path of a file that the keystore's user alone can read.
    File(#[cfg_attr(feature = "schema", schemars(regex(pattern = "^/")))] PathBuf),
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

    /// What serde cannot check.
    ///
    /// # Errors
    /// The first key that is missing or wrong.
    pub fn check(&self) -> Result<(), Mistake> {
        match self.backend {
            BackendKind::Pkcs11 => self.check_pkcs11()?,
            BackendKind::Tpm => self.check_tpm()?,
        }
        absolute("socket", self.socket.as_deref())?;
        match self.hang_limit_s {
            Some(0) => wrong("hang_limit_s", AT_LEAST_1),
            _ => Ok(()),
        }
    }

    fn check_pkcs11(&self) -> Result<(), Mistake> {
        for (key, there) in [
            ("tcti", self.tcti.is_some()),
            ("auth", self.auth.is_some()),
            ("sessions", self.sessions.is_some()),
            ("healthy", self.healthy.is_some()),
        ] {
            if there {
                return wrong(key, "is for backend = \"tpm\" alone: remove it");
            }
        }
        if self.module.is_none() {
            return wrong(
                "module",
                "is missing: the absolute path of the PKCS#11 module",
            );
        }
        absolute("module", self.module.as_deref())?;
        match &self.token {
            Some(token) if token.label.is_some() || token.serial.is_some() => {}
            _ => {
                return wrong(
                    "token",
                    "is missing: write token = { label = \"…\" }, or its serial",
                );
            }
        }
        let Some(pin) = &self.pin else {
            let text = "is missing: write pin = { credential = \"…\" } or { file = \"…\" }";
            return wrong("pin", text);
        };
        check_secret("pin", pin)?;
        if let Some(path) = self.module_state.iter().find(|path| !is_place(path)) {
            let path = path.display();
            let text = format!("takes absolute paths of directories below /, not \"{path}\"");
            return wrong("module_state", text);
        }
        match self.signers {
            Some(0) => wrong("signers", AT_LEAST_1),
            _ => Ok(()),
        }
    }

    fn check_tpm(&self) -> Result<(), Mistake> {
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
                return wrong(key, "is for backend = \"pkcs11\" alone: remove it");
            }
        }
        if self.pin.is_some() {
            return wrong("pin", "is for backend = \"pkcs11\" alone; a TPM has `auth`");
        }
        if let Some(auth) = &self.auth {
            check_secret("auth", auth)?;
        }
        if let Some(healthy) = &self.healthy {
            healthy.check()?;
        }
        match Tcti::parse(self.tcti.as_deref().unwrap_or(TCTI)) {
            Ok(_) => Ok(()),
            Err(text) => wrong("tcti", format!("says no way to a TPM: {text}")),
        }
    }
}

/// What is wrong with one key of a `[keystore.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key, which may be missing.
    pub key: &'static str,
    /// A sentence without its subject.
    text: String,
}

impl Mistake {
    /// As it is shown in the file that holds the section of this name: at the value of the key, or at
    /// the section's name if it is missing.
    pub fn at(&self, path: &Path, text: &str, keystore: &str) -> Diagnostic {
        let mut place = vec!["keystore", keystore];
        let section = place.len();
        place.extend(self.key.split('.'));
        let places = (section..=place.len()).rev().map(|end| &place[..end]);
        let span = places
            .into_iter()
            .find_map(|place| diagnostic::place(text, place));
        let message = format!("keystore `{keystore}`: {self}");
        match span {
            Some(span) => Diagnostic::at(path, text, span, message, None),
            None => Diagnostic::file(path, message),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.key, self.text)
    }
}

fn wrong(key: &'static str, text: impl Into<String>) -> Result<(), Mistake> {
    let text = text.into();
    Err(Mistake { key, text })
}

fn absolute(key: &'static str, path: Option<&Path>) -> Result<(), Mistake> {
    match path {
        Some(path) if !path.is_absolute() => wrong(key, "must be an absolute path"),
        _ => Ok(()),
    }
}

fn check_secret(key: &'static str, source: &PinSource) -> Result<(), Mistake> {
    match source {
        PinSource::Credential(name) if name.is_empty() || name.contains('/') => {
            let text = "takes the name of a credential in { credential = … }; for a path write \
                        { file = … }";
            wrong(key, text)
        }
        PinSource::File(path) if !path.is_absolute() => {
            wrong(key, "takes an absolute path in { file = … }")
        }
        PinSource::Credential(_) | PinSource::File(_) => Ok(()),
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
        let there = match names.as_slice() {
            [] => "none at all".to_owned(),
            names => names.join(", "),
        };
        let message = format!("no section [keystore.{name}]; there is: {there}");
        Diagnostic::file(path, message)
    })?;
    let invalid = |error| {
        let message = format!("keystore `{name}`: {error}");
        Diagnostic::at(path, &text, section.span(), message, None)
    };
    check_part(name).map_err(invalid)?;
    let checked = section.as_ref().check();
    checked.map_err(|mistake| mistake.at(path, &text, name))?;
    Ok(Loaded {
        section: section.as_ref().clone(),
        broker_directories: broker::directories(view.server, view.audit),
    })
}

/// What the system says of a file, without the number of it.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let plain = text
        .split_once(" (os error ")
        .map(|(plain, _)| plain.to_owned());
    plain.unwrap_or(text)
}

/// Reads a configuration file as text, within [`CONFIG_LEN_MAX`]. Nothing else than a file is read: a
/// pipe would have whoever asked wait for its writer, a device for what it is.
pub fn read_text(path: &Path) -> Result<String, Diagnostic> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |error: std::io::Error| {
        let message = match error.kind() {
            std::io::ErrorKind::InvalidData => "is not text in UTF-8, as TOML has to be".to_owned(),
            _ => format!("cannot be read: {}", reason(&error)),
        };
        Diagnostic::file(path, message)
    };
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
