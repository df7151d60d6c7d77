//! Others at the same TPM: what a copied key file is worth to them, and what their wrong guesses do to
//! us.

use crate::installed::KEY_FILES;
use crate::machine::Machine;
use crate::request::{Registered, assertion, verified};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::suite::Suite;

/// tpm2-tools leave what they make in the directory they are in.
const SCRATCH: &str = "dir=$(mktemp -d); cd $dir; export TPM2TOOLS_TCTI=device:/dev/tpmrm0
         trap 'rm -rf $dir' EXIT";

/// Answers of a TPM to a wrong auth value: `TPM_RC_BAD_AUTH` for session 1, of an object that
/// dictionary-attack protection does not count (TPM 2.0 Part 2 §6.6.3).
const BAD_AUTH: &str = "0x9a2";

pub fn run(suite: &mut Suite<'_>, machine: &Machine, registered: &Registered) {
    suite.check(
        "foreign: tpm2-tools load the key file, see the published key, and cannot sign with it",
        || file_alone(machine, registered),
    );
    suite.check(
        "foreign: with the TPM in lockout by others' guesses, our key signs",
        || in_lockout(machine, registered),
    );
}

fn file_alone(machine: &Machine, registered: &Registered) -> Result<(), String> {
    let script = format!(
        "{SCRATCH}
         [ \"$(ls {KEY_FILES}/*.pem | wc -l)\" = 1 ]
         grep -q -- '-----BEGIN TSS2 PRIVATE KEY-----' {KEY_FILES}/*.pem
         tpm2_load -Q -r {KEY_FILES}/*.pem -c key.ctx
         tpm2_readpublic -c key.ctx
         echo hello >message
         if tpm2_sign -c key.ctx -g sha256 -o signature message 2>&1; then echo SIGNED; fi"
    );
    let shown = machine.sh(&script).success()?;
    let x = registered.key()["x"].as_str().unwrap_or_default();
    let x = URL_SAFE_NO_PAD.decode(x).map_err(|e| e.to_string())?;
    let x: String = x.iter().map(|byte| format!("{byte:02x}")).collect();
    let says = |part: &str| shown.to_lowercase().contains(part);
    match says(&format!("x: {x}")) && says("noda") && says(BAD_AUTH) && !says("signed") {
        true => Ok(()),
        false => Err(shown),
    }
}

/// Another user's key is protected against guessing, and guessed at until the TPM refuses all such.
fn in_lockout(machine: &Machine, registered: &Registered) -> Result<(), String> {
    let locked = "[ $(tpm2_getcap properties-variable | sed -n 's/ *inLockout: *//p') = 1 ]";
    let script = format!(
        "{SCRATCH}
         tpm2_createprimary -Q -C o -G ecc -p right -c parent.ctx
         tpm2_create -Q -C parent.ctx -P right -G ecc -p right -c key.ctx
         echo hello >message
         for _ in $(seq 40); do
           ! {locked} || exit 0
           ! tpm2_sign -Q -c key.ctx -p wrong -o signature message 2>/dev/null
         done
         echo 'the TPM does not lock' >&2; exit 1"
    );
    machine.sh(&script).success()?;
    let signed = assertion(machine).and_then(|assertion| verified(&assertion, registered));
    let still = machine.sh(locked).success();
    let cleared = machine
        .sh("tpm2_dictionarylockout --clear-lockout")
        .success();
    signed.and(still.map(drop)).and(cleared.map(drop))
}
