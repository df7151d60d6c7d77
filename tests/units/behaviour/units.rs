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

/// The unit's process, as the box counts, if it has one.
pub fn main_pid(boxed: &SysBox, unit: &str) -> Option<u32> {
    let pid: u32 = show(boxed, unit, "MainPID").parse().ok()?;
    (pid != 0).then_some(pid)
}

/// The unit is active with another process than `before`.
pub fn until_another(boxed: &SysBox, unit: &str, before: Option<u32>) -> Result<(), String> {
    until(&format!("{unit} is active with a new process"), || {
        let pid = main_pid(boxed, unit);
        pid.is_some() && pid != before && state(boxed, unit) == "active"
    })
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
