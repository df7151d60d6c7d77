//! What `make install` makes and `make uninstall` takes away, under a real systemd.

use crate::boxed::{SOURCES, SysBox};
use crate::installed::{
    self, KEYSTORE_SOCKET, KEYSTORE_UNIT, PUBLISH_SOCKET, SHIP_PATH, WITNESS_SOCKET,
};
use crate::suite::Suite;
use harness::{DEADLINE, wait_until};

/// Mode and owner of everything that matters, once sockets listen and services run.
const MODES: [(&str, &str); 21] = [
    ("/usr/bin/assertd", "755 root:root"),
    ("/usr/bin/assertctl", "755 root:root"),
    ("/usr/bin/assertd-keystore-pkcs11", "755 root:root"),
    ("/usr/bin/assertd-keystore-tpm", "755 root:root"),
    ("/usr/bin/assertd-witness", "755 root:root"),
    ("/usr/bin/assertd-publish", "755 root:root"),
    ("/usr/bin/assertd-courier", "755 root:root"),
    ("/usr/lib/systemd/system/assertd.service", "644 root:root"),
    ("/usr/share/assertd/assertd.schema.json", "644 root:root"),
    ("/etc/assertd", "750 root:assertd"),
    ("/etc/assertd/conf.d", "750 root:assertd"),
    ("/run/assertd", "755 root:root"),
    ("/run/assertd/assertd.sock", "666 root:root"),
    ("/run/assertd/admin.sock", "600 assertd:assertd"),
    ("/run/assertd/keystore-hsm.sock", "660 root:assertd"),
    ("/var/lib/assertd", "700 assertd:assertd"),
    ("/var/lib/assertd/audit", "700 assertd:assertd"),
    ("/var/lib/assertd-keystore", "755 root:root"),
    ("/var/lib/assertd-published", "755 assertd:assertd"),
    (
        "/var/lib/assertd-keystore/hsm",
        "700 assertd-pkcs11:assertd-pkcs11",
    ),
    ("/etc/credstore.encrypted", "700 root:root"),
];

/// What belongs to the site's owner, and stays.
const KEPT: [&str; 5] = [
    "/etc/assertd/assertd.toml",
    "/etc/assertd/conf.d/payments.toml",
    "/etc/credstore.encrypted/assertd.hsm.pin",
    "/var/lib/assertd/audit",
    "/var/lib/assertd-keystore/hsm/tokens",
];

/// On a site that serves.
pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check(
        "install: files, directories and sockets have their modes",
        || modes(boxed),
    );
    suite.check(
        "install: the users have no shell, no password and no other group",
        || users(boxed),
    );
    suite.check(
        "install: the witness, and who publishes, wait for somebody to enable them",
        || not_enabled(boxed),
    );
}

fn not_enabled(boxed: &SysBox) -> Result<(), String> {
    let is_enabled = |unit: &&str| {
        let shown = boxed.run(&["systemctl", "is-enabled", unit]);
        shown.stdout.trim() != "disabled"
    };
    let units = [WITNESS_SOCKET, PUBLISH_SOCKET, SHIP_PATH];
    match units.iter().find(|unit| is_enabled(unit)) {
        None => Ok(()),
        Some(unit) => Err(format!("{unit} is not disabled")),
    }
}

/// After which nothing is left to check.
pub fn run_last(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check("install: over a running site it breaks nothing", || {
        again(boxed)
    });
    suite.check(
        "uninstall: nothing of ours is left but what is the owner's",
        || uninstall(boxed),
    );
    suite.check(
        "install: after an uninstall the site is what it was",
        || back(boxed),
    );
}

fn modes(boxed: &SysBox) -> Result<(), String> {
    let wrong: Vec<String> = MODES
        .iter()
        .filter_map(|(path, right)| {
            let shown = boxed.run(&["stat", "--format=%a %U:%G", path]).success();
            match shown {
                Ok(is) if is.trim() == *right => None,
                Ok(is) => Some(format!("{path} is {}, not {right}", is.trim())),
                Err(why) => Some(why),
            }
        })
        .collect();
    all(wrong)
}

fn users(boxed: &SysBox) -> Result<(), String> {
    let mut wrong = Vec::new();
    for (user, groups) in [
        ("assertd", "assertd"),
        ("assertd-pkcs11", "assertd assertd-pkcs11"),
        ("assertd-tpm", "assertd assertd-tpm tss"),
        ("assertd-witness", "assertd-witness"),
        ("assertd-publish", "assertd-publish"),
        ("assertd-ship", "assertd-ship"),
        ("assertd-courier", "assertd assertd-courier"),
    ] {
        let script = format!(
            "getent passwd {user} | cut -d: -f7; passwd --status {user} | cut -d' ' -f2; \
             id -nG {user} | xargs -n 1 | LC_ALL=C sort | xargs"
        );
        let shown = boxed.sh(&script).success()?;
        let is: Vec<&str> = shown.lines().collect();
        let no_shell = is.first().is_some_and(|shell| shell.ends_with("/nologin"));
        if !no_shell || is.get(1..) != Some(&["L", groups]) {
            wrong.push(format!("{user}: {is:?}"));
        }
    }
    all(wrong)
}

fn again(boxed: &SysBox) -> Result<(), String> {
    installed::programs_and_units(boxed)?;
    boxed
        .run(&[
            "systemctl",
            "try-restart",
            "assertd-keystore-pkcs11@*.service",
            "assertd.service",
        ])
        .success()?;
    serves(boxed)
}

fn uninstall(boxed: &SysBox) -> Result<(), String> {
    boxed
        .run(&[&format!("{SOURCES}/install.sh"), "uninstall"])
        .success()?;
    let left = boxed
        .sh(
            "for path in /run/assertd /usr/share/assertd; do [ ! -e $path ] || echo $path; done
             find /usr/bin /usr/lib/systemd /usr/lib/*.d /etc/systemd /run/systemd/system \
               -xdev -name '*assert[dc]*' -not -name '*probe*'
             systemctl list-units --all --plain --no-legend 'assertd*'
             pgrep --list-full assertd || true",
        )
        .success()?;
    if !left.trim().is_empty() {
        return Err(format!("left:\n{left}"));
    }
    let gone: Vec<String> = KEPT
        .iter()
        .filter(|path| boxed.run(&["test", "-e", path]).code != Some(0))
        .map(|path| format!("{path} is gone"))
        .collect();
    all(gone)
}

fn back(boxed: &SysBox) -> Result<(), String> {
    installed::programs_and_units(boxed)?;
    installed::sockets(boxed)?;
    serves(boxed)
}

/// The keys that were made are there and can be used. A keystore is ready before its token is open.
fn serves(boxed: &SysBox) -> Result<(), String> {
    let mut why = String::new();
    let serves = wait_until(DEADLINE, || {
        let planned = boxed.run(&["assertctl", "config", "diff"]).success();
        why = match planned {
            Ok(planned) if planned.contains("new ") => format!("keys are missing: {planned}"),
            Ok(_) => String::new(),
            Err(why) => why,
        };
        why.is_empty()
    });
    if !serves {
        return Err(why);
    }
    let units = ["assertd.service", KEYSTORE_UNIT, KEYSTORE_SOCKET];
    boxed
        .run(&[&["systemctl", "is-active"], &units[..]].concat())
        .success()
        .map(drop)
}

fn all(wrong: Vec<String>) -> Result<(), String> {
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n")),
    }
}
