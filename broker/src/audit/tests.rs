//! The log against a real directory, a full file system and a failing disk.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::chain::{Scan, records};
use super::record::OutcomeResult;
use super::*;

const SEGMENT: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

fn clock() -> impl Fn() -> Stamp + Send + Sync + 'static {
    let started = Instant::now();
    move || Stamp {
        wall_ms: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64,
        boot_ms: started.elapsed().as_millis() as u64,
    }
}

fn config(dir: &Path) -> AuditConfig {
    AuditConfig {
        dir: dir.to_owned(),
        segment_bytes: SEGMENT,
        version: "0.1.0".to_owned(),
        boot_id: "7b3e".to_owned(),
        host: "host".to_owned(),
    }
}

fn open(dir: &Path) -> Audit {
    Audit::open(config(dir), clock()).unwrap()
}

fn a_decision(id: &str) -> Decision {
    Decision {
        id: id.into(),
        uid: 991,
        gid: 991,
        pid: 4711,
        peer_proof: PeerProof::Pidfd,
        unit: Some("payments.service".into()),
        nested: false,
        invocation: Some("0123456789abcdef0123456789abcdef".into()),
        container: false,
        workload: "payments".into(),
        target: "bank".into(),
        profile: "rfc7523".into(),
        kid: "3q2-7wXAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(),
        jti_sha256: Sha256::of(id.as_bytes()),
        iat: 1_763_758_255,
        exp: 1_763_758_315,
        claims_sha256: Sha256::of(b"claims"),
    }
}

fn a_denial(uid: u32, reason: &'static str) -> Denial<'static> {
    let unit = Some("noisy.service");
    Denial {
        id: "01JD8K",
        uid,
        gid: uid,
        pid: 7,
        unit,
        target: Some("bank"),
        reason,
    }
}

fn wait(durable: &mut Durable) -> Result<(), Lost> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, durable).await.unwrap() })
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within the deadline: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

fn grant(audit: &Audit, id: &str) {
    let mut durable = eventually("room", || audit.decision(a_decision(id)).ok());
    wait(&mut durable).unwrap();
    durable.outcome(Outcome::Released);
}

fn bodies(dir: &Path) -> Vec<Body> {
    records(dir)
        .unwrap()
        .map(|entry| entry.unwrap().record.body)
        .collect()
}

/// Decision ids with how often each was decided, and with its outcomes.
fn ids(dir: &Path) -> HashMap<String, (usize, Vec<OutcomeResult>)> {
    let mut ids: HashMap<String, (usize, Vec<OutcomeResult>)> = HashMap::new();
    for body in bodies(dir) {
        match body {
            Body::Decision(decision) => {
                ids.entry(decision.id.as_str().to_owned()).or_default().0 += 1
            }
            Body::Outcome(outcome) => {
                ids.entry(outcome.id.as_str().to_owned())
                    .or_default()
                    .1
                    .push(outcome.result);
            }
            _ => {}
        }
    }
    ids
}

#[track_caller]
fn assert_intact(dir: &Path) -> Link {
    match verify(dir).unwrap() {
        Verdict::Intact {
            first_seq: 0, next, ..
        } => next,
        other => panic!("{other:?}"),
    }
}

/// Copies what a crash at this moment would leave, with everything written so far.
fn crash_copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    fs::set_permissions(to.path(), fs::Permissions::from_mode(0o700)).unwrap();
    to
}

#[test]
fn the_chain_continues_across_rotation_and_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut decided = 0;
    for _ in 0..3 {
        let audit = open(dir.path());
        for _ in 0..150 {
            grant(&audit, &format!("id-{decided}"));
            decided += 1;
        }
        audit.close().unwrap();
    }
    let next = assert_intact(dir.path());
    let bodies = bodies(dir.path());
    assert_eq!(bodies.len() as u64, next.seq);
    let ids = ids(dir.path());
    assert_eq!(ids.len(), decided);
    assert!(
        ids.values()
            .all(|kept| *kept == (1, vec![OutcomeResult::Released]))
    );
    let opened = bodies
        .iter()
        .filter(|body| matches!(body, Body::Opened(_)))
        .count();
    let closed = bodies
        .iter()
        .filter(|body| matches!(body, Body::Closed(_)))
        .count();
    assert_eq!((opened, closed), (3, 3));
    let segments = Listing::read(dir.path()).unwrap().segments.len();
    assert!(segments > 4, "{segments}");
}

#[test]
fn a_second_log_in_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path());
    let error = Audit::open(config(dir.path()), clock()).err().unwrap();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert_eq!(error.exit_code(), 69);
    audit.close().unwrap();
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
    let error = Audit::open(config(dir.path()), clock()).err().unwrap();
    assert!(matches!(error, Error::Directory { .. }), "{error}");
    assert_eq!(error.exit_code(), 78);
}

#[test]
fn everything_made_is_for_our_own_user_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("audit");
    let audit = open(&dir);
    grant(&audit, "id");
    audit.close().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn a_decision_dropped_without_a_word_is_recorded_as_abandoned() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path());
    drop(audit.decision(a_decision("gone")).unwrap());
    audit.close().unwrap();
    assert_eq!(ids(dir.path())["gone"], (1, vec![OutcomeResult::Abandoned]));
}

#[test]
fn an_outcome_reaches_the_disk_without_another_decision() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path());
    grant(&audit, "lonely");
    eventually("the outcome on disk", || {
        let copy = crash_copy(dir.path());
        (ids(copy.path())["lonely"].1.len() == 1).then_some(())
    });
    audit.close().unwrap();
}

#[test]
fn a_changed_record_refuses_the_start_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path());
    (0..20).for_each(|n| grant(&audit, &format!("id-{n}")));
    audit.close().unwrap();
    let path = dir.path().join(chain::segment_name(0));
    let bytes = fs::read(&path).unwrap();
    let line = bytes.split(|&byte| byte == b'\n').nth(7).unwrap();
    let at = line.as_ptr() as usize - bytes.as_ptr() as usize + 40;
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    let error = Audit::open(config(dir.path()), clock()).err().unwrap();
    assert_eq!(error.exit_code(), 78);
    let text = error.to_string();
    assert!(
        text.contains("line 8 (record 7)") && text.contains("audit-00000"),
        "{text}"
    );
    assert!(matches!(
        verify(dir.path()).unwrap(),
        Verdict::Bad {
            seq: 7,
            line: 8,
            ..
        }
    ));
}

#[test]
fn a_missing_segment_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path());
    (0..250).for_each(|n| grant(&audit, &format!("id-{n}")));
    audit.close().unwrap();
    let segments = Listing::read(dir.path()).unwrap().segments;
    fs::remove_file(&segments[1].path).unwrap();
    let seq = segments[1].first_seq;
    assert!(matches!(verify(dir.path()).unwrap(), Verdict::Bad { seq: at, .. } if at == seq));
}

#[test]
fn a_torn_tail_of_any_length_is_repaired_and_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path());
    (0..3).for_each(|n| grant(&audit, &format!("id-{n}")));
    audit.close().unwrap();
    let name = chain::segment_name(0);
    let bytes = fs::read(dir.path().join(&name)).unwrap();
    let end = chain::content_end(&bytes);
    let last = bytes[..end - 1]
        .iter()
        .rposition(|&byte| byte == b'\n')
        .unwrap()
        + 1;
    for cut in last + 1..end {
        let mut torn = bytes.clone();
        torn[cut..].fill(0);
        let copy = tempfile::tempdir().unwrap();
        fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(copy.path().join(&name), &torn).unwrap();
        let audit = open(copy.path());
        audit.close().unwrap();
        assert_intact(copy.path());
        let repaired = bodies(copy.path()).into_iter().find_map(|body| match body {
            Body::Repaired(repaired) => Some(repaired),
            _ => None,
        });
        let repaired = repaired.unwrap();
        assert_eq!(
            (repaired.at, repaired.bytes),
            (last as u64, (cut - last) as u64)
        );
        assert_eq!(repaired.sha256, Some(Sha256::of(&bytes[last..cut])));
    }
}

#[test]
fn a_segment_that_a_crash_left_unnamed_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path());
    grant(&audit, "kept");
    audit.close().unwrap();
    let named = dir.path().join(chain::segment_name(0));
    fs::rename(&named, dir.path().join(PREPARED)).unwrap();
    let audit = open(dir.path());
    grant(&audit, "more");
    audit.close().unwrap();
    assert!(named.exists());
    assert_intact(dir.path());
    assert_eq!(ids(dir.path()).len(), 2);
}

#[test]
fn an_unnamed_segment_whose_first_group_was_torn_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.path().join(PREPARED), br#"{"seq":0,"time":"20"#).unwrap();
    let audit = open(dir.path());
    grant(&audit, "id");
    audit.close().unwrap();
    assert_intact(dir.path());
    assert!(
        bodies(dir.path())
            .iter()
            .any(|body| matches!(body, Body::Repaired(_)))
    );
}

/// A file system of its own, as small as the test needs it. Mounting takes root, which these tests run as.
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

#[test]
fn a_full_disk_refuses_before_accepting_and_service_returns() {
    let disk = Tmpfs::mount(512);
    let dir = disk.path().join("audit");
    let audit = open(&dir);
    grant(&audit, "before");
    let ballast = disk.fill();
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
            // The promise of one outcome is larger than an outcome, so room comes back as they are written.
            Err(unavailable)
                if audit.health().pending == held.len() && audit.health().queued == 0 =>
            {
                break unavailable;
            }
            Err(_) => thread::park_timeout(Duration::from_millis(5)),
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
    assert_eq!(audit.health().failed, None);
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

#[test]
fn a_flood_of_denials_leaves_few_bytes_and_delays_no_grant() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path());
    let before = audit.health();
    for n in 0..100_000 {
        audit.denied(a_denial(n % 5_000, "no_rule"));
        if n % 20_000 == 0 {
            grant(&audit, &format!("id-{n}"));
        }
    }
    let counted = audit.health().denials_counted;
    audit.close().unwrap();
    assert_intact(dir.path());
    let (mut single, mut summed, mut bytes, mut unrecorded) = (0, 0, 0, 0);
    for entry in records(dir.path()).unwrap() {
        let entry = entry.unwrap();
        match entry.record.body {
            Body::Denied(_) => (single, bytes) = (single + 1, bytes + entry.line.len() as u64),
            Body::Denials(sum) => {
                (summed, bytes) = (summed + sum.count, bytes + entry.line.len() as u64);
            }
            Body::Closed(closed) => unrecorded = closed.denials_unrecorded,
            _ => {}
        }
    }
    assert_eq!(single + summed + unrecorded, 100_000, "{before:?}");
    assert_eq!(single + counted, 100_000);
    assert!(bytes <= 2 * denials::WINDOW_BYTES_MAX, "{bytes}");
    assert_eq!(ids(dir.path()).len(), 5);
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
        disk.armed.store(1, Ordering::SeqCst);
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
    disk.armed.store(1, Ordering::SeqCst);
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

/// The cut of the abandoned segment never reached the disk: it still holds lines that the next one holds anew.
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
    disk.armed.store(1, Ordering::SeqCst);
    let mut durable = audit.decision(a_decision("moved")).unwrap();
    wait(&mut durable).unwrap();
    durable.outcome(Outcome::Released);
    audit.close().unwrap();
    let next = assert_intact(dir.path());
    let segments = Listing::read(dir.path()).unwrap().segments;
    assert_eq!(segments.len(), 2);
    // Put back what the failed group had written.
    let old = segments[0].read().unwrap();
    let Scan::Whole { next: link, end } = chain::scan(&old, chain::From::Link(Link::FIRST), None)
    else {
        panic!("the first segment is whole");
    };
    let mut left = Vec::new();
    let body = Body::Decision(a_decision("moved")).encode();
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

#[test]
fn hostile_text_stays_inside_its_string() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path());
    let mut decision = a_decision("id\n{\"seq\":0}");
    decision.unit = Some(LongText::from(
        "\0\u{1b}[2J\"\\\u{7f}\u{2028}".repeat(90).as_str(),
    ));
    let expected = decision.clone();
    let mut durable = audit.decision(decision).unwrap();
    wait(&mut durable).unwrap();
    drop(durable);
    audit.close().unwrap();
    assert_intact(dir.path());
    assert!(bodies(dir.path()).contains(&Body::Decision(expected)));
}

#[test]
fn a_closed_log_refuses_and_its_progress_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path());
    let before = audit.progress();
    eventually("a tick", || (audit.progress() > before).then_some(()));
    audit.close().unwrap();
    assert!(audit.decision(a_decision("late")).is_err());
    audit.close().unwrap();
}
