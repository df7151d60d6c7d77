//! The first assertion: a workload asks through the installed units, the TPM signs, and verifiers that
//! nobody here wrote accept it under the key that the other side was given.

use crate::installed::{
    AUTHORIZATION_SERVER, CLIENT_ID, TARGET, WORKLOAD_ANSWER, WORKLOAD_ERRORS, WORKLOAD_UNIT,
};
use crate::machine::Machine;
use harness::peers::{self, Expected};
use harness::suite::{INDENT, Site, Suite};
use serde_json::Value;

/// What the other side was told once: the key set that `assertctl jwks` printed.
pub struct Registered {
    pub jwks: Value,
}

impl Registered {
    /// The one key in it.
    pub fn key(&self) -> &Value {
        &self.jwks["keys"][0]
    }
}

pub fn run(suite: &mut Suite<'_>, machine: &Machine) -> Option<Registered> {
    let mut registered = None;
    suite.check("request: the key is made in the TPM and published", || {
        let jwks = published(machine)?;
        registered = Some(Registered { jwks });
        Ok(())
    });
    let registered = registered?;
    println!("{INDENT}kid {}", registered.key()["kid"]);
    suite.check(
        "request: a workload's unit gets an assertion, and three verifiers accept it",
        || verified(&assertion(machine)?, &registered),
    );
    suite.check("request: another unit is denied", || {
        let script = format!(
            "systemd-run --quiet --wait --pipe --collect --unit=reports.service \
               --property=User=payments assertctl assertion --target {TARGET}"
        );
        match machine.insist(&script) {
            refused if refused.code == Some(1) && refused.stdout.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    doctor(
        suite,
        machine,
        "request: the doctor finds nothing that fails",
    );
    Some(registered)
}

/// `assertctl check` fails nothing; what it warns of is shown.
pub fn doctor(suite: &mut Suite<'_>, machine: &Machine, name: &str) {
    let mut found = String::new();
    suite.check(name, || {
        let checked = machine.run(&["assertctl", "check"]);
        let shown = checked.stdout.clone() + &checked.stderr;
        checked.success()?;
        found = shown;
        Ok(())
    });
    for line in found.lines().filter(|line| line.starts_with("warn ")) {
        println!("{INDENT}{line}");
    }
    println!("{INDENT}{}", found.lines().last().unwrap_or_default());
}

/// What the other side is to know.
///
/// # Errors
/// If that is not exactly one key.
pub fn published(machine: &Machine) -> Result<Value, String> {
    let script = format!("assertctl jwks --target payments/{TARGET}");
    let text = machine.insist(&script).success()?;
    let jwks: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
    match jwks["keys"].as_array().map(Vec::len) {
        Some(1) => Ok(jwks),
        _ => Err(format!("not one key: {text}")),
    }
}

/// Has the workload ask, again while it is told that assertd or its keystore is unavailable, and
/// returns what it got.
///
/// # Errors
/// What assertctl told the workload.
pub fn assertion(machine: &Machine) -> Result<String, String> {
    let script = format!(
        "systemctl start {WORKLOAD_UNIT} 2>/dev/null && exec cat {WORKLOAD_ANSWER}
         cat {WORKLOAD_ERRORS} >&2
         exit $(systemctl show -P ExecMainStatus {WORKLOAD_UNIT})"
    );
    Ok(machine.insist(&script).success()?.trim().to_string())
}

/// Has the workload ask once; it must not get anything.
///
/// # Errors
/// What it got.
pub fn no_assertion(machine: &Machine) -> Result<(), String> {
    let script = format!("systemctl start {WORKLOAD_UNIT}; cat {WORKLOAD_ANSWER}");
    match machine.sh(&script) {
        refused if refused.code == Some(1) && refused.stdout.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Accepted under this key, and refused with a byte changed: the verifiers do look.
///
/// # Errors
/// The verdict that is wrong.
pub fn verified(assertion: &str, registered: &Registered) -> Result<(), String> {
    let expected = |assertion| Expected {
        assertion,
        iss: CLIENT_ID,
        sub: CLIENT_ID,
        aud: AUTHORIZATION_SERVER,
        alg: "ES256",
        typ: "client-authentication+jwt",
    };
    let changed = peers::flipped(assertion, "signature");
    let both = [expected(assertion), expected(&changed)];
    let verdicts = peers::verify(&registered.jwks, &both);
    match (
        peers::all_accept(&verdicts[0]),
        peers::all_refuse(&verdicts[1]),
    ) {
        (true, true) => Ok(()),
        _ => Err(format!("{verdicts:?}")),
    }
}
