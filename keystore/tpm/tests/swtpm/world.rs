//! A keystore on a TPM: its state directory, its secret, and the backend opened with both.

use harness::swtpm::{Authority, Swtpm};
use keystore::backend::{Backend, ObjectId};
use keystore::config::{Healthy, Sessions};
use keystore::statefile::StateDir;
use keystore::tcti::Tcti;
use keystore::{Alg, Error, PublicKey};
use keystore_tpm::{Secrets, Settings, TpmBackend};
use std::path::PathBuf;
use tempfile::TempDir;

/// The 32 bytes that our keys' auth values are made of.
pub const SECRET: [u8; 32] = *b"thirty-two bytes that are random";

/// One TPM and one keystore's state.
pub struct World {
    /// Before the directory, so that it ends first.
    pub swtpm: Swtpm,
    pub dir: TempDir,
}

/// How a backend is opened.
#[derive(Clone)]
pub struct How {
    pub secret: [u8; 32],
    pub sessions: Option<Sessions>,
    pub healthy: Option<Healthy>,
    pub tcti: Option<Tcti>,
    pub state: &'static str,
}

impl Default for How {
    fn default() -> How {
        How {
            secret: SECRET,
            sessions: None,
            healthy: None,
            tcti: None,
            state: "state",
        }
    }
}

impl World {
    /// A new TPM and nothing else.
    pub fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::start(dir.path());
        World { swtpm, dir }
    }

    /// A new TPM with certificates of this maker.
    pub fn with_certificates(maker: &Authority) -> World {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::start_with_certificates(dir.path(), maker);
        World { swtpm, dir }
    }

    /// Opens the keystore as most tests do.
    pub fn open(&self) -> TpmBackend {
        self.open_as(&How::default()).unwrap()
    }

    /// Opens the keystore so.
    pub fn open_as(&self, how: &How) -> Result<TpmBackend, Error> {
        let tcti = how.tcti.clone().unwrap_or_else(|| self.swtpm.tcti());
        TpmBackend::open(Settings {
            tcti,
            secrets: Secrets::new(&how.secret),
            sessions: how.sessions,
            healthy: how.healthy.clone(),
            state: StateDir::lock(&self.dir.path().join(how.state))?,
        })
    }

    /// Where a key's file is.
    pub fn key_file(&self, object: ObjectId) -> PathBuf {
        let keys = self.dir.path().join("state/keys");
        keys.join(format!("{object}.pem"))
    }
}

/// An id for the `n`th key.
pub fn object(n: u8) -> ObjectId {
    ObjectId([n; 16])
}

/// Makes the `n`th key.
pub fn make(backend: &TpmBackend, n: u8, alg: Alg) -> PublicKey {
    let label = format!("assertd/test/key{n}/1");
    backend.generate(object(n), &label, alg).unwrap().public_key
}

/// Signs with the `n`th key and verifies what came of it.
pub fn sign(backend: &TpmBackend, n: u8, key: &PublicKey, alg: Alg) -> Vec<u8> {
    let message = format!("message for key {n}");
    let signature = backend
        .sign(object(n), key, alg, message.as_bytes())
        .unwrap();
    let verifier = key.verifier(alg).unwrap();
    let valid = verifier.verify(message.as_bytes(), &signature);
    assert!(valid.is_ok(), "{alg}: the signature of key {n} is wrong");
    signature
}

/// The kind of a failed signature with the `n`th key, and its text.
pub fn refusal(backend: &TpmBackend, n: u8, key: &PublicKey, alg: Alg) -> Error {
    backend
        .sign(object(n), key, alg, b"message")
        .expect_err("it signed")
}
