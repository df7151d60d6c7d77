//! The lines of the units that no sandbox probe tries: when systemd replaces a process, when it gives
//! up (never), how long it waits. Asked of systemd itself, so that a line that is missing, misspelt or
//! in the wrong section is noticed too. Each row says what would go wrong without it; where another
//! check shows the effect, the row still pins the value that is shipped.

use crate::boxed::SysBox;
use crate::installed::{
    KEYSTORE_SOCKET, KEYSTORE_UNIT, PUBLISH_SOCKET, PUBLISH_UNIT, TPM_SOCKET, TPM_UNIT,
    WITNESS_SOCKET, WITNESS_UNIT,
};
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
    ("WatchdogUSec", "30s", "one whose module hangs is replaced"),
    ("Type", "notify", "started means: it listens"),
    ("NotifyAccess", "main", "nobody else feeds its watchdog"),
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

const WITNESS: [Row; 7] = [
    ("Type", "exec", "started means: systemd listens for it"),
    ("NotifyAccess", "none", "it makes no socket to say more"),
    ("Restart", "on-failure", "one that dies is replaced"),
    ("RestartUSec", "200ms", "soon: callers wait"),
    ("StartLimitIntervalUSec", "0", "it is never given up"),
    ("TimeoutStartUSec", "30s", "a start that hangs fails"),
    (
        "TimeoutStopUSec",
        "5s",
        "a file that cannot be read holds up no shutdown",
    ),
];

const PUBLISH: [Row; 7] = [
    ("Type", "exec", "started means: systemd listens for it"),
    ("NotifyAccess", "none", "it makes no socket to say more"),
    ("Restart", "on-failure", "one that dies is replaced"),
    (
        "RestartPreventExitStatus",
        "78",
        "but not where only a person can mend it",
    ),
    ("StartLimitIntervalUSec", "0", "it is never given up"),
    ("TimeoutStartUSec", "30s", "a start that hangs fails"),
    ("TimeoutStopUSec", "12s", "a connection has 10 s to end"),
];

/// Without the last, for one that is no file.
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
        (TPM_UNIT, &KEYSTORE[1..]), // it does not run here, and then systemd shows no watchdog
        (TPM_SOCKET, &SOCKET),
        (WITNESS_UNIT, &WITNESS),
        (WITNESS_SOCKET, &SOCKET),
        (PUBLISH_UNIT, &PUBLISH),
        (PUBLISH_SOCKET, &SOCKET[..2]),
    ] {
        let name = format!("settings: {unit} has what keeps it going, as shipped");
        suite.check(&name, || settings(boxed, unit, rows));
    }
    let same = "settings: what is tried in one keystore's sandbox is in the other's as well";
    suite.check(same, || same_sandbox(boxed));
}

/// What a module's unit has and a TPM's does not, beside its names: its PIN, its group alone,
/// more that it sees and may map, and a call that is made for tokens of some milliseconds.
const OF_A_MODULE: [&str; 5] = [
    "LoadCredentialEncrypted=%i.pin:assertd.%i.pin",
    "SupplementaryGroups=assertd",
    "InaccessiblePaths=-/run/dbus -/run/systemd/resolve",
    "ExecPaths=/usr/bin/assertd-keystore-tpm -/usr/lib -/usr/lib64 -/lib -/lib64 -/usr/local/lib \
     -/opt",
    "SystemCallFilter=sched_setscheduler",
];

/// What a TPM's has instead.
const OF_A_TPM: [&str; 6] = [
    "LoadCredentialEncrypted=%i.auth:assertd.%i.auth",
    "SupplementaryGroups=assertd tss",
    "BindPaths=-/dev/tpmrm0",
    "DeviceAllow=/dev/tpmrm0 rw",
    "InaccessiblePaths=-/run/dbus -/run/systemd/resolve -/run/pcscd",
    "ExecPaths=/usr/bin/assertd-keystore-tpm -/usr/lib -/usr/lib64 -/lib -/lib64",
];

/// [`crate::sandbox`] tries one of the two; the other is that one but for the lines above.
fn same_sandbox(boxed: &SysBox) -> Result<(), String> {
    let lines = |unit: &str| -> Result<Vec<String>, String> {
        let path = format!("/usr/lib/systemd/system/{}", unit.replace("@hsm", "@"));
        let text = boxed.run(&["cat", &path]).success()?;
        let text = text.replace("pkcs11", "tpm").replace("PKCS#11", "TPM 2.0");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(lines.map(str::to_owned).collect())
    };
    let (module, tpm) = (lines(KEYSTORE_UNIT)?, lines(TPM_UNIT)?);
    for (of, lines, others, expected) in [
        (KEYSTORE_UNIT, &module, &tpm, &OF_A_MODULE[..]),
        (TPM_UNIT, &tpm, &module, &OF_A_TPM[..]),
    ] {
        let only: Vec<&String> = lines.iter().filter(|line| !others.contains(line)).collect();
        if only != expected {
            return Err(format!("in {of} alone: {only:#?}, and not {expected:#?}"));
        }
    }
    Ok(())
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
