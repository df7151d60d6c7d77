//! The programs under test, of the profile this test was built with, beside each other in a
//! directory that every user may enter: a clone may lie in somebody's private home.

use crate::public_dir;
use crate::token::Kind;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const NAMES: [&str; 5] = [
    "assertd",
    "assertctl",
    "assertd-keystore-pkcs11",
    "assertd-keystore-tpm",
    "assertd-witness",
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
