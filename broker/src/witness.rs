//! What executable a process runs, as `assertd-witness` says it. The broker lives in a Landlock
//! domain, from inside of which no other process's executable can be opened (docs/decisions/0012),
//! so another process looks: [`client`] asks it, [`serve`] answers with what `process` has read and
//! `digest` has hashed, as far as `filesystem` lets it count. [`child`] runs it where no unit does.
//!
//! Owns the types that cross the socket, and their limits. A question is [`QUESTION`] with the pidfd
//! of the process beside it, never a number; an answer is an [`Attestation`] in a frame of
//! [`keystore::protocol`]. Nothing here decides who may have what.

use crate::audit::Sha256;
use keystore::{Error, Kind, protocol};
use serde::{Deserialize, Serialize};
use std::fmt;

pub mod child;
pub mod client;
mod digest;
mod filesystem;
mod process;
pub mod program;
pub mod serve;
mod turns;

pub use client::{Client, Unanswered};

/// The socket's name in the runtime directory.
pub const SOCKET: &str = "witness.sock";

/// All that is ever asked, so that whoever asks something else, or in another version, is noticed.
/// The process is the descriptor that comes with it (SCM_RIGHTS of unix(7)).
pub const QUESTION: [u8; 8] = *b"exe? v1\n";

/// Longest path in bytes: the kernel shows a link's text in one page, with a zero at its end.
pub const PATH_LEN_MAX: usize = 4095;

/// Longest reason in bytes; ours are a sentence or two.
pub const REASON_LEN_MAX: usize = 512;

/// What is known about the executable of one process, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Attestation {
    /// It was read.
    Executable(Executable),
    /// It cannot be, and why: a lower-case sentence for people. No selector for executables matches.
    NotAttestable(String),
    /// It was not this time, and why, likewise: nothing is known, and who asks again may be told.
    NotNow(String),
}

/// Why an executable was not read.
#[derive(Debug, PartialEq, Eq)]
enum Doubt {
    /// It will not be another time either, as far as one can tell.
    Lasting(String),
    /// It may be when it is asked for again.
    Passing(String),
}

/// The file that a process executes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Executable {
    /// Where it lies.
    pub place: Place,
    /// Digest of its content.
    pub sha256: Sha256,
    /// Which file it is.
    pub identity: Inode,
}

/// Where an executable lies in this host's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// At this absolute path, which names this very file now.
    At(String),
    /// No path is attested.
    Unproven(Unproven),
}

/// Why a path says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Unproven {
    /// It was deleted or replaced while it ran, or never had a name (memfd_create(2)).
    Deleted,
    /// The path leads to another file here, or to none: it means something in another mount
    /// namespace only.
    ForeignMountNamespace,
    /// The witness may not look at the path: a directory above is closed to it.
    Unsearchable,
    /// It is no UTF-8, as paths in a configuration are.
    NotText,
}

/// A file's identity, and what changes with its content (inode(7)). The ctime cannot be set back
/// without privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inode {
    /// Device.
    pub dev: u64,
    /// Number on it.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last change of its content, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of its content or its metadata, likewise.
    pub ctime_ns: i64,
}

/// A file with this content: what stays the same while one program runs, whatever is done to the file's
/// name, mode, owner, labels or number of links. All of these change its ctime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Device.
    pub dev: u64,
    /// Number on it.
    pub ino: u64,
    /// Digest of its content.
    pub sha256: Sha256,
}

impl Executable {
    /// What runs, to be compared with what ran before.
    pub fn running(&self) -> Running {
        let Inode { dev, ino, .. } = self.identity;
        let sha256 = self.sha256;
        Running { dev, ino, sha256 }
    }

    /// Its path, if that is attested.
    pub fn path(&self) -> Option<&str> {
        match &self.place {
            Place::At(path) => Some(path),
            Place::Unproven(_) => None,
        }
    }
}

impl Attestation {
    /// An answer from the bytes of a frame.
    ///
    /// # Errors
    /// `Protocol`, if it is none or breaks a limit.
    pub fn decode(bytes: &[u8]) -> Result<Attestation, Error> {
        let attestation: Attestation = protocol::decode(bytes)?;
        let broken = match &attestation {
            Attestation::NotAttestable(why) | Attestation::NotNow(why) => {
                why.len() > REASON_LEN_MAX
            }
            Attestation::Executable(executable) => executable.path().is_some_and(|path| {
                path.len() > PATH_LEN_MAX || !path.starts_with('/') || path.contains('\0')
            }),
        };
        match broken {
            true => Err(Error::new(Kind::Protocol, "answer breaks a limit")),
            false => Ok(attestation),
        }
    }
}

impl From<Doubt> for Attestation {
    /// A reason that quotes more than fits is cut.
    fn from(doubt: Doubt) -> Attestation {
        let cut = |mut why: String| {
            while why.len() > REASON_LEN_MAX {
                why.pop();
            }
            why
        };
        match doubt {
            Doubt::Lasting(why) => Attestation::NotAttestable(cut(why)),
            Doubt::Passing(why) => Attestation::NotNow(cut(why)),
        }
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unproven::Deleted => "the executable was deleted or replaced while it ran",
            Unproven::ForeignMountNamespace => {
                "foreign mount namespace: the path names another file on this host, or none"
            }
            Unproven::Unsearchable => "a directory above the executable is closed to the witness",
            Unproven::NotText => "the path is not UTF-8",
        })
    }
}

#[cfg(test)]
mod tests;
