//! What init is going to do, as data: shown before anything is done, then done in an order that a
//! crash may break off anywhere, because the next run finds what is missing.

use super::credential::{self, Creds};
use super::files::{self, Planned, There};
use super::host::{self, KEYSTORE_USER, Missing};
use super::look::{self, Asker};
use super::modules::{self, Reach};
use super::softhsm;
use super::text::{self, Keystore};
use super::tokens::Environment;
use super::tpm::Chip;
use crate::ctl::failure::{Exit, Failure};
use crate::ctl::run;
use keystore::config::BackendKind;
use keystore::inventory::Token;
use nix::unistd::Uid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Mode of a configuration: assertd and its keystores read it by their group.
const CONFIGURATION_MODE: u32 = 0o640;

/// Mode of what holds no secret.
const PUBLIC_MODE: u32 = 0o644;

/// Mode of the credential, which PID 1 reads.
const CREDENTIAL_MODE: u32 = 0o600;

/// Everything there is to do.
#[derive(Default)]
pub struct Work {
    /// Users and directories to be made.
    pub missing: Vec<Missing>,
    /// A token of root's, to be given to the keystore's user.
    pub give: Option<PathBuf>,
    /// Files to be written, in this order.
    pub files: Vec<Planned>,
    /// Secrets to be encrypted.
    pub sealings: Vec<Sealing>,
    /// Credentials that are there and stay.
    pub kept: Vec<PathBuf>,
    /// A token that the keystore's user must see.
    pub visible: Option<Visible>,
    /// A TPM that the keystore's user must be able to open.
    pub chip: Option<Chip>,
}

/// A secret to be encrypted.
pub struct Sealing {
    /// How.
    pub creds: Creds,
    /// The credential's name.
    pub id: String,
    /// What it holds.
    pub secret: Sealed,
}

/// What a credential holds.
pub enum Sealed {
    /// A PIN that somebody knows.
    Pin {
        /// What is asked.
        question: String,
        /// What the token says about the length of a PIN, in bytes.
        lengths: (u64, u64),
    },
    /// Bytes that nobody has ever seen, and on which every key of a TPM depends.
    Auth,
}

impl Sealed {
    fn words(&self) -> &'static str {
        match self {
            Sealed::Pin { .. } => "the PIN",
            Sealed::Auth => "32 random bytes that the TPM's keys will ask for",
        }
    }
}

/// What is asked of the module once more, as the keystore's user.
pub struct Visible {
    /// The module.
    pub module: PathBuf,
    /// Its variables.
    pub environment: Environment,
    /// The token that was seen as root.
    pub token: Token,
    /// Groups that the drop-in adds.
    pub groups: BTreeSet<String>,
}

/// The configuration.
pub fn configuration(
    path: &Path,
    keystores: &[&Keystore],
    spare: Option<&Keystore>,
    group: Option<&'static str>,
) -> Planned {
    Planned {
        path: path.to_owned(),
        about: "the configuration".to_owned(),
        text: text::configuration(keystores, spare),
        mode: CONFIGURATION_MODE,
        group,
    }
}

/// An example of what teams write.
pub fn example(conf_d: &Path, keystore: &str) -> Planned {
    Planned {
        path: conf_d.join("example.toml.disabled"),
        about: "an example of what teams write".to_owned(),
        text: text::example(keystore),
        mode: PUBLIC_MODE,
        group: None,
    }
}

/// The drop-in that lets the keystore's module write where its tokens are.
pub fn drop_in(keystore: &str, dirs: &[PathBuf], groups: &BTreeSet<String>) -> Planned {
    let unit = format!("assertd-keystore-pkcs11@{keystore}.service.d");
    Planned {
        path: Path::new("/etc/systemd/system")
            .join(unit)
            .join("module-state.conf"),
        about: "lets the module write where its tokens are".to_owned(),
        text: text::drop_in(keystore, dirs, groups),
        mode: PUBLIC_MODE,
        group: None,
    }
}

/// The drop-in that lets the keystore reach its TPM.
pub fn device_drop_in(keystore: &str, node: Option<&Path>, group: Option<&str>) -> Planned {
    let unit = BackendKind::Tpm.unit(keystore, "service.d");
    Planned {
        path: Path::new("/etc/systemd/system")
            .join(unit)
            .join("device.conf"),
        about: "lets the keystore open its TPM".to_owned(),
        text: text::device_drop_in(keystore, node, group),
        mode: PUBLIC_MODE,
        group: None,
    }
}

/// An auth secret where a new one should go.
pub fn auth_in_the_way(id: &str, why: &str) -> Failure {
    let path = credential::path(id);
    let path = path.display();
    let text = format!(
        "{path} {why}, and init never replaces it: keys that were made with it sign with no other \
         secret. Bring back what opens it from a backup of this host; or, if no key of this \
         keystore is needed any more, move it away and run init again: mv {path} {path}.old"
    );
    Failure::new(Exit::Refused, text)
}

impl Work {
    /// Both.
    pub fn and(mut self, other: Work) -> Work {
        self.missing.extend(other.missing);
        self.files.extend(other.files);
        self.sealings.extend(other.sealings);
        self.kept.extend(other.kept);
        Work {
            give: self.give.or(other.give),
            visible: self.visible.or(other.visible),
            chip: self.chip.or(other.chip),
            ..self
        }
    }

    /// Leaves out what is there already.
    ///
    /// # Errors
    /// If something else is in a file's place.
    pub fn only_what_is_missing(mut self) -> Result<Work, Failure> {
        for file in &self.files {
            if file.there() == There::Other {
                return Err(files::in_the_way(&file.path));
            }
        }
        self.files.retain(|file| file.there() == There::Nothing);
        let mut there = self.sealings.iter().filter(|s| s.path().exists());
        match there.next() {
            Some(sealing) => Err(sealing.in_the_way()),
            None => Ok(self),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_done(&self) -> bool {
        self.missing.is_empty()
            && self.give.is_none()
            && self.files.is_empty()
            && self.sealings.is_empty()
    }

    /// For each thing that will be done, one line, and below it what for.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for missing in &self.missing {
            lines.push(format!("  make   {}", missing.line()));
        }
        let mut two = |verb: &str, path: &Path, about: &str| {
            lines.push(format!("  {verb:5}  {}", path.display()));
            lines.push(format!("           {about}"));
        };
        if let Some(token) = &self.give {
            let about = format!("the token is root's; {KEYSTORE_USER} must be able to use it");
            two("chown", token, &about);
        }
        for file in &self.files {
            two("write", &file.path, &file.about);
        }
        for sealing in &self.sealings {
            two(
                "write",
                &sealing.path(),
                &sealing.creds.words(sealing.secret.words()),
            );
        }
        for path in &self.kept {
            let about = "it is there already; keys of this TPM may have been made with it";
            two("keep", path, about);
        }
        lines
    }

    /// The files it writes.
    pub fn paths(&self) -> Vec<PathBuf> {
        let sealed = self.sealings.iter().map(Sealing::path);
        let files = self.files.iter().map(|file| file.path.clone());
        files.chain(sealed).collect()
    }

    /// Does it, with one secret for each sealing. They are encrypted before the first file is written:
    /// what fails most fails first.
    pub fn make(&self, secrets: &[Zeroizing<Vec<u8>>]) -> Result<(), Failure> {
        for missing in &self.missing {
            missing.make()?;
        }
        if let Some(token) = &self.give {
            let account = host::account(KEYSTORE_USER)?;
            let unknown = || Failure::new(Exit::Internal, format!("no user {KEYSTORE_USER}"));
            softhsm::give_away(token, Uid::from_raw(account.ok_or_else(unknown)?.uid))?;
        }
        if let Some(visible) = &self.visible {
            visible.check()?;
        }
        if let Some(chip) = &self.chip {
            chip.check_access()?;
        }
        let mut sealed = Vec::new();
        for (sealing, secret) in self.sealings.iter().zip(secrets) {
            sealed.push(sealing.seal(secret)?);
        }
        for file in &self.files {
            // A unit's drop-ins can be read by all.
            put(file, 0o755)?;
        }
        for (sealing, file) in self.sealings.iter().zip(&sealed) {
            // credstore(7): root's alone.
            put(file, 0o700).map_err(|failure| match failure.exit {
                Exit::Refused => sealing.in_the_way(), // somebody was faster
                _ => failure,
            })?;
        }
        Ok(())
    }
}

/// Writes it, in a directory that is made with this mode if it is missing.
fn put(file: &Planned, dir_mode: u32) -> Result<(), Failure> {
    files::make_dir(file.path.parent().unwrap_or(Path::new("/")), dir_mode)?;
    file.write()
}

impl Sealing {
    fn path(&self) -> PathBuf {
        credential::path(&self.id)
    }

    fn seal(&self, secret: &[u8]) -> Result<Planned, Failure> {
        Ok(Planned {
            path: self.path(),
            about: String::new(),
            text: self.creds.encrypt(&self.id, secret)?,
            mode: CREDENTIAL_MODE,
            group: None,
        })
    }

    fn in_the_way(&self) -> Failure {
        match self.secret {
            Sealed::Pin { .. } => files::in_the_way(&self.path()),
            Sealed::Auth => auth_in_the_way(&self.id, "is there already"),
        }
    }
}

impl Visible {
    /// Root sees everything; the keystore's user may not. Found here, it is one sentence instead of
    /// a keystore that fails later.
    fn check(&self) -> Result<(), Failure> {
        if host::account(KEYSTORE_USER)?.is_none() || run::program("setpriv").is_none() {
            return Ok(());
        }
        let asker = Asker::Keystore(self.groups.clone());
        let (module, environment) = (&self.module, &self.environment);
        let why = match look::ask(&asker, module, environment) {
            Ok(inventory) => {
                let same = |token: &Token| {
                    token.serial == self.token.serial && token.label == self.token.label
                };
                match inventory.tokens.iter().any(same) {
                    true => return Ok(()),
                    false => "the module shows it another list of tokens".to_owned(),
                }
            }
            Err(why) => why,
        };
        let remedy = match modules::reach(module) {
            Reach::Files => "give it the token's files, for example by chown -R",
            Reach::Pcscd => {
                "pcscd asks polkit who may use a card: add a rule for this user, see \
                 systemd/README.md, \"Smart cards\""
            }
            Reach::Network | Reach::Tpm | Reach::Unknown => {
                "let this user read the module's configuration, and open its device"
            }
        };
        let text = format!(
            "token \"{}\": user {KEYSTORE_USER} does not see it: {why}; {remedy}. No file was \
             written",
            self.token.label
        );
        Err(Failure::new(Exit::Refused, text))
    }
}
