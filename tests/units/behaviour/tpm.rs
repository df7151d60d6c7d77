//! A keystore with a TPM, in a box that has none: its unit starts, confines itself, and says what is
//! missing, one thing after the other. What it does with a TPM is tried with swtpm (keystore/tpm).

use super::caller::pay;
use super::site::{BROKER_UNIT, keystore_state, status, with_configuration};
use super::units::{demand, is, until};
use crate::boxed::SysBox;
use crate::chip::Chip;
use crate::suite::Suite;

const UNIT: &str = "assertd-keystore-tpm@chip.service";
const SOCKET: &str = "assertd-keystore-tpm@chip.socket";

const SECTION: &str = "\n[keystore.chip]\nbackend = \"tpm\"\n\
                       socket = \"/run/assertd/keystore-chip.sock\"\n";

const ENCRYPTED: &str = "/etc/credstore.encrypted/assertd.chip.auth";

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check(
        "tpm: its unit starts without secret and TPM, says which is missing, and finds one that comes",
        || {
            let tried = with_configuration(
                boxed,
                |old: &str| format!("{old}{SECTION}"),
                || says_what_is_missing(boxed),
            );
            let disable = ["systemctl", "disable", "--now", SOCKET, UNIT]; // init enables the socket
            let stopped = boxed.run(&disable).success();
            let removed = boxed.run(&["rm", "-f", ENCRYPTED]).success();
            tried.and(stopped.map(drop)).and(removed.map(drop))
        },
    );
}

fn says_what_is_missing(boxed: &SysBox) -> Result<(), String> {
    boxed.run(&["systemctl", "start", SOCKET]).success()?;
    boxed
        .run(&["systemctl", "restart", BROKER_UNIT])
        .success()?;
    failed_because(boxed, &["no auth secret", "`assertctl init --name chip`"])?;
    // As it says itself.
    let make = format!("assertctl init --yes --name chip && systemctl restart {UNIT}");
    boxed.sh(&make).success()?;
    failed_because(boxed, &["/dev/tpmrm0"])?;
    until("its unit runs", || is(boxed, UNIT, "active").is_ok())?;
    pay(boxed)?.must_be(200)?;
    // With a driver that is loaded late the node appears after the keystore.
    let chip = Chip::start(boxed)?;
    chip.open_to("root:tss", "660")?;
    until("keystore chip is usable, and nobody restarted it", || {
        keystore_state(boxed, "chip") == "usable"
    })?;
    drop(chip);
    boxed.run(&["journalctl", "--sync"]).success()?;
    let said = boxed.run(&["journalctl", "--output=cat", "--unit", UNIT]);
    let said = said.success()?;
    let part = "keystore chip: sandbox: fully enforced by Landlock";
    demand(said.lines().any(|line| line == part), || {
        format!("it does not say {part:?}:\n{said}")
    })
}

/// Waits until the broker knows the reason and all these are in it.
fn failed_because(boxed: &SysBox, parts: &[&str]) -> Result<(), String> {
    let why = || -> Option<String> {
        let status = status(boxed).ok()?;
        let keystores = status["keystores"].as_array()?;
        let chip = keystores.iter().find(|it| it["name"] == "chip")?;
        (chip["state"] != "usable").then(|| chip["why"].as_str().map(str::to_owned))?
    };
    let told = || why().is_some_and(|why| parts.iter().all(|part| why.contains(part)));
    until(
        &format!("keystore chip cannot serve because of {parts:?}"),
        told,
    )
    .map_err(|waited| format!("{waited}; it says {:?}", why()))
}
