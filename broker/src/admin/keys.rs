//! `GET /v1/keys`: every version of every key, how far it has come, and what comes next. `POST` records
//! one that has been made.

use super::body;
use crate::app::App;
use crate::audit;
use crate::config::Kept;
use crate::http::object;
use crate::keeper::{self, canary::NEEDED};
use crate::keyring::{By, KeyRecord, Seen};
use crate::lifecycle::{Lineage, Phase};
use crate::reply::{self, Answer, Refusal};
use assertd_client::api::{
    AdoptRequest, CanaryStatus, CertificateStatus, KeyStatus, Keys, KeystoreStatus,
};
use hyper::Request;
use hyper::body::Incoming;
use keystore::protocol::{Condition, EvidenceLevel};
use keystore::{KeyId, KeyName};
use life::Life;
use std::sync::Arc;
use tokio::task::spawn_blocking;

mod life;

/// So long before its end, in seconds, a certificate is spoken of: the next one has to be uploaded somewhere.
const CERTIFICATE_ENDS_S: u64 = 30 * 86_400;

pub fn keys(app: &App) -> Keys {
    let kept = app.rules.now().config.kept_keys();
    // Looked at together: of two versions that take turns one is active at any moment.
    let (records, lineages) = app.keyring.all();
    let status = |(key, record): (&KeyId, &KeyRecord)| {
        let lineage = lineages.get(&key.name);
        status_in(app, lineage, kept.get(&key.name), key, record)
    };
    Keys {
        keys: records.iter().map(status).collect(),
        making: lineages.iter().filter_map(making).collect(),
        warnings: Vec::new(),
    }
}

/// The version of a key that is being made.
pub fn making((name, lineage): (&KeyName, &Lineage)) -> Option<String> {
    let (version, coming) = lineage.coming()?;
    matches!(coming.phase, Phase::Making {}).then(|| name.version(version).to_string())
}

pub fn key_status(app: &App, kept: Option<&Kept>, key: &KeyId, record: &KeyRecord) -> KeyStatus {
    let lineage = app.keyring.lineage(&key.name);
    status_in(app, lineage.as_ref(), kept, key, record)
}

/// One version of a key, as its lineage has it.
pub fn status_in(
    app: &App,
    lineage: Option<&Lineage>,
    kept: Option<&Kept>,
    key: &KeyId,
    record: &KeyRecord,
) -> KeyStatus {
    let life = Life::of(app, lineage, kept, key);
    let (state, why, evidence, imported) = match app.keyring.seen(key) {
        // It signs no more: what its keystore shows of it is nobody's trouble.
        Seen::Shown { evidence, .. } if life.is_over => {
            (life.phase, None, evidence.level, evidence.imported)
        }
        _ if life.is_over => (life.phase, None, EvidenceLevel::None, false),
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
                None => (life.phase, None),
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
        imported: imported || record.imported,
        made_at: record.made_at,
        used: kept.is_some(),
        phase: life.phase.to_owned(),
        next: life.next,
        next_at: life.next_at,
        since: life.since,
        used_at: app.keyring.used_at(key),
        certificate: certificate_status(app, key),
        canary: canary_status(app, key),
        blocked: life.blocked,
        jwk: serde_json::to_value(record.public_key.published(record.alg)).unwrap_or_default(),
    }
}

/// What is to be known of the certificate it has.
fn certificate_status(app: &App, key: &KeyId) -> Option<CertificateStatus> {
    let Seen::Shown { certificate, .. } = app.keyring.seen(key) else {
        return None;
    };
    let certificate = certificate?;
    let not_after = certificate.validity().not_after;
    let name = &key.name;
    let next =
        format!("`assertctl keys rotate {name}` makes the next version, with one of its own");
    let left_s = not_after.saturating_sub(app.clock.read().unix_s());
    let is_used = app.keyring.lineage(name).is_some_and(|lineage| {
        let version = lineage.version(key.version);
        version.is_some_and(|version| version.is_active() || version.is_coming())
    });
    let ends = match left_s {
        0 => Some("has ended, and the other side refuses it"),
        left_s if left_s < CERTIFICATE_ENDS_S => Some("ends soon"),
        _ => None,
    };
    let warning = ends.filter(|_| is_used);
    let warning = warning.map(|ends| format!("its certificate {ends}; {next}"));
    Some(CertificateStatus {
        x5t_s256: certificate.thumbprint().to_owned(),
        not_after,
        warning,
    })
}

/// How far its canary has come, while it waits for that.
fn canary_status(app: &App, key: &KeyId) -> Option<CanaryStatus> {
    let count = app.keeper.canary(&key.name)?;
    (count.version() == key.version).then(|| CanaryStatus {
        passed: count.passed(),
        needed: NEEDED,
        why: count.why().map(str::to_owned),
    })
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

/// Records a key that `assertctl apply` has had made or certified. The keystore is asked, not the caller: what
/// is recorded is what the keystore shows.
pub async fn adopt(app: &Arc<App>, request: Request<Incoming>) -> Result<Answer, Refusal> {
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
    let recorded = async |change| {
        let recorded = keeper::recorded(app, change).await;
        recorded.map_err(|error| Refusal::unavailable("audit_unavailable", error))
    };
    let known = app.keyring.records().contains_key(&key);
    if !known {
        // The record of the key is durable before the key can sign anything.
        let adopted = audit::KeyChange::new(&key, entry.kid.as_str(), audit::KeyAction::Adopted);
        recorded(adopted).await?;
    }
    // And that of its certificate before an assertion names it.
    if let Some(certified) = audit::KeyChange::certified(&entry) {
        recorded(certified).await?;
    }
    let (keyring, now) = (app.keyring.clone(), app.clock.read().unix_s());
    let written =
        spawn_blocking(move || keyring.record(&asked.keystore, &entry, By::Root, now)).await;
    let record = written
        .map_err(|lost| Refusal::unavailable("internal", lost))?
        .map_err(|error| Refusal::unavailable("state_unavailable", error))?;
    let kept = app.rules.now().config.kept_keys().remove(&key.name);
    if let Some(kept) = &kept {
        keeper::settle(app, &key.name, kept).await; // a first key signs as soon as it is published
    }
    Ok(reply::ok(&key_status(app, kept.as_ref(), &key, &record)))
}
