//! One reading of the configuration: which issuer's keys are published where, and who is trusted to say
//! so. The broker's own loader reads it, so that what it refuses is refused here.

use crate::trust;
use broker::config::Config;
use broker::config::url::Https;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::ClientConfig;

/// What there is to fetch, and how.
pub struct Edition {
    /// By the issuer's name: those that have a `verify_url`.
    pub issuers: BTreeMap<String, Errand>,
    /// What TLS needs, or why there is none.
    pub tls: Result<Arc<ClientConfig>, String>,
    /// The file that says whom to trust, if one does.
    pub ca: Option<PathBuf>,
}

/// One document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// As it is written.
    pub url: String,
    /// Taken apart.
    pub parts: Https,
}

impl Edition {
    /// Reads the configuration, and the certificates of whom it trusts.
    ///
    /// # Errors
    /// A sentence. A fault of the certificates alone keeps [`Edition::tls`] from being there.
    pub fn load(path: &Path) -> Result<Edition, String> {
        let config = Config::load(path).map_err(|error| format!("configuration: {error}"))?;
        let mut issuers = BTreeMap::new();
        for (name, issuer) in &config.issuers {
            let Some(url) = issuer.verify_url.clone() else {
                continue;
            };
            let parts = Https::parse(&url).map_err(|why| format!("{url:?} {why}"))?;
            issuers.insert(name.clone(), Errand { url, parts });
        }
        Ok(Edition {
            tls: match issuers.is_empty() {
                true => Err("there is nothing to fetch".to_owned()),
                false => trust::client(config.courier.ca.as_deref()),
            },
            issuers,
            ca: config.courier.ca,
        })
    }
}
