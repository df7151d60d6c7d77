//! Why a peer is no workload. None of it reaches the caller.

use std::fmt;

/// Why a peer could not be attested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unattested {
    /// It has died; what was read may have been about another process.
    Gone,
    /// Its uid or gid now is not the one it connected with (reliability §1).
    ChangedUser,
    /// It runs another program than it did on the same connection.
    ChangedProgram,
    /// `/proc` did not show what is needed.
    Unreadable(String),
}

impl Unattested {
    /// The reason as records say it: a fixed word.
    pub fn reason(&self) -> &'static str {
        match self {
            Unattested::Gone => "peer_gone",
            Unattested::ChangedUser => "peer_changed_user",
            Unattested::ChangedProgram => "peer_changed_program",
            Unattested::Unreadable(_) => "peer_unreadable",
        }
    }
}

impl fmt::Display for Unattested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unattested::Gone => f.write_str("the peer has died"),
            Unattested::ChangedUser => f.write_str("the peer's user is not the one that connected"),
            Unattested::ChangedProgram => {
                f.write_str("the peer runs another program than it did on this connection")
            }
            Unattested::Unreadable(text) => write!(f, "the peer cannot be read: {text}"),
        }
    }
}
