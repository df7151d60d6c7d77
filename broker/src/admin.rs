//! The administrators' requests: status, keys, reload, and the news that a key has been made. Peers
//! are root or assertd's own uid; status, keys and grants tell what policy is, so nobody else may ask.

use crate::app::App;
use crate::audit;
use crate::peer::Peer;
use crate::reply::{self, Answer, Refusal};
use crate::rules;
use crate::terms;
use assertd_client::api::{
    AdoptRequest, BODY_LEN_MAX, EXPLAIN_PATH, GRANTS_PATH, KEYS_PATH, KeyStatus, Keys,
    KeystoreStatus, RELOAD_PATH, STATUS_PATH,
};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request};
use keystore::KeyId;
use keystore::protocol::{Condition, EvidenceLevel};
use std::sync::Arc;

mod explain;
mod status;

use crate::http::{BODY_DEADLINE, object};
use crate::keyring::{KeyRecord, Seen};

/// Answers one request of an administrator.
pub async fn answer(app: Arc<App>, peer: Arc<Peer>, request: Request<Incoming>) -> Answer {
    let id = app.request_id();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let result = match (&method, path.as_str()) {
        _ if !is_admin(&peer) => Err(Refusal::NotAdmin),
        (&Method::GET, STATUS_PATH) => Ok(reply::ok(&status::status(&app).await)),
        (&Method::GET, KEYS_PATH) => Ok(reply::ok(&keys(&app))),
        (&Method::GET, GRANTS_PATH) => Ok(reply::ok(&terms::grants(&app.rules.now().config))),
        (&Method::POST, KEYS_PATH) => adopt(&app, request).await,
        (&Method::POST, RELOAD_PATH) => reload(&app, request).await,
        (&Method::POST, EXPLAIN_PATH) => explain::explain(&app, request).await,
        (_, STATUS_PATH | KEYS_PATH | RELOAD_PATH | EXPLAIN_PATH | GRANTS_PATH) => {
            Err(Refusal::Method)
        }
        _ => Err(Refusal::Path),
    };
    result.unwrap_or_else(|refusal| reply::problem(&refusal, id.as_str()))
}

fn is_admin(peer: &Peer) -> bool {
    peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw()
}

fn keys(app: &App) -> Keys {
    let (records, wanted) = (app.keyring.records(), app.rules.now().config.wanted_keys());
    let status = |(key, record): (&KeyId, &KeyRecord)| {
        key_status(app, wanted.contains_key(&key.name), key, record)
    };
    Keys {
        keys: records.iter().map(status).collect(),
    }
}

fn key_status(app: &App, used: bool, key: &KeyId, record: &KeyRecord) -> KeyStatus {
    let (state, why, evidence, imported) = match app.keyring.seen(key) {
        _ if app.keyring.is_suspended(key) => {
            let why = "a signature was wrong; check the token, then restart assertd";
            (
                "suspended",
                Some(why.to_owned()),
                EvidenceLevel::None,
                false,
            )
        }
        Seen::Unknown => {
            let status = keystore_status(app, &record.keystore);
            let why = not_seen(&record.keystore, status.as_ref());
            ("unknown", Some(why), EvidenceLevel::None, false)
        }
        Seen::Wrong(why) => ("failed", Some(why), EvidenceLevel::None, false),
        Seen::Shown {
            condition: Condition::Failed { why, .. },
            evidence,
            ..
        } => ("failed", Some(why), evidence.level, evidence.imported),
        Seen::Shown {
            condition: Condition::Usable {},
            evidence,
            ..
        } => {
            // What was shown was shown before the keystore went away.
            let status = keystore_status(app, &record.keystore);
            let state = match status.as_ref().filter(|status| status.state != "usable") {
                None => ("active", None),
                away => ("unknown", Some(not_seen(&record.keystore, away))),
            };
            (state.0, state.1, evidence.level, evidence.imported)
        }
    };
    KeyStatus {
        key: key.to_string(),
        kid: record.public_key.kid().to_string(),
        alg: record.alg.to_string(),
        keystore: record.keystore.clone(),
        state: state.to_owned(),
        why,
        evidence: evidence.to_string(),
        imported,
        made_at: record.made_at,
        used,
        jwk: serde_json::to_value(record.public_key.published(record.alg)).unwrap_or_default(),
    }
}

fn keystore_status(app: &App, name: &str) -> Option<KeystoreStatus> {
    app.keystores.get(name).map(|keystore| keystore.status())
}

/// Why it is not known how a key is: its keystore shows nothing now.
fn not_seen(name: &str, status: Option<&KeystoreStatus>) -> String {
    match status {
        None => format!("keystore {name} is not in the running configuration"),
        Some(KeystoreStatus { why: Some(why), .. }) => {
            let said = why.strip_prefix(&format!("keystore {name}: "));
            format!("keystore {name} cannot serve: {}", said.unwrap_or(why))
        }
        Some(_) => format!("keystore {name} has not answered yet"),
    }
}

/// Reads the configuration again. The answer is the verdict.
async fn reload(app: &Arc<App>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    body(request).await?; // none, or an empty object of a client that sends one with every POST
    let rules = rules::reload(app).await?;
    Ok(reply::ok(&status::of_config(&rules.config)))
}

async fn body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let body = Limited::new(request.into_body(), BODY_LEN_MAX).collect();
    let collected = tokio::time::timeout(BODY_DEADLINE, body)
        .await
        .map_err(|_| Refusal::BodyTimeout)?
        .map_err(|_| Refusal::BodyTooLong)?;
    Ok(collected.to_bytes())
}

/// Records a key that `assertctl apply` has had made. The keystore is asked, not the caller: what
/// is recorded is what the keystore shows.
async fn adopt(app: &App, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let asked: AdoptRequest = object(&body(request).await?)?;
    let key: KeyId = asked
        .key
        .parse()
        .map_err(|_| Refusal::invalid("`key` is not a key id"))?;
    let Some(keystore) = app.keystores.get(&asked.keystore) else {
        return Err(Refusal::invalid(
            "`keystore` is not one of the running configuration",
        ));
    };
    let failed = |error: keystore::Error| Refusal::unavailable("keystore_unavailable", error);
    let entry = keystore.entry(&key).await.map_err(failed)?;
    let Some(entry) = entry else {
        return Err(Refusal::unavailable(
            "key_unavailable",
            format!("key {key}: not in the keystore"),
        ));
    };
    let known = app.keyring.records().contains_key(&key);
    if !known {
        // The record of the key is durable before the key can sign anything.
        let change = audit::KeyChange {
            key: key.to_string().as_str().into(),
            kid: entry.kid.as_str().into(),
            action: audit::KeyAction::Adopted,
        };
        let durable = app.audit.key(change);
        let durable = durable.map_err(|e| Refusal::unavailable("audit_unavailable", e))?;
        durable.await.map_err(|_lost| Refusal::AUDIT_NOT_DURABLE)?;
    }
    let now = app.clock.read().unix_s();
    let record = app
        .keyring
        .record(&asked.keystore, &entry, now)
        .map_err(|error| Refusal::unavailable("state_unavailable", error))?;
    let used = app.rules.now().config.wanted_keys().contains_key(&key.name);
    Ok(reply::ok(&key_status(app, used, &key, &record)))
}
