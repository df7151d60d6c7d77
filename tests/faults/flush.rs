//! The disk says that a flush failed. A second flush may succeed although the first one lost the
//! pages (fsyncgate), so that a failed one must never be tried again on the same file; and what
//! was not flushed must not be released.

use crate::observed::{self, Load};
use harness::process::Process;
use harness::{Daemon, SoftHsm};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONNECTIONS: usize = 8;

/// strace on the thread that writes the audit log.
struct Injection {
    strace: Process,
    trace: PathBuf,
    _dir: tempfile::TempDir,
}

impl Injection {
    /// `what` as strace's `inject` has it (strace(1)).
    fn start(daemon: &Daemon, what: &str) -> Injection {
        let dir = harness::public_dir();
        let trace = dir.path().join("trace");
        let mut strace = Command::new("strace");
        strace
            .args([
                "--decode-fds=path",
                "--trace=fdatasync",
                &format!("--inject={what}"),
            ])
            .arg(format!("--attach={}", writer_thread(daemon.pid())))
            .arg(format!("--output={}", trace.display()));
        let strace = Process::start(&mut strace);
        strace.wait_for_stderr("attached");
        Injection {
            strace,
            trace,
            _dir: dir,
        }
    }

    /// Detaches and returns what was traced.
    fn end(mut self) -> String {
        self.strace.signal(Signal::SIGINT);
        self.strace.wait(harness::DEADLINE);
        std::fs::read_to_string(&self.trace).unwrap()
    }
}

fn writer_thread(pid: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut threads = tasks.map(|entry| entry.unwrap().path());
    let is_writer = |task: &PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "audit-writer")
    };
    let writer = threads
        .find(is_writer)
        .expect("assertd has a thread of this name");
    writer.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_flush_that_failed_is_not_tried_again_and_nothing_unrecorded_is_released() {
    let token = SoftHsm::new();
    let daemon = Daemon::with_keys(observed::config(&token));
    let verifier = observed::verifier(&daemon);
    let load = Load::start(&daemon.socket(), CONNECTIONS);
    load.wait_released(50);
    let injection = Injection::start(&daemon, "fdatasync:error=EIO:when=20");
    load.wait_released(300);
    let trace = injection.end();
    let seen = load.stop();

    observed::only_assertions_and_503(&seen, &verifier);
    let (failed_file, after) = failed_flush(&trace);
    assert!(
        after.contains("fdatasync("),
        "nothing was flushed afterwards:\n{trace}"
    );
    assert!(
        !after.contains(&failed_file),
        "{failed_file} was flushed again:\n{trace}"
    );
    let records = daemon.audit_records();
    observed::every_release_is_recorded(&seen, &records);
    let repaired = observed::of_kind(&records, "repaired");
    assert_eq!(repaired.len(), 1, "{repaired:?}");
    assert_eq!(repaired[0]["cause"], "write_failed");
    observed::chain_verifies(&daemon);
}

#[test]
fn while_every_flush_fails_nothing_is_released() {
    let token = SoftHsm::new();
    let daemon = Daemon::with_keys(observed::config(&token));
    let verifier = observed::verifier(&daemon);
    let load = Load::start(&daemon.socket(), CONNECTIONS);
    load.wait_released(50);
    let injection = Injection::start(&daemon, "fdatasync:error=EIO");
    load.wait_quiet();
    let released = load.released();
    load.wait_refused(1_000);
    assert_eq!(load.released(), released, "released without a flush");
    let (code, detail) = load.seen().last().unwrap().problem();
    assert_eq!(code, "audit_unavailable");
    assert!(detail.contains("check the disk"), "{detail}");
    assert_eq!(daemon.status().audit.state, "failed");

    assert!(injection.end().contains("(INJECTED)"));
    load.wait_released(100);
    let seen = load.stop();
    observed::only_assertions_and_503(&seen, &verifier);
    observed::every_release_is_recorded(&seen, &daemon.audit_records());
    observed::chain_verifies(&daemon);
}

/// The file whose flush was made to fail, and what was traced after.
fn failed_flush(trace: &str) -> (String, &str) {
    let (before, after) = trace
        .split_once("(INJECTED)")
        .unwrap_or_else(|| panic!("{trace}"));
    let (_, call) = before
        .rsplit_once("fdatasync(")
        .expect("that is what fails");
    let (_, path) = call.split_once('<').expect("descriptors are decoded");
    let (path, _) = path.split_once('>').expect("descriptors are decoded");
    let name = Path::new(path)
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    (name, after)
}
