//! `assertctl check` against planted faults: each is found by its id, with a remedy that says the
//! right thing; and the remedy is done, word for word where it is a command, after which the
//! finding is gone.

use crate::boxed::SysBox;
use crate::suite::Suite;
use fault::{Fault, find_and_mend, spelled};
use harness::wait_until;
use report::examine;
use std::time::Duration;

mod callers;
mod clock;
mod configuration;
mod credentials;
mod fault;
mod report;
mod sockets;
mod state;
mod tokens;
mod tpm;
mod units;

/// A keystore opens its token anew, assertd looks at it again, on a machine that is busy.
const SETTLED: Duration = Duration::from_secs(30);

/// All but the clock's, by what they are about.
const AREAS: [&[Fault]; 8] = [
    callers::FAULTS,
    configuration::FAULTS,
    credentials::FAULTS,
    tokens::FAULTS,
    tpm::FAULTS,
    sockets::FAULTS,
    units::FAULTS,
    state::FAULTS,
];

fn faults() -> impl Iterator<Item = &'static Fault> {
    AREAS.into_iter().flatten()
}

/// All of it.
pub fn run(suite: &mut Suite, boxed: &SysBox) {
    suite.check("doctor: a site as installed has none of the faults", || {
        healthy(boxed)?;
        let report = examine(boxed)?;
        // What it thinks of the sandbox follows from what this systemd shows.
        if report.find("D36", "ok").is_none() {
            return Err(format!("the sandbox is not as shipped: {}", report.bad()));
        }
        match faults().find(|fault| report.find(fault.id, fault.severity).is_some()) {
            Some(fault) => Err(format!("{} is there: {}", fault.id, report.bad())),
            None => Ok(()),
        }
    });
    suite.check("doctor: text has columns, and a count at the end", || {
        text(boxed)
    });
    for fault in faults() {
        suite.check(&format!("doctor: {}", fault.name), || {
            let done = find_and_mend(boxed, fault);
            let restored = boxed.sh(&spelled(fault.restore)).success();
            done?;
            restored.map_err(|why| format!("restoring: {why}"))?;
            Ok(())
        });
    }
    clock::run(suite, boxed);
    suite.check("doctor: looking starts nothing", || starts_nothing(boxed));
    suite.check("doctor: after all of it nothing fails", || healthy(boxed));
}

fn healthy(boxed: &SysBox) -> Result<(), String> {
    boxed.sh("systemctl start assertd").success()?;
    let mut last = String::new();
    let well = wait_until(SETTLED, || match examine(boxed) {
        Ok(report) => {
            last = report.bad();
            report.exit == Some(0)
                && report.find("D70", "ok").is_some()
                && report.find("D81", "ok").is_some()
        }
        Err(why) => {
            last = why;
            false
        }
    });
    if well { Ok(()) } else { Err(last) }
}

fn text(boxed: &SysBox) -> Result<(), String> {
    let said = boxed.run(&["assertctl", "check"]).success()?;
    let last = said.lines().last().unwrap_or_default();
    let columns = said
        .lines()
        .any(|line| line == "ok    kernel      SO_PEERPIDFD present");
    let counted = last.contains(" ok, ") && last.ends_with(" 0 FAIL");
    if columns && counted {
        Ok(())
    } else {
        Err(said)
    }
}

fn starts_nothing(boxed: &SysBox) -> Result<(), String> {
    boxed
        .sh("systemctl stop assertd; systemctl stop assertd-keystore-pkcs11@hsm")
        .success()?;
    let report = examine(boxed)?;
    let states = boxed.run(&[
        "systemctl",
        "is-active",
        "assertd.service",
        "assertd-keystore-pkcs11@hsm.service",
    ]);
    if report.find("D60", "warn").is_none() || states.stdout != "inactive\ninactive\n" {
        return Err(format!("{}{}", states.stdout, report.bad()));
    }
    Ok(())
}
