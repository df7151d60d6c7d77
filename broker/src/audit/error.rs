//! What can go wrong with the log as a whole, each with the file and the remedy. A refused decision
//! is not an `Error` but an `Unavailable`: it passes by itself.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Another process holds the lock.
    Locked { path: PathBuf },
    /// A complete record does not fit the chain.
    Tampered {
        path: PathBuf,
        line: u64,
        seq: u64,
        what: &'static str,
    },
    /// A file is not what the log would have written.
    Unreadable { path: PathBuf, what: &'static str },
    /// The directory's kind, owner or mode lets others write.
    Directory { path: PathBuf, what: &'static str },
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Closing gave up on records that the disk would not take.
    Unwritten {
        path: PathBuf,
        records: usize,
        why: String,
    },
}

impl Error {
    /// sysexits(3): 69 another assertd holds the log, 78 something an administrator has to look at.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Locked { .. } => 69,
            Error::Unwritten { .. } => 70,
            Error::Tampered { .. }
            | Error::Unreadable { .. }
            | Error::Directory { .. }
            | Error::Io { .. } => 78,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Locked { path } => write!(
                f,
                "audit lock {} is held by another assertd; stop that one first",
                path.display()
            ),
            Error::Tampered {
                path,
                line,
                seq,
                what,
            } => write!(
                f,
                "audit file {} line {line} (record {seq}): {what}; keep the directory as evidence, \
                 move it aside and start with an empty one, then run assertctl audit verify on it",
                path.display()
            ),
            Error::Unreadable { path, what } => write!(
                f,
                "audit file {}: {what}; move it out of the audit directory",
                path.display()
            ),
            Error::Directory { path, what } => write!(
                f,
                "audit directory {} {what}; make it a directory of assertd's own user, mode 0700",
                path.display()
            ),
            Error::Io {
                action,
                path,
                source,
            } => write!(
                f,
                "cannot {action} {}: {source}; check the file system and the directory's owner",
                path.display()
            ),
            Error::Unwritten { path, records, why } => write!(
                f,
                "audit directory {}: closed with {records} records unwritten, none of them \
                 acknowledged: {why}; check the file system",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// For `map_err`: names what was tried on which path.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

/// No decision can be recorded now, so none may be granted. It passes by itself; nobody has to
/// restart assertd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    pub reason: String,
    pub remedy: String,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}

impl std::error::Error for Unavailable {}

/// The log was closed before the record was durable; nothing may be released on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the audit log closed before the record was durable; ask again")
    }
}

impl std::error::Error for Lost {}
