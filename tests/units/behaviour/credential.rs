//! The PIN's way: encrypted in a file, readable by the keystore's user alone, and said when missing.

use super::caller::pay;
use super::site::{BROKER_UNIT, status, with_configuration};
use super::units::{demand, is, main_pid, until};
use crate::boxed::SysBox;
use crate::installed::{KEYSTORE_UNIT, PIN};
use crate::suite::Suite;

const ENCRYPTED: &str = "/etc/credstore.encrypted/assertd.hsm.pin";

const SPARE_UNIT: &str = "assertd-keystore-pkcs11@spare.service";
const SPARE_SOCKET: &str = "assertd-keystore-pkcs11@spare.socket";

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check(
        "credential: the PIN is encrypted at rest and readable by the keystore's user alone",
        || readable_by_one(boxed),
    );
    suite.check(
        "credential: a keystore without its PIN says so and what to do, and the other one serves",
        || missing(boxed),
    );
}

fn readable_by_one(boxed: &SysBox) -> Result<(), String> {
    pay(boxed)?.must_be(200)?; // the keystore runs, and has used the PIN
    let pid = main_pid(boxed, KEYSTORE_UNIT)?;
    let places = [
        format!("/run/credentials/{KEYSTORE_UNIT}/hsm.pin"),
        format!("/proc/{pid}/root/run/credentials/{KEYSTORE_UNIT}/hsm.pin"),
    ];
    let read_as = |user: &str, place: &str| {
        let groups = if user == "nobody" {
            "--clear-groups"
        } else {
            "--init-groups"
        };
        let user = format!("--reuid={user}");
        boxed.run(&["setpriv", &user, "--regid=65534", groups, "cat", place])
    };
    // The control: there it is.
    let read = read_as("assertd-pkcs11", &places[0]);
    demand(read.stdout.trim() == PIN, || {
        format!("the keystore's user reads {read:?}")
    })?;
    for user in ["assertd", "nobody"] {
        for place in &places {
            let read = read_as(user, place);
            demand(
                read.code == Some(1) && read.stderr.contains("Permission denied"),
                || format!("{user} reads {place}: {read:?}"),
            )?;
        }
    }
    let script = format!(
        "look() {{ if grep -aq {PIN}; then echo \"in $1\"; fi; }}
         look 'the file' <{ENCRYPTED}
         base64 -d {ENCRYPTED} | look 'the file, decoded'
         look 'the environment' </proc/{pid}/environ
         look 'the arguments' </proc/{pid}/cmdline
         systemd-creds decrypt --name=hsm.pin {ENCRYPTED} - | look 'what the file decrypts to'"
    );
    let found = boxed.sh(&script).success()?;
    // Of these the last one is the control.
    demand(found == "in what the file decrypts to\n", || {
        format!("the PIN is found {found}")
    })?;
    let mode = boxed.run(&["stat", "-c", "%a", &places[0]]).success()?;
    // 257 gives it by an access list, which shows as the group's bits.
    demand(["400", "440"].contains(&mode.trim()), || {
        format!("its mode is {mode}")
    })
}

fn missing(boxed: &SysBox) -> Result<(), String> {
    let with_spare = |old: &str| {
        let hsm = old
            .split_once("[keystore.hsm]")
            .map_or("", |(_, section)| section);
        let section = hsm.split("\n[").next().unwrap_or_default();
        format!(
            "{old}\n[keystore.spare]{}\n",
            section.replace("hsm.", "spare.").replace("-hsm", "-spare")
        )
    };
    let checked = with_configuration(boxed, with_spare, || {
        boxed.run(&["systemctl", "start", SPARE_SOCKET]).success()?;
        boxed
            .run(&["systemctl", "restart", BROKER_UNIT])
            .success()?;
        let why = || -> Option<String> {
            let status = status(boxed).ok()?;
            let keystores = status["keystores"].as_array()?.clone();
            let spare = keystores
                .into_iter()
                .find(|keystore| keystore["name"] == "spare")?;
            (spare["state"] != "usable").then(|| spare["why"].as_str().map(str::to_owned))?
        };
        until("keystore spare cannot serve because of its PIN", || {
            why().is_some_and(|why| why.contains("PIN") && why.contains("spare.pin"))
        })
        .map_err(|waited| format!("{waited}; it says {:?}", why()))?;
        let text = boxed.run(&["assertctl", "status"]).success()?;
        demand(
            text.contains("no PIN") && text.contains("systemd-creds encrypt"),
            || format!("status names no remedy:\n{text}"),
        )?;
        is(boxed, SPARE_UNIT, "active")?;
        pay(boxed)?.must_be(200).map(drop)
    });
    let stopped = boxed
        .run(&["systemctl", "stop", SPARE_SOCKET, SPARE_UNIT])
        .success();
    checked.and(stopped.map(drop))
}
