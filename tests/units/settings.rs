//! The lines of the units that no sandbox probe tries: when systemd replaces a process, when it gives
//! up (never), how long it waits. Asked of systemd itself, so that a line that is missing, misspelt or
//! in the wrong section is noticed too. Each row says what would go wrong without it; where another
//! check shows the effect, the row still pins the value that is shipped.

use crate::boxed::SysBox;
use crate::installed::{KEYSTORE_SOCKET, KEYSTORE_UNIT};
use crate::suite::Suite;

/// A property as `systemctl show` names it, its value, and what it is for.
type Row = (&'static str, &'static str, &'static str);

const BROKER: [Row; 9] = [
    ("Type", "notify", "started means: it can answer"),
    ("NotifyAccess", "main", "nobody else feeds its watchdog"),
    (
        "WatchdogUSec",
        "15s",
        "a process that stands still is replaced",
    ),
    ("Restart", "on-failure", "a process that dies is replaced"),
    ("RestartUSec", "100ms", "at once, nearly"),
    (
        "RestartPreventExitStatus",
        "78",
        "but not where only a person can mend it",
    ),
    ("StartLimitIntervalUSec", "0", "it is never given up"),
    ("TimeoutStartUSec", "1min", "a start that hangs fails"),
    (
        "TimeoutStopUSec",
        "12s",
        "requests under way have 8 s to end",
    ),
];

const KEYSTORE: [Row; 9] = [
    ("Type", "notify", "started means: it listens"),
    ("NotifyAccess", "main", "nobody else feeds its watchdog"),
    ("WatchdogUSec", "30s", "one whose module hangs is replaced"),
    ("Restart", "on-failure", "one that dies is replaced"),
    (
        "RestartUSec",
        "200ms",
        "without a pause its token would be hammered",
    ),
    (
        "RestartPreventExitStatus",
        "78",
        "but not where only a person can mend it",
    ),
    (
        "StartLimitIntervalUSec",
        "0",
        "a token that comes and goes is never given up",
    ),
    ("TimeoutStartUSec", "30s", "a start that hangs fails"),
    (
        "TimeoutStopUSec",
        "5s",
        "a module that hangs does not hold up a shutdown",
    ),
];

const SOCKET: [Row; 3] = [
    ("Accept", "no", "one service for all connections"),
    (
        "TriggerLimitIntervalUSec",
        "0",
        "a service that fails never closes its socket",
    ),
    ("RemoveOnStop", "yes", "no socket that nobody listens at"),
];

/// Runs all of these checks.
pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    for (unit, rows) in [
        ("assertd.service", &BROKER[..]),
        (KEYSTORE_UNIT, &KEYSTORE),
        ("assertd.socket", &SOCKET),
        ("assertd-admin.socket", &SOCKET),
        (KEYSTORE_SOCKET, &SOCKET),
    ] {
        let name = format!("settings: {unit} has what keeps it going, as shipped");
        suite.check(&name, || settings(boxed, unit, rows));
    }
}

fn settings(boxed: &SysBox, unit: &str, rows: &[Row]) -> Result<(), String> {
    let shown = boxed.run(&["systemctl", "show", unit]).success()?;
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(property, value, why)| {
            let mut values = shown.lines().filter_map(|line| line.split_once('='));
            match values.find(|(name, _)| name == property) {
                Some((_, is)) if is == *value => None,
                Some((_, is)) => Some(format!("{property}={is}, not {value} ({why})")),
                None => Some(format!("systemd shows no {property}")),
            }
        })
        .collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n")),
    }
}
