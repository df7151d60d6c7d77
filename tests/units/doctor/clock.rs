//! The clock, which is the machine's, and nothing that the box could change.

use super::report::{Report, parse};
use crate::boxed::SysBox;
use crate::suite::Suite;

/// Where the kernel may not be asked.
const ASK_THE_HOST: &str = "timedatectl show -p NTPSynchronized";

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check("doctor: a clock that may not be asked about", || {
        not_to_be_asked(boxed)
    });
}

fn advises(report: &Report, remedy: &str) -> Result<(), String> {
    let found = report.find("D05", "warn");
    match found.and_then(|it| it["remedy"].as_str()) {
        Some(advice) if advice.contains(remedy) => Ok(()),
        _ => Err(format!("D05 does not advise {remedy:?}: {}", report.bad())),
    }
}

/// As in a container that forbids it.
fn not_to_be_asked(boxed: &SysBox) -> Result<(), String> {
    let said = boxed.run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        "--wait",
        "--pipe",
        "--property=SystemCallFilter=~adjtimex clock_adjtime",
        "--property=SystemCallErrorNumber=EPERM",
        "assertctl",
        "check",
        "--json",
    ]);
    advises(&parse(&said)?, ASK_THE_HOST)
}
