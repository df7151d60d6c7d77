//! SIGKILL of either process, again and again: nobody has to come and help, and a client that tries
//! twice loses nothing.

use super::caller::pay;
use super::load::{Load, Manner};
use super::site::{BROKER_UNIT, audit_is_intact, keystore_state, with_drop_in};
use super::units::{demand, is, main_pid, restarts, state, until, until_another};
use crate::boxed::SysBox;
use crate::installed::KEYSTORE_UNIT;
use crate::suite::Suite;

/// Of the keystore in a row; systemd's own limit would be 5 in 10 s.
const KILLS: u64 = 50;

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
    let reset = boxed.run(&["systemctl", "reset-failed", "limited.service"]);
    given_up.and(reset.success().map(drop))
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

/// One kill, because a second one could meet the second try.
fn under_load(boxed: &SysBox, unit: &str, manner: Manner) -> Result<(), String> {
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
    if unit == BROKER_UNIT && manner == Manner::RetryKept {
        // The control: the clients' connections died, and they noticed.
        demand(counts.cut > 0, || counts.to_string())?;
    }
    demand(counts.lost == 0, || counts.to_string())
}
