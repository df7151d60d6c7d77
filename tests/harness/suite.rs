//! Named checks on a system that runs the units, one line each, and how many held. A check that
//! fails or panics is counted, shows what assertd's units wrote, and does not end the suite. What
//! belongs to a check and is not its line begins with [`INDENT`].

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What assertd's units wrote last, as much as is shown under a failure.
const JOURNAL: [&str; 7] = [
    "journalctl",
    "--unit=assertd*",
    "--no-pager",
    "--output=short-precise",
    "--no-hostname",
    "--lines",
    "60",
];

/// Before every line that says more about the check above it.
pub const INDENT: &str = "     ";

/// A system that the checks are made on: a box, a virtual machine.
pub trait Site {
    /// Runs a command on it as root and waits for it, within a deadline of the site's.
    fn run(&self, command: &[&str]) -> Outcome;
}

/// How a command on such a system ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; `None` if a signal ended it or it was still running at the deadline.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Its output if it succeeded; otherwise everything it said.
    pub fn success(self) -> Result<String, String> {
        match self.code {
            Some(0) => Ok(self.stdout),
            code => {
                let code = code.map_or("no exit code".to_string(), |code| format!("exit {code}"));
                let (out, err) = (self.stdout.trim(), self.stderr.trim());
                Err(format!("{code}: {err} {out}").trim().to_string())
            }
        }
    }
}

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
pub struct Suite<'s> {
    site: &'s dyn Site,
    only: Option<String>,
    counts: Counts,
    /// The check that took longest.
    slowest: (Duration, String),
}

impl<'s> Suite<'s> {
    /// Of checks on this system; `only` runs those alone whose name holds it.
    pub fn new(site: &'s dyn Site, only: Option<String>) -> Suite<'s> {
        Suite {
            site,
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
        println!("{}", indented(&journal(self.site)));
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
fn journal(site: &dyn Site) -> String {
    let _ = site.run(&["journalctl", "--sync"]);
    let shown = site.run(&JOURNAL);
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
