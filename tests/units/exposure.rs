//! What systemd itself says about the units: `systemd-analyze verify` and `security`. The score says
//! what a unit file asks for; what it gets is tried in [`crate::sandbox`].

use crate::boxed::SysBox;
use crate::installed::{
    COURIER_SOCKET, COURIER_UNIT, KEYSTORE_SOCKET, KEYSTORE_UNIT, PUBLISH_SOCKET, PUBLISH_UNIT,
    SHIP_PATH, SHIP_UNIT, TPM_SOCKET, TPM_UNIT, WITNESS_SOCKET, WITNESS_UNIT,
};
use crate::suite::{INDENT, Suite};

/// Scores above these fail; in tenths, as `--threshold` of systemd-analyze(1) is.
const MOST: [(&str, u32); 7] = [
    ("assertd.service", 8),
    (KEYSTORE_UNIT, 9),
    (TPM_UNIT, 9),
    (WITNESS_UNIT, 10),
    (PUBLISH_UNIT, 3),
    (SHIP_UNIT, 15),
    (COURIER_UNIT, 14), // it has the network
];

/// Drop-ins that are installed as examples, and the unit each is for.
const DROP_INS: [(&str, &str); 3] = [
    ("module-state.conf", KEYSTORE_UNIT),
    ("network-hsm.conf", KEYSTORE_UNIT),
    ("usb-token.conf", KEYSTORE_UNIT),
];

/// Runs all of these checks.
pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check("systemd-analyze verify: every unit is clean", || {
        verify(
            boxed,
            &[
                "assertd.service",
                "assertd.socket",
                "assertd-admin.socket",
                KEYSTORE_UNIT,
                KEYSTORE_SOCKET,
                TPM_UNIT,
                TPM_SOCKET,
                WITNESS_UNIT,
                WITNESS_SOCKET,
                PUBLISH_UNIT,
                PUBLISH_SOCKET,
                SHIP_UNIT,
                SHIP_PATH,
                COURIER_UNIT,
                COURIER_SOCKET,
            ],
        )
    });
    let examples = "systemd-analyze verify: so it is with every example of a drop-in";
    suite.check(examples, || drop_ins(boxed));
    for (unit, most) in MOST {
        let name = format!(
            "systemd-analyze security: {unit} at most {}.{}",
            most / 10,
            most % 10
        );
        suite.check(&name, || security(boxed, unit, most));
    }
}

/// Clean: it says nothing at all.
fn verify(boxed: &SysBox, units: &[&str]) -> Result<(), String> {
    let shown = boxed.run(&[&["systemd-analyze", "verify", "--man=no"], units].concat());
    let said = format!("{}{}", shown.stdout, shown.stderr);
    match (shown.code, said.is_empty()) {
        (Some(0), true) => Ok(()),
        (code, _) => Err(format!("exit {code:?}: {said}")),
    }
}

fn drop_ins(boxed: &SysBox) -> Result<(), String> {
    let examples = boxed.sh("ls /usr/share/assertd/drop-ins").success()?;
    for example in examples.lines() {
        let (_, unit) = DROP_INS
            .iter()
            .find(|(name, _)| *name == example)
            .ok_or_else(|| format!("{example} is installed and not in this list"))?;
        let dir = format!("/run/systemd/system/{unit}.d");
        let script = format!(
            "install -D -m 644 /usr/share/assertd/drop-ins/{example} {dir}/{example}
             systemctl daemon-reload"
        );
        boxed.sh(&script).success()?;
        let verified = verify(boxed, &[unit]);
        boxed
            .sh(&format!("rm -r {dir}; systemctl daemon-reload"))
            .success()?;
        verified.map_err(|why| format!("{example}: {why}"))?;
    }
    Ok(())
}

/// Of the unit as it is loaded, and of its file alone, as packagers ask.
fn security(boxed: &SysBox, unit: &str, most: u32) -> Result<(), String> {
    let version = boxed.run(&["systemctl", "--version"]).success()?;
    let version = version.lines().next().unwrap_or_default().to_string();
    let threshold = format!("--threshold={most}");
    let template = unit.replace("@hsm", "@");
    let file = format!("/usr/lib/systemd/system/{template}");
    for (how, more) in [
        ("live", vec![unit]),
        ("offline", vec!["--offline=true", &file]),
    ] {
        let common = ["systemd-analyze", "security", "--no-pager", &threshold];
        let shown = boxed.run(&[&common, more.as_slice()].concat());
        let total = shown.stdout.lines().last().unwrap_or_default();
        let score = total.split_once(": ").map_or(total, |(_, score)| score);
        println!("{INDENT}{version}, {how}: {unit} {score}");
        if shown.code != Some(0) {
            return Err(format!("{how}: {}\n{}", shown.stdout, shown.stderr));
        }
    }
    Ok(())
}
