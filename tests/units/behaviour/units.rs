//! What systemd says about units, and waiting for it.

use crate::boxed::SysBox;
use harness::wait_until;
use std::time::Duration;

/// For what usually takes less than a second.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The reason a check fails, unless this holds.
pub fn demand(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Waits for it, no longer than [`PATIENCE`].
pub fn until(what: &str, condition: impl FnMut() -> bool) -> Result<(), String> {
    let there = wait_until(PATIENCE, condition);
    demand(there, || {
        format!("not within {} s: {what}", PATIENCE.as_secs())
    })
}

/// A property of a unit; empty if it has none.
pub fn show(boxed: &SysBox, unit: &str, property: &str) -> String {
    let option = format!("--property={property}");
    let shown = boxed.run(&["systemctl", "show", &option, "--value", unit]);
    shown.stdout.trim().to_owned()
}

/// `active`, `inactive`, `failed` …
pub fn state(boxed: &SysBox, unit: &str) -> String {
    show(boxed, unit, "ActiveState")
}

/// A unit is in this state now.
pub fn is(boxed: &SysBox, unit: &str, wanted: &str) -> Result<(), String> {
    let state = state(boxed, unit);
    demand(state == wanted, || {
        format!("{unit} is {state}, not {wanted}")
    })
}

/// The unit's process, as the box counts. systemctl may fail on a machine that is busy, and a unit
/// may be between two processes: neither is an answer.
pub fn main_pid(boxed: &SysBox, unit: &str) -> Result<u32, String> {
    let mut pid = None;
    until(&format!("{unit} has a process"), || {
        pid = number(boxed, unit, "MainPID").filter(|pid| *pid != 0);
        pid.is_some()
    })?;
    let pid = pid.and_then(|pid| u32::try_from(pid).ok());
    pid.ok_or_else(|| format!("{unit} has no process"))
}

/// A property that is a number; `None` if systemd did not say it.
pub fn number(boxed: &SysBox, unit: &str, property: &str) -> Option<u64> {
    show(boxed, unit, property).parse().ok()
}

/// The unit is active with another process than `before`.
pub fn until_another(boxed: &SysBox, unit: &str, before: u32) -> Result<(), String> {
    until(&format!("{unit} is active with a new process"), || {
        let pid = number(boxed, unit, "MainPID");
        pid.is_some_and(|pid| pid != 0 && pid != u64::from(before))
            && state(boxed, unit) == "active"
    })
}

/// How often systemd has started the unit again by itself.
pub fn restarts(boxed: &SysBox, unit: &str) -> Result<u64, String> {
    let mut restarts = None;
    until(&format!("systemd counts the restarts of {unit}"), || {
        restarts = number(boxed, unit, "NRestarts");
        restarts.is_some()
    })?;
    restarts.ok_or_else(|| format!("{unit} has no NRestarts"))
}

/// A place in the journal.
pub fn journal_end(boxed: &SysBox) -> Result<String, String> {
    let script = "journalctl --sync; journalctl -n 1 -o json | sed 's/.*\"__CURSOR\":\"\\([^\"]*\\)\".*/\\1/'";
    boxed
        .sh(script)
        .success()
        .map(|cursor| cursor.trim().to_owned())
}

/// What was said by a unit, and by systemd about it, since then: `[seconds since boot] text`.
pub fn journal_since(boxed: &SysBox, cursor: &str, unit: &str) -> String {
    let cursor = format!("--after-cursor={cursor}");
    let _ = boxed.run(&["journalctl", "--sync"]);
    boxed
        .run(&[
            "journalctl",
            "--no-pager",
            "--output=short-monotonic",
            "--unit",
            unit,
            &cursor,
        ])
        .stdout
}
