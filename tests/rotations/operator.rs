//! The operator: begins the next version of a key with `assertctl keys rotate` as soon as there is none on its way, and
//! counts in the audit log what came of it.

use crate::keys::{Begins, KEYS};
use harness::Daemon;
use harness::daemon::audit_records_holding;

/// Of the eight versions that a key may have at a time one is left for an emergency.
const VERSIONS_MAX: usize = 7;

/// One version that came to sign.
pub struct Activation {
    pub key: String,
    pub kid: String,
    /// When assertd wrote down that it is about to, in milliseconds of the boot clock.
    pub at_ms: u64,
}

/// Says `rotate` where it can be said.
pub fn rotate(daemon: &Daemon) -> Result<(), String> {
    let keys = daemon.keys();
    for key in KEYS.iter().filter(|key| key.begins == Begins::Word) {
        let id = key.id();
        let of_key = |key: &str| key.rsplit_once('.').is_some_and(|(name, _)| name == id);
        let versions = keys.iter().filter(|version| of_key(&version.key));
        let phases: Vec<&str> = versions.map(|version| version.phase.as_str()).collect();
        let is_coming = phases
            .iter()
            .any(|phase| ["making", "made", "published"].contains(phase));
        let there = phases.iter().filter(|phase| **phase != "destroyed").count();
        if is_coming || there >= VERSIONS_MAX {
            continue;
        }
        let output = daemon.assertctl(&["keys", "rotate", &id]);
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        // What is being made is not listed before it is there.
        if !output.status.success() && !why.contains("is on its way already") {
            return Err(format!("assertctl keys rotate {id}: {why}"));
        }
    }
    Ok(())
}

/// Every version that came to sign in another's place, as the audit log has it.
pub fn activations(daemon: &Daemon) -> Vec<Activation> {
    let records = audit_records_holding(&daemon.audit_dir(), "\"activated\"");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let all = records
        .iter()
        .filter(|record| record["action"] == "activated");
    let all = all.map(|record| Activation {
        key: text(&record["key"]),
        kid: text(&record["kid"]),
        at_ms: record["boot_ms"].as_u64().unwrap_or_default(),
    });
    all.filter(|activation| !activation.key.ends_with(".1"))
        .collect()
}
