//! What this host shows of one keystore, without asking it: its program, its units, its module or
//! device, its credential. All but program and device are the doctor's checks, over a site with this
//! keystore alone.

use crate::ctl::account::{self, Account};
use crate::ctl::doctor::access::{Want, may};
use crate::ctl::doctor::finding::{DEVICE, Finding, KEYSTORE_PROGRAM, KEYSTORE_UNIT};
use crate::ctl::doctor::host::{self, Entry, EntryKind};
use crate::ctl::doctor::site::{NoUnits, Runner, Site, Users};
use crate::ctl::doctor::units::{self, Units};
use crate::ctl::doctor::{credentials, modules};
use crate::ctl::tpm::{self, Behind, Node};
use crate::keystores::child::beside_us;
use keystore::config::{BackendKind, Section, TCTI, Tcti};

/// Looks, and judges. `site` has this keystore alone.
pub fn findings(site: &Site, name: &str, section: &Section) -> Vec<Finding> {
    let units = Units::look(site);
    let users = Users::look(site, &units);
    let mut found = vec![program(section)];
    found.extend(match site.runner {
        Runner::Units => units::of_keystore(&units, name, section),
        Runner::Somebody(why) => vec![no_unit(section, why)],
    });
    match section.backend {
        BackendKind::Pkcs11 => {
            let seen = modules::look(site, &units, &users);
            found.extend(modules::findings(site, &seen, &users));
        }
        BackendKind::Tpm => found.push(device(section, &users)),
    }
    let seen = credentials::look(site, &units);
    found.extend(credentials::findings(site, &seen, &users));
    found
}

fn program(section: &Section) -> Finding {
    match beside_us(section.program()) {
        Ok(path) => KEYSTORE_PROGRAM.ok(path.display().to_string()),
        Err(why) => KEYSTORE_PROGRAM.fail(why, "install assertd's package again, as a whole"),
    }
}

fn no_unit(section: &Section, why: NoUnits) -> Finding {
    let whose = match &section.socket {
        None => "assertd runs it itself, under its own user (isolation: none)".to_owned(),
        Some(socket) => format!("whoever runs it listens at {}", socket.display()),
    };
    KEYSTORE_UNIT.ok(match why {
        NoUnits::NoSystemd => format!("no units here: systemd does not run; {whose}"),
        NoUnits::OtherConfig => {
            format!("units were not looked at: they read another configuration; {whose}")
        }
    })
}

fn device(section: &Section, users: &Result<Users, String>) -> Finding {
    let path = match Tcti::parse(section.tcti.as_deref().unwrap_or(TCTI)) {
        Ok(Tcti::Device(path)) => path,
        Ok(swtpm @ Tcti::Swtpm { .. }) => {
            return DEVICE.ok(format!("no device node: an emulator, {swtpm}"));
        }
        Err(why) => {
            let text = format!("`tcti`: {why}");
            return DEVICE.fail(text, "correct it, then restart the keystore");
        }
    };
    let user = users.as_ref().ok();
    let user = user.and_then(|users| users.keystore(BackendKind::Tpm));
    match tpm::node(&path) {
        Ok(node) => {
            // The mode bits do not show what an ACL adds.
            let is_let_in = |user: &Account| {
                may(user, &entry(&node), Want::Use)
                    || host::allows(user, &path, Want::Use) == Some(true)
            };
            of_node(&node, user.map(|user| (user, is_let_in(user))))
        }
        Err(_) => {
            let (text, remedy) = tpm::missing().text(&path);
            DEVICE.fail(text, remedy)
        }
    }
}

fn entry(node: &Node) -> Entry {
    Entry {
        path: node.path.clone(),
        kind: EntryKind::Other,
        uid: node.uid,
        gid: node.gid,
        mode: node.mode,
    }
}

/// `user` runs the keystore, and may open it or not.
fn of_node(node: &Node, user: Option<(&Account, bool)>) -> Finding {
    let path = node.path.display();
    let owner = account::of_uid(node.uid).name;
    let group = account::group_name(node.gid);
    let what = match node.behind {
        Behind::Managed => "the kernel's resource manager",
        Behind::Bare(Some(1)) => {
            let text = format!("{path} is a TPM 1.2, which cannot hold these keys");
            return DEVICE.fail(
                text,
                "switch it to 2.0 in the firmware's setup, if it can be",
            );
        }
        Behind::Bare(_) => "the TPM itself, for one process at a time",
        Behind::Foreign => "no TPM of the kernel, so an emulator",
        Behind::NoDevice => {
            let text = format!("{path} is no device");
            return DEVICE.fail(
                text,
                format!("correct `tcti`, or leave it out: it is {TCTI}"),
            );
        }
    };
    let text = format!(
        "{path}: {what}; mode {:04o}, owner {owner}, group {group}",
        node.mode
    );
    match user {
        Some((user, true)) => DEVICE.ok(format!("{text}; {} may use it", user.name)),
        None => DEVICE.ok(text),
        Some((user, false)) => {
            let remedy = match (group == tpm::GROUP, node.mode & 0o060 == 0o060) {
                // Its unit has the group; somebody took it away.
                (true, true) => format!(
                    "give the keystore's unit `SupplementaryGroups={0}`, or run `usermod -aG {0} \
                     {1}`; then restart the keystore",
                    tpm::GROUP,
                    user.name
                ),
                _ => format!("run {}, then restart the keystore", tpm::udev_rule()),
            };
            DEVICE.fail(format!("{text}; {} may not use it", user.name), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::doctor::finding::Severity;

    fn node(path: &str, behind: Behind, gid: u32, mode: u32) -> Node {
        Node {
            path: path.into(),
            behind,
            uid: 0,
            gid,
            mode,
        }
    }

    fn account(groups: &[u32]) -> Account {
        Account {
            name: "assertd-tpm".into(),
            uid: 992,
            gid: 992,
            groups: groups.to_vec(),
            added: Vec::new(),
        }
    }

    #[test]
    fn a_device_is_used_by_its_group_alone() {
        let tpm = node("/dev/tpmrm0", Behind::Managed, 4_294_967_000, 0o660);
        for (groups, lets) in [(&[4_294_967_000][..], true), (&[992], false)] {
            let user = account(groups);
            assert_eq!(may(&user, &entry(&tpm), Want::Use), lets, "{groups:?}");
            let finding = of_node(&tpm, Some((&user, lets)));
            let text = "/dev/tpmrm0: the kernel's resource manager; mode 0660, owner root, group \
                        4294967000; assertd-tpm may";
            assert!(finding.text.starts_with(text), "{}", finding.text);
            let expected = if lets { Severity::Ok } else { Severity::Fail };
            assert_eq!(finding.severity, expected);
        }
        let other = of_node(&tpm, Some((&account(&[]), false))).remedy.unwrap();
        assert!(other.contains("udevadm"), "not of our group: {other}");
    }

    #[test]
    fn half_a_right_is_none() {
        let user = account(&[5]);
        for (mode, lets) in [
            (0o660, true),
            (0o640, false),
            (0o620, false),
            (0o606, false),
        ] {
            let tpm = node("/dev/tpmrm0", Behind::Managed, 5, mode);
            assert_eq!(may(&user, &entry(&tpm), Want::Use), lets, "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_tpm_2_fails() {
        for behind in [Behind::NoDevice, Behind::Bare(Some(1))] {
            let finding = of_node(&node("/dev/tpm0", behind, 0, 0o666), None);
            assert_eq!(finding.severity, Severity::Fail, "{behind:?}");
        }
        let own = of_node(&node("/dev/tpm0", Behind::Bare(Some(2)), 0, 0o600), None);
        assert!(own.text.contains("one process at a time"), "{}", own.text);
    }
}
