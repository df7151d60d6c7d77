//! A SoftHSM token of its own for one test, and the process that uses it.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::session::Session;
use keystore_pkcs11::{Pkcs11Backend, Settings};
use std::path::{Path, PathBuf};
use std::process::Command;
use zeroize::Zeroizing;

/// Debian's module.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

pub const LABEL: &str = "conformance";
pub const PIN: &str = "correct horse";

/// Where the child finds its token, and so how it knows that it is the child.
const DIRECTORY: &str = "CONFORMANCE_DIRECTORY";

/// A token in a directory of its own.
pub struct Token {
    pub directory: PathBuf,
}

impl Token {
    /// What a process needs to use it.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("SOFTHSM2_CONF", self.directory.join("softhsm2.conf"))]
    }

    /// Opens it as the keystore does.
    pub fn open(&self) -> Result<Pkcs11Backend, keystore::Error> {
        Pkcs11Backend::open(self.settings())
    }

    /// What the configuration would say.
    pub fn settings(&self) -> Settings {
        Settings {
            module: MODULE.into(),
            label: Some(LABEL.into()),
            serial: None,
            pin: Zeroizing::new(PIN.as_bytes().to_vec()),
            init_args: None,
            signers: Some(2),
        }
    }

    /// A session beside the backend's, in the same process and so under the same login.
    pub fn session_beside(&self, module: &Path) -> Session {
        let context = Pkcs11::new(module).unwrap();
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => panic!("{error}"),
        }
        let slot = (context.get_slots_with_token().unwrap().into_iter())
            .find(|slot| context.get_token_info(*slot).unwrap().label() == LABEL)
            .unwrap();
        context.open_rw_session(slot).unwrap()
    }

    fn make(directory: &Path) -> Token {
        let tokens = directory.join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n\
             slots.removable = false\n",
            tokens.display()
        );
        std::fs::write(directory.join("softhsm2.conf"), conf).unwrap();
        let token = Token {
            directory: directory.to_owned(),
        };
        token.initialize(LABEL);
        token
    }

    /// Makes a token beside those there are.
    pub fn initialize(&self, label: &str) {
        let output = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--pin", PIN])
            .args(["--so-pin", "87654321"])
            .envs(self.environment())
            .output()
            .expect("softhsm2-util is installed by `make setup`");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Runs `body` in a process of its own that has `environment`. `test` is the name of the calling
/// test: that is what is started again.
pub fn in_own_process(
    test: &str,
    environment: fn(&Token) -> Vec<(&'static str, PathBuf)>,
    body: impl FnOnce(&Token),
) {
    let finished = |directory: &Path| directory.join("finished");
    if let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) {
        body(&Token {
            directory: directory.clone(),
        });
        std::fs::write(finished(&directory), test).unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let token = Token::make(directory.path());
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory.path())
        .envs(environment(&token))
        .output()
        .unwrap();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        shown(&output.stdout),
        shown(&output.stderr)
    );
    // A misspelt name would run nothing, successfully.
    assert_eq!(
        std::fs::read_to_string(finished(directory.path())).unwrap_or_default(),
        test
    );
}
