//! One assertd with keys in one keystore, the documents it publishes, and `assertd-publish` that shows them.

use crate::keys::{KEYS, Lead, Of, WORKLOAD};
use harness::publisher::Publisher;
use harness::token::{KEYSTORE, Keystore};
use harness::{Config, Daemon, SoftHsm, Tpm, public_dir};
use std::path::Path;
use tempfile::TempDir;

/// The token outlives the daemon that uses it.
pub struct Place {
    pub daemon: Daemon,
    pub publisher: Publisher,
    published: TempDir,
    _token: Box<dyn Keystore>,
}

impl Place {
    /// With keys.
    pub fn new(backend: &str, lead: Lead) -> Place {
        let token: Box<dyn Keystore> = match backend {
            "pkcs11" => Box::new(SoftHsm::new()),
            _ => Box::new(Tpm::new()),
        };
        let published = public_dir();
        let uid = nix::unistd::geteuid().as_raw();
        let keys: Vec<String> = KEYS
            .iter()
            .map(|key| key.sections(KEYSTORE, lead))
            .collect();
        let config = Config::default()
            .with(&format!("[keystore.{KEYSTORE}]\n{}", token.section()))
            .with(&format!(
                "[publication]\ndirectory = {:?}",
                published.path()
            ))
            .workload(WORKLOAD, uid, "rate = 1000000\nburst = 1000000")
            .with(&keys.concat());
        let daemon = Daemon::with_keys(config);
        let issuers = KEYS.iter().filter(|key| key.of == Of::Issuer);
        let issuers: Vec<(&str, String)> = issuers.map(|key| (key.name, key.url())).collect();
        let issuers: Vec<(&str, &str)> = issuers
            .iter()
            .map(|(name, url)| (*name, url.as_str()))
            .collect();
        let publisher = Publisher::start(daemon.site().programs(), published.path(), &issuers);
        Place {
            daemon,
            publisher,
            published,
            _token: token,
        }
    }

    /// Where the documents are.
    pub fn published(&self) -> &Path {
        self.published.path()
    }
}
