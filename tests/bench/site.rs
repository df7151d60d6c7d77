//! The place that is measured: a SoftHSM token, assertd with its keystore, one workload with one
//! target whose rate does not limit. The token also holds a key that nobody but `raw` uses.

use crate::raw;
use harness::{Config, Daemon, SoftHsm};
use keystore::PublicKey;
use keystore::publickey::Verifier;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// CKA_ID of the key for raw C_Sign.
pub const RAW_KEY_ID: [u8; 1] = [0xab];

/// A rate that no machine reaches.
pub const NO_LIMIT: &str = "rate = 1000000\nburst = 1000000";

const WORKLOAD: &str = "bench";
const TARGET: &str = "bank";

/// A running assertd and its token.
pub struct Site {
    daemon: Daemon,
    socket: PathBuf,
    keystore_pid: u32,
    token: SoftHsm,
}

impl Site {
    /// Makes token, keys and configuration, and starts assertd.
    pub fn start() -> Site {
        let token = SoftHsm::new();
        make_raw_key(&token);
        let uid = nix::unistd::geteuid().as_raw();
        let config = Config::new(&token)
            .workload(WORKLOAD, uid, NO_LIMIT)
            .target(WORKLOAD, TARGET, "");
        let daemon = Daemon::with_keys(config.text());
        let (socket, keystore_pid) = (daemon.socket(), daemon.keystore_pid());
        Site {
            daemon,
            socket,
            keystore_pid,
            token,
        }
    }

    /// C_Sign alone, in a process of its own.
    pub fn raw(&self, sessions: usize, duration: Duration) -> raw::Floor {
        let token = raw::Token {
            module: self.token.module().to_owned(),
            environment: vec![("SOFTHSM2_CONF".to_owned(), self.token.conf())],
            label: self.token.label().to_owned(),
            pin: self.token.pin().to_owned(),
        };
        raw::raw(&token, &RAW_KEY_ID, sessions, duration)
    }

    /// Where workloads ask.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What is asked for.
    pub fn target(&self) -> &'static str {
        TARGET
    }

    /// A directory for sockets of the benchmark.
    pub fn dir(&self) -> PathBuf {
        self.daemon.site().runtime_dir()
    }

    /// Where the audit log flushes.
    pub fn audit_dir(&self) -> PathBuf {
        self.daemon.audit_dir()
    }

    pub fn broker_pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub fn keystore_pid(&self) -> u32 {
        self.keystore_pid
    }

    /// Of the target's key, as the broker has it.
    pub fn verifier(&self) -> Verifier {
        let key = PublicKey::from_sec1(&self.public_point()).expect("the broker shows a P-256 key");
        key.verifier(keystore::Alg::ES256)
            .expect("a P-256 key is for ES256")
    }

    /// The target's public key as SEC 1 has it, uncompressed.
    pub fn public_point(&self) -> Vec<u8> {
        use base64::Engine;
        let keys = self.daemon.keys();
        let coordinate = |name: &str| {
            let text = keys[0].jwk[name].as_str().expect("a JWK of an EC key");
            let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text);
            decoded.expect("base64url")
        };
        [vec![4], coordinate("x"), coordinate("y")].concat()
    }
}

/// Makes the key for raw C_Sign.
pub fn make_raw_key(token: &SoftHsm) {
    let made = token
        .pkcs11_tool()
        .args([
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--id",
            &format!("{:02x}", RAW_KEY_ID[0]),
        ])
        .output()
        .expect("pkcs11-tool is installed by `make setup`");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}
