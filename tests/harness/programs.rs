//! The programs under test, of the profile this test was built with, beside each other in a
//! directory that every user may enter: a clone may lie in somebody's private home.

use crate::public_dir;
use crate::token::Kind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const NAMES: [&str; 7] = [
    "assertd",
    "assertctl",
    "assertd-keystore-pkcs11",
    "assertd-keystore-tpm",
    "assertd-witness",
    "assertd-publish",
    "assertd-courier",
];

/// assertd, assertctl and the keystore programs, where everybody can run them.
pub struct Programs {
    dir: TempDir,
}

impl Programs {
    /// Links them (copies across file systems). A build that goes on meanwhile changes nothing.
    pub fn installed() -> Programs {
        let (built, dir) = (built(), public_dir());
        for name in NAMES {
            let (from, to) = (built.join(name), dir.path().join(name));
            let there = from.is_file();
            assert!(
                there,
                "{}: missing; run `cargo build --workspace`",
                from.display()
            );
            if std::fs::hard_link(&from, &to).is_err() {
                std::fs::copy(&from, &to).unwrap();
            }
        }
        Programs { dir }
    }

    /// One of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The broker.
    pub fn assertd(&self) -> PathBuf {
        self.path("assertd")
    }

    /// The control tool.
    pub fn assertctl(&self) -> PathBuf {
        self.path("assertctl")
    }

    /// The keystore process that KEYSTORE asks for.
    pub fn keystore(&self) -> PathBuf {
        self.path(Kind::asked().program())
    }
}

/// Copies of programs that every user may run, in a directory of their own.
pub struct Copies {
    dir: TempDir,
}

impl Copies {
    /// None yet.
    pub fn new() -> Copies {
        Copies { dir: public_dir() }
    }

    /// Copies a program; where the copy lies.
    pub fn of(&self, program: impl AsRef<Path>, name: &str) -> PathBuf {
        std::fs::copy(program, self.path(name)).unwrap();
        self.everybodys(name)
    }

    /// Makes a program of these bytes.
    pub fn from_bytes(&self, bytes: &[u8], name: &str) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.everybodys(name)
    }

    fn everybodys(&self, name: &str) -> PathBuf {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(name), mode).unwrap();
        self.path(name)
    }

    /// Where one of this name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The SHA-256 of one, as sha256sum(1) prints it.
    pub fn sha256(&self, name: &str) -> String {
        let output = Command::new("sha256sum").arg(self.path(name)).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.split_whitespace().next().unwrap().to_owned()
    }
}

impl Default for Copies {
    fn default() -> Copies {
        Copies::new()
    }
}

/// `target/debug` or `target/release`, whichever this program is in.
pub(crate) fn built() -> PathBuf {
    let us = std::env::current_exe().unwrap();
    let dir = us.parent().expect("a program is in a directory");
    let dir = if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    };
    Path::to_owned(dir)
}
