//! SIGKILL of either process, again and again: nobody has to come and help, and a client that tries
//! twice loses nothing.

use super::caller::pay;
use super::load::{Load, Manner};
use super::site::{BROKER_UNIT, audit_is_intact, keystore_state};
use super::units::{demand, is, main_pid, show, until, until_another};
use crate::boxed::SysBox;
use crate::installed::KEYSTORE_UNIT;
use crate::suite::Suite;

/// Of the keystore in a row; systemd's own limit would be 5 in 10 s.
const KILLS: usize = 50;

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check(
        "kills: 50 of the keystore in a row need no operator",
        || in_a_row(boxed),
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

fn in_a_row(boxed: &SysBox) -> Result<(), String> {
    pay(boxed)?.must_be(200)?;
    let restarts = || {
        show(boxed, KEYSTORE_UNIT, "NRestarts")
            .parse::<usize>()
            .unwrap_or(0)
    };
    let before = restarts();
    for _ in 0..KILLS {
        let pid = main_pid(boxed, KEYSTORE_UNIT);
        kill(boxed, KEYSTORE_UNIT)?;
        until_another(boxed, KEYSTORE_UNIT, pid)?;
    }
    let counted = restarts() - before;
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
    let pid = main_pid(boxed, unit);
    kill(boxed, unit)?;
    let back = until_another(boxed, unit, pid).and_then(|()| {
        until("the keystore is usable", || {
            keystore_state(boxed, "hsm") == "usable"
        })
    });
    let counts = load.end()?;
    back?;
    demand(counts.lost == 0, || counts.to_string())
}
