//! A PKCS#11 token of its own for one test, in a software module, and the process that uses it.
//! What differs between modules stands in [`softhsm`], [`nss`] and [`kryoptic`].

pub mod kryoptic;
pub mod nss;
pub mod softhsm;

use crate::process::{self, Environment, Shown};
use crate::subject::{Birth, MANY, Neighbours, SOME, Subject};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::Session;
use keystore::backend::{Backend, ObjectId};
use keystore::statefile::StateDir;
use keystore_pkcs11::{Pkcs11Backend, ReadPin, Settings};
use pkcs11_shim::module_path as shim;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use zeroize::Zeroizing;

pub const PIN: &str = "correct horse";

/// Where the shim writes its counts and reads its rules.
pub const SHIM_COUNTS: &str = "counts";
pub const SHIM_RULES: &str = "rules";

/// The module of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// SoftHSM: does what it is told, and holds on to what it promised.
    SoftHsm,
    /// The same behind `pkcs11-shim`, which counts calls and, by order, lies.
    Shim,
    /// NSS softokn: another implementation with other opinions.
    Nss,
    /// kryoptic: built for it, by `make test-long` alone.
    Kryoptic,
}

/// A token in a directory of its own.
pub struct Token {
    pub module: Module,
    pub directory: PathBuf,
}

impl Module {
    /// The file to load.
    pub fn path(self) -> PathBuf {
        match self {
            Module::SoftHsm => softhsm::MODULE.into(),
            Module::Shim => shim(),
            Module::Nss => nss::path(),
            Module::Kryoptic => kryoptic::path(),
        }
    }

    /// The label of the token there is; NSS does not let us choose.
    pub fn label(self) -> &'static str {
        match self {
            Module::SoftHsm | Module::Shim => softhsm::LABEL,
            Module::Nss => nss::LABEL,
            Module::Kryoptic => kryoptic::LABEL,
        }
    }

    fn make(self, directory: &Path) {
        match self {
            Module::SoftHsm | Module::Shim => softhsm::make(directory),
            Module::Nss => nss::make(directory),
            Module::Kryoptic => kryoptic::make(directory),
        }
    }

    fn environment(self, directory: &Path) -> Environment {
        match self {
            Module::SoftHsm => softhsm::environment(directory),
            Module::Nss => Vec::new(),
            Module::Kryoptic => kryoptic::environment(directory),
            Module::Shim => {
                let mut environment = softhsm::environment(directory);
                environment.extend([
                    ("P11SHIM_REAL".to_owned(), softhsm::MODULE.into()),
                    ("P11SHIM_COUNTS".to_owned(), directory.join(SHIM_COUNTS)),
                    ("P11SHIM_RULES".to_owned(), directory.join(SHIM_RULES)),
                ]);
                environment
            }
        }
    }

    /// String behind C_Initialize's pReserved.
    fn init_args(self, directory: &Path) -> Option<String> {
        (self == Module::Nss).then(|| nss::init_args(directory))
    }
}

impl Token {
    /// Opens it as the keystore does.
    pub fn open(&self) -> Result<Pkcs11Backend, keystore::Error> {
        Pkcs11Backend::open(self.settings())
    }

    /// What the configuration would say.
    pub fn settings(&self) -> Settings {
        Settings {
            module: self.module.path(),
            label: Some(self.module.label().into()),
            serial: None,
            pin: pin(PIN.as_bytes()),
            state: self.fresh_state(),
            init_args: self.module.init_args(&self.directory),
            signers: Some(2),
        }
    }

    /// A state directory that nothing was remembered in yet.
    fn fresh_state(&self) -> StateDir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        StateDir::lock(&self.directory.join(format!("state-{number}"))).unwrap()
    }

    /// As promises see it.
    pub fn subject(&self) -> Subject<'_> {
        let (birth, signatures) = match self.module {
            Module::SoftHsm | Module::Shim | Module::Kryoptic => (Birth::Told, MANY),
            // CKA_LOCAL is false whatever it made, and a signature decrypts the key first.
            Module::Nss => (Birth::NotTold, SOME),
        };
        let open = || -> Box<dyn Backend> { Box::new(self.open().unwrap()) };
        Subject::new(open, Neighbours::Others, birth, signatures)
            .checked(|made| self.nothing_is_left_but(made))
    }

    /// Whatever the objects are and however they are called: the token was empty.
    fn nothing_is_left_but(&self, made: &[ObjectId]) {
        let _login = self.open().unwrap();
        let session = self.session_beside();
        for class in [
            ObjectClass::PRIVATE_KEY,
            ObjectClass::PUBLIC_KEY,
            ObjectClass::SECRET_KEY,
            ObjectClass::DATA,
        ] {
            for handle in session.find_objects(&[Attribute::Class(class)]).unwrap() {
                let id = session.get_attributes(handle, &[AttributeType::Id]);
                let is_ours = match &id.unwrap()[..] {
                    [Attribute::Id(id)] => made.iter().any(|object| object.0 == id[..]),
                    _ => false,
                };
                let label = session.get_attributes(handle, &[AttributeType::Label]);
                assert!(is_ours, "left: {class} {label:?}");
            }
        }
    }

    /// A session beside the backend's, in the same process and so under the same login.
    pub fn session_beside(&self) -> Session {
        let context = Pkcs11::new(self.module.path()).unwrap();
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            // NSS wants its string, which the backend gave it.
            Err(Pkcs11Error::Pkcs11(RvError::ArgumentsBad, _)) if self.module == Module::Nss => {}
            Err(error) => panic!("{error}"),
        }
        let slot = (context.get_slots_with_token().unwrap().into_iter())
            .find(|slot| context.get_token_info(*slot).unwrap().label() == self.module.label())
            .unwrap();
        context.open_rw_session(slot).unwrap()
    }
}

/// As if it were read from a credential.
pub fn pin(bytes: &[u8]) -> ReadPin {
    let bytes = bytes.to_vec();
    Box::new(move || Ok(Zeroizing::new(bytes.clone())))
}

/// Runs `body` with a fresh token in a process of its own. `test` is the path of the calling
/// test.
pub fn with_token(test: &str, module: Module, body: impl FnOnce(&Token)) {
    let prepare = |directory: &Path| {
        module.make(directory);
        module.environment(directory)
    };
    process::in_own_process(test, Shown::OnFailure, prepare, |directory| {
        body(&Token {
            module,
            directory: directory.to_owned(),
        });
    });
}

/// Runs a tool that must succeed.
fn tool(command: &mut Command) {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}, from `make setup`: {error}"));
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {shown}");
}
