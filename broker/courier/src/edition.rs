//! One reading of the configuration: which issuer's keys are published where, who gives access tokens for which
//! target, and who is trusted to say so. The broker's own loader reads it, so that what it refuses is refused here.

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
    /// By workload and target: those whose keys have a canary.
    pub targets: BTreeMap<(String, String), TokenErrand>,
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

/// Where an assertion is redeemed, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenErrand {
    /// The token endpoint.
    pub errand: Errand,
    /// The client that the assertion is of.
    pub client_id: String,
    /// What an assertion for this target says, and no other is carried there: `iss`, `sub` and `aud`.
    pub says: (String, Option<String>, Option<String>),
    /// The request's `scope`.
    pub scope: Option<String>,
    /// The request's `audience`.
    pub audience: Option<String>,
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
            issuers.insert(name.clone(), errand(url)?);
        }
        let mut targets = BTreeMap::new();
        for (section, target, canary) in config.canaries() {
            let token = TokenErrand {
                errand: errand(canary.token_endpoint.clone())?,
                client_id: canary.client_id.clone(),
                says: (target.iss.clone(), target.sub.clone(), target.aud.clone()),
                scope: canary.scope.clone(),
                audience: canary.audience.clone(),
            };
            targets.insert((section.name.to_string(), target.name.clone()), token);
        }
        Ok(Edition {
            tls: match issuers.is_empty() && targets.is_empty() {
                true => Err("there is nothing to fetch".to_owned()),
                false => trust::client(config.courier.ca.as_deref()),
            },
            issuers,
            targets,
            ca: config.courier.ca,
        })
    }
}

fn errand(url: String) -> Result<Errand, String> {
    let parts = Https::parse(&url).map_err(|why| format!("{url:?} {why}"))?;
    Ok(Errand { url, parts })
}
