//! The standard site inside the box: installed by `systemd/install.sh` as a person would, a SoftHSM
//! token of the keystore's user, the PIN as an encrypted credential, workloads by unit, sockets
//! enabled, keys made.

use crate::boxed::{BUILD, SOURCES, SysBox};

/// The one keystore.
pub const KEYSTORE: &str = "hsm";
pub const KEYSTORE_UNIT: &str = "assertd-keystore-pkcs11@hsm.service";
pub const KEYSTORE_SOCKET: &str = "assertd-keystore-pkcs11@hsm.socket";

/// A keystore of the other kind. It has no configuration here: its unit alone is looked at.
pub const TPM_UNIT: &str = "assertd-keystore-tpm@hsm.service";
pub const TPM_SOCKET: &str = "assertd-keystore-tpm@hsm.socket";

/// Fetches what is published of its keys.
pub const COURIER_UNIT: &str = "assertd-courier.service";
pub const COURIER_SOCKET: &str = "assertd-courier.socket";

/// Tells assertd what executable a process runs.
pub const WITNESS_UNIT: &str = "assertd-witness.service";
pub const WITNESS_SOCKET: &str = "assertd-witness.socket";

/// Shows by HTTP what is published, and takes it elsewhere.
pub const PUBLISH_UNIT: &str = "assertd-publish.service";
pub const PUBLISH_SOCKET: &str = "assertd-publish.socket";
pub const SHIP_UNIT: &str = "assertd-ship.service";
pub const SHIP_PATH: &str = "assertd-ship.path";

/// User PIN of the token, and what nobody may find in any file, environment or argument.
pub const PIN: &str = "864213579";
const SO_PIN: &str = "975312468";

/// The token's label.
pub const TOKEN: &str = "workloads";

/// The configuration without its workloads; `MODULE` is replaced.
const ASSERTD_TOML: &str = r#"
[keystore.hsm]
backend = "pkcs11"
module = "MODULE"
token = { label = "workloads" }
pin = { credential = "hsm.pin" }
environment = { SOFTHSM2_CONF = "/etc/assertd/softhsm2.conf" }
socket = "/run/assertd/keystore-hsm.sock"
"#;

/// Two workloads by unit. `payments.service` may reach `bank`, `reports.service` may reach `archive`.
const WORKLOADS: [(&str, &str); 2] = [
    (
        "payments",
        r#"
[workload.payments]
match = { unit = "payments.service" }

[workload.payments.target.bank]
profile = "rfc7523"
authorization_server = "https://as.bank.example"
client_id = "payments-prod"
keystore = "hsm"
"#,
    ),
    (
        "reports",
        r#"
[workload.reports]
match = { unit = "reports.service" }

[workload.reports.target.archive]
profile = "rfc7523"
authorization_server = "https://as.archive.example"
client_id = "reports-prod"
keystore = "hsm"
"#,
    ),
];

const SOFTHSM2_CONF: &str = "directories.tokendir = /var/lib/assertd-keystore/hsm/tokens
objectstore.backend = file
log.level = ERROR
slots.removable = false
";

/// Programs, units, users, directories.
pub fn programs_and_units(boxed: &SysBox) -> Result<String, String> {
    boxed
        .run(&[
            "env",
            &format!("BUILD={BUILD}"),
            &format!("{SOURCES}/install.sh"),
        ])
        .success()
}

/// Where this tree keeps SoftHSM's module.
pub fn softhsm_module(boxed: &SysBox) -> Result<String, String> {
    let found = boxed.sh(
        "ls /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so \
                          2>/dev/null | head -n 1",
    );
    match found.stdout.trim() {
        "" => Err("no libsofthsm2.so in the tree; run: apt-get install softhsm2".to_string()),
        module => Ok(module.to_string()),
    }
}

/// Configuration and workloads.
pub fn configuration(boxed: &SysBox) -> Result<(), String> {
    let module = softhsm_module(boxed)?;
    boxed.write("/etc/assertd/softhsm2.conf", SOFTHSM2_CONF)?;
    boxed.write(
        "/etc/assertd/assertd.toml",
        ASSERTD_TOML.replace("MODULE", &module),
    )?;
    for (name, text) in WORKLOADS {
        boxed.write(&format!("/etc/assertd/conf.d/{name}.toml"), text)?;
    }
    Ok(())
}

/// A token in the keystore's state directory, made by the user who will use it.
pub fn token(boxed: &SysBox) -> Result<(), String> {
    let script = format!(
        "install -d -m 700 -o assertd-pkcs11 -g assertd-pkcs11 \
           /var/lib/assertd-keystore/{KEYSTORE} /var/lib/assertd-keystore/{KEYSTORE}/tokens
         setpriv --reuid=assertd-pkcs11 --regid=assertd-pkcs11 --init-groups \
           env SOFTHSM2_CONF=/etc/assertd/softhsm2.conf softhsm2-util --init-token --free \
           --label {TOKEN} --pin {PIN} --so-pin {SO_PIN}"
    );
    boxed.sh(&script).success().map(drop)
}

/// The PIN, encrypted with the box's host key under the name its unit asks for.
pub fn pin(boxed: &SysBox) -> Result<(), String> {
    let script = format!(
        "install -d -m 700 /etc/credstore.encrypted
         printf %s {PIN} | systemd-creds encrypt --with-key=host --name={KEYSTORE}.pin \
           - /etc/credstore.encrypted/assertd.{KEYSTORE}.pin"
    );
    boxed.sh(&script).success().map(drop)
}

/// Sockets only: the first request starts the services.
pub fn sockets(boxed: &SysBox) -> Result<(), String> {
    boxed
        .run(&[
            "systemctl",
            "enable",
            "--now",
            "assertd.socket",
            "assertd-admin.socket",
            KEYSTORE_SOCKET,
        ])
        .success()
        .map(drop)
}

/// The keys that the configuration asks for.
pub fn keys(boxed: &SysBox) -> Result<(), String> {
    boxed
        .run(&["assertctl", "apply", "--yes"])
        .success()
        .map(drop)
}

/// All of it.
pub fn standard(boxed: &SysBox) -> Result<(), String> {
    let at = |step: &'static str| move |why: String| format!("{step}: {why}");
    configuration(boxed).map_err(at("writing the configuration"))?;
    token(boxed).map_err(at("making the token"))?;
    pin(boxed).map_err(at("encrypting the PIN"))?;
    sockets(boxed).map_err(at("enabling the sockets"))?;
    keys(boxed).map_err(at("assertctl apply"))
}
