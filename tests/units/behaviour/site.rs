//! What these checks add to the standard site: more workloads, the client, a user with a manager of
//! her own; and how its configuration is changed and put back.

use super::units::{demand, until};
use crate::boxed::{BUILD, SysBox};
use crate::installed::KEYSTORE_UNIT;

/// The broker's unit.
pub const BROKER_UNIT: &str = "assertd.service";

/// The main file of the configuration.
pub const CONFIGURATION: &str = "/etc/assertd/assertd.toml";

/// A user with a systemd of her own.
pub const USER: &str = "units-user";
pub const USER_ID: u32 = 61_789;

/// Workloads by every kind of unit there is: name, `match`, more lines. Each has one target, of its
/// own name.
const WORKLOADS: [(&str, &str, &str); 10] = [
    (
        "load",
        r#"{ unit = "load.service" }"#,
        "rate = 10000\nburst = 10000",
    ),
    ("early", r#"{ unit = "early.service" }"#, ""),
    (
        "by-path",
        r#"{ unit = "/system.slice/by-path.service" }"#,
        "",
    ),
    ("instance", r#"{ unit = "app@1.service" }"#, ""),
    ("scope", r#"{ unit = "batch.scope" }"#, ""),
    ("dynamic", r#"{ unit = "dynamic.service" }"#, ""),
    ("outer", r#"{ unit = "outer.service" }"#, ""),
    (
        "own",
        r#"{ user_unit = "own.service", user = "units-user" }"#,
        "",
    ),
    (
        "desk",
        r#"{ user = "units-user", interactive = false }"#,
        "",
    ),
    ("pod", r#"{ unit = "pod.service", container = true }"#, ""),
];

/// Adds it all and makes the keys.
pub fn add(boxed: &SysBox) -> Result<(), String> {
    let text: String = WORKLOADS
        .iter()
        .map(|(name, matches, more)| workload(name, matches, more))
        .collect();
    boxed.write("/etc/assertd/conf.d/behaviour.toml", text)?;
    let script = format!(
        "install -m 755 {BUILD}/asker /usr/bin/asker
         install -D -m 755 {BUILD}/libpkcs11_shim.so {SHIM}
         systemd-sysusers --inline 'u {USER} {USER_ID} - /home/{USER} /bin/sh'
         install -d -m 700 -o {USER} -g {USER} /home/{USER}
         systemctl restart {BROKER_UNIT}
         assertctl apply --yes"
    );
    let said = "run: cargo build --workspace --all-targets";
    boxed
        .sh(&script)
        .success()
        .map(drop)
        .map_err(|why| format!("{why} ({said})"))
}

/// The module that misbehaves when it is told to, where it is installed.
pub const SHIM: &str = "/usr/lib/assertd-test/libpkcs11_shim.so";

/// Text of a workload with one target of its own name.
pub fn workload(name: &str, matches: &str, more: &str) -> String {
    format!(
        "[workload.{name}]\nmatch = {matches}\n{more}\n\n[workload.{name}.target.{name}]\n\
         profile = \"rfc7523\"\nauthorization_server = \"https://as.{name}.example\"\n\
         client_id = \"{name}\"\nkeystore = \"hsm\"\n\n"
    )
}

/// Runs `body` with another text of the main file, then puts the old one back and starts both
/// services anew, whatever came of it.
pub fn with_configuration(
    boxed: &SysBox,
    change: impl FnOnce(&str) -> String,
    body: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let file = boxed.root().join(CONFIGURATION.trim_start_matches('/'));
    let old = std::fs::read_to_string(&file).map_err(|e| format!("{CONFIGURATION}: {e}"))?;
    boxed.write(CONFIGURATION, change(&old))?;
    let result = body();
    boxed.write(CONFIGURATION, &old)?;
    result.and(serves_again(boxed))
}

/// Runs `body` with a drop-in for a unit, then takes it away again.
pub fn with_drop_in(
    boxed: &SysBox,
    unit: &str,
    text: &str,
    body: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let path = format!("/etc/systemd/system/{unit}.d/behaviour.conf");
    boxed.write(&path, text)?;
    boxed.sh("systemctl daemon-reload").success()?;
    let result = body();
    let script = format!("rm {path}; systemctl daemon-reload; systemctl restart {unit}");
    boxed.sh(&script).success()?;
    result.and(serves_again(boxed))
}

/// Both services started anew, and the keystore usable.
pub fn serves_again(boxed: &SysBox) -> Result<(), String> {
    let script = format!("systemctl restart {KEYSTORE_UNIT} {BROKER_UNIT}");
    boxed.sh(&script).success()?;
    until("the keystore is usable", || {
        keystore_state(boxed, "hsm") == "usable"
    })
}

/// `assertctl status`, as data.
pub fn status(boxed: &SysBox) -> Result<serde_json::Value, String> {
    let text = boxed.run(&["assertctl", "status", "--json"]).success()?;
    serde_json::from_str(&text).map_err(|e| format!("assertctl status: {e}: {text}"))
}

/// `usable`, `failed`, `starting`; empty if assertd does not say.
pub fn keystore_state(boxed: &SysBox, name: &str) -> String {
    let Ok(status) = status(boxed) else {
        return String::new();
    };
    let keystores = status["keystores"].as_array().cloned().unwrap_or_default();
    let found = keystores.iter().find(|keystore| keystore["name"] == name);
    found.map_or_else(String::new, |keystore| {
        keystore["state"].as_str().unwrap_or_default().to_owned()
    })
}

/// The chain of the audit log holds over everything so far.
pub fn audit_is_intact(boxed: &SysBox) -> Result<(), String> {
    let verdict = boxed.run(&["assertctl", "audit", "verify"]).success()?;
    demand(verdict.starts_with("ok "), || verdict)
}
