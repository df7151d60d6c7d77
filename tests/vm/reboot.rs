//! The reboot, which is the point of the exercise: the same disk and the same TPM, a new kernel and
//! new processes, and nobody who does anything. Then the disk in another machine, and back.

use crate::installed::{BROKER_UNIT, KEYSTORE_UNIT, SOCKETS};
use crate::machine::Machine;
use crate::request::{Registered, assertion, doctor, no_assertion, published, verified};
use crate::{OTHER_TPM, OWN_TPM, starts};
use harness::suite::{Site, Suite};
use harness::wait_until;
use serde_json::Value;
use std::time::Duration;

/// For the keystore to start and the broker to hear of it. A command in the machine takes seconds
/// where it is emulated.
const PATIENCE: Duration = Duration::from_secs(240);

pub fn run(suite: &mut Suite<'_>, machine: &Machine, registered: &Registered) {
    let before = resets(machine);
    stops(suite, machine, "reboot: it shuts down in order");
    if !starts(suite, machine, "reboot: it comes up again", OWN_TPM) {
        return;
    }
    suite.check("reboot: the TPM was reset", || {
        match (before, resets(machine)?) {
            (Ok(before), after) if after > before => Ok(()),
            (before, after) => Err(format!("resets: {before:?}, then {after}")),
        }
    });
    suite.check("reboot: sockets listen, and no service runs yet", || {
        all_are(machine, &SOCKETS, "active")?;
        all_are(machine, &[BROKER_UNIT, KEYSTORE_UNIT], "inactive")
    });
    suite.check(
        "reboot: the first request is answered, under the key registered before",
        || verified(&assertion(machine)?, registered),
    );
    suite.check("reboot: the published key is the same", || {
        let now = published(machine)?;
        match now == registered.jwks {
            true => Ok(()),
            false => Err(format!("{now} instead of {}", registered.jwks)),
        }
    });
    doctor(
        suite,
        machine,
        "reboot: the doctor finds nothing that fails",
    );
    other_machine(suite, machine, registered);
}

/// The whole disk, with the host's key that opens the credential, is of no use without the TPM.
fn other_machine(suite: &mut Suite<'_>, machine: &Machine, registered: &Registered) {
    stops(suite, machine, "other TPM: the machine shuts down");
    if starts(suite, machine, "other TPM: the same disk boots", OTHER_TPM) {
        suite.check("other TPM: nothing is signed, and status says why", || {
            failed_because(machine, "another TPM")?;
            no_assertion(machine)
        });
        stops(suite, machine, "other TPM: it shuts down again");
    }
    if starts(suite, machine, "other TPM: it boots with its own", OWN_TPM) {
        suite.check("other TPM: back in its machine, the key signs", || {
            verified(&assertion(machine)?, registered)
        });
    }
}

/// Waits until the broker knows why its keystore has failed.
fn failed_because(machine: &Machine, part: &str) -> Result<(), String> {
    let mut last = String::new();
    let told = wait_until(PATIENCE, || {
        last = machine.run(&["assertctl", "status", "--json"]).stdout;
        let status: Value = serde_json::from_str(&last).unwrap_or_default();
        let keystore = &status["keystores"][0];
        let why = keystore["why"].as_str().unwrap_or_default();
        keystore["state"] != "usable" && why.contains(part)
    });
    match told {
        true => Ok(()),
        false => Err(format!("not failed because of {part:?}: {last}")),
    }
}

fn stops(suite: &mut Suite<'_>, machine: &Machine, name: &str) {
    suite.check(name, || machine.stop());
}

/// How often the TPM was reset since it was made (TPMS_CLOCK_INFO, TPM 2.0 Part 2 §10.11.1).
fn resets(machine: &Machine) -> Result<u64, String> {
    let script = "tpm2_readclock | sed -n 's/ *reset_count: *//p'";
    let shown = machine.sh(script).success()?;
    shown
        .trim()
        .parse()
        .map_err(|e| format!("tpm2_readclock: {e}: {shown:?}"))
}

fn all_are(machine: &Machine, units: &[&str], wanted: &str) -> Result<(), String> {
    for unit in units {
        let state = machine.run(&["systemctl", "is-active", unit]).stdout;
        if state.trim() != wanted {
            return Err(format!("{unit} is {}, not {wanted}", state.trim()));
        }
    }
    Ok(())
}
