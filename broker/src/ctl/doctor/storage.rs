//! State, audit log and the disks they are on.

use super::access::quoted;
use super::finding::{AUDIT_CHAIN, DIRECTORY, DISK, Finding};
use super::host::{self, Entry, EntryKind};
use super::site::{Site, Users};
use crate::audit::{self, Verdict};
use crate::ctl::account::Account;
use crate::ctl::out::{bytes, count};
use crate::ctl::run::within;
use nix::sys::statvfs::statvfs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The log goes on while one segment is prepared ahead; without room for the next it ends with the
/// one that is being filled. Eight are a few hundred thousand decisions: time to act.
const SEGMENTS_WARN: u64 = 8;

/// Files that must be left on a file system; state is replaced by a new file and a rename.
const INODES_MIN: u64 = 64;

/// What was seen.
pub struct Facts {
    /// Directories that are there: what each is for, and whose it should be.
    directories: Vec<(&'static str, Entry, Option<Account>)>,
    /// The disk of the audit log; `None` if it cannot be asked in time.
    disk: Option<Disk>,
    /// The newest two segments; `None` if there is no log yet.
    chain: Option<Result<Verdict, String>>,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// A directory on it.
    directory: PathBuf,
    /// Bytes that assertd may still write.
    free: u64,
    /// Its size in bytes.
    size: u64,
    /// Files that can still be made; `None` where there is no such limit.
    inodes: Option<u64>,
}

/// Looks.
pub fn look(site: &Site, users: &Result<Users, String>) -> Facts {
    let users = users.as_ref().ok();
    let broker = users.and_then(|users| users.broker.clone());
    let mut places = vec![
        ("state", site.state_dir.clone(), broker.clone()),
        ("audit log", site.audit_dir.clone(), broker.clone()),
    ];
    for (name, section) in &site.keystores {
        let keystore = || users.and_then(|users| users.keystore(section.backend).cloned());
        let owner = match section.socket {
            Some(_) => keystore(),
            None => broker.clone(),
        };
        places.push(("keystore state", site.keystore_state(name, section), owner));
    }
    let there =
        |(what, path, owner): (_, PathBuf, _)| Some((what, host::entry_itself(&path).ok()?, owner));
    let dir = site.audit_dir.clone();
    let on_disk = within(host::LOOK_DEADLINE, move || disk(&dir)).flatten();
    Facts {
        directories: places.into_iter().filter_map(there).collect(),
        disk: on_disk,
        chain: chain(&site.audit_dir),
    }
}

/// The file system that a directory is on or will be on.
fn disk(dir: &Path) -> Option<Disk> {
    let directory = dir.ancestors().find(|dir| dir.is_dir())?.to_owned();
    let seen = statvfs(&directory).ok()?;
    let block = seen.fragment_size();
    Some(Disk {
        free: seen.blocks_available().saturating_mul(block),
        size: seen.blocks().saturating_mul(block),
        inodes: (seen.files() > 0).then(|| seen.files_available()),
        directory,
    })
}

/// The newest segments, twice if the last line is cut short: it may be written at this moment.
fn chain(dir: &Path) -> Option<Result<Verdict, String>> {
    let silent = || Some(Err(format!("{}: the disk does not answer", dir.display())));
    match host::entry(dir) {
        Ok(entry) if entry.kind == EntryKind::Directory => {}
        Err(ErrorKind::TimedOut) => return silent(),
        Ok(_) | Err(_) => return None,
    }
    let verify = || {
        let dir = dir.to_owned();
        within(host::LOOK_DEADLINE, move || audit::verify_newest(&dir))
    };
    let mut verdict = verify();
    if matches!(verdict, Some(Ok(Verdict::Torn { .. }))) {
        verdict = verify();
    }
    match verdict {
        Some(verdict) => Some(verdict.map_err(|error| error.to_string())),
        None => silent(),
    }
}

/// Judges.
pub fn findings(site: &Site, facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = facts
        .directories
        .iter()
        .filter_map(|(what, entry, owner)| directory(what, entry, owner.as_ref()))
        .collect();
    if found.is_empty() && !facts.directories.is_empty() {
        let paths = facts
            .directories
            .iter()
            .map(|(_, entry, _)| entry.path.display().to_string());
        let paths: Vec<String> = paths.collect();
        found.push(DIRECTORY.ok(format!("{}: for their user alone", paths.join(", "))));
    }
    match &facts.disk {
        Some(disk) => found.push(room(disk, site.segment_bytes)),
        None => {
            let text = format!("the disk of {} does not answer", site.audit_dir.display());
            let remedy = "run `dmesg | tail`, and mount the file system again";
            found.push(DISK.fail(text, remedy));
        }
    }
    found
}

fn directory(what: &str, entry: &Entry, owner: Option<&Account>) -> Option<Finding> {
    let (path, shown) = (quoted(&entry.path), entry.path.display());
    if entry.kind != EntryKind::Directory {
        return Some(DIRECTORY.fail(
            format!("{shown} ({what}) is no directory; a link is not followed"),
            format!("run `mv {path} {path}.aside`; it is made anew at the next start"),
        ));
    }
    let owner = owner?;
    if entry.uid == owner.uid && entry.mode & 0o077 == 0 {
        return None;
    }
    let name = &owner.name;
    Some(DIRECTORY.fail(
        format!(
            "{shown} ({what}) belongs to uid {} with mode {:04o}; it should be {name}'s with 0700",
            entry.uid, entry.mode
        ),
        format!("run `chown -R {name}: {path} && chmod 0700 {path}`"),
    ))
}

fn room(disk: &Disk, segment_bytes: u64) -> Finding {
    let shown = disk.directory.display();
    let text = format!(
        "{} of {} free at {shown}",
        bytes(disk.free),
        bytes(disk.size)
    );
    let enough = segment_bytes.saturating_mul(SEGMENTS_WARN);
    let remedy = format!(
        "free {} on that file system (`df -h {1}`); segments of the log but the newest two \
         (`ls {1}/audit-*.log`) may be moved to another one",
        bytes(enough.saturating_sub(disk.free)),
        quoted(&disk.directory)
    );
    if disk.inodes.is_some_and(|inodes| inodes < INODES_MIN) {
        let text = format!("{shown}: hardly another file can be made (no inodes)");
        let remedy = format!("remove files on that file system (`df -i {shown}`)");
        DISK.fail(text, remedy)
    } else if disk.free < segment_bytes {
        let text = format!(
            "{text}: no room for the next segment ({})",
            bytes(segment_bytes)
        );
        DISK.fail(
            format!("{text}; without a record nothing is released"),
            remedy,
        )
    } else if disk.free < enough {
        DISK.warn(
            format!("{text}: room for few more segments of the log"),
            remedy,
        )
    } else {
        DISK.ok(text)
    }
}

/// Judges the chain.
pub fn chain_findings(site: &Site, facts: &Facts) -> Vec<Finding> {
    let dir = site.audit_dir.display();
    let path = quoted(&site.audit_dir);
    let aside = format!(
        "keep it as evidence: end assertd, run `mv {path} {path}.evidence`, start assertd, then \
         `assertctl audit verify {path}.evidence`"
    );
    let finding = match &facts.chain {
        None => return Vec::new(),
        Some(Ok(Verdict::Intact { segments: 0, .. })) => return Vec::new(),
        Some(Ok(Verdict::Intact { next, segments, .. })) => AUDIT_CHAIN.ok(format!(
            "{dir}: records up to {} follow from each other (newest {})",
            next.seq.saturating_sub(1),
            count(*segments, "segment")
        )),
        Some(Ok(Verdict::Torn { file, line, .. })) => AUDIT_CHAIN.ok(format!(
            "{}: line {line} is being written, or was cut short by a crash",
            file.display()
        )),
        Some(Ok(Verdict::Bad {
            file,
            line,
            seq,
            what,
        })) => AUDIT_CHAIN.fail(
            format!("{} line {line} (record {seq}): {what}", file.display()),
            aside,
        ),
        Some(Err(why)) => AUDIT_CHAIN.fail(format!("{dir} cannot be verified: {why}"), aside),
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::entry;
    use super::super::finding::Severity;
    use super::*;
    use crate::audit::chain::Link;

    const MIB: u64 = 1 << 20;

    fn disk_with(free: u64, inodes: Option<u64>) -> Disk {
        Disk {
            directory: "/var/lib/assertd/audit".into(),
            free,
            size: 1024 * MIB,
            inodes,
        }
    }

    #[test]
    fn a_disk_is_judged_by_the_segments_it_has_room_for() {
        let segment = 32 * MIB;
        for (free, inodes, severity) in [
            (8 * segment, None, Severity::Ok),
            (8 * segment - 1, None, Severity::Warn),
            (segment, None, Severity::Warn),
            (segment - 1, None, Severity::Fail),
            (0, None, Severity::Fail),
            (8 * segment, Some(INODES_MIN), Severity::Ok),
            (8 * segment, Some(INODES_MIN - 1), Severity::Fail),
        ] {
            let finding = room(&disk_with(free, inodes), segment);
            assert_eq!((finding.id, finding.severity), ("D51", severity), "{free}");
        }
        let remedy = room(&disk_with(0, None), segment).remedy.unwrap();
        assert!(remedy.contains("df -h /var/lib/assertd/audit"), "{remedy}");
        assert!(remedy.starts_with("free 256 MiB"), "{remedy}");
    }

    #[test]
    fn state_that_others_could_touch_fails_with_the_command_that_mends_it() {
        let owner = crate::ctl::account::of_uid(0);
        let dir = |uid, mode| entry("/s", EntryKind::Directory, uid, 0, mode);
        assert_eq!(directory("state", &dir(0, 0o700), Some(&owner)), None);
        for seen in [dir(0, 0o750), dir(0, 0o770), dir(990, 0o700)] {
            let finding = directory("state", &seen, Some(&owner)).unwrap();
            assert_eq!((finding.id, finding.severity), ("D50", Severity::Fail));
            let expected = format!("run `chown -R {}: /s && chmod 0700 /s`", owner.name);
            assert_eq!(finding.remedy, Some(expected));
        }
        let link = entry("/s", EntryKind::Link, 0, 0, 0o777);
        let finding = directory("state", &link, Some(&owner)).unwrap();
        assert!(finding.remedy.unwrap().contains("mv /s /s.aside"));
    }

    #[test]
    fn a_chain_that_breaks_fails_and_one_that_is_written_does_not() {
        let site = Site::look(Some(Path::new("/nonexistent/assertd.toml")));
        let of = |verdict| {
            let facts = Facts {
                directories: Vec::new(),
                disk: None,
                chain: verdict,
            };
            chain_findings(&site, &facts)
        };
        assert_eq!(of(None), []);
        let torn = Verdict::Torn {
            file: "/a/audit-0.log".into(),
            line: 7,
            next: Link::FIRST,
            at: 5,
            bytes: 3,
        };
        assert_eq!(of(Some(Ok(torn)))[0].severity, Severity::Ok);
        let bad = Verdict::Bad {
            file: "/a/audit-0.log".into(),
            line: 7,
            seq: 6,
            what: "its digest is another",
        };
        let found = of(Some(Ok(bad)));
        assert_eq!((found[0].id, found[0].severity), ("D91", Severity::Fail));
        assert!(
            found[0]
                .text
                .starts_with("/a/audit-0.log line 7 (record 6)")
        );
        assert!(
            found[0]
                .remedy
                .as_deref()
                .unwrap()
                .contains("audit.evidence")
        );
    }
}
