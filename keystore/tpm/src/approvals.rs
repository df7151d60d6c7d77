//! The directory in which approvals lie. Owns how they are found and read, within limits; whose they are and
//! what follows from them is [`crate::health`]'s. Nothing is kept: a file that comes or goes is found or gone
//! the next time. Everybody may write there whom the directory lets: what counts is signed.

use keystore::config::{Healthy, reason};
use keystore::evidence::healthy::{APPROVAL_LEN_MAX, AUTHORITY_LEN_MAX, Approval, Authority};
use keystore::{Error, Kind, bounded};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most that are read; one for each state that some machine of the kind may be in.
pub const FILES_MAX: usize = 64;

/// Most entries of the directory that are looked at.
const ENTRIES_MAX: usize = 1024;

/// Its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    stamp: Option<Stamp>,
}

/// By which it is seen that a file is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    changed: (i64, i64),
    length: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            inode: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
        }
    }
}

impl Place {
    /// Whether what was read is there still.
    pub fn is_unchanged(&self) -> bool {
        let now = fs::metadata(&self.path).ok();
        self.stamp.is_some() && now.as_ref().map(Stamp::of) == self.stamp
    }

    /// The name of the file.
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().escape_debug().to_string()
    }
}

/// What lies there: approvals, and why a file is none.
pub struct Found {
    /// Those that can be read, by the names of their files.
    pub approvals: Vec<(Place, Approval)>,
    /// A sentence for each that cannot.
    pub wrong: Vec<String>,
}

/// Reads them.
pub fn read(directory: &Path) -> Found {
    let mut found = Found {
        approvals: Vec::new(),
        wrong: Vec::new(),
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            // What is made after the keystore's start can be out of its sandbox (`keystore::hardening::reach`).
            let text = format!(
                "{} cannot be read: {}; if it was made after this keystore's start, restart the keystore",
                directory.display(),
                reason(&error)
            );
            found.wrong.push(text);
            return found;
        }
    };
    let entries = entries
        .take(ENTRIES_MAX)
        .flatten()
        .map(|entry| entry.path());
    let is_one = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "json");
    let mut paths: Vec<PathBuf> = entries.filter(is_one).collect();
    paths.sort();
    if paths.len() > FILES_MAX {
        found.wrong.push(format!(
            "{}: of its files *.json the first {FILES_MAX} are read; take away what is not needed any more",
            directory.display()
        ));
        paths.truncate(FILES_MAX);
    }
    for path in paths {
        let mut place = Place { path, stamp: None };
        match bounded::read(&place.path, APPROVAL_LEN_MAX) {
            Ok((bytes, metadata)) => match Approval::parse(&bytes) {
                Ok(approval) => {
                    place.stamp = Some(Stamp::of(&metadata));
                    found.approvals.push((place, approval));
                }
                Err(why) => found.wrong.push(format!("{} {why}", place.name())),
            },
            Err(why) => found.wrong.push(format!("{} {why}", place.name())),
        }
    }
    found
}

/// The public key of who approves; none if nobody may.
///
/// # Errors
/// `Refused` with what is wrong with the file.
pub fn authority(healthy: &Healthy) -> Result<Option<Authority>, Error> {
    let Some(path) = &healthy.authority else {
        return Ok(None);
    };
    let read = bounded::read(path, AUTHORITY_LEN_MAX).and_then(|(bytes, _)| {
        let text = String::from_utf8(bytes).map_err(|_| "is no text".to_owned())?;
        Authority::from_pem(&text)
    });
    read.map(Some).map_err(|why| {
        let text = format!(
            "[healthy] authority {} {why}; no key is made that nobody could approve a state for",
            path.display()
        );
        Error::new(Kind::Refused, text)
    })
}
