//! Requests start services: the first one, an early one, and one that found a broken configuration.

use super::caller::{Answer, pay};
use super::site::{BROKER_UNIT, CONFIGURATION, serves_again};
use super::units::{demand, is, journal_end, journal_since, number, show, state, until};
use crate::boxed::SysBox;
use crate::installed::{KEYSTORE_SOCKET, KEYSTORE_UNIT};
use crate::suite::Suite;

/// A start that fails waits for 2 s before it ends; less than this between two is a circle.
const BETWEEN_STARTS_S: f64 = 1.5;

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check(
        "activation: the first request starts assertd, whose connection starts the keystore",
        || first_request(boxed),
    );
    suite.check(
        "activation: a unit that starts before basic.target is served",
        || early_unit(boxed),
    );
    suite.check(
        "activation: a broken configuration is no hot loop, and its repair needs nobody",
        || broken_configuration(boxed),
    );
}

/// One after the other: a broker that still runs would start its keystore again.
fn stop_both(boxed: &SysBox) -> Result<(), String> {
    for unit in [BROKER_UNIT, KEYSTORE_UNIT] {
        boxed.run(&["systemctl", "stop", unit]).success()?;
    }
    for (unit, wanted) in [
        (BROKER_UNIT, "inactive"),
        (KEYSTORE_UNIT, "inactive"),
        ("assertd.socket", "active"),
        ("assertd-admin.socket", "active"),
        (KEYSTORE_SOCKET, "active"),
    ] {
        is(boxed, unit, wanted)?;
    }
    Ok(())
}

fn first_request(boxed: &SysBox) -> Result<(), String> {
    stop_both(boxed)?;
    pay(boxed)?.must_be(200)?;
    is(boxed, BROKER_UNIT, "active")?;
    is(boxed, KEYSTORE_UNIT, "active")?;
    let by = show(boxed, KEYSTORE_UNIT, "TriggeredBy");
    demand(by == KEYSTORE_SOCKET, || {
        format!("the keystore is triggered by {by:?}")
    })
}

/// Basic.target is stopped, which stops nothing of ours, and reached again as at boot: a circle in
/// the ordering, or a service of ours that waits for basic.target, would show now.
fn early_unit(boxed: &SysBox) -> Result<(), String> {
    let unit = "[Unit]\nDefaultDependencies=no\nRequires=assertd.socket\n\
                After=sysinit.target assertd.socket\nBefore=basic.target\n\
                [Service]\nType=oneshot\nRemainAfterExit=yes\nStandardOutput=file:/run/early\n\
                ExecStart=/usr/bin/asker once early\n[Install]\nWantedBy=basic.target\n";
    boxed.write("/etc/systemd/system/early.service", unit)?;
    let answered = early_answer(boxed);
    let moment = |unit, property| number(boxed, unit, property).unwrap_or(0);
    let asked = moment("early.service", "ExecMainExitTimestampMonotonic");
    let basic = moment("basic.target", "ActiveEnterTimestampMonotonic");
    boxed
        .sh("systemctl start basic.target
             systemctl disable --quiet --now early.service; rm /etc/systemd/system/early.service
             systemctl daemon-reload")
        .success()?;
    answered?.must_be(200)?;
    demand(0 < asked && asked <= basic, || {
        format!("answered at {asked} us, basic.target at {basic} us")
    })
}

/// What early.service was answered on the way to basic.target.
fn early_answer(boxed: &SysBox) -> Result<Answer, String> {
    boxed
        .sh("systemctl stop basic.target; systemctl enable --quiet early.service")
        .success()?;
    stop_both(boxed)?;
    boxed
        .run(&["systemctl", "start", "basic.target"])
        .success()?;
    Answer::parse(&boxed.run(&["cat", "/run/early"]).success()?)
}

fn broken_configuration(boxed: &SysBox) -> Result<(), String> {
    let file = boxed.root().join(&CONFIGURATION[1..]);
    let good = std::fs::read_to_string(&file).map_err(|e| e.to_string())?;
    stop_both(boxed)?;
    let cursor = journal_end(boxed)?;
    boxed.write(CONFIGURATION, format!("{good}\n[keystore.hsm]\n"))?;
    let mut waiting = boxed
        .spawn(&["asker", "once", "bank"]) // of no unit: whoever it is, it waits in the backlog
        .map_err(|e| format!("nsenter: {e}"))?;
    let starts = || -> Vec<f64> {
        let said = journal_since(boxed, &cursor, BROKER_UNIT);
        let starting = said
            .lines()
            .filter(|line| line.contains("Starting assertd.service"));
        starting.filter_map(seconds).collect()
    };
    let again = until(
        "assertd is started twice by a connection that waits",
        || starts().len() >= 2,
    );
    let (starts, said) = (starts(), journal_since(boxed, &cursor, BROKER_UNIT));
    boxed.write(CONFIGURATION, &good)?;
    let served = until("assertd serves with the mended file", || {
        pay(boxed).is_ok_and(|answer| answer.status == 200)
    });
    let _ = waiting.kill(); // answered or not: its answer is a denial
    let _ = waiting.wait();
    let socket = state(boxed, "assertd.socket");
    again
        .and(served)
        .or_else(|why| serves_again(boxed).and(Err(why)))?;
    demand(said.contains("status=78/CONFIG"), || {
        format!("it did not end with 78:\n{said}")
    })?;
    demand(said.contains("assertd.toml:"), || {
        format!("the log does not say where the mistake is:\n{said}")
    })?;
    demand(socket == "active", || format!("assertd.socket is {socket}"))?;
    let pause = starts[1] - starts[0];
    demand(pause > BETWEEN_STARTS_S, || {
        format!("two starts in {pause} s")
    })
}

/// `[   12.345678] text`
fn seconds(line: &str) -> Option<f64> {
    let (moment, _) = line.strip_prefix('[')?.split_once(']')?;
    moment.trim().parse().ok()
}
