//! The configuration: that it loads, who could change it, and who can read it. Whoever can write
//! there decides who gets which assertion.

use super::access::{Untrusted, Want, may, obstacle, quoted, untrusted, untrusted_list};
use super::finding::{CONFIG_LOADS, CONFIG_OWNED, CONFIG_READABLE, CONFIG_WISE, Finding};
use super::host::{self, Entry, EntryKind};
use super::site::{NotLoaded, Runner, Site, Users};
use crate::config::files;
use crate::ctl::account::Account;
use crate::ctl::check::{Severity as Wisdom, findings as unwise};
use crate::ctl::out::count;
use crate::ctl::run::within;
use keystore::Clock;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What was seen.
pub struct Facts {
    /// The files, each with the way to it; or why there is none.
    files: Vec<(PathBuf, Result<Vec<Entry>, ErrorKind>)>,
    /// conf.d beside the main file, if it is there.
    drop_ins: Option<Entry>,
    /// The way to it.
    drop_ins_way: Vec<Entry>,
    /// Who can read which, though the mode bits do not show it: a user's name, a path.
    let_in: BTreeSet<(String, PathBuf)>,
    /// The main file's directory: whoever can add files there can make conf.d.
    directory: Option<Entry>,
}

/// Looks; where the mode bits say that a user cannot read something, asks.
pub fn look(site: &Site, users: &Result<Users, String>) -> Facts {
    // conf.d that cannot be listed is a mistake that loading has told already.
    let main = site.config_path.clone();
    let paths = match within(host::LOOK_DEADLINE, move || files(&main)) {
        Some(Ok(paths)) => paths,
        Some(Err(_)) | None => vec![site.config_path.clone()],
    };
    let drop_ins = site.config_path.with_file_name("conf.d");
    let mut facts = Facts {
        files: paths
            .into_iter()
            .map(|path| {
                let way = host::way(&path);
                (path, way)
            })
            .collect(),
        drop_ins: host::entry(&drop_ins).ok(),
        drop_ins_way: host::way(&drop_ins).unwrap_or_default(),
        directory: site.config_path.parent().and_then(|d| host::entry(d).ok()),
        let_in: BTreeSet::new(),
    };
    if let (Runner::Units, Ok(users)) = (&site.runner, users) {
        facts.let_in = let_in(&facts, users);
    }
    facts
}

fn let_in(facts: &Facts, users: &Users) -> BTreeSet<(String, PathBuf)> {
    let mut let_in = BTreeSet::new();
    for (reader, path, _) in stopped(facts, users) {
        match host::allows(reader, path, Want::Read) {
            Some(true) => _ = let_in.insert((reader.name.clone(), path.to_owned())),
            Some(false) => {}
            None => break, // the next one would not be answered either
        }
    }
    let_in
}

/// Judges.
pub fn findings(site: &Site, facts: &Facts, users: &Result<Users, String>) -> Vec<Finding> {
    let mut found = vec![loads(site)];
    found.extend(wise(site));
    if let Ok(users) = users {
        let owners = users.trusted(&site.runner);
        let owned = owned(facts, &owners);
        if owned.is_empty() && matches!(facts.files.first(), Some((_, Ok(_)))) {
            let text = format!(
                "{}: nobody but its owners can change it",
                site.config_path.display()
            );
            found.push(CONFIG_OWNED.ok(text));
        }
        found.extend(owned);
        if site.runner == Runner::Units {
            found.extend(readable(facts, users));
        }
    }
    found
}

fn loads(site: &Site) -> Finding {
    let path = site.config_path.display();
    match &site.config {
        Ok(config) => {
            let targets: usize = config.workloads.iter().map(|it| it.targets.len()).sum();
            CONFIG_LOADS.ok(format!(
                "{path}: {}, {}, {}",
                count(config.keystores.len(), "keystore"),
                count(config.workloads.len(), "workload"),
                count(targets, "target")
            ))
        }
        Err(_) if host::entry(&site.config_path).is_err_and(|kind| kind == ErrorKind::NotFound) => {
            CONFIG_LOADS.fail(
                format!("{path}: there is no configuration"),
                "run `assertctl init`, which writes one, or name another by -c",
            )
        }
        Err(NotLoaded::NoAnswer) => CONFIG_LOADS.fail(
            format!(
                "{path}: not loaded within {} s: the name service, which is asked for the users that \
                 it names, or the disk does not answer",
                host::LOOK_DEADLINE.as_secs()
            ),
            "run `getent passwd no-such-user`: if it hangs, mend the service that \
             /etc/nsswitch.conf names for passwd",
        ),
        Err(NotLoaded::Mistake(diagnostic)) => CONFIG_LOADS.fail(
            diagnostic.to_string(),
            format!(
                "correct it; `assertctl{} config check` says when it is right",
                site.options()
            ),
        ),
    }
}

/// What `config check` would say, in one line.
fn wise(site: &Site) -> Option<Finding> {
    let config = site.config.as_ref().ok()?;
    let mut found = unwise(config, None, Clock::new().read());
    found.retain(|finding| finding.severity != Wisdom::Info);
    let first = found
        .iter()
        .find(|it| it.severity == Wisdom::Error)
        .or(found.first())?;
    let text = format!(
        "{} of the configuration, first {} {}: {}",
        count(found.len(), "finding"),
        first.id,
        first.object,
        first.text
    );
    let remedy = format!(
        "{}; `assertctl{} config check` shows all",
        first.remedy,
        site.options()
    );
    Some(match first.severity {
        Wisdom::Error => CONFIG_WISE.fail(text, remedy),
        Wisdom::Warning | Wisdom::Info => CONFIG_WISE.warn(text, remedy),
    })
}

/// Each directory on the way once, though every file has it. Directories of which everything is
/// read are judged more strictly than those that are only gone through.
fn owned(facts: &Facts, owners: &[u32]) -> Vec<Finding> {
    let ways = facts.files.iter().filter_map(|(_, way)| way.as_ref().ok());
    let on_the_way = ways
        .flatten()
        .chain(&facts.drop_ins_way)
        .filter_map(|entry| Some((entry, untrusted(entry, owners)?)));
    let listed = facts.drop_ins.iter().chain(&facts.directory);
    let mut bad: Vec<(&Entry, Untrusted)> = listed
        .filter_map(|entry| Some((entry, untrusted_list(entry, owners)?)))
        .chain(on_the_way)
        .collect();
    bad.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    bad.dedup_by(|(a, _), (b, _)| a.path == b.path);
    let finding = |(entry, why): (&Entry, Untrusted)| {
        let text = format!(
            "{}: whoever can write there decides who gets which assertion",
            why.text(entry)
        );
        CONFIG_OWNED.fail(text, why.remedy(entry))
    };
    bad.into_iter().map(finding).collect()
}

fn readable(facts: &Facts, users: &Users) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for (reader, path, at) in stopped(facts, users) {
        let is_let_in = facts
            .let_in
            .contains(&(reader.name.clone(), path.to_owned()));
        let finding = unreadable(reader, path, at);
        if !is_let_in && !found.iter().any(|other| other.remedy == finding.remedy) {
            found.push(finding);
        }
    }
    found
}

/// Who cannot read what by the mode bits, and where they say so. The broker reads all of it, a
/// keystore the main file.
fn stopped<'a>(facts: &'a Facts, users: &'a Users) -> Vec<(&'a Account, &'a Path, &'a Entry)> {
    let main = facts.files.first().map(|(path, _)| path);
    let mut stopped = Vec::new();
    for (path, way) in &facts.files {
        let Ok(way) = way else { continue };
        let keystores = users.keystores.values().flatten();
        let keystores = keystores.filter(|_| Some(path) == main);
        let readers = users.broker.iter().chain(keystores);
        stopped.extend(
            readers.filter_map(|reader| Some((reader, path.as_path(), obstacle(reader, way)?))),
        );
    }
    if let Some((broker, dir)) = users.broker.as_ref().zip(facts.drop_ins.as_ref()) {
        let lists = [Want::Enter, Want::Read]
            .iter()
            .all(|want| may(broker, dir, *want));
        stopped.extend((!lists).then_some((broker, dir.path.as_path(), dir)));
    }
    stopped
}

fn unreadable(reader: &Account, path: &Path, at: &Entry) -> Finding {
    let (shown, at_path) = (path.display(), quoted(&at.path));
    let text = format!(
        "user {} cannot read {shown}: {} has mode {:04o}, uid {}, gid {}",
        reader.name,
        at.path.display(),
        at.mode,
        at.uid,
        at.gid
    );
    let mode = match at.kind {
        EntryKind::Directory => "0750",
        _ => "0640",
    };
    let remedy = format!("run `chown root:assertd {at_path} && chmod {mode} {at_path}`");
    CONFIG_READABLE.fail(text, remedy)
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::entry;
    use super::super::finding::Severity;
    use super::*;
    use keystore::config::BackendKind;

    fn account(name: &str, uid: u32) -> Option<Account> {
        Some(Account {
            name: name.into(),
            uid,
            gid: uid,
            groups: vec![uid, 990],
            added: Vec::new(),
        })
    }

    fn users() -> Users {
        Users {
            broker: account("assertd", 990),
            keystores: [(BackendKind::Pkcs11, account("assertd-pkcs11", 991))].into(),
        }
    }

    /// The files of a configuration as it should be, with the mode, uid and gid of one changed.
    fn facts(changed: &str, uid: u32, gid: u32, mode: u32) -> Facts {
        let as_is = |path: &str, kind, mode_is| match path == changed {
            true => entry(path, kind, uid, gid, mode),
            false => entry(path, kind, 0, 990, mode_is),
        };
        let top = vec![
            as_is("/etc", EntryKind::Directory, 0o755),
            as_is("/etc/assertd", EntryKind::Directory, 0o750),
        ];
        let main = as_is("/etc/assertd/assertd.toml", EntryKind::File, 0o640);
        let dir = as_is("/etc/assertd/conf.d", EntryKind::Directory, 0o750);
        let drop_in = as_is("/etc/assertd/conf.d/a.toml", EntryKind::File, 0o644);
        Facts {
            files: vec![
                (main.path.clone(), Ok([top.clone(), vec![main]].concat())),
                (
                    drop_in.path.clone(),
                    Ok([top.clone(), vec![dir.clone(), drop_in]].concat()),
                ),
            ],
            drop_ins_way: [top.clone(), vec![dir.clone()]].concat(),
            drop_ins: Some(dir),
            let_in: BTreeSet::new(),
            directory: top.last().cloned(),
        }
    }

    #[test]
    fn a_configuration_that_root_alone_can_change_is_ok() {
        let facts = facts("", 0, 0, 0);
        assert_eq!(owned(&facts, &[0]), []);
        assert_eq!(readable(&facts, &users()), []);
    }

    #[test]
    fn whatever_others_can_change_is_named_once_with_its_remedy() {
        for (path, uid, mode, remedy) in [
            ("/etc/assertd", 0, 0o775, "run `chmod go-w /etc/assertd`"),
            ("/etc/assertd", 990, 0o750, "run `chown root /etc/assertd`"),
            (
                "/etc/assertd/conf.d",
                0,
                0o757,
                "run `chmod go-w /etc/assertd/conf.d`",
            ),
            (
                "/etc/assertd/assertd.toml",
                990,
                0o660,
                "run `chown root /etc/assertd/assertd.toml && chmod go-w /etc/assertd/assertd.toml`",
            ),
            (
                "/etc/assertd/conf.d/a.toml",
                0,
                0o646,
                "run `chmod go-w /etc/assertd/conf.d/a.toml`",
            ),
        ] {
            let found = owned(&facts(path, uid, 990, mode), &[0]);
            assert_eq!(found.len(), 1, "{found:#?}");
            assert_eq!(found[0].id, "D14");
            assert_eq!(found[0].remedy.as_deref(), Some(remedy));
        }
    }

    #[test]
    fn no_sticky_bit_makes_up_for_a_directory_that_anybody_can_add_a_drop_in_to() {
        for path in ["/etc/assertd/conf.d", "/etc/assertd"] {
            let found = owned(&facts(path, 0, 990, 0o1777), &[0]);
            assert_eq!(found.len(), 1, "{found:#?}");
            let (id, remedy) = (found[0].id, found[0].remedy.as_deref().unwrap());
            assert_eq!(id, "D14");
            let expected = format!("run `chmod go-w {path}`");
            assert!(remedy.starts_with(&expected), "{remedy}");
        }
        // Gone through, and nothing there is read but by its name.
        assert_eq!(owned(&facts("/etc", 0, 0, 0o1777), &[0]), []);
    }

    #[test]
    fn a_file_that_its_reader_cannot_read_is_named_with_its_remedy() {
        for (path, gid, mode, who, remedy) in [
            (
                "/etc/assertd/assertd.toml",
                0,
                0o640,
                "user assertd cannot",
                "run `chown root:assertd /etc/assertd/assertd.toml && chmod 0640 \
                 /etc/assertd/assertd.toml`",
            ),
            (
                "/etc/assertd",
                990,
                0o700,
                "user assertd cannot",
                "run `chown root:assertd /etc/assertd && chmod 0750 /etc/assertd`",
            ),
            (
                "/etc/assertd/conf.d/a.toml",
                0,
                0o600,
                "user assertd cannot",
                "run `chown root:assertd /etc/assertd/conf.d/a.toml && chmod 0640 \
                 /etc/assertd/conf.d/a.toml`",
            ),
        ] {
            let found = readable(&facts(path, 0, gid, mode), &users());
            assert_eq!(found.len(), 1, "{found:#?}");
            assert_eq!((found[0].id, found[0].severity), ("D15", Severity::Fail));
            assert!(found[0].text.contains(who), "{}", found[0].text);
            assert_eq!(found[0].remedy.as_deref(), Some(remedy));
        }
        // What an ACL gives the mode bits do not show.
        let mut let_in = facts("/etc/assertd/assertd.toml", 0, 0, 0o640);
        let file = PathBuf::from("/etc/assertd/assertd.toml");
        for user in ["assertd", "assertd-pkcs11"] {
            let_in.let_in.insert((user.into(), file.clone()));
        }
        assert_eq!(readable(&let_in, &users()), []);
        let mut outside = users();
        let keystore = outside.keystores.get_mut(&BackendKind::Pkcs11).unwrap();
        keystore.as_mut().unwrap().groups = vec![991];
        let found = readable(&facts("", 0, 0, 0), &outside);
        assert!(found[0].text.contains("user assertd-pkcs11 cannot"));
    }
}
