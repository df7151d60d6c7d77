//! A TPM with the secret that a keystore's auth values are made of, in a file that its owner alone
//! may read.

use crate::public_dir;
use crate::swtpm::{Authority, Swtpm};
use crate::user::give_to;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A TPM for one test.
pub struct Tpm {
    /// Before the directory, so that it ends first.
    swtpm: Swtpm,
    dir: TempDir,
    auth: [u8; 32],
}

impl Tpm {
    /// A new one; its secret belongs to the user who runs the test.
    pub fn new() -> Tpm {
        Tpm::made(Swtpm::start)
    }

    fn made(start: impl FnOnce(&Path) -> Swtpm) -> Tpm {
        let dir = public_dir();
        let mut auth = [0; 32];
        let mut random = File::open("/dev/urandom").unwrap();
        random.read_exact(&mut auth).unwrap();
        let tpm = Tpm {
            swtpm: start(dir.path()),
            dir,
            auth,
        };
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(tpm.auth_file()).unwrap();
        file.write_all(&auth).unwrap();
        tpm
    }

    /// A new one with certificates of this maker; its secret belongs to the user who runs the test.
    pub fn with_certificates(maker: &Authority) -> Tpm {
        Tpm::made(|dir| Swtpm::start_with_certificates(dir, maker))
    }

    /// A new one whose secret belongs to `uid`.
    pub fn of_user(uid: u32) -> Tpm {
        let tpm = Tpm::new();
        give_to(&tpm.auth_file(), uid);
        tpm
    }

    /// The emulator.
    pub fn swtpm(&mut self) -> &mut Swtpm {
        &mut self.swtpm
    }

    /// What the configuration's `tcti` is to be.
    pub fn tcti(&self) -> String {
        self.swtpm.tcti().to_string()
    }

    /// The file that holds the secret, mode 0600.
    pub fn auth_file(&self) -> PathBuf {
        self.dir.path().join("auth")
    }

    /// What auth values are made of.
    pub fn auth(&self) -> &[u8; 32] {
        &self.auth
    }

    /// Undefines every NV index in the owner's range, as tpm2-tools do it.
    ///
    /// # Panics
    /// If there was none.
    pub fn undefine_owners(&self) {
        let tool = |arguments: &[&str]| {
            let mut command = Command::new(arguments[0]);
            command.args(&arguments[1..]);
            command.env("TPM2TOOLS_TCTI", self.tcti());
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let listed = tool(&["tpm2_getcap", "handles-nv-index"]);
        let is_owners = |word: &&str| {
            let digits = word.strip_prefix("0x").unwrap_or_default();
            u32::from_str_radix(digits, 16)
                .is_ok_and(|it| (0x0180_0000..=0x01bf_ffff).contains(&it))
        };
        let indices = listed.split_whitespace().filter(is_owners);
        let indices: Vec<&str> = indices.collect();
        assert!(!indices.is_empty(), "no index of the owner: {listed}");
        for index in indices {
            tool(&["tpm2_nvundefine", "-C", "o", index]);
        }
    }

    /// The key files that a keystore keeps below its state directory.
    pub fn key_files(state: &Path) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(state.join("keys")) else {
            return Vec::new();
        };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "pem"))
            .collect()
    }
}

impl Default for Tpm {
    fn default() -> Tpm {
        Tpm::new()
    }
}
