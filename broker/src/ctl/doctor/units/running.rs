//! Units that should run and do not: what systemd says happened, and what to look at first.

use super::super::finding::{Finding, RUNNING};
use super::Unit;

/// What starts a unit, now and after the next boot.
pub fn start(unit: &Unit) -> String {
    match unit.is_service() {
        true => format!("systemctl start {}", unit.name),
        false => format!("systemctl enable --now {}", unit.name),
    }
}

/// A service that waits for its first request is as it should be; a socket that does not listen is
/// not.
pub fn finding(unit: &Unit) -> Option<Finding> {
    let name = &unit.name;
    let failed = unit.is("ActiveState", "failed") || unit.is("SubState", "auto-restart");
    if !failed && unit.is_service() {
        return None;
    }
    let short = name.strip_suffix(".service").unwrap_or(name);
    let journal = format!("journalctl -u {short} -n 20 --no-pager");
    let result = unit.property("Result").unwrap_or("unknown");
    if !unit.is_service() {
        let text = format!("{name} does not listen (result: {result})");
        let remedy = format!("run `systemctl restart {name}`; if it fails again, `{journal}`");
        return Some(RUNNING.fail(text, remedy));
    }
    let status: u32 = unit
        .property("ExecMainStatus")
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let (why, first) = explain(result, status);
    Some(RUNNING.fail(
        format!("{name} has failed (result: {result}, exit status {status}): {why}"),
        format!("{first}`{journal}` says what it said; then run `systemctl restart {short}`"),
    ))
}

/// Exit statuses of systemd.exec(5) and our own: what happened, and what to look at first.
fn explain(result: &str, status: u32) -> (&'static str, &'static str) {
    match (result, status) {
        ("exit-code", 78) => (
            "its configuration or state is wrong",
            "mend what is wrong with the configuration (`assertctl config check`) or the state: ",
        ),
        ("exit-code", 203) => (
            "its program cannot be started",
            "install the program that ExecStart= names: ",
        ),
        ("exit-code", 217) => ("its user does not exist", "run `systemd-sysusers`: "),
        ("exit-code", 226) => (
            "its sandbox cannot be set up, often because a directory of ReadWritePaths= is missing",
            "make the directory that is missing: ",
        ),
        ("exit-code", 243) => (
            "its credential cannot be opened",
            "make the credential anew (see credential): ",
        ),
        ("exit-code", 238 | 239) => (
            "its state or runtime directory cannot be made",
            "check /var/lib and /run: ",
        ),
        ("watchdog", _) => ("it hung and was ended by the watchdog", ""),
        ("timeout", _) => ("it was not ready in time", ""),
        _ => ("it ended by itself", ""),
    }
}
