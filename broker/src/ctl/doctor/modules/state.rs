//! The directories that a module writes to besides its keystore's state (`module_state`): that they
//! are there, and that the keystore's user can write there. One that is somebody else's stays his.

use super::super::access::{Want, may, quoted};
use super::super::finding::{Finding, MODULE_STATE};
use super::super::host::{self, Entry, EntryKind};
use super::super::site::Runner;
use super::Facts;
use crate::ctl::account::{self, Account};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Where a user can write by other means than the mode bits show: asks the kernel.
pub fn let_in(user: &Account, state: &[(PathBuf, Result<Entry, ErrorKind>)]) -> BTreeSet<PathBuf> {
    let closed = state
        .iter()
        .filter(|(_, entry)| entry.as_ref().is_ok_and(|entry| !can_write(user, entry)));
    closed
        .map(|(path, _)| path)
        .filter(|path| host::allows(user, path, Want::Change) == Some(true))
        .cloned()
        .collect()
}

/// The directories of `module_state` must be there, and the keystore must be able to write there.
pub fn findings(runner: &Runner, facts: &Facts, account: &Account) -> Vec<Finding> {
    let name = &facts.keystore;
    let judge = |(path, entry): &(PathBuf, Result<Entry, ErrorKind>)| {
        let user = &account.name;
        let (text, remedy) = match entry {
            Ok(entry) if can_write(account, entry) || facts.let_in.contains(path) => return None,
            Ok(entry) => {
                let owner = account::of_uid(entry.uid).name;
                let text = format!(
                    "belongs to {owner}, and user {user} cannot write there (mode {:04o}, gid {})",
                    entry.mode, entry.gid
                );
                (text, let_in_by(entry, &owner, user))
            }
            // Nobody's, so that it can be the keystore's alone.
            Err(ErrorKind::NotFound) => {
                let make = format!("install -d -o {user} -g {user} -m 0700 {}", quoted(path));
                ("is not there".to_owned(), format!("run `{make}`"))
            }
            Err(kind) => {
                let remedy = format!("correct `module_state` in [keystore.{name}]");
                (format!("cannot be looked at ({kind})"), remedy)
            }
        };
        let again = match runner {
            Runner::Units => format!(", then `systemctl restart assertd-keystore-pkcs11@{name}`"),
            Runner::Somebody(_) => String::new(),
        };
        Some(MODULE_STATE.fail(
            format!("module_state of keystore {name}: {} {text}", path.display()),
            format!("{remedy}{again}"),
        ))
    };
    facts.state.iter().filter_map(judge).collect()
}

fn can_write(account: &Account, entry: &Entry) -> bool {
    // Whatever else it is, it is a device.
    entry.kind != EntryKind::Directory || may(account, entry, Want::Change)
}

/// A directory that is somebody's stays his.
fn let_in_by(entry: &Entry, owner: &str, user: &str) -> String {
    let dir = quoted(&entry.path);
    // Files of a group of its own, as SoftHSM's, stay with that group.
    if entry.gid != 0 && entry.mode & 0o070 == 0o070 {
        let group = account::group_name(entry.gid);
        return format!("run `usermod -aG {group} {user}`");
    }
    format!(
        "let {user} in without taking it away from {owner}: by an ACL (`setfacl -R -m \
         u:{user}:rwX,d:u:{user}:rwX {dir}`), or by a group that both are in and mode 2770"
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::access::tests::entry;
    use super::super::tests::facts;
    use super::*;

    fn keystore_user() -> Account {
        Account {
            name: "assertd-pkcs11".into(),
            uid: 991,
            gid: 991,
            groups: vec![991, 995],
            added: Vec::new(),
        }
    }

    #[test]
    fn a_directory_the_module_cannot_write_to_fails() {
        let account = keystore_user();
        let of = |seen| {
            let facts = Facts {
                state: vec![("/var/lib/tokens".into(), seen)],
                ..facts(Ok(Vec::new()))
            };
            findings(&Runner::Units, &facts, &account)
        };
        let dir = |uid, gid, mode| entry("/var/lib/tokens", EntryKind::Directory, uid, gid, mode);
        assert_eq!(of(Ok(dir(991, 991, 0o700))), []);
        assert_eq!(of(Ok(dir(0, 995, 0o770))), []);
        // A group that root has, so that the name is known wherever the test runs.
        let mut shared = dir(0, 1, 0o770);
        shared.gid = nix::unistd::Group::from_name("daemon")
            .unwrap()
            .unwrap()
            .gid
            .as_raw();
        let remedy = of(Ok(shared))[0].remedy.clone().unwrap();
        assert!(
            remedy.contains("usermod -aG daemon assertd-pkcs11"),
            "{remedy}"
        );
        let found = of(Err(ErrorKind::NotFound));
        assert_eq!(found[0].id, "D18");
        let remedy = found[0].remedy.as_deref().unwrap();
        let install = "install -d -o assertd-pkcs11 -g assertd-pkcs11 -m 0700 /var/lib/tokens";
        assert!(remedy.contains(install), "{remedy}");
    }

    #[test]
    fn a_directory_that_is_somebodys_stays_his() {
        let account = keystore_user();
        let of = |uid, gid, mode, let_in: &[&str]| {
            let seen = entry("/srv/tokens", EntryKind::Directory, uid, gid, mode);
            let facts = Facts {
                state: vec![("/srv/tokens".into(), Ok(seen))],
                let_in: let_in.iter().map(PathBuf::from).collect(),
                ..facts(Ok(Vec::new()))
            };
            findings(&Runner::Units, &facts, &account)
        };
        for (uid, gid, mode) in [(0, 0, 0o755), (0, 995, 0o750), (1, 1, 0o700)] {
            let found = of(uid, gid, mode, &[]);
            assert_eq!(found[0].id, "D18");
            let owner = account::of_uid(uid).name;
            let said = format!("belongs to {owner}, and user assertd-pkcs11");
            assert!(found[0].text.contains(&said), "{}", found[0].text);
            let remedy = found[0].remedy.as_deref().unwrap();
            assert!(!remedy.contains("install"), "{remedy}");
            let acl = "setfacl -R -m u:assertd-pkcs11:rwX,d:u:assertd-pkcs11:rwX /srv/tokens";
            assert!(remedy.contains(acl), "{remedy}");
        }
        assert_eq!(of(0, 0, 0o755, &["/srv/tokens"]), []);
    }
}
