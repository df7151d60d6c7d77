//! What the sandboxes refuse, tried from inside them, one check for each directive that matters.
//!
//! A check holds if the same probe is allowed without the directive (the control: else it would show
//! nothing), refused with that directive alone (the box enforces it), and refused in the unit as
//! installed. All three run in copies of the installed unit whose program alone is another.

mod cases;
mod fixtures;
mod variants;

use crate::boxed::SysBox;
use crate::installed::{KEYSTORE_UNIT, WITNESS_UNIT};
use crate::suite::Suite;
use cases::{Case, Who};
use fixtures::Fixtures;
use harness::{DEADLINE, wait_until};
use variants::{Unit, Variants};

const BROKER_UNIT: &str = "assertd.service";

/// A unit whose sandbox is tried.
struct Subject {
    name: &'static str,
    /// What the names of its variants begin with.
    prefix: &'static str,
    unit: Unit,
    refused: Vec<Case>,
    /// What the sandbox must leave: a name and its probe.
    left: Vec<(String, String)>,
    /// Directives that must never be set, because they take away what it has to see: who is calling.
    harmful: Vec<(&'static str, String)>,
}

/// Runs all of these checks.
pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    let subjects = Fixtures::make(boxed).and_then(|fixtures| {
        let broker = Subject {
            name: "broker sandbox",
            prefix: "broker",
            unit: Unit::installed(boxed, "assertd.service")?,
            refused: cases::broker(&fixtures),
            left: cases::left_to_broker(&fixtures),
            harmful: cases::harmful_to_broker(&fixtures, systemd_version(boxed)?),
        };
        let keystore = Subject {
            name: "keystore sandbox",
            prefix: "keystore",
            unit: Unit::installed(boxed, "assertd-keystore-pkcs11@.service")?,
            refused: cases::keystore(&fixtures),
            left: cases::left_to_keystore(),
            harmful: Vec::new(),
        };
        let witness = Subject {
            name: "witness sandbox",
            prefix: "witness",
            unit: Unit::installed(boxed, WITNESS_UNIT)?,
            refused: cases::witness(&fixtures),
            left: cases::left_to_witness(&fixtures),
            harmful: cases::harmful_to_witness(&fixtures, systemd_version(boxed)?),
        };
        Ok([broker, keystore, witness])
    });
    let subjects = match subjects {
        Ok(subjects) => subjects,
        Err(why) => return suite.check("sandbox: its fixtures are there", || Err(why)),
    };
    for subject in subjects {
        check(suite, boxed, &subject);
    }
    suite.check(
        "keystore sandbox: the module loads, logs in and has its keys",
        || keystore_is_ready(boxed),
    );
    for (name, unit) in [
        ("broker sandbox: its own is fully enforced too", BROKER_UNIT),
        (
            "keystore sandbox: its own is fully enforced too",
            KEYSTORE_UNIT,
        ),
    ] {
        suite.check(name, || closes_itself_in(boxed, unit));
    }
}

/// The processes enter a sandbox of their own, which the unit's must let them do.
fn closes_itself_in(boxed: &SysBox, unit: &str) -> Result<(), String> {
    boxed.run(&["journalctl", "--sync"]).success()?;
    let said = boxed.run(&["journalctl", "--output=cat", "--unit", unit]);
    let said = said.success()?;
    let mut lines = said.lines().filter(|line| line.contains(" sandbox: "));
    match lines.next_back() {
        Some(line) if line.ends_with("sandbox: fully enforced by Landlock") => Ok(()),
        last => Err(format!("{last:?} in:\n{said}")),
    }
}

/// Starts all variants of a unit at once, then judges.
fn check(suite: &mut Suite<'_>, boxed: &SysBox, subject: &Subject) {
    let Subject { name, unit, .. } = subject;
    suite.check(&format!("{name}: every directive is tried"), || {
        let tried = subject.refused.iter().flat_map(|case| case.directives);
        let tried: Vec<&str> = tried.copied().collect();
        match unit.untried(&tried)[..] {
            [] => Ok(()),
            ref untried => Err(format!("not tried: {}", untried.join(", "))),
        }
    });
    let mut variants = Variants::new(boxed, subject.prefix, unit);
    let refused: Vec<_> = subject
        .refused
        .iter()
        .map(|case| {
            let open = variants.open(case.who, &case.probe);
            let alone = variants.alone(case.directives, case.who, &case.probe);
            let sealed = variants.sealed(&[], &case.probe);
            (case, open, alone, sealed)
        })
        .collect();
    let left: Vec<_> = subject
        .left
        .iter()
        .map(|(name, probe)| (name, probe, variants.sealed(&[], probe)))
        .collect();
    let harmful: Vec<_> = subject
        .harmful
        .iter()
        .map(|(directive, probe)| (directive, probe, variants.sealed(&[directive], probe)))
        .collect();
    let verdicts = match variants.run() {
        Ok(verdicts) => verdicts,
        Err(why) => return suite.check(&format!("{name}: its probes run"), || Err(why)),
    };
    for (case, open, alone, sealed) in refused {
        let directives = case.directives.join(" ");
        let label = format!("{name}: {directives}: {}", case.name);
        suite.check(&label, || {
            verdicts.allowed(&open, &case.probe).map_err(|why| {
                format!("without the directive, so that this would show nothing: {why}")
            })?;
            verdicts
                .refused(&alone, &case.probe)
                .map_err(|why| format!("by {directives} alone: {why}"))?;
            verdicts
                .refused(&sealed, &case.probe)
                .map_err(|why| format!("in the unit as installed: {why}"))
        });
    }
    for (what, probe, sealed) in left {
        suite.check(&format!("{name}: left: {what}"), || {
            verdicts.allowed(&sealed, probe)
        });
    }
    for (directive, probe, sealed) in harmful {
        let label = format!("{name}: {directive} would hide what it has to see");
        suite.check(&label, || verdicts.refused(&sealed, probe));
    }
}

fn systemd_version(boxed: &SysBox) -> Result<u32, String> {
    let said = boxed.run(&["systemctl", "--version"]).success()?;
    let version = said.split_whitespace().nth(1);
    version
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| format!("systemctl --version says {said:?}"))
}

/// The real program under its real unit.
fn keystore_is_ready(boxed: &SysBox) -> Result<(), String> {
    let mut shown = String::new();
    let usable = wait_until(DEADLINE, || {
        shown = match boxed.run(&["assertctl", "status", "--json"]).success() {
            Ok(json) | Err(json) => json,
        };
        let status: serde_json::Value = serde_json::from_str(&shown).unwrap_or_default();
        status["isolation"] == "units" && status["keystores"][0]["state"] == "usable"
    });
    match usable {
        true => boxed
            .run(&["systemctl", "is-active", KEYSTORE_UNIT])
            .success()
            .map(drop),
        false => Err(format!("it is not usable: {shown}")),
    }
}
