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
use harness::{Config, DEADLINE, Daemon, Token, wait_for};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

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

/// Whether an assertctl that lies somewhere and runs as this user gets an assertion. If the witness was
/// too late to say what runs, it asks again.
#[track_caller]
pub fn is_served_as(daemon: &Daemon, assertctl: &Path, uid: u32, target: &str) -> bool {
    let mut command = Command::new(assertctl);
    command.args(["assertion", "--target", target, "-s"]);
    command.arg(daemon.socket()).uid(uid).gid(uid);
    let mut said = String::new();
    let answered = wait_for(DEADLINE, || {
        let output = command.output().unwrap();
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_late = said.contains("witness did not answer");
        (!is_late).then_some(output.status.success())
    });
    let is_served = answered.unwrap_or_else(|| panic!("{said}"));
    assert!(is_served || said.contains("denied"), "{said}");
    is_served
}
