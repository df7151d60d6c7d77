//! Named checks, one line each, and how many held. A check that fails or panics is counted, shows
//! what assertd's units wrote, and does not end the suite. What belongs to a check and is not its
//! line begins with [`INDENT`].

use crate::boxed::SysBox;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Lines of the box's journal shown under a failure.
const JOURNAL_LINES: &str = "60";

/// Before every line that says more about the check above it.
pub const INDENT: &str = "     ";

/// How many checks held; printed as the last line.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
}

impl Counts {
    /// From the line that it is printed as.
    pub fn parse(line: &str) -> Option<Counts> {
        let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
        Some(Counts {
            passed: passed.parse().ok()?,
            failed: failed.parse().ok()?,
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Checks done so far.
pub struct Suite<'b> {
    boxed: &'b SysBox,
    only: Option<String>,
    counts: Counts,
    /// The check that took longest.
    slowest: (Duration, String),
}

impl<'b> Suite<'b> {
    /// Of checks in this box; `only` runs those alone whose name holds it.
    pub fn new(boxed: &'b SysBox, only: Option<String>) -> Suite<'b> {
        Suite {
            boxed,
            only,
            counts: Counts::default(),
            slowest: (Duration::ZERO, String::new()),
        }
    }

    /// Runs one check, unless another one was asked for. The error is the reason it failed.
    pub fn check(&mut self, name: &str, body: impl FnOnce() -> Result<(), String>) {
        if !self.wants(name) {
            return;
        }
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(body));
        let took = started.elapsed();
        if took > self.slowest.0 {
            self.slowest = (took, name.to_string());
        }
        let why = match result {
            Ok(Ok(())) => {
                self.counts.passed += 1;
                println!("ok   {name}");
                return;
            }
            Ok(Err(why)) => why,
            Err(panic) => format!("panicked: {}", panic_text(&*panic)),
        };
        self.counts.failed += 1;
        let why = why.replace('\n', &format!("\n{INDENT}"));
        println!("FAIL {name}: {why}");
        println!("{}", indented(&journal(self.boxed)));
    }

    /// Counts what all checks need and is not there as one that failed, whichever were asked for.
    pub fn require(&mut self, name: &str, why: String) {
        let only = self.only.take();
        self.check(name, || Err(why));
        self.only = only;
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

    /// How many held.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Which check took longest, and how long, in seconds.
    pub fn slowest(&self) -> String {
        let (took, name) = &self.slowest;
        format!("{:.1} s for {name:?}", took.as_secs_f32())
    }
}

/// What assertd's units wrote last.
fn journal(boxed: &SysBox) -> String {
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
    let lines: Vec<String> = text
        .lines()
        .map(|line| format!("{INDENT}| {line}"))
        .collect();
    lines.join("\n")
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()))
        .unwrap_or_else(|| "without a message".to_string())
}
