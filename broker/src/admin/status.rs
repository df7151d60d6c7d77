//! `GET /v1/status`: the daemon at a glance. Reads what others keep, and asks nobody but the witness.

use crate::app::App;
use crate::attestation;
use crate::config::Config;
use crate::peer::kernel_proof;
use crate::rules::Rules;
use assertd_client::api::{
    AuditStatus, ClockStatus, ConfigStatus, DenyStatus, Status, WitnessStatus,
};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Everything.
pub async fn status(app: &App) -> Status {
    let rules = app.rules.now();
    let config = &rules.config;
    let isolated = config
        .keystores
        .values()
        .all(|section| section.socket.is_some());
    Status {
        format: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: app.started.elapsed().as_secs(),
        isolation: if isolated { "units" } else { "none" }.to_owned(),
        peer_proof: kernel_proof().as_str().to_owned(),
        clock: of_clock(app),
        config: of_config(config),
        keystores: app
            .keystores
            .values()
            .map(|keystore| keystore.status())
            .collect(),
        audit: of_audit(app, &config.audit.dir),
        deny: of_deny_lists(app, &rules),
        witness: of_witness(app, &rules).await,
        requests: app.counts.read(),
        connections: app.connections.load(Ordering::Relaxed),
    }
}

fn of_clock(app: &App) -> ClockStatus {
    let doubt = app.clock.doubt();
    let state = if doubt.is_some() { "suspect" } else { "ok" };
    ClockStatus {
        state: state.to_owned(),
        why: doubt.map(|doubt| doubt.to_string()),
    }
}

/// Which configuration it is.
pub fn of_config(config: &Config) -> ConfigStatus {
    let targets = config.workloads.iter().map(|section| section.targets.len());
    ConfigStatus {
        path: config.path.display().to_string(),
        sha256: config.sha256.to_string(),
        workloads: config.workloads.len(),
        targets: targets.sum(),
    }
}

fn of_audit(app: &App, dir: &Path) -> AuditStatus {
    let health = app.audit.health();
    let state = match (&health.failed, &health.warning) {
        (Some(_), _) => "failed",
        (None, Some(_)) => "warning",
        (None, None) => "ok",
    };
    let fault = health.failed.as_ref().or(health.warning.as_ref());
    AuditStatus {
        state: state.to_owned(),
        why: fault.map(|fault| format!("{}; {}", fault.why, fault.remedy)),
        directory: dir.display().to_string(),
        seq: health.last_seq.unwrap_or(0),
        bytes: health.disk_bytes,
        denials_counted: health.denials_counted,
    }
}

fn of_deny_lists(app: &App, rules: &Rules) -> DenyStatus {
    let why = app.denied.fault();
    let state = if why.is_some() { "failed" } else { "ok" };
    DenyStatus {
        state: state.to_owned(),
        why,
        entries: rules.denied.len(),
    }
}

/// It is asked, if anything depends on it: whoever needs it is refused while it is away.
async fn of_witness(app: &App, rules: &Rules) -> WitnessStatus {
    if attestation::needs_witness(&rules.config).is_none() {
        let state = "unused".to_owned();
        return WitnessStatus { state, why: None };
    }
    let asked = attestation::enforceable(&app.witness, rules, Duration::ZERO).await;
    let state = if asked.is_ok() { "ok" } else { "failed" };
    WitnessStatus {
        state: state.to_owned(),
        why: asked.err().map(|why| why.to_string()),
    }
}
