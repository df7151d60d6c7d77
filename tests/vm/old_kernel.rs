//! Debian 12's own kernel has no SO_PEERPIDFD: workloads are refused unless they allow the fallback, the
//! administrator is told so in three places, and ten thousand impostors gain nothing by the fallback
//! (docs/threat-model.md). Everything runs as it is installed: real units, real users.

use crate::installed::{
    BROKER_UNIT, IMPOSTOR_PATH, TARGET, WORKLOAD_ANSWER, WORKLOAD_ERRORS, WORKLOAD_FILE,
    WORKLOAD_UNIT,
};
use crate::machine::Machine;
use crate::request::{Registered, assertion, published, verified};
use harness::suite::{INDENT, Site, Suite};
use harness::{DEADLINE, wait_until};
use serde_json::Value;

/// The option by its number, which no library here knows, on a pair of sockets (socket(7)).
const PROBE: &str = "perl -MSocket -e 'socketpair(A, B, AF_UNIX, SOCK_STREAM, 0) or die; \
    print getsockopt(A, SOL_SOCKET, 77) ? \"present\" : \"no: $!\"'";

/// How the impostor's runs are cut, so that each fits a command's deadline: on an emulated processor one
/// takes 5 s, and ten times that where others want the real one too.
const RUNS: usize = 20;
const ATTEMPTS: usize = 500;

/// A unit with the workload's user, and nothing else in common.
const LIAR_UNIT: &str = "liar.service";

pub fn run(suite: &mut Suite<'_>, machine: &Machine) {
    let mut kernel = String::new();
    suite.check(
        "old kernel: it is Linux 6.1 and has no SO_PEERPIDFD",
        || {
            kernel = is_old(machine)?;
            Ok(())
        },
    );
    println!("{INDENT}{kernel}");
    let mut said = Vec::new();
    suite.check(
        "old kernel: a workload that does not allow the fallback is denied like anybody",
        || denied(machine),
    );
    suite.check(
        "old kernel: log, status and doctor say what to do about it",
        || {
            said = told(machine)?;
            Ok(())
        },
    );
    for line in said {
        println!("{INDENT}{line}");
    }
    suite.check(
        "old kernel: with `allow_pid_fallback` it is served, and recorded with the weaker proof",
        || served(machine),
    );
    let mut counts = String::new();
    suite.check(
        "old kernel: ten thousand that took a number over gain nothing",
        || {
            counts = impostors(machine)?;
            Ok(())
        },
    );
    println!("{INDENT}{counts}");
}

fn is_old(machine: &Machine) -> Result<String, String> {
    let shown = machine.sh(&format!("uname -r; {PROBE}")).success()?;
    match shown.split_once('\n') {
        Some((release, "no: Protocol not available")) if release.starts_with("6.1.") => {
            Ok(format!("Linux {release}, SO_PEERPIDFD: ENOPROTOOPT"))
        }
        _ => Err(shown),
    }
}

/// What the workload is told is what a stranger is told, but for the id.
fn denied(machine: &Machine) -> Result<(), String> {
    let script = format!(
        "! systemctl start {WORKLOAD_UNIT} 2>/dev/null
         cat {WORKLOAD_ANSWER} {WORKLOAD_ERRORS}
         systemd-run --quiet --wait --pipe --collect --unit=stranger.service \
           assertctl assertion --target {TARGET} 2>&1 || true"
    );
    let shown = machine.sh(&script).success()?;
    let lines: Vec<&str> = shown.lines().collect();
    let without_id = |line: &str| -> Option<String> {
        let (before, rest) = line.split_once('(')?;
        Some(format!("{before}{}", rest.split_once(')')?.1))
    };
    let [workload, stranger] = lines[..] else {
        return Err(shown);
    };
    if without_id(workload).is_none() || without_id(workload) != without_id(stranger) {
        return Err(format!("told apart: {shown}"));
    }
    // A denial is answered before its record is on the disk.
    let mut reasons = Err(String::new());
    let _both = wait_until(DEADLINE, || {
        reasons = denials(machine);
        reasons.as_ref().is_ok_and(|reasons| reasons.len() >= 2)
    });
    let reasons = reasons?;
    match &reasons[..] {
        [workload, stranger] if workload == "weak_proof" && stranger != "weak_proof" => Ok(()),
        _ => Err(format!("the audit log says {reasons:?}")),
    }
}

/// Why who was denied, by the log so far.
fn denials(machine: &Machine) -> Result<Vec<Value>, String> {
    let records = records(machine)?.into_iter();
    let denied = records.filter(|record| record["kind"] == "denied");
    Ok(denied.map(|record| record["reason"].clone()).collect())
}

/// The lines that say it.
fn told(machine: &Machine) -> Result<Vec<String>, String> {
    let line = |script: &str, part: &str| -> Result<String, String> {
        let shown = machine.sh(script).success()?;
        let wanted = |line: &&str| line.contains("SO_PEERPIDFD") && line.contains(part);
        let found = shown.lines().find(wanted);
        found
            .map(|line| line.trim().to_string())
            .ok_or_else(|| format!("{script}: {shown}"))
    };
    let journal = format!("journalctl --unit={BROKER_UNIT} --output=cat --no-pager");
    let doctor = machine.run(&["assertctl", "check"]).success()?;
    let remedy = doctor
        .lines()
        .find(|line| line.contains("allow_pid_fallback = true"));
    let remedy = remedy.ok_or_else(|| format!("no remedy: {doctor}"))?;
    Ok(vec![
        line(&journal, "weak_proof")?,
        line("assertctl status", "weak_proof")?,
        line("assertctl check", "weak_proof")?,
        remedy.trim().to_string(),
    ])
}

fn served(machine: &Machine) -> Result<(), String> {
    let script = format!(
        "sed -i 's/^match = .*/&\\nallow_pid_fallback = true/' {WORKLOAD_FILE}; assertctl reload"
    );
    machine.sh(&script).success()?;
    let registered = Registered {
        jwks: published(machine)?,
    };
    verified(&assertion(machine)?, &registered)?;
    let records = records(machine)?;
    let decision = records.iter().rfind(|record| record["kind"] == "decision");
    match decision {
        Some(record) if record["peer_proof"] == "pid" => Ok(()),
        other => Err(format!("recorded as {other:?}")),
    }
}

/// The victim is the workload's own unit, the liar another one of the same user: neither uid nor gid
/// tells them apart. Returns what was counted, all runs together.
fn impostors(machine: &Machine) -> Result<String, String> {
    let before = decisions(machine)?;
    let script = format!(
        "mkdir -p /run/systemd/system/{WORKLOAD_UNIT}.d
         printf '[Service]\\nType=simple\\nExecStart=\\nExecStart=sleep infinity\\n' \
           >/run/systemd/system/{WORKLOAD_UNIT}.d/victim.conf
         systemctl daemon-reload
         systemctl start {WORKLOAD_UNIT}
         systemd-run --quiet --unit={LIAR_UNIT} --property=User=payments sleep infinity"
    );
    machine.sh(&script).success()?;
    let powers = "+checkpoint_restore,+kill,+dac_override";
    let attack = format!(
        "group() {{ echo /sys/fs/cgroup$(systemctl show -P ControlGroup $1); }}
         exec setpriv --reuid=payments --regid=payments --clear-groups \
           --inh-caps={powers} --ambient-caps={powers} \
           {IMPOSTOR_PATH} /run/assertd/assertd.sock {TARGET} \
             $(systemctl show -P MainPID {BROKER_UNIT}) {ATTEMPTS} \
             $(group {LIAR_UNIT}) $(group {WORKLOAD_UNIT})"
    );
    let mut total = serde_json::Map::new();
    for _ in 0..RUNS {
        let shown = machine.sh(&attack).success()?;
        let counts: Value = serde_json::from_str(&shown).map_err(|e| format!("{e}: {shown}"))?;
        for control in ["before", "after"] {
            let control = &counts["controls"][control];
            if control["victim"] != "200" || control["liar"] != "403" {
                return Err(format!("the controls are wrong: {counts}"));
            }
        }
        for (name, count) in counts.as_object().into_iter().flatten() {
            if let Some(count) = count.as_u64() {
                let sum = total.get(name).and_then(Value::as_u64).unwrap_or(0) + count;
                total.insert(name.clone(), sum.into());
            }
        }
    }
    let counts = Value::Object(total);
    let number = |name: &str| counts[name].as_u64().unwrap_or(0);
    let all = (RUNS * ATTEMPTS) as u64;
    if number("attempts") != all
        || number("reused") < all * 9 / 10
        || number("while_stopped") < all / 3
    {
        return Err(format!("too few numbers were really taken over: {counts}"));
    }
    let signed = decisions(machine)? - before;
    match (number("assertions"), signed) {
        // The victim's controls alone.
        (0, controls) if controls == 2 * RUNS as u64 => Ok(counts.to_string()),
        _ => Err(format!("{signed} assertions were decided on: {counts}")),
    }
}

fn decisions(machine: &Machine) -> Result<u64, String> {
    let records = records(machine)?;
    let decided = records.iter().filter(|record| record["kind"] == "decision");
    Ok(decided.count() as u64)
}

fn records(machine: &Machine) -> Result<Vec<Value>, String> {
    let shown = machine
        .run(&["assertctl", "audit", "show", "-n", "1000", "--json"])
        .success()?;
    let parsed = shown
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|e| format!("{e}: {line}")));
    parsed.collect()
}
