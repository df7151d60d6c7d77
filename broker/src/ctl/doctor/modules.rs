//! The PKCS#11 modules and the directories they write to. A module runs in the process that knows
//! the PIN: whoever can replace it, or a directory on the way to it, runs code there.

use super::access::untrusted;
use super::finding::{Finding, MODULE_PATH, MODULE_REACH, MODULE_THERE};
use super::host::{self, Entry, EntryKind};
use super::site::{Site, Users};
use super::units::{Unit, Units};
use keystore::config::BackendKind;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

mod state;

/// What was seen of one keystore.
pub struct Facts {
    keystore: String,
    module: PathBuf,
    /// The way to it.
    way: Result<Vec<Entry>, ErrorKind>,
    /// What it says it writes to.
    state: Vec<(PathBuf, Result<Entry, ErrorKind>)>,
    /// Where of these the keystore's user can write, though the mode bits do not show it.
    let_in: BTreeSet<PathBuf>,
    /// Whether it says it uses the network.
    network: bool,
    /// Its unit, where one runs it.
    unit: Option<Unit>,
}

/// Looks; where the mode bits say that a keystore cannot write, asks.
pub fn look(site: &Site, units: &Units, users: &Result<Users, String>) -> Vec<Facts> {
    let users = users.as_ref().ok();
    let user = users.and_then(|it| it.keystore(BackendKind::Pkcs11));
    let with_module = site.keystores.iter().filter_map(|(name, section)| {
        let module = section.module.clone()?;
        Some((name, section, module))
    });
    with_module
        .map(|(name, section, module)| {
            let paths = section.module_state.iter();
            let state = paths.map(|path| (path.clone(), host::entry(path)));
            let state: Vec<(PathBuf, Result<Entry, ErrorKind>)> = state.collect();
            Facts {
                keystore: name.clone(),
                way: host::way(&module),
                module,
                let_in: user.map_or_else(BTreeSet::new, |user| state::let_in(user, &state)),
                state,
                network: section.network,
                unit: units
                    .unit(&section.backend.unit(name, "service"))
                    .filter(|_| section.socket.is_some())
                    .cloned(),
            }
        })
        .collect()
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
        if let Some(account) = users.keystore(BackendKind::Pkcs11) {
            found.extend(state::findings(&site.runner, facts, account));
        }
        if let Some(unit) = &facts.unit {
            found.extend(of_unit(facts, unit));
        }
        if found.len() == before {
            let text = format!(
                "{} of {}: nobody but its owners can change it",
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

/// What the configuration says of the module must be allowed by the unit's sandbox.
fn of_unit(facts: &Facts, unit: &Unit) -> Vec<Finding> {
    let name = &facts.keystore;
    let service = BackendKind::Pkcs11.unit(name, "service");
    let again =
        format!("`systemctl daemon-reload && systemctl restart assertd-keystore-pkcs11@{name}`");
    let within = |list: &str, path: &Path| unit.words(list).any(|dir| path.starts_with(dir));
    let mut found = Vec::new();
    let real = facts.way.as_ref().ok().and_then(|way| way.last());
    if let Some(module) = real.map(|entry| entry.path.as_path())
        && unit.words("NoExecPaths").any(|path| path == "/")
        && !within("ExecPaths", module)
    {
        let dir = module.parent().unwrap_or(module).display();
        found.push(MODULE_REACH.fail(
            format!(
                "{} of keystore {name} lies where its unit lets nothing be loaded from",
                facts.module.display()
            ),
            format!(
                "write `ExecPaths={dir}` below [Service] by `systemctl edit {service}`, then run \
                 {again}"
            ),
        ));
    }
    let state = facts.state.iter().filter(|(_, entry)| {
        entry
            .as_ref()
            .is_ok_and(|entry| entry.kind == EntryKind::Directory)
    });
    found.extend(state.filter_map(|(path, _)| of_unit_and_state(name, path, unit)));
    if facts.network && unit.property("PrivateNetwork") == Some("yes") {
        found.push(MODULE_REACH.fail(
            format!("[keystore.{name}] has network = true, and its unit has no network"),
            format!(
                "run `install -D -m 0644 /usr/share/assertd/drop-ins/network-hsm.conf \
                 /etc/systemd/system/{service}.d/network-hsm.conf`, write the HSM's address there, \
                 then run {again}"
            ),
        ));
    }
    found
}

/// A directory of `module_state` must be writable in the unit, and nothing in it executable: what
/// `ReadWritePaths=` makes a mount of its own is not below the unit's `NoExecPaths=/`, so it has to
/// be named there too.
fn of_unit_and_state(name: &str, path: &Path, unit: &Unit) -> Option<Finding> {
    let service = BackendKind::Pkcs11.unit(name, "service");
    let again =
        format!("`systemctl daemon-reload && systemctl restart assertd-keystore-pkcs11@{name}`");
    let nearest = |list: &str| {
        let above = unit
            .words(list)
            .map(Path::new)
            .filter(|dir| path.starts_with(dir));
        above.map(|dir| dir.components().count()).max()
    };
    let shown = path.display();
    let Some(writable) = nearest("ReadWritePaths") else {
        return Some(MODULE_REACH.fail(
            format!("module_state of keystore {name}: its unit lets nothing be written to {shown}"),
            format!(
                "write `ReadWritePaths={shown}` and `NoExecPaths={shown}` below [Service] by \
                 `systemctl edit {service}`, then run {again}"
            ),
        ));
    };
    let sealed = nearest("NoExecPaths")?; // a unit that forbids nothing forbids nothing here
    (sealed < writable).then(|| {
        MODULE_REACH.warn(
            format!(
                "module_state of keystore {name}: what its module writes to {shown} could be \
                 executed"
            ),
            format!(
                "write `NoExecPaths={shown}` below [Service] by `systemctl edit {service}`, then \
                 run {again}"
            ),
        )
    })
}

#[cfg(test)]
pub mod tests {
    use super::super::access::tests::entry;
    use super::super::finding::Severity;
    use super::super::units::tests::unit;
    use super::*;

    pub fn facts(way: Result<Vec<Entry>, ErrorKind>) -> Facts {
        Facts {
            keystore: "hsm".into(),
            module: "/opt/m.so".into(),
            way,
            state: Vec::new(),
            let_in: BTreeSet::new(),
            network: false,
            unit: None,
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
    fn what_the_unit_forbids_is_found_with_the_line_that_allows_it() {
        let unit = unit(
            "Id=u.service\nPrivateNetwork=yes\nNoExecPaths=/ /tmp /srv/tokens\n\
             ExecPaths=-/usr/lib\nReadWritePaths=+/srv/tokens\n",
        );
        let of = |module: &str, state: &str, network| {
            let seen = entry(state, EntryKind::Directory, 0, 0, 0o755);
            let facts = Facts {
                module: module.into(),
                state: vec![(state.into(), Ok(seen))],
                network,
                ..facts(Ok(vec![entry(module, EntryKind::File, 0, 0, 0o644)]))
            };
            of_unit(&facts, &unit)
        };
        assert_eq!(of("/usr/lib/m.so", "/srv/tokens/x", false), []);
        for (found, phrase) in [
            (
                of("/etc/m.so", "/srv/tokens", false),
                "write `ExecPaths=/etc`",
            ),
            (
                of("/usr/lib/m.so", "/srv/other", false),
                "write `ReadWritePaths=/srv/other`",
            ),
            (
                of("/usr/lib/m.so", "/srv/tokens", true),
                "drop-ins/network-hsm.conf",
            ),
        ] {
            assert_eq!(found.len(), 1, "{found:#?}");
            assert_eq!(found[0].id, "D19");
            let remedy = found[0].remedy.as_deref().unwrap();
            assert!(remedy.contains(phrase), "{remedy}");
        }
    }

    #[test]
    fn what_a_module_could_write_and_execute_is_a_warning() {
        let of = |paths: &str| {
            let unit = unit(&format!("Id=u.service\n{paths}\n"));
            of_unit_and_state("hsm", Path::new("/srv/a/tokens"), &unit)
        };
        for paths in [
            "NoExecPaths=/ /srv/a/tokens\nReadWritePaths=/srv/a/tokens",
            "NoExecPaths=/ -/srv/a/tokens\nReadWritePaths=/srv",
            "ReadWritePaths=/srv",
        ] {
            assert_eq!(of(paths), None, "{paths}");
        }
        for paths in [
            "NoExecPaths=/\nReadWritePaths=/srv/a/tokens",
            "NoExecPaths=/ /srv\nReadWritePaths=/srv/a",
            "NoExecPaths=/ /srv/a/tokens/x\nReadWritePaths=/srv/a",
        ] {
            let found = of(paths).unwrap();
            assert_eq!((found.id, found.severity), ("D19", Severity::Warn));
            let remedy = found.remedy.as_deref().unwrap();
            assert!(remedy.contains("`NoExecPaths=/srv/a/tokens`"), "{remedy}");
        }
    }
}
