//! Who is calling: the process that connected, for as long as it lives and is who it was. Every test
//! here is an attack, and says so only once it has seen that the attack took place: that the number
//! was taken again, the user changed, the peer dead.

mod death;
mod name;
mod namespace;
mod passed;
mod pid;
mod program;
mod start;
mod still;
mod unit;
mod user;

use harness::user::{ALICE, need_root};
use harness::{Config, Daemon, Token};

/// A configuration in which root owns `bank` and Alice owns `hers`.
pub fn config(token: &Token) -> Config {
    need_root();
    let config = crate::world::bank(token).workload("alice", ALICE, "");
    config.target("alice", "hers", "")
}

/// A daemon with [`config`].
pub fn daemon(token: &Token) -> Daemon {
    Daemon::with_keys(config(token))
}

/// Adds a workload that is Alice in the unit of this name, or path, with the target `TARGET`.
pub fn with_unit(config: Config, name: &str, unit: &str, target: &str) -> Config {
    config
        .with(&format!(
            "[workload.{name}]\nmatch = {{ unit = \"{unit}\", uid = {ALICE} }}"
        ))
        .target(name, target, "")
}

/// How many decisions the log has.
pub fn decisions(daemon: &Daemon) -> usize {
    let records = daemon.audit_records();
    records.iter().filter(|it| it["kind"] == "decision").count()
}
