//! Named checks, one line each, and the total at the end. A check that fails or panics is counted,
//! shows what assertd's units wrote, and does not end the suite.

use crate::boxed::SysBox;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// Lines of the box's journal shown under a failure.
const JOURNAL_LINES: &str = "60";

/// Checks done so far.
pub struct Suite<'b> {
    boxed: &'b SysBox,
    only: Option<String>,
    passed: usize,
    failed: usize,
    started: Instant,
}

impl<'b> Suite<'b> {
    /// Of checks in this box; `only` runs those alone whose name holds it.
    pub fn new(boxed: &'b SysBox, only: Option<String>) -> Suite<'b> {
        Suite {
            boxed,
            only,
            passed: 0,
            failed: 0,
            started: Instant::now(),
        }
    }

    /// Runs one check, unless another one was asked for. The error is the reason it failed.
    pub fn check(&mut self, name: &str, body: impl FnOnce() -> Result<(), String>) {
        if !self.wants(name) {
            return;
        }
        let why = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => {
                self.passed += 1;
                println!("ok   {name}");
                return;
            }
            Ok(Err(why)) => why,
            Err(panic) => format!("panicked: {}", panic_text(&*panic)),
        };
        self.failed += 1;
        println!("FAIL {name}: {why}");
        println!("{}", indented(&journal(self.boxed)));
    }

    /// Whether a check of this name would run: to leave out what only it needs.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// Whether a check could run whose name begins with one of these.
    pub fn wants_below(&self, beginnings: &[&str]) -> bool {
        let Some(only) = &self.only else {
            return true;
        };
        beginnings
            .iter()
            .any(|beginning| only.starts_with(beginning) || beginning.contains(only.as_str()))
    }

    /// The last line, and the exit code it means. No check at all is a failure.
    pub fn total(&self) -> ExitCode {
        let (passed, failed) = (self.passed, self.failed);
        println!("units: {:.1} s", self.started.elapsed().as_secs_f32());
        println!("{passed} passed, {failed} failed");
        match (passed, failed) {
            (1.., 0) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

/// What assertd's units wrote last.
pub fn journal(boxed: &SysBox) -> String {
    let _ = boxed.run(&["journalctl", "--sync"]);
    let shown = boxed.run(&[
        "journalctl",
        "--unit=assertd*",
        "--no-pager",
        "--output=short-precise",
        "--no-hostname",
        "--lines",
        JOURNAL_LINES,
    ]);
    shown.stdout + &shown.stderr
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("     | {line}")).collect();
    lines.join("\n")
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()))
        .unwrap_or_else(|| "without a message".to_string())
}
