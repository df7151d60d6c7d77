//! What init is going to do, as data: shown before anything is done, then done in an order that a
//! crash may break off anywhere, because the next run finds what is missing.

use super::credential::{self, Creds};
use super::files::{self, Planned, There};
use super::host::{self, KEYSTORE_USER, Missing};
use super::look::{self, Asker};
use super::modules::Reach;
use super::softhsm;
use super::text::{self, Keystore};
use crate::ctl::failure::{Exit, Failure};
use crate::ctl::run;
use keystore::inventory::Token;
use nix::unistd::Uid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
    /// The PIN, to be encrypted.
    pub credential: Option<Sealing>,
    /// A token that the keystore's user must see.
    pub visible: Option<Visible>,
}

/// A PIN to be encrypted.
pub struct Sealing {
    /// How.
    pub creds: Creds,
    /// For which keystore.
    pub keystore: String,
    /// What is asked.
    pub question: String,
    /// What the token says about the length of a PIN, in bytes.
    pub lengths: (u64, u64),
}

/// What is asked of the module once more, as the keystore's user.
pub struct Visible {
    /// The keystore to be.
    pub keystore: Keystore,
    /// The token that was seen as root.
    pub token: Token,
    /// Groups that the drop-in adds.
    pub groups: BTreeSet<String>,
}

/// The configuration.
pub fn configuration(path: &Path, keystore: &Keystore, group: Option<&'static str>) -> Planned {
    Planned {
        path: path.to_owned(),
        about: "the configuration".to_owned(),
        text: text::configuration(keystore),
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

impl Work {
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
        let sealed = self
            .credential
            .as_ref()
            .map(|s| credential::path(&s.keystore));
        if let Some(path) = sealed.filter(|path| path.exists()) {
            return Err(files::in_the_way(&path));
        }
        Ok(self)
    }

    /// Whether there is nothing to do.
    pub fn is_done(&self) -> bool {
        self.missing.is_empty()
            && self.give.is_none()
            && self.files.is_empty()
            && self.credential.is_none()
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
        if let Some(sealing) = &self.credential {
            let path = credential::path(&sealing.keystore);
            two("write", &path, &sealing.creds.words());
        }
        lines
    }

    /// The files it writes.
    pub fn paths(&self) -> Vec<PathBuf> {
        let sealed = self
            .credential
            .iter()
            .map(|s| credential::path(&s.keystore));
        let files = self.files.iter().map(|file| file.path.clone());
        files.chain(sealed).collect()
    }

    /// Does it. The PIN is encrypted before the first file is written: what fails most fails first.
    pub fn make(&self, pin: &[u8]) -> Result<(), Failure> {
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
        let sealed = match &self.credential {
            None => None,
            Some(sealing) => Some(Planned {
                path: credential::path(&sealing.keystore),
                about: String::new(),
                text: sealing.creds.encrypt(&sealing.keystore, pin)?,
                mode: CREDENTIAL_MODE,
                group: None,
            }),
        };
        for file in self.files.iter().chain(&sealed) {
            let dir = file.path.parent().unwrap_or(Path::new("/"));
            // credstore(7): root's alone. A unit's drop-ins can be read by all.
            let mode = if file.mode == CREDENTIAL_MODE {
                0o700
            } else {
                0o755
            };
            files::make_dir(dir, mode)?;
            file.write()?;
        }
        Ok(())
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
        let (module, environment) = (&self.keystore.module, &self.keystore.environment);
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
        let remedy = match self.keystore.reach {
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
