//! Directives of our units that must be as shipped. Some break what assertd is for if they are
//! added (who is calling), others are protection that a drop-in has taken away.

use super::super::finding::{Finding, IDENTITY, PROTECTION, Severity};
use super::{Unit, assigned};
use std::path::Path;

/// Directives that must have one of these values, and for whom.
const RULES: &[Rule] = &[
    // Who is calling (systemd.md §4): the first shows every other uid as 65534, the others hide
    // /proc/PID/cgroup or show it relative to our own.
    identity(
        "PrivateUsers",
        &["no"],
        "assertd sees every caller as nobody (65534)",
    ),
    identity(
        "ProtectProc",
        &["default", "ptraceable"],
        "assertd cannot read who its callers are",
    ),
    identity(
        "PrivatePIDs",
        &["no"],
        "assertd cannot see who its callers are",
    ),
    identity(
        "ProtectControlGroups",
        &["yes", "no"],
        "assertd reads a wrong unit of its callers",
    ),
    // Protection. Those of both first; a drop-in for a network HSM or a USB token takes some from a
    // keystore on purpose, so these are the broker's alone.
    both("NoNewPrivileges", "yes", Severity::Fail),
    both("ProtectSystem", "strict", Severity::Warn),
    both("ProtectHome", "yes", Severity::Warn),
    both("PrivateTmp", "yes", Severity::Warn),
    both("ProtectKernelTunables", "yes", Severity::Warn),
    both("ProtectKernelModules", "yes", Severity::Warn),
    both("ProtectKernelLogs", "yes", Severity::Warn),
    both("ProtectClock", "yes", Severity::Warn),
    both("RestrictSUIDSGID", "yes", Severity::Warn),
    both("RestrictRealtime", "yes", Severity::Warn),
    both("LockPersonality", "yes", Severity::Warn),
    both("LimitCORE", "0", Severity::Fail),
    broker("MemoryDenyWriteExecute", "yes"),
    broker("PrivateDevices", "yes"),
    broker("PrivateNetwork", "yes"),
];

/// With both of these a process can read the memory of every other one on the host.
const PAIR: [&str; 2] = ["cap_sys_ptrace", "cap_dac_read_search"];

struct Rule {
    directive: &'static str,
    allowed: &'static [&'static str],
    whom: Whom,
    why: Why,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    Broker,
    Both,
}

enum Why {
    Identity(&'static str),
    Protection(Severity),
}

const fn identity(
    directive: &'static str,
    allowed: &'static [&'static str],
    effect: &'static str,
) -> Rule {
    Rule {
        directive,
        allowed,
        whom: Whom::Broker,
        why: Why::Identity(effect),
    }
}

const fn both(directive: &'static str, value: &'static str, severity: Severity) -> Rule {
    Rule {
        directive,
        allowed: one(value),
        whom: Whom::Both,
        why: Why::Protection(severity),
    }
}

const fn broker(directive: &'static str, value: &'static str) -> Rule {
    Rule {
        directive,
        allowed: one(value),
        whom: Whom::Broker,
        why: Why::Protection(Severity::Warn),
    }
}

/// A list of one of the values above.
const fn one(value: &'static str) -> &'static [&'static str] {
    match value.as_bytes() {
        b"strict" => &["strict"],
        b"0" => &["0"],
        _ => &["yes"],
    }
}

/// What systemd is to be asked.
pub fn properties() -> String {
    let mut names: Vec<&str> = RULES.iter().map(|rule| rule.directive).collect();
    names.push("CapabilityBoundingSet");
    names.join(",")
}

/// What of a service's sandbox is not as shipped.
pub fn findings(unit: &Unit) -> Vec<Finding> {
    let mut found: Vec<Finding> = RULES
        .iter()
        .filter(|rule| rule.whom == Whom::Both || !unit.is_keystore())
        .filter_map(|rule| broken(rule, unit))
        .collect();
    let user = unit.property("User");
    if matches!(user, None | Some("root" | "0")) {
        let text = format!("{} runs as root", unit.name);
        found.push(PROTECTION.fail(text, remedy(unit, "User", None)));
    }
    let capabilities = unit.property("CapabilityBoundingSet").unwrap_or_default();
    if PAIR
        .iter()
        .all(|one| capabilities.split(' ').any(|it| it == *one))
    {
        let text = format!(
            "{} may have CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: the pair reads every secret on \
             the host",
            unit.name
        );
        found.push(PROTECTION.fail(text, remedy(unit, "CapabilityBoundingSet", None)));
    }
    found
}

/// A directive that systemd does not know is as good as not there.
fn broken(rule: &Rule, unit: &Unit) -> Option<Finding> {
    let directive = rule.directive;
    let value = unit.property(directive)?;
    if rule.allowed.contains(&value) {
        return None;
    }
    let set = format!("{} has {directive}={value}", unit.name);
    let remedy = remedy(unit, directive, rule.allowed.first().copied());
    Some(match &rule.why {
        Why::Identity(effect) => IDENTITY.fail(format!("{set}: {effect}"), remedy),
        Why::Protection(Severity::Fail) => PROTECTION.fail(taken(&set), remedy),
        Why::Protection(_) => PROTECTION.warn(taken(&set), remedy),
    })
}

fn taken(set: &str) -> String {
    format!("{set}: protection that it is shipped with is taken away")
}

/// Names the line of the drop-in, since the last one wins; or the line to write.
fn remedy(unit: &Unit, directive: &str, value: Option<&str>) -> String {
    let short = unit.name.strip_suffix(".service").unwrap_or(&unit.name);
    let again = format!("`systemctl daemon-reload && systemctl restart {short}`");
    let sets = |line: &&str| assigned(line, directive).is_some();
    let fragment = unit.property("FragmentPath").map(Path::new);
    let mut lines = unit
        .files
        .iter()
        .filter(|(path, _)| Some(path.as_path()) != fragment)
        .rev()
        .filter_map(|(path, text)| Some((path.display(), text.lines().rfind(sets)?)));
    match (lines.next(), value) {
        (Some((path, line)), _) => {
            format!("remove `{}` from {path}, then run {again}", line.trim())
        }
        (None, Some(value)) => format!(
            "write `{directive}={value}` below [Service] by `systemctl edit {short}`, then run \
             {again}"
        ),
        (None, None) => format!("install the unit that comes with assertd again, then run {again}"),
    }
}
