//! Directives of our units that must be as shipped. Some break what assertd is for if they are
//! added (who is calling), others are protection that a drop-in has taken away. Not every directive
//! is looked at: those whose absence opens a way to a key, a PIN or the log.

use super::super::finding::{Finding, IDENTITY, PROTECTION, Severity};
use super::{Unit, assigned};
use keystore::config::Section;
use std::collections::BTreeSet;
use std::path::Path;

/// Directives that must have one of these values, and for whom.
const RULES: &[Rule] = &[
    // Who is calling (systemd.md §4): the first shows every other uid as 65534, the others hide
    // /proc/PID/cgroup or show it relative to our own. A keystore knows assertd and root by their
    // uids; who else there is it need not see.
    Rule {
        directive: "PrivateUsers",
        allowed: &["no"],
        whom: Whom::Both,
        why: Why::Identity("it sees every caller as nobody (65534), and refuses all"),
    },
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
    // Protection. Those of both first; a drop-in for a USB token takes some from a keystore on
    // purpose, so these are the broker's alone.
    both("NoNewPrivileges", "yes", Severity::Fail),
    both("ProtectSystem", "strict", Severity::Warn),
    both("ProtectHome", "yes", Severity::Warn),
    both("PrivateTmp", "yes", Severity::Warn),
    both("ProtectKernelTunables", "yes", Severity::Warn),
    both("ProtectKernelModules", "yes", Severity::Warn),
    both("ProtectKernelLogs", "yes", Severity::Warn),
    both("ProtectClock", "yes", Severity::Warn),
    both("ProtectHostname", "yes", Severity::Warn),
    both("PrivateMounts", "yes", Severity::Warn),
    both("PrivateIPC", "yes", Severity::Warn),
    both("RestrictNamespaces", "yes", Severity::Warn),
    both("RestrictSUIDSGID", "yes", Severity::Warn),
    both("RestrictRealtime", "yes", Severity::Warn),
    both("LockPersonality", "yes", Severity::Warn),
    both("LimitCORE", "0", Severity::Fail),
    broker("MemoryDenyWriteExecute", "yes"),
    broker("PrivateDevices", "yes"),
    Rule {
        directive: NETWORK,
        allowed: &["yes"],
        whom: Whom::WithoutNetwork,
        why: Why::Protection(Severity::Warn),
    },
];

/// What a process may ever be allowed.
const CAPABILITIES: &str = "CapabilityBoundingSet";

/// What a keystore's section opens by `network = true`.
const NETWORK: &str = "PrivateNetwork";

/// Directives that are lists, and what they must say.
const LISTS: &[List] = &[
    List {
        directive: "InaccessiblePaths",
        whom: Whom::Broker,
        says: Says::All(&[
            "/var/lib/assertd-keystore",
            "/etc/credstore",
            "/etc/credstore.encrypted",
        ]),
    },
    List {
        directive: "InaccessiblePaths",
        whom: Whom::Keystore,
        says: Says::All(&[
            "/var/lib/assertd",
            "/etc/credstore",
            "/etc/credstore.encrypted",
        ]),
    },
    List {
        directive: "NoExecPaths",
        whom: Whom::Both,
        says: Says::All(&["/"]),
    },
    List {
        directive: "IPAddressDeny",
        whom: Whom::Both,
        says: Says::All(&["0.0.0.0/0", "::/0"]), // "any" (systemd.resource-control(5))
    },
    List {
        directive: "RestrictAddressFamilies",
        whom: Whom::WithoutNetwork,
        says: Says::Only(&["AF_UNIX"]),
    },
    List {
        directive: CAPABILITIES,
        whom: Whom::Broker,
        says: Says::Only(&["cap_sys_ptrace"]), // for executable selectors
    },
    List {
        directive: CAPABILITIES,
        whom: Whom::Keystore,
        says: Says::Only(&[]),
    },
    // One of each group that the units leave out, and those that go around the others.
    List {
        directive: "SystemCallFilter",
        whom: Whom::Both,
        says: Says::OnlyWithout(&[
            "bpf",
            "io_uring_setup",
            "memfd_create",
            "mount",
            "process_vm_readv",
            "ptrace",
            "setuid",
        ]),
    },
];

/// With both of these a process can read the memory of every other one on the host.
const PAIR: [&str; 2] = ["cap_sys_ptrace", "cap_dac_read_search"];

struct Rule {
    directive: &'static str,
    allowed: &'static [&'static str],
    whom: Whom,
    why: Why,
}

struct List {
    directive: &'static str,
    whom: Whom,
    says: Says,
}

/// What a list must say.
enum Says {
    /// These, among others.
    All(&'static [&'static str]),
    /// These, and no other.
    Only(&'static [&'static str]),
    /// It must be a list of what is allowed, and these not in it.
    OnlyWithout(&'static [&'static str]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    Broker,
    Keystore,
    Both,
    /// All but the keystores whose section says `network = true`.
    WithoutNetwork,
}

impl Whom {
    fn is(self, unit: &Unit, section: Option<&Section>) -> bool {
        match self {
            Whom::Broker => !unit.is_keystore(),
            Whom::Keystore => unit.is_keystore(),
            Whom::Both => true,
            Whom::WithoutNetwork => !section.is_some_and(|section| section.network),
        }
    }
}

impl Says {
    /// The words are as systemctl shows them; `~` stands before a list of what is forbidden.
    fn holds<'a>(&self, mut words: impl Iterator<Item = &'a str>) -> bool {
        match self {
            Says::All(all) => {
                let words: Vec<&str> = words.collect();
                all.iter().all(|one| words.contains(one))
            }
            Says::Only(only) => words.all(|word| only.contains(&word)),
            Says::OnlyWithout(none) => {
                words.all(|word| !word.starts_with('~') && !none.contains(&word))
            }
        }
    }
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
    names.extend(LISTS.iter().map(|list| list.directive));
    names.join(",")
}

/// How many directives are looked at.
pub fn number() -> usize {
    let properties = properties();
    let names: BTreeSet<&str> = properties.split(',').collect();
    names.len() + 1 // and the user
}

/// What of a service's sandbox is not as shipped. A keystore's comes with its section.
pub fn findings(unit: &Unit, section: Option<&Section>) -> Vec<Finding> {
    let rules = RULES.iter().filter(|rule| rule.whom.is(unit, section));
    let lists = LISTS.iter().filter(|list| list.whom.is(unit, section));
    let mut found: Vec<Finding> = rules.filter_map(|rule| broken(rule, unit)).collect();
    found.extend(root(unit));
    // Both at once says why; that they are not as shipped goes without saying.
    let pair = pair(unit);
    let told = |list: &&List| pair.is_some() && list.directive == CAPABILITIES;
    let lists = lists.filter(|list| !told(list));
    found.extend(lists.filter_map(|list| other_list(list, unit)));
    found.extend(pair);
    found
}

fn root(unit: &Unit) -> Option<Finding> {
    let user = unit.property("User");
    matches!(user, None | Some("root" | "0")).then(|| {
        let text = format!("{} runs as root", unit.name);
        PROTECTION.fail(text, remedy(unit, "User", None))
    })
}

fn pair(unit: &Unit) -> Option<Finding> {
    let has = |one: &&str| unit.words(CAPABILITIES).any(|it| it == *one);
    PAIR.iter().all(has).then(|| {
        let text = format!(
            "{} may have CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: the pair reads every secret on \
             the host",
            unit.name
        );
        PROTECTION.fail(text, remedy(unit, CAPABILITIES, None))
    })
}

/// A directive that systemd does not know is as good as not there.
fn broken(rule: &Rule, unit: &Unit) -> Option<Finding> {
    let directive = rule.directive;
    let value = unit.property(directive)?;
    if rule.allowed.contains(&value) {
        return None;
    }
    let set = format!("{} has {directive}={value}", unit.name);
    let mut remedy = remedy(unit, directive, rule.allowed.first().copied());
    if directive == NETWORK
        && let Some(name) = unit.instance()
    {
        remedy += &format!(
            "; or, if its HSM is reached over the network, write `network = true` in \
             [keystore.{name}]"
        );
    }
    Some(match &rule.why {
        Why::Identity(effect) => IDENTITY.fail(format!("{set}: {effect}"), remedy),
        Why::Protection(Severity::Fail) => PROTECTION.fail(taken(&set), remedy),
        Why::Protection(_) => PROTECTION.warn(taken(&set), remedy),
    })
}

/// Long as some lists are, the value is not shown.
fn other_list(list: &List, unit: &Unit) -> Option<Finding> {
    let directive = list.directive;
    // Empty is a value here; a systemd that does not know it shows no line.
    unit.properties.get(directive)?;
    if list.says.holds(unit.words(directive)) {
        return None;
    }
    let set = format!("{} has another {directive}=", unit.name);
    Some(PROTECTION.warn(taken(&set), remedy(unit, directive, None)))
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
