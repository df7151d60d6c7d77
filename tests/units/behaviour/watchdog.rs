//! A process that stands still is replaced; one that has nothing to do is not.

use super::caller::{ask_as, pay};
use super::site::{BROKER_UNIT, SHIM, with_configuration, with_drop_in};
use super::units::{
    demand, journal_end, journal_since, main_pid, number, restarts, until, until_another,
};
use crate::boxed::SysBox;
use crate::installed::KEYSTORE_UNIT;
use crate::suite::Suite;
use harness::wait_until;
use std::time::Duration;

/// The broker's watchdog in these checks, in seconds, and for how long it is left idle. Four boxes on
/// two cores can keep a process from running for a second or two.
const WATCHDOG_S: u64 = 6;
const IDLE: Duration = Duration::from_secs(8);

/// Where the misbehaving module looks for its rules; the keystore may read it.
const RULES: &str = "/var/lib/assertd-keystore/hsm/shim.rules";

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check(
        "watchdog: an idle assertd is left alone, a stopped one is replaced",
        || {
            let drop_in = format!("[Service]\nWatchdogSec={WATCHDOG_S}s\n");
            with_drop_in(boxed, BROKER_UNIT, &drop_in, || broker(boxed))
        },
    );
    suite.check(
        "watchdog: a keystore whose module hangs is replaced",
        || keystore(boxed),
    );
}

fn broker(boxed: &SysBox) -> Result<(), String> {
    boxed
        .run(&["systemctl", "restart", BROKER_UNIT])
        .success()?;
    pay(boxed)?.must_be(200)?;
    let pid = main_pid(boxed, BROKER_UNIT)?;
    left_alone(boxed)?;
    let cursor = journal_end(boxed)?;
    boxed
        .run(&["systemctl", "kill", "--signal=STOP", BROKER_UNIT])
        .success()?;
    until_another(boxed, BROKER_UNIT, pid)?;
    by_watchdog(boxed, &cursor, BROKER_UNIT)?;
    pay(boxed)?.must_be(200).map(drop)
}

/// It is not started again, and not because its watchdog would be off: it goes on feeding it.
fn left_alone(boxed: &SysBox) -> Result<(), String> {
    let fed = || number(boxed, BROKER_UNIT, "WatchdogTimestampMonotonic");
    let (before, began) = (restarts(boxed, BROKER_UNIT)?, fed());
    // A question that systemd does not answer says nothing.
    let again = wait_until(IDLE, || {
        number(boxed, BROKER_UNIT, "NRestarts").is_some_and(|now| now != before)
    });
    demand(!again, || "an idle assertd was replaced".to_owned())?;
    until(
        "an idle assertd feeds its watchdog",
        || matches!((began, fed()), (Some(began), Some(now)) if now > began),
    )?;
    let after = restarts(boxed, BROKER_UNIT)?;
    demand(after == before, || {
        format!("an idle assertd was replaced: {before} restarts, then {after}")
    })
}

/// systemd said that it was its watchdog.
fn by_watchdog(boxed: &SysBox, cursor: &str, unit: &str) -> Result<(), String> {
    let said = journal_since(boxed, cursor, unit);
    demand(said.contains("Failed with result 'watchdog'"), || {
        format!("{unit} did not end by the watchdog:\n{said}")
    })
}

fn keystore(boxed: &SysBox) -> Result<(), String> {
    let with_shim = |old: &str| {
        let real = old
            .lines()
            .find_map(|line| line.strip_prefix("module = "))
            .unwrap_or_default();
        old.replace(
            &format!("module = {real}"),
            &format!("module = \"{SHIM}\"\nhang_limit_s = 2"),
        )
        .replace(
            "environment = {",
            &format!("environment = {{ P11SHIM_REAL = {real}, P11SHIM_RULES = \"{RULES}\","),
        )
    };
    let checked = with_configuration(boxed, with_shim, || {
        boxed
            .run(&["systemctl", "restart", KEYSTORE_UNIT, BROKER_UNIT])
            .success()?;
        pay(boxed)?.must_be(200)?; // the control: the module works, as long as it has no rule
        let (pid, cursor) = (main_pid(boxed, KEYSTORE_UNIT)?, journal_end(boxed)?);
        boxed.write(RULES, "C_Sign 1 hang\n")?;
        let answer = ask_as(boxed, &["--unit=payments.service"], "bank")?;
        boxed.run(&["rm", RULES]).success()?;
        until_another(boxed, KEYSTORE_UNIT, pid)?;
        by_watchdog(boxed, &cursor, KEYSTORE_UNIT)?;
        demand([200, 503].contains(&answer.status), || {
            format!("{answer:?}")
        })?;
        until("a request is answered", || {
            pay(boxed).is_ok_and(|answer| answer.status == 200)
        })?;
        let restarts = restarts(boxed, KEYSTORE_UNIT)?;
        demand(restarts > 0, || "systemd counts no restart".to_owned())
    });
    let _ = boxed.run(&["rm", "-f", RULES]);
    checked
}
