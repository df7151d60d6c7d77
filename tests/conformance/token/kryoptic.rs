//! kryoptic, by the module that tests/setup/kryoptic.sh builds: a token in an SQLite file that its
//! configuration names.

use super::{PIN, tool};
use crate::process::Environment;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const LABEL: &str = "conformance";

const SLOT: u32 = 42;

/// Beside what cargo builds of ours, unless KRYOPTIC_MODULE names another.
///
/// # Panics
/// If it has not been built: a promise that was not tried is not kept.
pub fn path() -> PathBuf {
    let path = std::env::var_os("KRYOPTIC_MODULE").map_or_else(
        || {
            let us = std::env::current_exe().unwrap();
            let target = us.ancestors().nth(3).expect("target/debug/deps/us");
            target.join("kryoptic/debug/libkryoptic.so")
        },
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{}: not there; build it with tests/setup/kryoptic.sh",
        path.display()
    );
    path
}

/// What a process needs to use it.
pub fn environment(directory: &Path) -> Environment {
    vec![("KRYOPTIC_CONF".to_owned(), directory.join("kryoptic.toml"))]
}

/// Configuration and one token.
pub fn make(directory: &Path) {
    let conf = format!(
        "[[slots]]\nslot = {SLOT}\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
        directory.join("token.sqlite").display()
    );
    std::fs::write(directory.join("kryoptic.toml"), conf).unwrap();
    let pkcs11_tool = || {
        let mut command = Command::new("pkcs11-tool");
        command
            .arg("--module")
            .arg(path())
            .args(["--slot", &SLOT.to_string(), "--so-pin", "87654321"])
            .envs(environment(directory));
        command
    };
    tool(pkcs11_tool().args(["--init-token", "--label", LABEL]));
    tool(pkcs11_tool().args(["--login", "--login-type", "so", "--init-pin", "--pin", PIN]));
}
