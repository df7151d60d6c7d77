//! What an assertd without a fault says of itself, for tests that change one thing.

use crate::publication::fixtures::public_key;
use assertd_client::api::{
    AuditStatus, ClockStatus, ConfigStatus, DenyStatus, KeyStatus, KeystoreStatus, RequestCounts,
    Status, WitnessStatus,
};
use keystore::Alg;

/// assertd, with one keystore.
pub fn status() -> Status {
    Status {
        format: 1,
        version: env!("CARGO_PKG_VERSION").into(),
        pid: 7,
        uptime_s: 60,
        isolation: "units".into(),
        peer_proof: "pidfd".into(),
        clock: ClockStatus {
            state: "ok".into(),
            why: None,
        },
        config: ConfigStatus {
            path: super::CONFIG.into(),
            sha256: "ab".repeat(32),
            workloads: 1,
            targets: 1,
        },
        keystores: vec![keystore("usable", None)],
        audit: AuditStatus {
            state: "ok".into(),
            why: None,
            directory: "/var/lib/assertd/audit".into(),
            seq: 1,
            bytes: 1,
            denials_counted: 0,
        },
        deny: DenyStatus {
            state: "ok".into(),
            why: None,
            entries: 0,
        },
        witness: WitnessStatus {
            state: "unused".into(),
            why: None,
        },
        requests: RequestCounts::default(),
        connections: 0,
    }
}

/// Its keystore.
pub fn keystore(state: &str, why: Option<&str>) -> KeystoreStatus {
    KeystoreStatus {
        name: "hsm".into(),
        state: state.into(),
        why: why.map(str::to_owned),
        since_s: 60,
        token: "token \"edge\"".into(),
        algs: vec!["ES256".into()],
        strange: Vec::new(),
        counter: None,
        socket: "/run/assertd/keystore-hsm.sock".into(),
        pid: Some(2),
        restarts: 0,
        signers: 2,
        queued: 0,
        oldest_ms: 0,
        in_flight: 0,
        minted: 0,
    }
}

/// A key that is used.
pub fn key(id: &str, state: &str) -> KeyStatus {
    let public_key = public_key(Alg::ES256);
    KeyStatus {
        key: id.into(),
        kid: format!("kid-{id}"),
        alg: "ES256".into(),
        keystore: "hsm".into(),
        state: state.into(),
        why: matches!(state, "suspended" | "failed" | "unknown").then(|| "unplugged".to_owned()),
        evidence: "asserted".into(),
        imported: false,
        made_at: 0,
        used: true,
        phase: match state {
            "suspended" | "failed" | "unknown" => "active".into(),
            phase => phase.into(),
        },
        next: None,
        next_at: None,
        since: None,
        used_at: None,
        certificate: None,
        canary: None,
        blocked: None,
        jwk: serde_json::to_value(public_key.published(Alg::ES256)).unwrap(),
    }
}
