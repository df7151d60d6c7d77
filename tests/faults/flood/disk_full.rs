//! The audit log's file system is full. P1: no durable record, no credential.

use crate::observed::{self, Load};
use harness::{DEADLINE, Daemon, SoftHsm, wait_until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Room for a few segments and for what fills it.
const DISK_BYTES: u64 = 1 << 20;

/// The smallest the log accepts: about 50 decisions with their outcomes.
const SEGMENT_BYTES: u64 = 64 << 10;

/// So many answers in a row without an assertion among them, once the log is full.
const REFUSED: u64 = 1_000;

/// A small file system of its own, gone when dropped.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn mount() -> Disk {
        harness::user::need_root();
        let dir = harness::public_dir();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={DISK_BYTES},mode=0755"),
                "audit-test",
            ])
            .arg(dir.path())
            .status();
        assert!(mounted.unwrap().success(), "a tmpfs cannot be mounted");
        Disk { dir }
    }

    fn audit_dir(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    fn filler(&self) -> PathBuf {
        self.dir.path().join("filler")
    }

    /// Another process takes all that is left.
    fn fill(&self) {
        let output = Command::new("dd")
            .args(["if=/dev/zero", "bs=4096"])
            .arg(format!("of={}", self.filler().display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("No space left"), "{said}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: assertd may still have its files open.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.dir.path())
            .status();
    }
}

#[test]
fn audit_disk_full_releases_nothing_and_service_returns_by_itself() {
    let (disk, token) = (Disk::mount(), SoftHsm::new());
    let audit = format!(
        "[audit]\ndir = \"{}\"\nsegment_bytes = {SEGMENT_BYTES}\n",
        disk.audit_dir().display()
    );
    let mut daemon = Daemon::with_keys(observed::config(&token).with(&audit));
    let verifier = observed::verifier(&daemon);
    let load = Load::start(&daemon.socket(), 32);
    load.wait_released(20);

    disk.fill();
    load.wait_quiet();
    let before = (load.released(), observed::minted(&daemon));
    load.wait_refused(REFUSED);
    let after = (load.released(), observed::minted(&daemon));
    assert_eq!(
        before, after,
        "(released, minted) went on while nothing can be recorded"
    );
    let status = daemon.status();
    assert_eq!(status.audit.state, "failed", "{:?}", status.audit);
    says_why_and_what_to_do(&status.audit.why.unwrap());
    let (code, detail) = load.seen().last().unwrap().problem();
    assert_eq!(code, "audit_unavailable");
    says_why_and_what_to_do(&detail);

    std::fs::remove_file(disk.filler()).unwrap();
    load.wait_released(200);
    let seen = load.stop();
    let (released, refused) = observed::only_assertions_and_503(&seen, &verifier);
    assert!(daemon.lives());
    let records = settled(&disk.audit_dir());
    observed::every_release_is_recorded(&seen, &records);
    let decisions = observed::of_kind(&records, "decision").len() as u64;
    println!(
        "{released} assertions, {refused} 503s, {} mints, {decisions} decisions recorded",
        observed::minted(&daemon)
    );
    assert_eq!(observed::minted(&daemon), decisions);
    observed::chain_verifies(&daemon);
}

fn says_why_and_what_to_do(text: &str) {
    assert!(
        text.contains("no space left") && text.contains("free space"),
        "{text}"
    );
}

/// The records, once every decision has its outcome.
fn settled(dir: &Path) -> Vec<Value> {
    let mut records = Vec::new();
    let settled = wait_until(DEADLINE, || {
        records = harness::daemon::audit_records(dir);
        let count = |kind| observed::of_kind(&records, kind).len();
        count("decision") == count("outcome")
    });
    assert!(settled, "decisions without outcome");
    records
}
