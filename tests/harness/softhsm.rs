//! A SoftHSM token in a directory of its own, with a random PIN in a file that its owner alone may
//! read.

use crate::public_dir;
use crate::user::give_to;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Debian's module.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A token for one test.
pub struct SoftHsm {
    dir: TempDir,
    label: String,
    pin: String,
}

impl SoftHsm {
    /// A fresh token that belongs to the user who runs the test.
    pub fn new() -> SoftHsm {
        SoftHsm::labelled("workloads")
    }

    /// A fresh token that belongs to `uid`.
    pub fn of_user(uid: u32) -> SoftHsm {
        let token = SoftHsm::new();
        give_to(token.dir.path(), uid);
        token
    }

    /// A fresh token with this label.
    pub fn labelled(label: &str) -> SoftHsm {
        let (dir, pin) = (public_dir(), random_digits());
        let token = SoftHsm {
            dir,
            label: label.to_owned(),
            pin,
        };
        std::fs::create_dir(token.state()).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n\
             slots.removable = false\n",
            token.state().display()
        );
        std::fs::write(token.conf(), conf).unwrap();
        let options = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .clone();
        let mut file = options.open(token.pin_file()).unwrap();
        std::io::Write::write_all(&mut file, token.pin.as_bytes()).unwrap();
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label])
            .args(["--pin", &token.pin, "--so-pin", "87654321"])
            .env("SOFTHSM2_CONF", token.conf())
            .output()
            .expect("softhsm2-util is installed by `make setup`");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        token
    }

    /// What SOFTHSM2_CONF is to name.
    pub fn conf(&self) -> PathBuf {
        self.dir.path().join("softhsm2.conf")
    }

    /// Where the module keeps its objects: what `module_state` is to name.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("tokens")
    }

    /// The file that holds the PIN, mode 0600.
    pub fn pin_file(&self) -> PathBuf {
        self.dir.path().join("pin")
    }

    /// The user PIN.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// The token's label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Where the module is.
    pub fn module(&self) -> &'static Path {
        Path::new(MODULE)
    }

    /// `pkcs11-tool`, logged in to this token; the caller adds what to do.
    pub fn pkcs11_tool(&self) -> Command {
        let mut tool = Command::new("pkcs11-tool");
        tool.args([
            "--module",
            MODULE,
            "--token-label",
            &self.label,
            "--login",
            "--pin",
            &self.pin,
        ])
        .env("SOFTHSM2_CONF", self.conf());
        tool
    }

    /// Deletes every object of a type, as somebody with the PIN and a tool might.
    ///
    /// # Panics
    /// If there is none.
    pub fn delete_all(&self, kind: &str) {
        let mut list = self.pkcs11_tool();
        let listed = list
            .args(["--list-objects", "--type", kind])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let ids: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("ID:"))
            .map(str::trim)
            .collect();
        assert!(!ids.is_empty(), "{text}");
        for id in ids {
            let mut tool = self.pkcs11_tool();
            let delete = tool.args(["--delete-object", "--type", kind, "--id", id]);
            let deleted = delete.output().unwrap();
            let said = String::from_utf8_lossy(&deleted.stderr);
            assert!(deleted.status.success(), "{said}");
        }
    }

    /// How many private keys the token holds, as another program sees it.
    pub fn private_keys(&self) -> usize {
        let listed = self
            .pkcs11_tool()
            .args(["--list-objects", "--type", "privkey"])
            .output();
        let listed = listed.expect("pkcs11-tool is installed by `make setup`");
        assert!(
            listed.status.success(),
            "{}",
            String::from_utf8_lossy(&listed.stderr)
        );
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        text.lines()
            .filter(|line| line.starts_with("Private Key Object"))
            .count()
    }
}

impl Default for SoftHsm {
    fn default() -> SoftHsm {
        SoftHsm::new()
    }
}

/// Eight digits nobody guesses.
fn random_digits() -> String {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    bytes
        .iter()
        .map(|byte| char::from(b'0' + byte % 10))
        .collect()
}
