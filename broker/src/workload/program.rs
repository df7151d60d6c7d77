//! What a process runs, as the witness attests it. What could not be attested is no program: never a
//! match.

use crate::audit::Sha256;
use std::fmt;

/// A process's executable, as far as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Nobody asked.
    Unread,
    /// This one runs.
    Is {
        /// Where it lies, if a path of this host leads to the very file that runs.
        path: Option<String>,
        /// Of the file that runs.
        sha256: Sha256,
    },
    /// It could not be found out.
    NotAttestable(String),
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Program::Unread => f.write_str("not read"),
            Program::Is { sha256, .. } => write!(f, "{sha256}"),
            Program::NotAttestable(why) => write!(f, "not attestable: {why}"),
        }
    }
}
