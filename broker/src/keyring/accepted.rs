//! An operator's word that records are meant to be older than a keystore's counter knows them to have been:
//! a file beside them that says which ones, so that it is good for these and for none that follow.

use keystore::statefile::{self, StateDir};
use keystore::{Error, Kind};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What it is called in the state directory.
pub const FILE: &str = "accept-rollback";

/// A file of one line is no longer.
const LEN_MAX: u64 = 256;

/// Whether they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// As they are.
    Yes,
    /// Nobody said so of these.
    No,
}

impl Accepted {
    /// What the file says of the records beside it.
    ///
    /// # Errors
    /// If one of the two is there and cannot be read.
    pub fn read(dir: &StateDir) -> Result<Accepted, Error> {
        let path = dir.path().join(FILE);
        let failed =
            |error| Error::new(Kind::Unavailable, path.display().to_string()).because(error);
        let said = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Accepted::No),
            Err(error) => return Err(failed(error)),
            Ok(metadata) if metadata.len() > LEN_MAX || !metadata.is_file() => {
                return Ok(Accepted::No);
            }
            Ok(_) => fs::read_to_string(&path).map_err(failed)?,
        };
        let records = text_for(dir.path())?;
        Ok(match records.is_some_and(|records| records == said) {
            true => Accepted::Yes,
            false => Accepted::No,
        })
    }
}

/// The file, to be taken away when it has been heeded: a second restore of the same copy needs another.
pub struct Word(PathBuf);

impl Word {
    /// The one in this directory.
    pub fn of(dir: &StateDir) -> Word {
        Word(dir.path().join(FILE))
    }

    /// Takes it away; what hinders that is said.
    pub fn remove(&self) {
        if let Err(error) = statefile::remove(&self.0) {
            eprintln!("assertd: {}: cannot be removed: {error}", self.0.display());
        }
    }
}

/// What the file has to say of the records in this directory; none if there are none.
///
/// # Errors
/// If they cannot be read or fail their check.
pub fn text_for(dir: &Path) -> Result<Option<String>, Error> {
    let fingerprint = statefile::fingerprint(&dir.join(super::FILE))?;
    Ok(fingerprint.map(|fingerprint| format!("{fingerprint}\n")))
}
