//! Whose system calls they are.

use harness::token::Kind;
use std::fmt;

/// One of two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    Assertd,
    Keystore,
}

/// A program, beside the other one of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    pub program: Program,
    pub keystore: Kind,
}

impl Subject {
    pub const fn of(program: Program, keystore: Kind) -> Subject {
        Subject { program, keystore }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = match (self.program, self.keystore) {
            (Program::Assertd, Kind::Pkcs11) => "assertd (SoftHSM)",
            (Program::Assertd, Kind::Tpm) => "assertd (swtpm)",
            (Program::Keystore, kind) => kind.program(),
        };
        f.pad(program)
    }
}
