//! SoftHSM 2: tokens in a directory that its configuration names.

use super::{PIN, tool};
use crate::process::Environment;
use std::path::Path;
use std::process::Command;

pub use harness::softhsm::MODULE;

pub const LABEL: &str = "conformance";

/// What a process needs to use it.
pub fn environment(directory: &Path) -> Environment {
    vec![("SOFTHSM2_CONF".to_owned(), directory.join("softhsm2.conf"))]
}

/// Configuration and one token.
pub fn make(directory: &Path) {
    let tokens = directory.join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let conf = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n\
         slots.removable = false\n",
        tokens.display()
    );
    std::fs::write(directory.join("softhsm2.conf"), conf).unwrap();
    initialize(directory, LABEL);
}

/// Makes a token beside those there are.
pub fn initialize(directory: &Path, label: &str) {
    tool(
        Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--pin", PIN])
            .args(["--so-pin", "87654321"])
            .envs(environment(directory)),
    );
}
