//! `systemctl reload assertd` waits for the verdict; a bad file changes nothing.

use super::caller::{ask_as, pay};
use super::site::{BROKER_UNIT, workload};
use super::units::{demand, is, journal_end, journal_since, main_pid};
use crate::boxed::{Outcome, SysBox};
use crate::suite::Suite;

const FILE: &str = "/etc/assertd/conf.d/reloaded.toml";

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check(
        "reload: a new workload is served, by the same process",
        || {
            let result = good(boxed);
            result.and(without_the_file(boxed))
        },
    );
    suite.check(
        "reload: a bad file fails, is shown with its place, and the old configuration serves",
        || {
            let result = bad(boxed);
            result.and(without_the_file(boxed))
        },
    );
}

fn reload(boxed: &SysBox) -> Outcome {
    boxed.run(&["systemctl", "reload", BROKER_UNIT])
}

fn without_the_file(boxed: &SysBox) -> Result<(), String> {
    boxed.run(&["rm", FILE]).success()?;
    reload(boxed).success().map(drop)
}

fn good(boxed: &SysBox) -> Result<(), String> {
    pay(boxed)?.must_be(200)?;
    let pid = main_pid(boxed, BROKER_UNIT)?;
    let ask = || ask_as(boxed, &["--unit=reloaded.service"], "reloaded");
    ask()?.must_be(403)?;
    boxed.write(
        FILE,
        workload("reloaded", r#"{ unit = "reloaded.service" }"#, ""),
    )?;
    reload(boxed).success()?;
    boxed.run(&["assertctl", "apply", "--yes"]).success()?;
    ask()?.must_be(200)?;
    is(boxed, BROKER_UNIT, "active")?;
    let same = main_pid(boxed, BROKER_UNIT)? == pid;
    demand(same, || "assertd is another process".to_owned())
}

fn bad(boxed: &SysBox) -> Result<(), String> {
    pay(boxed)?.must_be(200)?;
    let (pid, cursor) = (main_pid(boxed, BROKER_UNIT)?, journal_end(boxed)?);
    boxed.write(
        FILE,
        "[workload.reloaded]\nmatch = { unit = \"a.service\" }\nownr = \"x\"\n",
    )?;
    let failed = reload(boxed);
    demand(failed.code.is_some_and(|code| code != 0), || {
        format!("it did not fail: {failed:?}")
    })?;
    let said = journal_since(boxed, &cursor, BROKER_UNIT);
    let place = "reloaded.toml:3:1: unknown";
    demand(said.contains(place), || {
        format!("the log does not have {place:?}:\n{said}")
    })?;
    let status = boxed.run(&["systemctl", "status", "--no-pager", BROKER_UNIT]);
    demand(status.stdout.contains(place), || {
        format!(
            "systemctl status does not have {place:?}:\n{}",
            status.stdout
        )
    })?;
    pay(boxed)?.must_be(200)?;
    is(boxed, BROKER_UNIT, "active")?;
    demand(main_pid(boxed, BROKER_UNIT)? == pid, || {
        "assertd is another process".to_owned()
    })
}
