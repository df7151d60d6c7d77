//! The TPM of each keystore that has one, seen from outside: its device node, who may open it, and
//! what the keystore's unit lets it reach. No command is sent to it; what a TPM says of itself its
//! keystore says, where it runs.

use super::access::{Want, may};
use super::finding::{Finding, TPM_OPENS, TPM_PROGRAM, TPM_REACH, TPM_REAL, TPM_SHARED, TPM_THERE};
use super::host::{self, Entry, EntryKind};
use super::site::{Site, Users};
use super::units::{Unit, Units};
use crate::ctl::account::{self, Account};
use crate::ctl::tpm::{self, Behind, Missing, Node};
use keystore::config::{BackendKind, Section, TCTI, Tcti};
use std::path::Path;

/// What was seen of one keystore.
pub struct Facts {
    keystore: String,
    tcti: Tcti,
    /// What stands at its node, or what there is instead; nothing if it needs none.
    node: Option<Result<Node, Missing>>,
    /// Whether the keystore's user may open it; nothing if it cannot be asked.
    opens: Option<bool>,
    /// Whether its program runs, or why not and what helps.
    program: Result<(), (String, String)>,
    /// Its unit, where one runs it.
    unit: Option<Unit>,
}

/// Looks.
pub fn look(site: &Site, units: &Units, users: &Result<Users, String>) -> Vec<Facts> {
    let users = users.as_ref().ok();
    let user = users.and_then(|it| it.keystore(BackendKind::Tpm));
    let with_tpm = site.keystores.iter().filter_map(|(name, section)| {
        let is_tpm = section.backend == BackendKind::Tpm;
        let tcti = tcti(section).filter(|_| is_tpm)?;
        let node = tcti
            .device()
            .map(|path| tpm::node(path).map_err(|_| tpm::missing()));
        let opens = match (&node, user) {
            (Some(Ok(node)), Some(user)) => Some(opens(user, node)),
            _ => None,
        };
        Some(Facts {
            keystore: name.clone(),
            tcti,
            node,
            opens,
            program: tpm::program(),
            unit: units
                .unit(&section.backend.unit(name, "service"))
                .filter(|_| section.socket.is_some())
                .cloned(),
        })
    });
    with_tpm.collect()
}

/// One that is not understood keeps the configuration from being loaded, which is said there.
fn tcti(section: &Section) -> Option<Tcti> {
    Tcti::parse(section.tcti.as_deref().unwrap_or(TCTI)).ok()
}

/// By mode and groups; where these say no the kernel has the last word, since an ACL may say yes.
fn opens(user: &Account, node: &Node) -> bool {
    let entry = Entry {
        path: node.path.clone(),
        kind: EntryKind::Other,
        uid: node.uid,
        gid: node.gid,
        mode: node.mode,
    };
    may(user, &entry, Want::Use) || host::allows(user, &node.path, Want::Use) == Some(true)
}

/// Judges.
pub fn findings(site: &Site, facts: &[Facts], users: &Result<Users, String>) -> Vec<Finding> {
    let users = users.as_ref().ok();
    let user = users.and_then(|it| it.keystore(BackendKind::Tpm));
    let user = user.map_or(BackendKind::Tpm.user(), |account| &account.name);
    facts
        .iter()
        .flat_map(|facts| of_one(site, facts, user))
        .collect()
}

fn of_one(site: &Site, facts: &Facts, user: &str) -> Vec<Finding> {
    let name = &facts.keystore;
    let again = site.restart_keystore(name, None);
    let mut found = Vec::new();
    if let Err((why, remedy)) = &facts.program {
        let text = format!("keystore {name} cannot run: {why}");
        found.push(TPM_PROGRAM.fail(text, format!("{remedy}, then {again}")));
    }
    match &facts.node {
        None => found.push(emulator(facts, &facts.tcti.to_string(), &again)),
        Some(Err(missing)) => {
            let path = facts.tcti.device().unwrap_or(Path::new(""));
            let (why, remedy) = missing.text(path);
            let text = format!("keystore {name} has no TPM: {why}");
            found.push(TPM_THERE.fail(text, remedy));
            return found;
        }
        Some(Ok(node)) => found.extend(of_node(site, facts, node, user)),
    }
    let unit = facts.unit.as_ref();
    found.extend(unit.and_then(|unit| of_unit(facts, unit)));
    if let (Some(Ok(node)), true) = (&facts.node, found.is_empty()) {
        found.push(TPM_THERE.ok(format!(
            "{} of {name}: a TPM 2.0, behind the kernel's resource manager, open to {user}",
            node.path.display()
        )));
    }
    found
}

fn of_node(site: &Site, facts: &Facts, node: &Node, user: &str) -> Vec<Finding> {
    let (name, path) = (&facts.keystore, node.path.display());
    let again = site.restart_keystore(name, None);
    let standard = standard(name, &again);
    let mut found = Vec::new();
    match node.behind {
        Behind::Managed => {}
        Behind::NoDevice => {
            let text = format!("{path} of keystore {name} is no character device");
            return vec![TPM_THERE.fail(text, standard)];
        }
        Behind::Bare(Some(1)) => {
            let text = format!("{path} of keystore {name} is a TPM 1.2, which has no such keys");
            let remedy = "switch the TPM to 2.0 in the firmware's setup, if it can be";
            return vec![TPM_THERE.fail(text, remedy)];
        }
        Behind::Bare(_) => found.push(TPM_SHARED.warn(
            format!(
                "keystore {name} opens {path} itself, past the kernel's resource manager: no other \
                 program can use the TPM meanwhile, systemd's credentials neither, and what others \
                 have left in it is flushed"
            ),
            standard,
        )),
        Behind::Foreign => found.push(emulator(facts, &path.to_string(), &again)),
    }
    match facts.opens {
        Some(false) => found.push(closed(facts, node, user, &again)),
        Some(true) | None if node.mode & 0o006 != 0 => found.push(TPM_OPENS.warn(
            format!(
                "{path} is open to everybody (mode {:04o}): any process can lock the TPM by wrong \
                 guesses, or fill it",
                node.mode
            ),
            format!("run {}", tpm::udev_rule()),
        )),
        Some(true) | None => {}
    }
    found
}

/// The TPM that nobody has to name.
fn standard(name: &str, again: &str) -> String {
    format!("leave `tcti` out of [keystore.{name}] (it is {TCTI}), then {again}")
}

/// What is said loudly: keys of an emulator are files that can be copied.
fn emulator(facts: &Facts, what: &str, again: &str) -> Finding {
    let name = &facts.keystore;
    TPM_REAL.warn(
        format!(
            "keystore {name}: {what} is none of the kernel's TPMs. AN EMULATOR PROTECTS NOTHING: \
             whoever can read its files has every key"
        ),
        format!(
            "outside tests leave `tcti` out of [keystore.{name}] (it is {TCTI}), then {again}; keys \
             of an emulator cannot be moved: rename their targets"
        ),
    )
}

fn closed(facts: &Facts, node: &Node, user: &str, again: &str) -> Finding {
    let (name, path, mode) = (&facts.keystore, node.path.display(), node.mode);
    let (owner, group) = (
        account::of_uid(node.uid).name,
        account::group_name(node.gid),
    );
    let text = format!(
        "{user} may not open {path} ({owner}:{group}, mode {mode:04o}), so that keystore {name} \
         has no TPM"
    );
    // Its unit has the usual group. Root's opens more than what is meant.
    let by_group = mode & 0o060 == 0o060 && node.gid != 0;
    let remedy = match (node.behind, by_group) {
        (Behind::Bare(_), _) => standard(name, again), // which is open to none but user tss
        (_, true) => format!("run `usermod -aG {group} {user}`, then {again}"),
        (_, false) => format!("run {}, then {again}", tpm::udev_rule()),
    };
    TPM_OPENS.fail(text, remedy)
}

/// Whether its unit lets it reach its TPM.
fn of_unit(facts: &Facts, unit: &Unit) -> Option<Finding> {
    let name = &facts.keystore;
    let service = BackendKind::Tpm.unit(name, "service");
    let again = format!(
        "`systemctl daemon-reload && systemctl restart {}@{name}`",
        BackendKind::Tpm.program()
    );
    let Some(path) = facts.tcti.device() else {
        let shut = unit.property("PrivateNetwork") == Some("yes");
        return shut.then(|| {
            TPM_REACH.fail(
                format!("keystore {name} has a TPM over the network, and its unit has no network"),
                format!(
                    "leave `tcti` out of [keystore.{name}]; for a test, let assertd start the \
                     keystore itself, without `socket`"
                ),
            )
        });
    };
    let device = path.to_str()?;
    let mut lines = Vec::new();
    let shown = |word: &str| word.split(':').next() == Some(device);
    if unit.property("PrivateDevices") == Some("yes") && !unit.words("BindPaths").any(shown) {
        lines.push(format!("BindPaths={device}"));
    }
    let policy = unit.property("DevicePolicy");
    let listed = |line: &str| line.split(' ').next() == Some(device);
    let allowed = unit.property("DeviceAllow").unwrap_or_default();
    if policy.is_some_and(|policy| policy != "auto") && !allowed.lines().any(listed) {
        lines.push(format!("DeviceAllow={device} rw"));
    }
    (!lines.is_empty()).then(|| {
        TPM_REACH.fail(
            format!("the unit of keystore {name} does not let it reach {device}"),
            format!(
                "write `{}` below [Service] by `systemctl edit {service}`, then run {again}",
                lines.join("` and `")
            ),
        )
    })
}

#[cfg(test)]
mod tests;
