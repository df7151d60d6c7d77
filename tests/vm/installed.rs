//! What an administrator does once: installs, sets up a keystore with the TPM, describes a workload,
//! makes its key. After it nothing is configured again, and no check repairs anything.

use crate::machine::{Machine, PAYLOAD};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The keystore's units.
pub const KEYSTORE_UNIT: &str = "assertd-keystore-tpm@tpm.service";
pub const KEYSTORE_SOCKET: &str = "assertd-keystore-tpm@tpm.socket";

/// The broker's, and the sockets that are enabled.
pub const BROKER_UNIT: &str = "assertd.service";
pub const SOCKETS: [&str; 3] = ["assertd.socket", "assertd-admin.socket", KEYSTORE_SOCKET];

/// Where its key files are (keystore_tpm).
pub const KEY_FILES: &str = "/var/lib/assertd-keystore/tpm/keys";

/// Who may ask for what, and what the assertions say.
pub const TARGET: &str = "bank";
pub const CLIENT_ID: &str = "payments-prod";
pub const AUTHORIZATION_SERVER: &str = "https://as.bank.example";

/// The workload: a service with a user of its own that asks once each time it is started.
pub const WORKLOAD_UNIT: &str = "payments.service";
pub const WORKLOAD_ANSWER: &str = "/run/payments.out";
pub const WORKLOAD_ERRORS: &str = "/run/payments.err";

/// What is installed, and an attacker, which is not.
const PROGRAMS: [&str; 8] = [
    "assertd",
    "assertctl",
    "assertd-keystore-pkcs11",
    "assertd-keystore-tpm",
    "assertd-witness",
    "assertd-publish",
    "assertd-courier",
    IMPOSTOR,
];
const IMPOSTOR: &str = "impostor";

/// Where the machine has the attacker.
pub const IMPOSTOR_PATH: &str = "/usr/local/bin/impostor";

/// How it describes the workload.
pub const WORKLOAD_FILE: &str = "/etc/assertd/conf.d/payments.toml";

/// Mounted where no other file system is.
const MOUNTED: &str = "/mnt/assertd";

/// The built programs, the repository's `systemd/` and the schema that it installs, side by side below
/// `target`.
///
/// # Errors
/// Names what is not built.
pub fn payload(target: &Path) -> Result<TempDir, String> {
    let dir = tempfile::Builder::new()
        .prefix("vm-payload-")
        .tempdir_in(target)
        .map_err(|e| format!("{}: {e}", target.display()))?;
    let us = std::env::current_exe().map_err(|e| e.to_string())?;
    let build = us.parent().expect("a program lies in a directory");
    let to = dir.path().join("build");
    std::fs::create_dir(&to).map_err(|e| e.to_string())?;
    for name in PROGRAMS {
        let from = build.join(name);
        std::fs::copy(&from, to.join(name))
            .map_err(|e| format!("{}: {e}; run: cargo build --workspace", from.display()))?;
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let copied = Command::new("cp")
        .args(["-r", "--parents", "systemd", "docs/assertd.schema.json"])
        .arg(dir.path())
        .current_dir(&repository)
        .status()
        .map_err(|e| format!("cp: {e}"))?;
    match copied.success() {
        true => Ok(dir),
        false => Err(format!("{}: cannot be copied", repository.display())),
    }
}

/// All of it.
///
/// # Errors
/// The first step that failed, and what it said.
pub fn install(machine: &Machine) -> Result<(), String> {
    let steps: [(&str, String); 4] = [
        ("systemd/install.sh", programs_and_units()),
        ("setting up the keystore", keystore()),
        ("describing the workload", workload()),
        ("assertctl apply", "assertctl apply --yes".to_string()),
    ];
    for (step, script) in steps {
        let done = machine.insist(&script).success();
        done.map_err(|why| format!("{step}: {why}"))?;
    }
    Ok(())
}

fn programs_and_units() -> String {
    format!(
        "mkdir -p {MOUNTED}
         udevadm wait --timeout=60 {PAYLOAD}
         mount -o ro {PAYLOAD} {MOUNTED}
         BUILD={MOUNTED}/build {MOUNTED}/systemd/install.sh
         cp {MOUNTED}/build/{IMPOSTOR} {IMPOSTOR_PATH}
         umount {MOUNTED}"
    )
}

/// A TPM needs no question answered.
fn keystore() -> String {
    "assertctl init --yes --backend tpm".to_string()
}

fn workload() -> String {
    format!(
        "systemd-sysusers --inline 'u payments - - -'
         cat >{WORKLOAD_FILE} <<'TOML'
[workload.payments]
match = {{ unit = \"{WORKLOAD_UNIT}\", user = \"payments\" }}

[workload.payments.target.{TARGET}]
profile = \"rfc7523\"
authorization_server = \"{AUTHORIZATION_SERVER}\"
client_id = \"{CLIENT_ID}\"
keystore = \"tpm\"
TOML
         cat >/etc/systemd/system/{WORKLOAD_UNIT} <<'UNIT'
[Service]
Type=oneshot
User=payments
ExecStart=/usr/bin/assertctl assertion --target {TARGET}
StandardOutput=truncate:{WORKLOAD_ANSWER}
StandardError=truncate:{WORKLOAD_ERRORS}
UNIT
         systemctl daemon-reload"
    )
}
