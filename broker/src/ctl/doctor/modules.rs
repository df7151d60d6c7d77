//! The PKCS#11 modules and the directories they write to. A module runs in the process that knows
//! the PIN: whoever can replace it, or a directory on the way to it, runs code there.

use super::access::{quoted, untrusted};
use super::finding::{Finding, MODULE_PATH, MODULE_STATE, MODULE_THERE};
use super::host::{self, Account, Entry, EntryKind};
use super::site::{Runner, Site, Users};
use std::io::ErrorKind;
use std::path::PathBuf;

/// What was seen of one keystore.
pub struct Facts {
    keystore: String,
    module: PathBuf,
    /// The way to it.
    way: Result<Vec<Entry>, ErrorKind>,
    /// What it says it writes to.
    state: Vec<(PathBuf, Result<Entry, ErrorKind>)>,
}

/// Looks.
pub fn look(site: &Site) -> Vec<Facts> {
    let with_module = site.keystores.iter().filter_map(|(name, section)| {
        let module = section.module.clone()?;
        Some((name, section, module))
    });
    with_module
        .map(|(name, section, module)| Facts {
            keystore: name.clone(),
            way: host::way(&module),
            module,
            state: state_of(section),
        })
        .collect()
}

fn state_of(_section: &keystore::config::Section) -> Vec<(PathBuf, Result<Entry, ErrorKind>)> {
    Vec::new()
}

/// Judges.
pub fn findings(site: &Site, facts: &[Facts], users: &Result<Users, String>) -> Vec<Finding> {
    let Ok(users) = users else {
        return Vec::new();
    };
    let owners = users.trusted(&site.runner);
    let mut found = Vec::new();
    for facts in facts {
        let before = found.len();
        found.extend(of_module(facts, &owners));
        if let Some(account) = &users.keystore {
            found.extend(of_state(&site.runner, facts, account));
        }
        if found.len() == before {
            let text = format!(
                "{} of {}: root alone can change it",
                facts.module.display(),
                facts.keystore
            );
            found.push(MODULE_PATH.ok(text));
        }
    }
    found
}

fn of_module(facts: &Facts, owners: &[u32]) -> Vec<Finding> {
    let (module, name) = (facts.module.display(), &facts.keystore);
    let way = match &facts.way {
        Ok(way) => way,
        Err(kind) => {
            let text = format!("{module} of keystore {name}: not there ({kind})");
            let remedy = format!(
                "install the package that has it, or correct `module` in [keystore.{name}] \
                 (`find / -xdev -name '*pkcs11*.so'` finds others)"
            );
            return vec![MODULE_THERE.fail(text, remedy)];
        }
    };
    let judge = |entry: &Entry| {
        let why = untrusted(entry, owners)?;
        let text = format!(
            "{}, which decides what keystore {name} loads as {module}: whoever can write there \
             runs code where the PIN is",
            why.text(entry)
        );
        Some(MODULE_PATH.fail(text, why.remedy(entry)))
    };
    way.iter().filter_map(judge).collect()
}

/// The directories of `module_state` must be there, and the keystore's.
fn of_state(runner: &Runner, facts: &Facts, account: &Account) -> Vec<Finding> {
    let name = &facts.keystore;
    let judge = |(path, entry): &(PathBuf, Result<Entry, ErrorKind>)| {
        let user = &account.name;
        let shown = quoted(path);
        let text = match entry {
            Err(kind) => format!("{}: not there ({kind})", path.display()),
            Ok(entry) if entry.kind != EntryKind::Directory => {
                format!("{}: is no directory", path.display())
            }
            Ok(entry) if writes(account, entry) => return None,
            Ok(entry) => format!(
                "{}: user {user} cannot write there (mode {:04o}, uid {}, gid {})",
                path.display(),
                entry.mode,
                entry.uid,
                entry.gid
            ),
        };
        let again = match runner {
            Runner::Units => format!(" && systemctl restart assertd-keystore-pkcs11@{name}"),
            Runner::Somebody(_) => String::new(),
        };
        Some(MODULE_STATE.fail(
            format!("module_state of keystore {name}: {text}"),
            format!("run `install -d -o {user} -g {user} -m 0700 {shown}{again}`"),
        ))
    };
    facts.state.iter().filter_map(judge).collect()
}

fn writes(account: &Account, entry: &Entry) -> bool {
    let shift = match entry {
        _ if account.uid == 0 => return true,
        _ if entry.uid == account.uid => 6,
        _ if account.groups.contains(&entry.gid) => 3,
        _ => 0,
    };
    entry.mode >> shift & 0o3 == 0o3
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::entry;
    use super::super::finding::Severity;
    use super::*;

    fn facts(way: Result<Vec<Entry>, ErrorKind>) -> Facts {
        Facts {
            keystore: "hsm".into(),
            module: "/opt/m.so".into(),
            way,
            state: Vec::new(),
        }
    }

    #[test]
    fn a_module_that_others_could_replace_fails() {
        let dir = |uid, mode| entry("/opt", EntryKind::Directory, uid, 0, mode);
        let file = |uid, mode| entry("/opt/m.so", EntryKind::File, uid, 0, mode);
        let of = |dir, file| of_module(&facts(Ok(vec![dir, file])), &[0]);
        assert_eq!(of(dir(0, 0o755), file(0, 0o644)), []);
        for (found, remedy) in [
            (of(dir(0, 0o775), file(0, 0o644)), "run `chmod go-w /opt`"),
            (of(dir(991, 0o755), file(0, 0o644)), "run `chown root /opt`"),
            (
                of(dir(0, 0o755), file(0, 0o666)),
                "run `chmod go-w /opt/m.so`",
            ),
        ] {
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].id, found[0].severity), ("D17", Severity::Fail));
            assert_eq!(found[0].remedy.as_deref(), Some(remedy));
        }
    }

    #[test]
    fn a_module_that_is_not_there_fails() {
        let found = of_module(&facts(Err(ErrorKind::NotFound)), &[0]);
        assert_eq!(found[0].id, "D16");
        let remedy = found[0].remedy.as_deref().unwrap();
        assert!(
            remedy.contains("correct `module` in [keystore.hsm]"),
            "{remedy}"
        );
    }

    #[test]
    fn a_directory_the_module_cannot_write_to_fails() {
        let account = Account {
            name: "assertd-pkcs11".into(),
            uid: 991,
            gid: 991,
            groups: vec![991, 995],
        };
        let of = |seen| {
            let facts = Facts {
                state: vec![("/var/lib/tokens".into(), seen)],
                ..facts(Ok(Vec::new()))
            };
            of_state(&Runner::Units, &facts, &account)
        };
        let dir = |uid, gid, mode| entry("/var/lib/tokens", EntryKind::Directory, uid, gid, mode);
        assert_eq!(of(Ok(dir(991, 991, 0o700))), []);
        assert_eq!(of(Ok(dir(0, 995, 0o770))), []);
        for seen in [
            Err(ErrorKind::NotFound),
            Ok(dir(0, 0, 0o755)),
            Ok(dir(0, 995, 0o750)),
        ] {
            let found = of(seen);
            assert_eq!(found[0].id, "D18");
            let remedy = found[0].remedy.as_deref().unwrap();
            assert!(
                remedy.contains("install -d -o assertd-pkcs11 -g assertd-pkcs11 -m 0700"),
                "{remedy}"
            );
        }
    }
}
