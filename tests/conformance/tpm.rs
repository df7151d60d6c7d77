//! A keystore on swtpm without a resource manager: three slots for objects, three for sessions, and
//! what we leave in them is there to be counted.

use crate::subject::{Birth, MANY, Neighbours, Promise, SOME, Subject};
use harness::swtpm::{Device, Swtpm};
use harness::{DEADLINE, wait_until};
use keystore::backend::Backend;
use keystore::config::Sessions;
use keystore::statefile::StateDir;
use keystore::tcti::Tcti;
use keystore_tpm::{Secrets, Settings, TpmBackend};
use std::path::Path;
use std::process::Command;

/// What our keys' auth values are made of.
const SECRET: [u8; 32] = *b"thirty-two bytes that are random";

/// Tries a promise on swtpm by TCP, with the sessions we choose for it (by password).
pub fn on_swtpm(_test: &str, promise: Promise) {
    let dir = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::start(dir.path());
    keeps(&swtpm.tcti(), None, MANY, dir.path(), promise);
}

/// Tries a promise on swtpm behind a device node, with the sessions a discrete chip gets.
pub fn on_device(_test: &str, promise: Promise) {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::start(dir.path());
    keeps(
        &device.tcti(),
        Some(Sessions::Encrypted),
        SOME,
        dir.path(),
        promise,
    );
}

fn keeps(tcti: &Tcti, sessions: Option<Sessions>, signatures: usize, dir: &Path, promise: Promise) {
    let open = || -> Box<dyn Backend> {
        let settings = Settings {
            tcti: tcti.clone(),
            secrets: Secrets::new(&SECRET),
            sessions,
            healthy: None,
            state: StateDir::lock(&dir.join("state")).unwrap(),
        };
        Box::new(TpmBackend::open(settings).unwrap())
    };
    Subject::new(open, Neighbours::Nobody, Birth::Proven, signatures)
        .checked(|_| nothing_is_left(tcti))
        .keeps(promise);
}

fn nothing_is_left(tcti: &Tcti) {
    for kind in ["transient", "loaded-session", "saved-session", "persistent"] {
        // The backend's thread may be what closes it, a moment after the backend went.
        let none = wait_until(DEADLINE, || handles(tcti, kind).is_empty());
        assert!(none, "left in the TPM: {kind} {:?}", handles(tcti, kind));
    }
}

/// The handles of a kind that are in use, as tpm2-tools see them.
fn handles(tcti: &Tcti, kind: &str) -> Vec<String> {
    let output = Command::new("tpm2_getcap")
        .arg(format!("handles-{kind}"))
        .env("TPM2TOOLS_TCTI", tcti.to_string())
        .env("TSS2_LOG", "all+NONE")
        .output()
        .expect("tpm2_getcap is installed by `make setup`");
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "tpm2_getcap handles-{kind}: {shown}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// A counter is made once for each secret, goes up by one, outlives the process and the TPM's power, and
/// is greater after somebody has taken it away (TPM 2.0 Part 1, NV counters).
fn counts(tcti: &Tcti, sessions: Option<Sessions>, dir: &Path) {
    let open = |name: &str, secret: u8| {
        let settings = Settings {
            tcti: tcti.clone(),
            secrets: Secrets::new(&[secret; 32]),
            sessions,
            healthy: None,
            state: StateDir::lock(&dir.join(name)).unwrap(),
        };
        TpmBackend::open(settings).unwrap()
    };
    let value = |backend: &TpmBackend| backend.counted().unwrap().unwrap();
    let backend = open("one", 1);
    assert_eq!(value(&backend), None);
    let first = backend.count(0).unwrap();
    assert_eq!(value(&backend), Some(first));
    assert_eq!(backend.count(first + 3).unwrap(), first + 3);
    assert_eq!(
        backend.count(first).unwrap(),
        first + 3,
        "it never goes back"
    );
    drop(backend);
    let other = open("other", 2);
    assert_eq!(value(&other), None, "of another secret");
    let of_other = other.count(0).unwrap();
    drop(other);
    let backend = open("one", 1);
    assert_eq!(value(&backend), Some(first + 3));
    let listed = handles(tcti, "nv-index");
    let of_owner = listed.iter().filter_map(|line| line.rsplit(' ').next());
    let of_owner = of_owner.filter(|handle| handle.len() == 9 && handle.starts_with("0x1"));
    for handle in of_owner.filter(|handle| ('8'..'C').contains(&handle.as_bytes()[3].into())) {
        let undefined = Command::new("tpm2_nvundefine")
            .args(["-C", "o", handle])
            .env("TPM2TOOLS_TCTI", tcti.to_string())
            .output()
            .unwrap();
        assert!(undefined.status.success(), "{undefined:?}");
    }
    assert_eq!(value(&backend), None);
    let again = backend.count(0).unwrap();
    assert!(
        again > of_other.max(first + 3),
        "begins above one that was undefined"
    );
}

#[test]
fn a_counter_in_a_tpm_only_goes_up() {
    let dir = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::start(dir.path());
    counts(&swtpm.tcti(), None, dir.path());
    nothing_is_left(&swtpm.tcti());
}

#[test]
fn a_counter_in_a_tpm_only_goes_up_in_encrypted_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::start(dir.path());
    counts(&device.tcti(), Some(Sessions::Encrypted), dir.path());
}
