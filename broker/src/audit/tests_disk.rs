//! The log against a full file system and a failing disk.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Instant;

use tempfile::TempDir;

use super::chain::Listing;
use super::record::{self, OutcomeResult};
use super::scan::{self, Link, Scan};
use super::tests::*;
use super::*;

/// A file system of its own, as small as the test needs it. Mounting takes root, which these tests
/// run as.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(kib: u64) -> Tmpfs {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={kib}k,mode=0700");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(mount.success(), "mounting a tmpfs takes root");
        Tmpfs(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        while io::Write::write(&mut file, &[7; 4096]).is_ok_and(|written| written > 0) {}
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// All that is not `held` has its outcome on disk, and the preparer has found the disk full.
fn settled(audit: &Audit, held: usize) -> bool {
    let health = audit.health();
    health.pending == held && health.queued == 0 && health.failed.is_some()
}

#[test]
fn a_full_disk_refuses_before_accepting_and_service_returns() {
    let disk = Tmpfs::mount(512);
    let dir = disk.path().join("audit");
    let audit = open(&dir);
    grant(&audit, "before");
    let ballast = disk.fill();
    let deadline = Instant::now() + PATIENCE;
    let (mut held, mut accepted) = (Vec::new(), vec!["before".to_owned()]);
    let refused = loop {
        let id = format!("id-{}", accepted.len());
        match audit.decision(a_decision(&id)) {
            Ok(mut durable) => {
                accepted.push(id);
                wait(&mut durable).unwrap();
                match accepted.len() % 10 {
                    0 => held.push(durable),
                    _ => durable.outcome(Outcome::Released),
                }
            }
            // The promise of one outcome is larger than an outcome, so room comes back as they are
            // written.
            Err(unavailable) if settled(&audit, held.len()) => break unavailable,
            Err(refused) => {
                assert!(Instant::now() < deadline, "{refused}");
                thread::park_timeout(Duration::from_millis(5));
            }
        }
    };
    assert!(
        refused
            .reason
            .contains("no space left for the next segment"),
        "{refused}"
    );
    assert!(refused.remedy.contains("free space there"), "{refused}");
    assert!(audit.health().failed.is_some());
    assert!(accepted.len() > 20, "{}", accepted.len());
    // What was promised is kept while the disk is full, and a denial gets nothing of it.
    (0..1_000).for_each(|uid| audit.denied(a_denial(uid, "no_rule")));
    held.drain(..)
        .for_each(|durable| durable.outcome(Outcome::PeerGone));
    eventually("all outcomes", || {
        (audit.health().queued == 0).then_some(())
    });
    let copy = crash_copy(&dir);
    assert_intact(copy.path());
    let kept = ids(copy.path());
    assert_eq!(kept.len(), accepted.len());
    assert!(
        kept.values()
            .all(|(decisions, outcomes)| (*decisions, outcomes.len()) == (1, 1))
    );
    assert!(
        !bodies(copy.path())
            .iter()
            .any(|body| matches!(body, Body::Denied(_)))
    );

    fs::remove_file(ballast).unwrap();
    grant(&audit, "after");
    eventually("health", || {
        let health = audit.health();
        (health.failed.is_none() && health.warning.is_none()).then_some(())
    });
    audit.close().unwrap();
    assert_intact(&dir);
    assert_eq!(ids(&dir).len(), accepted.len() + 1);
}

#[test]
fn a_disk_that_is_full_at_the_start_is_no_reason_to_stop() {
    let disk = Tmpfs::mount(256);
    let dir = disk.path().join("audit");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    let ballast = disk.fill();
    let audit = open(&dir);
    assert!(audit.decision(a_decision("early")).is_err());
    assert!(audit.health().failed.is_some());
    fs::remove_file(ballast).unwrap();
    grant(&audit, "later");
    audit.close().unwrap();
    assert_intact(&dir);
    assert!(!ids(&dir).contains_key("early"));
}

/// A disk whose n-th write or flush fails, and which counts.
#[derive(Default)]
struct FaultyDisk {
    armed: AtomicUsize,
    fail_write: Mutex<Vec<u64>>,
    fail_sync: Mutex<Vec<u64>>,
    writes: AtomicU64,
    syncs: AtomicU64,
    failed: AtomicU64,
}

impl FaultyDisk {
    fn step(&self, count: &AtomicU64, fail: &Mutex<Vec<u64>>) -> io::Result<()> {
        if self.armed.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        let n = count.fetch_add(1, Ordering::SeqCst);
        if fail.lock().unwrap().contains(&n) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        Ok(())
    }
}

/// From here on the disk fails as it was told: with the next segment prepared, at the writer's calls.
fn arm(disk: &FaultyDisk, audit: &Audit) {
    eventually("the next segment", || {
        (audit.health().segments == 2).then_some(())
    });
    disk.armed.store(1, Ordering::SeqCst);
}

impl Disk for FaultyDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = self.step(&self.writes, &self.fail_write) {
            // A failed write may have written some.
            let _ = file.write_all_at(&bytes[..bytes.len() / 2], offset);
            return Err(error);
        }
        file.write_all_at(bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.step(&self.syncs, &self.fail_sync)?;
        file.sync_data()
    }
}

#[test]
fn a_failed_write_or_flush_loses_nothing_and_acknowledges_nothing() {
    for (writes, syncs) in [
        (vec![0], vec![]),
        (vec![], vec![0]),
        (vec![3, 4, 5], vec![]),
        (vec![], vec![2, 3, 7]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FaultyDisk::default());
        *disk.fail_write.lock().unwrap() = writes.clone();
        *disk.fail_sync.lock().unwrap() = syncs.clone();
        let audit = Audit::open_on(
            config(dir.path()),
            Arc::new(clock()),
            Arc::clone(&disk) as _,
        )
        .unwrap();
        grant(&audit, "before");
        arm(&disk, &audit);
        let mut accepted = 0;
        eventually("all faults", || {
            if let Ok(mut durable) = audit.decision(a_decision(&format!("id-{accepted}"))) {
                accepted += 1;
                wait(&mut durable).unwrap();
                let copy = crash_copy(dir.path());
                let id = format!("id-{}", accepted - 1);
                assert_eq!(ids(copy.path())[&id].0, 1, "acknowledged and not on disk");
                durable.outcome(Outcome::Released);
            }
            let faults = (writes.len() + syncs.len()) as u64;
            (disk.failed.load(Ordering::SeqCst) == faults && accepted > 8).then_some(())
        });
        audit.close().unwrap();
        assert_intact(dir.path());
        let kept = ids(dir.path());
        assert_eq!(kept.len(), accepted + 1);
        assert!(
            kept.values()
                .all(|kept| *kept == (1, vec![OutcomeResult::Released]))
        );
    }
}

#[test]
fn while_the_disk_fails_decisions_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    *disk.fail_sync.lock().unwrap() = (0..10_000).collect();
    let audit = Audit::open_on(
        config(dir.path()),
        Arc::new(clock()),
        Arc::clone(&disk) as _,
    )
    .unwrap();
    arm(&disk, &audit);
    let mut caught = audit.decision(a_decision("caught")).unwrap();
    let refused = eventually("a refusal", || audit.decision(a_decision("late")).err());
    assert!(refused.reason.contains("cannot flush"), "{refused}");
    assert!(audit.health().failed.is_some());
    // Several attempts later it is still not acknowledged.
    eventually("retries", || {
        (disk.failed.load(Ordering::SeqCst) > 3).then_some(())
    });
    assert!(caught.receiver.try_recv().is_err());
    disk.armed.store(0, Ordering::SeqCst);
    wait(&mut caught).unwrap();
    caught.outcome(Outcome::Failed { reason: "deadline" });
    grant(&audit, "again");
    audit.close().unwrap();
    assert_intact(dir.path());
    let kept = ids(dir.path());
    assert_eq!(kept["caught"], (1, vec![OutcomeResult::Failed]));
    assert_eq!(kept["again"], (1, vec![OutcomeResult::Released]));
}

/// The cut of the abandoned segment never reached the disk: it still holds lines that the next one
/// holds anew.
#[test]
fn lines_left_in_an_abandoned_segment_are_no_part_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    *disk.fail_sync.lock().unwrap() = vec![0];
    let audit = Audit::open_on(
        config(dir.path()),
        Arc::new(clock()),
        Arc::clone(&disk) as _,
    )
    .unwrap();
    arm(&disk, &audit);
    let mut durable = audit.decision(a_decision("moved")).unwrap();
    wait(&mut durable).unwrap();
    durable.outcome(Outcome::Released);
    audit.close().unwrap();
    let next = assert_intact(dir.path());
    let segments = Listing::read(dir.path()).unwrap().segments;
    assert_eq!(segments.len(), 2);
    // Put back what the failed group had written.
    let old = segments[0].read().unwrap();
    let Scan::Whole { next: link, end } = scan::scan(&old, scan::From::Link(Link::FIRST), None)
    else {
        panic!("the first segment is whole");
    };
    let mut left = Vec::new();
    let body = Body::Decision(Box::new(a_decision("moved"))).encode();
    record::append_line(
        &mut left,
        &link,
        Stamp {
            wall_ms: 1,
            boot_ms: 1,
        },
        &body,
    );
    let file = File::options().write(true).open(&segments[0].path).unwrap();
    file.write_all_at(&left, end as u64).unwrap();
    assert_eq!(assert_intact(dir.path()), next);
    assert_eq!(ids(dir.path())["moved"].0, 1);
    // Without the record that tells of it, the same bytes are a change.
    file.write_all_at(&left, end as u64 + left.len() as u64)
        .unwrap();
    let verdict = verify(dir.path()).unwrap();
    assert!(
        matches!(verdict, Verdict::Bad { seq, .. } if seq == link.seq),
        "{verdict:?}"
    );
}

#[test]
fn many_callers_share_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let mut config = config(dir.path());
    config.segment_bytes = 1 << 20;
    let audit = Audit::open_on(config, Arc::new(clock()), Arc::clone(&disk) as _).unwrap();
    disk.armed.store(1, Ordering::SeqCst);
    thread::scope(|scope| {
        for caller in 0..16 {
            let audit = &audit;
            scope.spawn(move || (0..25).for_each(|n| grant(audit, &format!("{caller}-{n}"))));
        }
    });
    let syncs = disk.syncs.load(Ordering::SeqCst);
    audit.close().unwrap();
    assert_intact(dir.path());
    assert_eq!(ids(dir.path()).len(), 400);
    assert!(
        syncs < 300,
        "{syncs} flushes for 400 decisions and 400 outcomes"
    );
}
