//! NSS softokn, which Firefox and half of Red Hat's programs keep their keys in: a directory with a
//! database, made by `certutil`, and named to the module in C_Initialize's pReserved alone.

use super::{PIN, tool};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of its two slots the one with the database; the other, "NSS Generic Crypto Services", keeps
/// nothing.
pub const LABEL: &str = "NSS Certificate DB";

/// Where distributions put it.
pub fn path() -> PathBuf {
    let directories = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
    ];
    let found = directories
        .iter()
        .map(|directory| Path::new(directory).join("libsoftokn3.so"))
        .find(|path| path.exists());
    found.expect("libsoftokn3.so is installed by `make setup`")
}

/// As our users have to write it.
pub fn init_args(directory: &Path) -> String {
    format!(
        "configdir='sql:{}' certPrefix='' keyPrefix='' secmod='secmod.db' flags= updatedir=''",
        database(directory).display()
    )
}

/// A database with a PIN.
pub fn make(directory: &Path) {
    let pin = directory.join("pin");
    std::fs::write(&pin, PIN).unwrap();
    std::fs::create_dir(database(directory)).unwrap();
    tool(
        Command::new("certutil")
            .args(["-N", "-d"])
            .arg(format!("sql:{}", database(directory).display()))
            .arg("-f")
            .arg(&pin),
    );
}

fn database(directory: &Path) -> PathBuf {
    directory.join("nssdb")
}
