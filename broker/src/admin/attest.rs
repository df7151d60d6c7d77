//! `POST /v1/attest`: evidence of keys, for a verifier's nonce. Made by [`crate::evidence`]; here, which
//! keys are meant.

use super::body;
use crate::app::App;
use crate::config::Config;
use crate::evidence::{Asked, NotNow, Wanted};
use crate::http::object;
use crate::keyring::KeyRecord;
use crate::lifecycle::Phase;
use crate::reply::{self, Answer, Refusal};
use assertd_client::api::AttestRequest;
use hyper::Request;
use hyper::body::Incoming;
use keystore::charter::PurposeKind;
use keystore::evidence::bundle::{KEYS_MAX, Nonce, Text};
use keystore::{KeyId, KeyName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Answers with the bundle's keystores, or that it is being made.
pub async fn ask(app: &Arc<App>, uid: u32, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let asked: AttestRequest = object(&body(request).await?)?;
    let rules = app.rules.now();
    let nonce: Nonce = asked
        .nonce
        .parse()
        .map_err(|_| Refusal::invalid("`nonce` is not 32 bytes in base64url without padding"))?;
    let host = rules.config.attest.host_of(&app.host);
    let host = host.map_err(|why| Refusal::unavailable("attest_failed", why))?;
    let purpose = asked.purpose.as_deref().map(purpose).transpose()?;
    let keys = keys(app, &rules.config, &asked, purpose)?;
    let selection = rules.config.attest.selection.clone();
    let order = || Asked {
        nonce,
        host,
        selection,
        keys,
        uid,
    };
    match app.workshop.ask(app, asked.clone(), order).await {
        Ok(answer) => Ok(reply::ok(&answer)),
        Err(NotNow::Busy) => {
            let text = "evidence is being made for another request; ask when that is done";
            Err(Refusal::unavailable("attest_busy", text))
        }
        Err(NotNow::Failed(error)) => Err(Refusal::unavailable("attest_failed", error)),
    }
}

fn purpose(text: &str) -> Result<PurposeKind, Refusal> {
    let all = [
        PurposeKind::ClientAuthentication,
        PurposeKind::Federation,
        PurposeKind::Account,
    ];
    all.into_iter()
        .find(|purpose| purpose.name() == text)
        .ok_or_else(|| {
            Refusal::invalid("`purpose` is one of client_authentication, federation and account")
        })
}

/// Every version that may sign, or whose signatures may be met with, of the key of one target or of all.
fn keys(
    app: &App,
    config: &Config,
    asked: &AttestRequest,
    purpose: Option<PurposeKind>,
) -> Result<BTreeMap<String, Vec<Wanted>>, Refusal> {
    let (name, target) = match &asked.target {
        None => (None, None),
        Some(text) => {
            let name = key_of(config, text).ok_or_else(|| {
                let text = format!(
                    "there is no target {text} in the running configuration; write WORKLOAD/TARGET"
                );
                Refusal::KeyRefused(text)
            })?;
            (Some(name), Some(Text::cut(text)))
        }
    };
    let (records, lineages) = app.keyring.all();
    let asked_for = config.wanted_keys();
    let fits = |key: &KeyId| {
        let its = asked_for.get(&key.name);
        purpose.is_none_or(|it| its.is_some_and(|its| its.charter.purpose.kind() == it))
    };
    let is_alive = |key: &KeyId| {
        let lineage = lineages.get(&key.name);
        let version = lineage.and_then(|lineage| lineage.version(key.version));
        version.is_some_and(|it| it.is_listed() || matches!(it.phase, Phase::Made { .. }))
    };
    let is_meant = |(key, _): &(&KeyId, &KeyRecord)| {
        name.as_ref().is_none_or(|name| key.name == *name) && is_alive(key) && fits(key)
    };
    let mut keys: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    let mut count = 0;
    for (key, record) in records.iter().filter(is_meant) {
        count += 1;
        keys.entry(record.keystore.clone())
            .or_default()
            .push(Wanted {
                key: key.clone(),
                target: target.clone(),
            });
    }
    match count {
        0 => {
            let text = "there is no such key: `assertctl keys` lists those there are";
            Err(Refusal::KeyRefused(text.to_owned()))
        }
        1..=KEYS_MAX => Ok(keys),
        _ => {
            let text = format!(
                "these are {count} keys, and one bundle has {KEYS_MAX} at most: ask for each target"
            );
            Err(Refusal::KeyRefused(text))
        }
    }
}

/// The key that signs for a target: its own, or its issuer's.
fn key_of(config: &Config, text: &str) -> Option<KeyName> {
    let (workload, target) = text.split_once('/')?;
    if workload == "issuer" {
        return config.issuers.get(target).map(|issuer| issuer.key.clone());
    }
    let section = config.workloads.iter().find(|it| &*it.name == workload)?;
    section.targets.get(target).map(|target| target.key.clone())
}
