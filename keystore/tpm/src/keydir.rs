//! The directory of key files, `keys/` in the keystore's state directory: `OBJECTID.pem` each.
//! Owns how they are written, read and taken away; a file is there as a whole or not at all. What
//! is in it is [`crate::keyfile`]'s.

use crate::bond::Bond;
use crate::keyfile::{FILE_LEN_MAX, KeyFile};
use crate::primary::Keys;
use crate::template;
use keystore::backend::{ObjectId, TokenId};
use keystore::statefile::{self, StateDir};
use keystore::{Error, Kind, PublicKey};
use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tss_esapi::structures::{Private, Public};

/// Most names shown of files that are nobody's.
const STRANGE_MAX: usize = 100;

const SUFFIX: &str = ".pem";

/// The directory; the state directory is locked by us.
#[derive(Clone)]
pub struct KeyDir {
    path: PathBuf,
}

/// A key as it lies there, checked.
#[derive(Clone)]
pub struct StoredKey {
    /// Its public half.
    pub public_key: PublicKey,
    /// Both halves as the TPM loads them.
    pub public: Public,
    pub private: Private,
    /// What it is bound to, if it is.
    pub bond: Option<Arc<Bond>>,
}

impl KeyDir {
    /// Makes it if it is missing, and takes away what a crash left half written.
    ///
    /// # Errors
    /// `Unavailable` with what the file system says.
    pub fn open(state: &StateDir) -> Result<KeyDir, Error> {
        let path = state.path().join("keys");
        let failed = |error| unavailable(&path, "cannot be made or read", error);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?.path();
            if is_half_written(&entry) {
                statefile::remove(&entry).map_err(failed)?;
            }
        }
        // A key that was there a moment before a crash is adopted, and must survive a power cut then.
        let directory = File::open(&path).and_then(|directory| directory.sync_all());
        directory.map_err(failed)?;
        Ok(KeyDir { path })
    }

    /// Writes a key that is not there yet.
    ///
    /// # Errors
    /// `Exists`; `Unavailable` if it cannot be written for certain.
    pub fn write(&self, object: ObjectId, file: &KeyFile) -> Result<(), Error> {
        let path = self.file(object);
        statefile::place(&path, file.encode().as_bytes()).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                let text = format!("key file {}: is there already", path.display());
                Error::new(Kind::Exists, text)
            }
            _ => {
                let remedy = "cannot be written for certain; free space or mend the disk, then try \
                              again";
                unavailable(&path, remedy, error)
            }
        })
    }

    /// Reads a key.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if it is not as we wrote it; `Mismatch` if it is no key that can only
    /// sign.
    pub fn read(&self, object: ObjectId) -> Result<StoredKey, Error> {
        let path = self.file(object);
        let text = read_bounded(&path)?;
        let corrupt = |what: &str| {
            let text = format!(
                "key file {}: {what}; nothing was changed; restore it from a backup",
                path.display()
            );
            Error::new(Kind::Corrupt, text)
        };
        let file = KeyFile::parse(&text).map_err(corrupt)?;
        let public = template::unmarshalled(&file.public).map_err(corrupt)?;
        let private = Private::try_from(file.private)
            .map_err(|_| corrupt("has a private part that is too long"))?;
        let bond = file.bond.as_deref().map(Bond::parse);
        let bond = bond.transpose().map_err(corrupt)?;
        let read = match &bond {
            Some(bond) => template::read_bound_key(&public, &bond.digest()),
            None if template::is_imported(&public) => template::read_imported_key(&public),
            None => template::read_signing_key(&public),
        };
        let (_, public_key) = read.map_err(|what| {
            let text = format!(
                "key file {}: the key {what}; it is not one of ours and not used",
                path.display()
            );
            Error::new(Kind::Mismatch, text)
        })?;
        Ok(StoredKey {
            public_key,
            public,
            private,
            bond: bond.map(Arc::new),
        })
    }

    /// Whether there is a key file, of whatever key.
    ///
    /// # Errors
    /// `Unavailable` with what the file system says.
    pub fn some(&self) -> Result<Keys, Error> {
        let failed = |error| unavailable(&self.path, "cannot be read", error);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if name.to_string_lossy().ends_with(SUFFIX) {
                return Ok(Keys::Some);
            }
        }
        Ok(Keys::None)
    }

    /// The one key whose file begins with this label.
    ///
    /// # Errors
    /// `NotFound`; `Mismatch` if there are two.
    pub fn labelled(&self, label: &str) -> Result<ObjectId, Error> {
        let failed = |error| unavailable(&self.path, "cannot be read", error);
        let mut found = None;
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let id = name.strip_suffix(SUFFIX).map(str::to_owned);
            let id = id.and_then(|id| TokenId::try_from(id).ok()?.object());
            let file = read_bounded(&path).ok();
            let (Some(object), Some(text)) = (id, file) else {
                continue;
            };
            if !KeyFile::parse(&text).is_ok_and(|file| file.label == label) {
                continue;
            }
            if found.replace(object).is_some() {
                let text = format!(
                    "{}: two key files have the label {label:?}; say which one is meant by its id",
                    self.path.display()
                );
                return Err(Error::new(Kind::Mismatch, text));
            }
        }
        found.ok_or_else(|| {
            let text = format!(
                "{}: no key file has the label {label:?}",
                self.path.display()
            );
            Error::new(Kind::NotFound, text)
        })
    }

    /// How many keys are bound to a state of the host, and the labels of those that are not.
    ///
    /// # Errors
    /// `Unavailable` with what the file system says.
    pub fn bonds(&self) -> Result<(usize, Vec<String>), Error> {
        let failed = |error| unavailable(&self.path, "cannot be read", error);
        let (mut bound, mut unbound) = (0, Vec::new());
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|suffix| suffix != "pem") {
                continue;
            }
            let text = read_bounded(&path).ok();
            match text.and_then(|text| KeyFile::parse(&text).ok()) {
                Some(KeyFile { bond: Some(_), .. }) => bound += 1,
                Some(KeyFile { label, .. }) => unbound.push(label),
                None => {} // what is wrong with it is said of the key
            }
        }
        unbound.sort();
        Ok((bound, unbound))
    }

    /// Takes a key away. One that is not there is success.
    ///
    /// # Errors
    /// `Unavailable` with what the file system says.
    pub fn remove(&self, object: ObjectId) -> Result<(), Error> {
        let path = self.file(object);
        let failed = |error| unavailable(&path, "cannot be removed for certain; try again", error);
        statefile::remove(&path).map_err(failed)
    }

    /// The labels of keys that are not among `known`, and the names of other files.
    ///
    /// # Errors
    /// `Unavailable` with what the file system says.
    pub fn strange(&self, known: &[ObjectId]) -> Result<Vec<String>, Error> {
        let failed = |error| unavailable(&self.path, "cannot be read", error);
        let known: HashSet<PathBuf> = known.iter().map(|object| self.file(*object)).collect();
        let mut strange = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if known.contains(&path) || is_half_written(&path) {
                continue;
            }
            let label = read_bounded(&path).ok().and_then(|text| {
                let file = KeyFile::parse(&text).ok()?;
                Some(file.label)
            });
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            strange.push(match label {
                Some(label) => format!("{label} ({name})"),
                None => format!("keys/{}", name.escape_debug()),
            });
            if strange.len() == STRANGE_MAX {
                strange.push("and more".to_owned());
                break;
            }
        }
        strange.sort();
        Ok(strange)
    }

    fn file(&self, object: ObjectId) -> PathBuf {
        self.path.join(format!("{object}{SUFFIX}"))
    }
}

/// Whether it is a key file that was being written when we died: of a name that only we give, since
/// what is somebody else's is never deleted.
fn is_half_written(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let object = name
        .strip_suffix(statefile::NEW)
        .and_then(|name| name.strip_suffix(SUFFIX));
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    object.is_some_and(|object| object.len() == 32 && is_hex(object))
        && path.symlink_metadata().is_ok_and(|it| it.is_file())
}

/// A key file's text, or the beginning of one that is too long.
///
/// # Errors
/// `NotFound`; `Corrupt`, if it is none; `Unavailable` with what the file system says.
pub fn read_bounded(path: &Path) -> Result<String, Error> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => {
            let text = format!("key file {}: is not there", path.display());
            Error::new(Kind::NotFound, text)
        }
        ErrorKind::InvalidData => {
            let text = format!("key file {}: is not text", path.display());
            Error::new(Kind::Corrupt, text)
        }
        _ => unavailable(path, "cannot be read", error),
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_LEN_MAX as u64 + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text) // one that is too long is refused when it is parsed
}

fn unavailable(path: &Path, text: &str, error: std::io::Error) -> Error {
    Error::new(Kind::Unavailable, format!("{}: {text}", path.display())).because(error)
}
