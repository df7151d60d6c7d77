//! The clock. Whether the kernel calls it synchronised is the machine's, and nothing that the box could
//! change: so the doctor is run as it is, and must say what strace(1) sees the kernel answer; and with
//! either answer put in the kernel's place, whatever kind of machine this is.

use super::report::{Report, examine, parse};
use crate::boxed::SysBox;
use crate::suite::Suite;

/// What the doctor must advise where nothing corrects the clock.
const REMEDY: &str =
    "run `timedatectl set-ntp true` (or start chronyd), and look again after a minute";

/// Where the kernel may not be asked.
const ASK_THE_HOST: &str = "timedatectl show -p NTPSynchronized";

/// Both ways to ask: which one adjtimex(3) takes is the C library's choice.
const CALLS: &str = "trace=adjtimex,clock_adjtime";

/// Where strace writes what it saw.
const TRACE: &str = "/run/doctor-clock.trace";

/// adjtimex(2): what the call returns, and struct timex up to `status`, which lies 40 bytes in on
/// every 64-bit machine.
enum Answer {
    /// TIME_OK, and no STA_UNSYNC (0x40).
    Synchronised,
    /// TIME_ERROR and STA_UNSYNC.
    Unsynchronised,
}

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check("doctor: the clock is not synchronised", || {
        not_synchronised(boxed)
    });
    suite.check(
        "doctor: the clock of this machine is called what the kernel calls it",
        || as_it_is(boxed),
    );
    suite.check("doctor: a clock that may not be asked about", || {
        not_to_be_asked(boxed)
    });
}

/// Found with its remedy while the kernel says so, and gone when it says otherwise.
fn not_synchronised(boxed: &SysBox) -> Result<(), String> {
    advises(&told(boxed, Answer::Unsynchronised)?, REMEDY)?;
    is_well(&told(boxed, Answer::Synchronised)?)
}

/// No answer but the kernel's own, read by strace and not by us.
fn as_it_is(boxed: &SysBox) -> Result<(), String> {
    let report = traced(boxed, &[])?;
    let trace = boxed.run(&["cat", TRACE]).success()?;
    let judge: fn(&Report) -> Result<(), String> = if trace.contains("INJECTED") {
        return Err(format!("not the kernel's own: {trace}"));
    } else if trace.contains("STA_UNSYNC") {
        |report| advises(report, REMEDY)
    } else if trace.contains("status=") {
        is_well
    } else if trace.contains("= -1 EPERM") {
        |report| advises(report, ASK_THE_HOST)
    } else {
        return Err(format!("strace saw no answer of the kernel: {trace:?}"));
    };
    let said = trace.lines().next().unwrap_or_default();
    judge(&report).map_err(|why| format!("the kernel says {said}; {why}"))?;
    // And as anybody runs it, with nobody in between.
    judge(&examine(boxed)?).map_err(|why| format!("the kernel says {said}; {why}"))
}

/// The doctor's report when this is the kernel's answer.
fn told(boxed: &SysBox, answer: Answer) -> Result<Report, String> {
    let (returned, status) = match answer {
        Answer::Synchronised => (0, "00000000"),
        Answer::Unsynchronised => (5, "40000000"),
    };
    let timex = "00".repeat(40) + status;
    let injected = |call: &str, argument: u8| {
        format!("inject={call}:retval={returned}:poke_exit=@arg{argument}={timex}")
    };
    let options = [injected("adjtimex", 1), injected("clock_adjtime", 2)];
    let report = traced(boxed, &options)?;
    let trace = boxed.run(&["cat", TRACE]).success()?;
    match trace.contains("INJECTED") {
        true => Ok(report),
        false => Err(format!("the doctor did not ask for the clock: {trace:?}")),
    }
}

fn traced(boxed: &SysBox, options: &[String]) -> Result<Report, String> {
    let mut words = vec![
        "strace",
        "--follow-forks",
        "--quiet=all",
        "--output",
        TRACE,
        "-e",
        CALLS,
    ];
    for option in options {
        words.extend(["-e", option]);
    }
    words.extend(["assertctl", "check", "--json"]);
    parse(&boxed.run(&words))
}

fn advises(report: &Report, remedy: &str) -> Result<(), String> {
    let found = report.find("D05", "warn");
    match found.and_then(|it| it["remedy"].as_str()) {
        Some(advice) if advice.contains(remedy) => Ok(()),
        _ => Err(format!("D05 does not advise {remedy:?}: {}", report.bad())),
    }
}

fn is_well(report: &Report) -> Result<(), String> {
    match report.find("D05", "ok") {
        Some(_) => Ok(()),
        None => Err(format!("D05 is not ok: {}", report.bad())),
    }
}

/// As in a container that forbids it.
fn not_to_be_asked(boxed: &SysBox) -> Result<(), String> {
    let said = boxed.run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        "--wait",
        "--pipe",
        "--property=SystemCallFilter=~adjtimex clock_adjtime",
        "--property=SystemCallErrorNumber=EPERM",
        "assertctl",
        "check",
        "--json",
    ]);
    advises(&parse(&said)?, ASK_THE_HOST)
}
