//! What this host shows of one keystore, without asking it: its program, its units, its module or
//! device, its credential. What is judged is judged by the doctor, over a site with this keystore
//! alone.

use crate::child::beside_us;
use crate::ctl::account::{self, Account};
use crate::ctl::doctor::finding::{DEVICE, Finding, KEYSTORE_PROGRAM, KEYSTORE_UNIT};
use crate::ctl::doctor::site::{NoUnits, Runner, Site, Users};
use crate::ctl::doctor::units::{self, Units};
use crate::ctl::doctor::{self, credentials, modules};
use crate::ctl::tpm::{self, Node};
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
        BackendKind::Tpm => {
            found.extend(node(section, &users));
            let seen = doctor::tpm::look(site, &units, &users);
            found.extend(doctor::tpm::findings(site, &seen, &users));
        }
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

/// What its mode bits say, to be read beside what the doctor concludes from them.
fn node(section: &Section, users: &Result<Users, String>) -> Option<Finding> {
    let tcti = Tcti::parse(section.tcti.as_deref().unwrap_or(TCTI)).ok()?;
    let node = tpm::node(tcti.device()?).ok()?;
    let users = users.as_ref().ok();
    let user = users.and_then(|users| users.keystore(BackendKind::Tpm));
    Some(of_node(&node, user))
}

fn of_node(node: &Node, user: Option<&Account>) -> Finding {
    let path = node.path.display();
    let owner = account::of_uid(node.uid).name;
    let group = account::group_name(node.gid);
    let member = match user {
        Some(user) if user.has_group(node.gid) => format!("; {} is in that group", user.name),
        Some(user) => format!("; {} is not in that group", user.name),
        None => String::new(),
    };
    DEVICE.ok(format!(
        "{path}: mode {:04o}, owner {owner}, group {group}{member}",
        node.mode
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::tpm::Behind;

    #[test]
    fn a_device_is_shown_with_its_mode_its_group_and_who_is_in_it() {
        let node = Node {
            path: "/dev/tpmrm0".into(),
            behind: Behind::Managed,
            uid: 0,
            gid: 4_294_967_000,
            mode: 0o660,
        };
        let account = |groups: &[u32], added: &[u32]| Account {
            name: "assertd-tpm".into(),
            uid: 992,
            gid: 992,
            groups: groups.to_vec(),
            added: added.to_vec(),
        };
        let start = "/dev/tpmrm0: mode 0660, owner root, group 4294967000";
        for (user, end) in [
            (
                Some(account(&[4_294_967_000], &[])),
                "; assertd-tpm is in that group",
            ),
            (
                Some(account(&[992], &[4_294_967_000])),
                "; assertd-tpm is in that group",
            ),
            (
                Some(account(&[992], &[])),
                "; assertd-tpm is not in that group",
            ),
            (None, ""),
        ] {
            let shown = of_node(&node, user.as_ref()).text;
            assert_eq!(shown, format!("{start}{end}"));
        }
    }
}
