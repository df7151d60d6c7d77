//! SIGKILL of either process, again and again: nobody has to come and help, and a client that tries
//! twice loses nothing.

use super::caller::pay;
use super::load::{Load, Manner};
use super::site::{BROKER_UNIT, audit_is_intact, keystore_state, with_drop_in};
use super::units::{demand, is, main_pid, number, restarts, state, until, until_another};
use crate::boxed::SysBox;
use crate::installed::KEYSTORE_UNIT;
use crate::suite::Suite;
use std::time::Duration;

/// Of the keystore in a row; systemd's own limit would be 5 in 10 s.
const KILLS: u64 = 50;

/// As many kills under load are tried until one meets a request.
const ROUNDS: usize = 5;

/// Without the unit's pause between two starts, which spares the token: limits count starts in a
/// time, so this is the harder test, and the quicker one.
const AT_ONCE: &str = "[Service]\nRestartSec=0\n";

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check(
        "control: the box's systemd gives a unit up that ends again and again",
        || given_up(boxed),
    );
    suite.check(
        "kills: 50 of the keystore in a row need no operator",
        || with_drop_in(boxed, KEYSTORE_UNIT, AT_ONCE, || in_a_row(boxed)),
    );
    for (unit, name) in [(BROKER_UNIT, "assertd"), (KEYSTORE_UNIT, "the keystore")] {
        for (manner, connections) in [
            (Manner::RetryFresh, "new connections"),
            (Manner::RetryKept, "kept connections"),
        ] {
            let name =
                format!("kills: of {name} lose nothing that is tried twice, on {connections}");
            suite.check(&name, || under_load(boxed, unit, manner));
        }
    }
    suite.check(
        "kills: the audit log's chain holds over all of them",
        || audit_is_intact(boxed),
    );
}

fn kill(boxed: &SysBox, unit: &str) -> Result<(), String> {
    boxed
        .run(&["systemctl", "kill", "--signal=KILL", unit])
        .success()
        .map(drop)
}

/// What StartLimitIntervalSec=0 in our units is there against.
fn given_up(boxed: &SysBox) -> Result<(), String> {
    let limited = [
        "--unit=limited.service",
        "--property=Restart=always",
        "--property=RestartSec=0",
    ];
    let mut words = vec!["systemd-run", "--quiet"];
    words.extend(limited);
    words.push("false");
    boxed.run(&words).success()?;
    let given_up = until("limited.service is given up", || {
        state(boxed, "limited.service") == "failed"
    });
    // In this order: one that is not given up would be started again.
    let gone = boxed.sh("systemctl stop limited.service; systemctl reset-failed limited.service");
    given_up.and(gone.success().map(drop))
}

fn in_a_row(boxed: &SysBox) -> Result<(), String> {
    pay(boxed)?.must_be(200)?;
    let before = restarts(boxed, KEYSTORE_UNIT)?;
    for _ in 0..KILLS {
        let pid = main_pid(boxed, KEYSTORE_UNIT)?;
        kill(boxed, KEYSTORE_UNIT)?;
        until_another(boxed, KEYSTORE_UNIT, pid)?;
    }
    let counted = restarts(boxed, KEYSTORE_UNIT)?.saturating_sub(before);
    demand(counted == KILLS, || {
        format!("{counted} restarts after {KILLS} kills")
    })?;
    until("a request is answered", || {
        pay(boxed).is_ok_and(|answer| answer.status == 200)
    })?;
    is(boxed, KEYSTORE_UNIT, "active")
}

/// Until a kill has met a request: the unit may be back before anybody asks.
fn under_load(boxed: &SysBox, unit: &str, manner: Manner) -> Result<(), String> {
    let mut why = String::new();
    for _ in 0..ROUNDS {
        match one_under_load(boxed, unit, manner)? {
            Met::Yes => return Ok(()),
            Met::No(counts) => why = counts,
        }
    }
    Err(format!("{ROUNDS} kills met no request, the last: {why}"))
}

/// Whether a kill made any difference to a request; without that, that none is lost says nothing.
enum Met {
    Yes,
    No(String),
}

/// One kill, because a second one could meet the second try.
fn one_under_load(boxed: &SysBox, unit: &str, manner: Manner) -> Result<Met, String> {
    pay(boxed)?.must_be(200)?;
    let load = Load::start(boxed, manner)?;
    let pid = main_pid(boxed, unit)?;
    kill(boxed, unit)?;
    let back = until_another(boxed, unit, pid).and_then(|()| {
        until("the keystore is usable", || {
            keystore_state(boxed, "hsm") == "usable"
        })
    });
    let counts = load.end()?;
    back?;
    demand(counts.lost == 0, || counts.to_string())?;
    // A connection may also have waited at its socket from before the kill until after the restart.
    let waited = counts.slowest() >= outage(boxed, unit)?;
    let failed = counts.unavailable + counts.cut + counts.not_connected > 0;
    Ok(match failed || waited {
        true => Met::Yes,
        false => Met::No(counts.to_string()),
    })
}

/// From the unit's end to its start, as systemd saw it.
fn outage(boxed: &SysBox, unit: &str) -> Result<Duration, String> {
    let moment = |property| number(boxed, unit, property);
    let mut outage = None;
    until(&format!("systemd says when {unit} was down"), || {
        let (down, up) = (
            moment("ActiveExitTimestampMonotonic"),
            moment("ActiveEnterTimestampMonotonic"),
        );
        outage = up.zip(down).and_then(|(up, down)| up.checked_sub(down));
        outage.is_some()
    })?;
    let outage = outage.ok_or_else(|| format!("{unit} was not down"))?;
    Ok(Duration::from_micros(outage))
}
