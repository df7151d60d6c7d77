//! What holds the keys of a test, as KEYSTORE in the environment says: a PKCS#11 token of SoftHSM
//! (`pkcs11`, the default) or a TPM 2.0 (`tpm`). Tests of everything above the keystore are the same
//! for all; their configurations differ by the keystore's section alone.

use crate::{SoftHsm, Tpm};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The name of the keystore in [`crate::Config::new`], whatever it is.
pub const KEYSTORE: &str = "hsm";

/// A token or TPM for one test; must outlive the daemon that uses it.
pub enum Token {
    /// A PKCS#11 token.
    Pkcs11(SoftHsm),
    /// A TPM 2.0.
    Tpm(Tpm),
}

/// What KEYSTORE in the environment names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `pkcs11`, or not set.
    Pkcs11,
    /// `tpm`
    Tpm,
}

impl Kind {
    /// What is to be tested.
    ///
    /// # Panics
    /// If KEYSTORE names nothing that is known: a run that tests something else than was asked for
    /// proves nothing.
    pub fn asked() -> Kind {
        let asked = std::env::var_os("KEYSTORE").unwrap_or_default();
        match asked.as_os_str() {
            name if name == OsStr::new("") || name == OsStr::new("pkcs11") => Kind::Pkcs11,
            name if name == OsStr::new("tpm") => Kind::Tpm,
            name => panic!("KEYSTORE={}: `pkcs11` or `tpm`", name.display()),
        }
    }

    /// The algorithms that it makes keys for: libtpms has no EdDSA.
    pub fn algs(self) -> &'static [&'static str] {
        match self {
            Kind::Pkcs11 => &["ES256", "ES384", "RS256", "PS256", "EdDSA"],
            Kind::Tpm => &["ES256", "ES384", "RS256", "PS256"],
        }
    }

    /// The keystore program.
    pub fn program(self) -> &'static str {
        match self {
            Kind::Pkcs11 => "assertd-keystore-pkcs11",
            Kind::Tpm => "assertd-keystore-tpm",
        }
    }
}

impl Token {
    /// A fresh one that belongs to the user who runs the test.
    pub fn new() -> Token {
        match Kind::asked() {
            Kind::Pkcs11 => Token::Pkcs11(SoftHsm::new()),
            Kind::Tpm => Token::Tpm(Tpm::new()),
        }
    }

    /// A fresh one that belongs to `uid`.
    pub fn of_user(uid: u32) -> Token {
        match Kind::asked() {
            Kind::Pkcs11 => Token::Pkcs11(SoftHsm::of_user(uid)),
            Kind::Tpm => Token::Tpm(Tpm::of_user(uid)),
        }
    }

    /// Which of the two it is.
    pub fn kind(&self) -> Kind {
        match self {
            Token::Pkcs11(_) => Kind::Pkcs11,
            Token::Tpm(_) => Kind::Tpm,
        }
    }

    /// How many private keys there are, as another program sees it: objects in the token, or key
    /// files in `state`, the keystore's own.
    pub fn private_keys(&self, state: &Path) -> usize {
        match self {
            Token::Pkcs11(token) => token.private_keys(),
            Token::Tpm(_) => Tpm::key_files(state).len(),
        }
    }

    /// Makes every private key go away, as somebody with the PIN and a tool might, or with the
    /// files in `state`, the keystore's own.
    ///
    /// # Panics
    /// If there was none.
    pub fn lose_private_keys(&self, state: &Path) {
        match self {
            Token::Pkcs11(token) => token.delete_all("privkey"),
            Token::Tpm(_) => {
                let files = Tpm::key_files(state);
                assert!(!files.is_empty(), "no key files");
                files
                    .iter()
                    .for_each(|file| std::fs::remove_file(file).unwrap());
            }
        }
    }

    /// Takes the counter that assertd has made away, as its owner may: out of the TPM, or out of `state`, the
    /// keystore's own.
    ///
    /// # Panics
    /// If there was none.
    pub fn take_counter(&self, state: &Path) {
        match self {
            Token::Pkcs11(_) => std::fs::remove_file(state.join("counter.v1")).unwrap(),
            Token::Tpm(tpm) => tpm.undefine_owners(),
        }
    }

    /// The secret without which its keys sign nothing: the PIN, or what auth values are made of.
    pub fn secret(&self) -> &[u8] {
        match self {
            Token::Pkcs11(token) => token.pin().as_bytes(),
            Token::Tpm(tpm) => tpm.auth(),
        }
    }

    /// The file with [`Self::secret`].
    pub fn secret_file(&self) -> PathBuf {
        match self {
            Token::Pkcs11(token) => token.pin_file(),
            Token::Tpm(tpm) => tpm.auth_file(),
        }
    }
}

impl Default for Token {
    fn default() -> Token {
        Token::new()
    }
}

/// What can be a `[keystore.NAME]` section.
pub trait Keystore {
    /// The section's lines, without its head.
    fn section(&self) -> String;
}

impl Keystore for SoftHsm {
    fn section(&self) -> String {
        let environment = [("SOFTHSM2_CONF", self.conf())];
        pkcs11_section(self, self.module(), &environment, &[self.state()])
    }
}

/// The section of a token that is reached by way of this module, which is told where things are by
/// its environment and may use the directories `module_state`.
pub fn pkcs11_section(
    token: &SoftHsm,
    module: &Path,
    environment: &[(&str, PathBuf)],
    module_state: &[PathBuf],
) -> String {
    let quoted = |path: &PathBuf| format!("\"{}\"", path.display());
    let variables = environment.iter();
    let variables: Vec<String> = variables
        .map(|(name, value)| format!("{name} = {}", quoted(value)))
        .collect();
    let state: Vec<String> = module_state.iter().map(quoted).collect();
    format!(
        "backend = \"pkcs11\"\nmodule = \"{}\"\ntoken = {{ label = \"{}\" }}\n\
         pin = {{ file = \"{}\" }}\nenvironment = {{ {} }}\nmodule_state = [{}]\n",
        module.display(),
        token.label(),
        token.pin_file().display(),
        variables.join(", "),
        state.join(", "),
    )
}

impl Keystore for Tpm {
    fn section(&self) -> String {
        tpm_section(&self.tcti(), self)
    }
}

/// The section of a TPM that is reached so.
pub fn tpm_section(tcti: &impl std::fmt::Display, tpm: &Tpm) -> String {
    let auth = tpm.auth_file();
    format!(
        "backend = \"tpm\"\ntcti = \"{tcti}\"\nauth = {{ file = \"{}\" }}\n",
        auth.display()
    )
}

impl Keystore for Token {
    fn section(&self) -> String {
        match self {
            Token::Pkcs11(token) => token.section(),
            Token::Tpm(tpm) => tpm.section(),
        }
    }
}
