//! What systemd itself says about the units: `systemd-analyze verify` and `security`.

use crate::boxed::SysBox;
use crate::installed::{KEYSTORE_SOCKET, KEYSTORE_UNIT};
use crate::suite::Suite;

/// Scores above these fail, in tenths (`--threshold` of systemd-analyze(1) is in tenths as well).
const BROKER_TENTHS: u32 = 8;
const KEYSTORE_TENTHS: u32 = 9;

/// Runs all of these checks.
pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check("systemd-analyze verify: every unit is clean", || {
        let shown = boxed.run(&[
            "systemd-analyze",
            "verify",
            "--man=no",
            "assertd.service",
            "assertd.socket",
            "assertd-admin.socket",
            KEYSTORE_UNIT,
            KEYSTORE_SOCKET,
        ]);
        let said = format!("{}{}", shown.stdout, shown.stderr);
        match (shown.code, said.is_empty()) {
            (Some(0), true) => Ok(()),
            (code, _) => Err(format!("exit {code:?}: {said}")),
        }
    });
    for (unit, tenths) in [
        ("assertd.service", BROKER_TENTHS),
        (KEYSTORE_UNIT, KEYSTORE_TENTHS),
    ] {
        let name = format!(
            "systemd-analyze security: {unit} at most {}.{}",
            tenths / 10,
            tenths % 10
        );
        suite.check(&name, || security(boxed, unit, tenths));
    }
}

fn security(boxed: &SysBox, unit: &str, tenths: u32) -> Result<(), String> {
    let threshold = format!("--threshold={tenths}");
    let shown = boxed.run(&[
        "systemd-analyze",
        "security",
        "--no-pager",
        &threshold,
        unit,
    ]);
    let total = shown.stdout.lines().last().unwrap_or_default().trim();
    println!("     {total}");
    match shown.code {
        Some(0) => Ok(()),
        _ => Err(format!("{}\n{}", shown.stdout, shown.stderr)),
    }
}
