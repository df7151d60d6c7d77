//! The sockets in the file system: that they are there, that they are ours, and who may connect.
//! None is connected to, because a connection would start what listens.

use super::access::quoted;
use super::finding::{Finding, SOCKET_MODE, SOCKET_TAKEN, SOCKET_THERE};
use super::host::{self, Entry, EntryKind};
use super::site::{Runner, Site, Users};
use crate::ctl::account;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

mod listeners;

use listeners::Holder;

/// The first process, which listens for every socket unit.
const SYSTEMD: u32 = 1;

/// One socket of ours.
pub struct Facts {
    path: PathBuf,
    /// Its unit, where there is one.
    unit: String,
    /// Who may connect, by the file's mode.
    mode: u32,
    /// Whose it should be: user, group.
    owner: Option<(u32, u32)>,
    /// What is there.
    entry: Result<Entry, ErrorKind>,
    /// For each socket that listens under this path, the processes that hold it.
    listeners: Vec<Vec<Holder>>,
}

/// Who listens, if all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// systemd, for the unit.
    Systemd,
    /// assertd itself, which runs.
    Assertd(u32),
    /// Nobody: assertd does not run.
    Nobody,
}

/// Looks.
pub fn look(site: &Site, users: &Result<Users, String>) -> Vec<Facts> {
    let broker = users.as_ref().ok().and_then(|users| users.broker.as_ref());
    let broker = broker.map(|account| (account.uid, account.gid));
    let shared = account::group(super::site::BROKER_USER)
        .ok()
        .flatten()
        .map(|group| (0, group));
    let units = site.runner == Runner::Units;
    // Without units everything belongs to whoever runs it.
    let owner = |as_unit| if units { as_unit } else { broker };
    let mut wanted = vec![
        (site.socket(), "assertd.socket".to_owned(), 0o666, None),
        (
            site.admin_socket(),
            "assertd-admin.socket".to_owned(),
            0o600,
            owner(broker),
        ),
    ];
    for (name, section) in &site.keystores {
        if units && section.socket.is_none() {
            continue; // assertd's own; it is made and removed with it
        }
        let mode = if section.socket.is_some() {
            0o660
        } else {
            0o600
        };
        let path = site.keystore_socket(name, section);
        wanted.push((
            path,
            section.backend.unit(name, "socket"),
            mode,
            owner(shared),
        ));
    }
    let paths: BTreeSet<&Path> = wanted.iter().map(|(path, ..)| path.as_path()).collect();
    let mut listeners = listeners::at(&paths);
    wanted
        .into_iter()
        .map(|(path, unit, mode, owner)| Facts {
            entry: host::entry_itself(&path),
            listeners: listeners.remove(&path).unwrap_or_default(),
            path,
            unit,
            mode,
            owner,
        })
        .collect()
}

/// Judges.
pub fn findings(facts: &[Facts], expected: Listener) -> Vec<Finding> {
    let mut found: Vec<Finding> = facts
        .iter()
        .filter_map(|facts| of_socket(facts, expected))
        .collect();
    if found.is_empty() && expected != Listener::Nobody {
        let paths: Vec<String> = facts
            .iter()
            .map(|it| it.path.display().to_string())
            .collect();
        found.push(SOCKET_THERE.ok(format!("{} listen, with their modes", paths.join(", "))));
    }
    found
}

fn of_socket(facts: &Facts, expected: Listener) -> Option<Finding> {
    let path = facts.path.display();
    if let Some(stranger) = facts.listeners.iter().find_map(|it| stranger(it, expected)) {
        return Some(SOCKET_TAKEN.fail(
            format!(
                "{path}: process {} ({}) listens there, which is not ours: workloads talk to it",
                stranger.pid, stranger.name
            ),
            format!(
                "find out what it is (`ps -fp {0}`) and end it (`kill {0}`), then {1}",
                stranger.pid,
                listen_again(facts, expected)
            ),
        ));
    }
    let entry = match &facts.entry {
        Ok(entry) => entry,
        Err(_) if expected == Listener::Nobody => return None,
        Err(kind) => {
            let text = format!("{path}: there is no socket ({kind})");
            let remedy = listen_again(facts, expected);
            return Some(SOCKET_THERE.fail(text, remedy));
        }
    };
    if entry.kind != EntryKind::Socket {
        let what = match entry.kind {
            EntryKind::Directory => "a directory",
            EntryKind::File => "a file",
            EntryKind::Link => "a link",
            EntryKind::Socket | EntryKind::Other => "something else",
        };
        let from = quoted(&facts.path);
        return Some(SOCKET_TAKEN.fail(
            format!("{path} is {what}, where a socket of ours belongs: nobody can connect"),
            format!(
                "run `mv {from} {from}.aside`, then {}",
                listen_again(facts, expected)
            ),
        ));
    }
    if expected == Listener::Nobody {
        return None; // a stale socket of ours is replaced at start
    }
    if facts.listeners.is_empty() {
        let text = format!("{path}: nobody listens there");
        return Some(SOCKET_THERE.fail(text, listen_again(facts, expected)));
    }
    wrong_mode(facts, entry)
}

/// A holder of a listening socket that nobody of ours holds. Nobody at all holds one only for the
/// moment in which its process ends.
fn stranger(held: &[Holder], expected: Listener) -> Option<&Holder> {
    let ours = match expected {
        Listener::Systemd => Some(SYSTEMD),
        Listener::Assertd(pid) => Some(pid),
        Listener::Nobody => None,
    };
    let is_ours = held.iter().any(|holder| Some(holder.pid) == ours);
    held.first().filter(|_| !is_ours)
}

fn listen_again(facts: &Facts, expected: Listener) -> String {
    match expected {
        Listener::Systemd => format!("run `systemctl restart {}`", facts.unit),
        Listener::Assertd(pid) => format!("end assertd (`kill {pid}`) and start it again"),
        Listener::Nobody => "start assertd again".to_owned(),
    }
}

fn wrong_mode(facts: &Facts, entry: &Entry) -> Option<Finding> {
    let (path, file) = (facts.path.display(), quoted(&facts.path));
    if let Some((uid, gid)) = facts.owner
        && (entry.uid, entry.gid) != (uid, gid)
    {
        let text = format!(
            "{path} belongs to uid {}, gid {}; it should be uid {uid}, gid {gid}",
            entry.uid, entry.gid
        );
        return Some(SOCKET_MODE.fail(text, format!("run `chown {uid}:{gid} {file}`")));
    }
    if entry.mode == facts.mode {
        return None;
    }
    let effect = match entry.mode & !facts.mode {
        0 => "who should connect cannot",
        _ => "others than should can connect",
    };
    Some(SOCKET_MODE.fail(
        format!(
            "{path} has mode {:04o} instead of {:04o}: {effect}",
            entry.mode, facts.mode
        ),
        format!("run `chmod {:04o} {file}`", facts.mode),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::entry;
    use super::*;

    const PATH: &str = "/run/assertd/assertd.sock";

    fn facts() -> Facts {
        let holder = |pid, name: &str| Holder {
            pid,
            name: name.into(),
        };
        Facts {
            path: PATH.into(),
            unit: "assertd.socket".into(),
            mode: 0o666,
            owner: Some((0, 0)),
            entry: Ok(entry(PATH, EntryKind::Socket, 0, 0, 0o666)),
            listeners: vec![vec![holder(1, "systemd"), holder(7, "assertd")]],
        }
    }

    #[track_caller]
    fn bad(facts: &Facts, expected: Listener, id: &str, phrase: &str) {
        let finding = of_socket(facts, expected).unwrap();
        assert_eq!(finding.id, id, "{finding:?}");
        let remedy = finding.remedy.unwrap();
        assert!(remedy.contains(phrase), "{remedy}");
    }

    #[test]
    fn a_socket_as_it_should_be_is_ok() {
        assert_eq!(of_socket(&facts(), Listener::Systemd), None);
        assert_eq!(of_socket(&facts(), Listener::Assertd(7)), None);
    }

    #[test]
    fn what_is_no_socket_of_ours_fails_with_its_remedy() {
        let again = "systemctl restart assertd.socket";
        for kind in [EntryKind::Directory, EntryKind::File] {
            let facts = Facts {
                entry: Ok(entry(PATH, kind, 0, 0, 0o755)),
                ..facts()
            };
            bad(
                &facts,
                Listener::Systemd,
                "D41",
                "mv /run/assertd/assertd.sock",
            );
            bad(&facts, Listener::Systemd, "D41", again);
            bad(&facts, Listener::Nobody, "D41", "start assertd again");
        }
        let mut taken = facts();
        taken.listeners[0].clear();
        taken.listeners.push(vec![Holder {
            pid: 66,
            name: "nc".into(),
        }]);
        bad(&taken, Listener::Systemd, "D41", "kill 66");
        bad(&taken, Listener::Nobody, "D41", "kill 66");
    }

    #[test]
    fn a_socket_that_is_gone_or_that_nobody_serves_fails() {
        let again = "systemctl restart assertd.socket";
        let gone = Facts {
            entry: Err(ErrorKind::NotFound),
            ..facts()
        };
        bad(&gone, Listener::Systemd, "D40", again);
        assert_eq!(
            of_socket(
                &Facts {
                    listeners: Vec::new(),
                    ..gone
                },
                Listener::Nobody
            ),
            None
        );
        let dead = Facts {
            listeners: Vec::new(),
            ..facts()
        };
        bad(&dead, Listener::Systemd, "D40", again);
        assert_eq!(of_socket(&dead, Listener::Nobody), None);
    }

    #[test]
    fn a_wrong_mode_or_owner_fails_with_the_command_that_mends_it() {
        for (uid, mode, phrase) in [
            (0, 0o600, "chmod 0666 /run/assertd/assertd.sock"),
            (0, 0o777, "chmod 0666 /run/assertd/assertd.sock"),
            (990, 0o666, "chown 0:0 /run/assertd/assertd.sock"),
        ] {
            let facts = Facts {
                entry: Ok(entry(PATH, EntryKind::Socket, uid, 0, mode)),
                ..facts()
            };
            bad(&facts, Listener::Systemd, "D42", phrase);
        }
    }
}
