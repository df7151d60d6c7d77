//! strace(1) on processes that run: what they ask of the kernel, and calls that are made to take longer.

use crate::process::Process;
use crate::{DEADLINE, public_dir};
use nix::sys::signal::Signal;
use std::process::Command;
use tempfile::TempDir;

/// All threads of some processes are traced as long as it lives.
pub struct Trace {
    strace: Process,
    dir: TempDir,
}

impl Trace {
    /// Attaches with more options, `--trace=` and `--inject=` for instance.
    pub fn attach(pids: &[u32], options: &[&str]) -> Trace {
        let dir = public_dir();
        let mut strace = Command::new("strace");
        strace
            .arg("--follow-forks")
            .args(options)
            .args(pids.iter().map(|pid| format!("--attach={pid}")))
            .arg(format!("--output={}", dir.path().join("trace").display()));
        let strace = Process::start(&mut strace);
        for pid in pids {
            strace.wait_for_stderr(&format!("Process {pid} attached"));
        }
        Trace { strace, dir }
    }

    /// Detaches, and all that was held goes on; the lines of the trace.
    pub fn end(mut self) -> String {
        self.strace.signal(Signal::SIGINT);
        self.strace.wait(DEADLINE);
        std::fs::read_to_string(self.dir.path().join("trace")).unwrap()
    }
}
