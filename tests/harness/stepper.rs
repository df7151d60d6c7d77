//! A process of which each system call that changes something outside is counted, and one is made its
//! last or made to fail: `tests/stepper` does it, here it is told what.

use crate::process::Process;
use crate::programs::built;
use crate::swtpm::kept_until_we_end;
use crate::{DEADLINE, public_dir};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use tempfile::TempDir;

/// What the stepper is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The process.
    pub pid: u32,
    /// Where to write a line for each call.
    pub report: PathBuf,
    /// The only call that is meant, by the name it has in the report; none: any.
    pub call: Option<String>,
    /// Where it has to change something.
    pub place: Option<Place>,
    /// Below which of these paths; none: any.
    pub below: Vec<String>,
    /// Not below these.
    pub not_below: Vec<String>,
    /// What to do.
    pub action: Action,
}

/// Where something is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// In a file system.
    File,
    /// At the other end of a socket.
    Socket,
}

/// What is done at calls that are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// They are counted.
    Count,
    /// The process is killed before this one, counted from 1.
    Kill {
        /// Which.
        at: u64,
    },
    /// They fail, beginning with this one.
    Fail {
        /// How.
        errno: i32,
        /// From which on.
        from: u64,
        /// How many.
        times: u64,
    },
}

/// Calls that are meant.
#[derive(Clone, Debug, Default)]
pub struct Meant {
    /// As in [`Order`].
    pub call: Option<String>,
    /// As in [`Order`].
    pub place: Option<Place>,
    /// As in [`Order`].
    pub below: Vec<PathBuf>,
    /// As in [`Order`].
    pub not_below: Vec<PathBuf>,
}

/// A line of the report: one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name, the same for all calls that do the same (`write` for pwrite64(2) too).
    pub call: String,
    /// Where.
    pub place: Place,
    /// What is changed: a path, or a socket.
    pub target: String,
    /// What came of it.
    pub end: End,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was let go on.
    Done,
    /// It never happened: the process was killed.
    Killed,
    /// It never happened: an error was its answer.
    Failed,
}

/// A process that is stepped through.
pub struct Stepper {
    process: Process,
    dir: TempDir,
}

impl Stepper {
    /// Attaches to all threads of a process.
    #[track_caller]
    pub fn attach(pid: u32, meant: &Meant, action: Action) -> Stepper {
        let dir = public_dir();
        let texts = |paths: &[PathBuf]| paths.iter().map(|it| it.display().to_string()).collect();
        let order = Order {
            pid,
            report: dir.path().join("report"),
            call: meant.call.clone(),
            place: meant.place,
            below: texts(&meant.below),
            not_below: texts(&meant.not_below),
            action,
        };
        let program = built().join("stepper");
        let there = program.is_file();
        assert!(
            there,
            "{}: missing; run `cargo build --workspace`",
            program.display()
        );
        let mut command = kept_until_we_end(&program.to_string_lossy());
        command.arg(serde_json::to_string(&order).unwrap());
        let process = Process::start(&mut command);
        process.wait_for_stderr("stepper: attached");
        Stepper { process, dir }
    }

    /// The calls so far.
    pub fn steps(&self) -> Vec<Step> {
        let text = std::fs::read_to_string(self.dir.path().join("report")).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(Step::parse).collect()
    }

    /// The first that was not let go on.
    pub fn hit(&self) -> Option<Step> {
        let mut steps = self.steps().into_iter();
        steps.find(|step| step.end != End::Done)
    }

    /// Lets the process go on alone; the calls that there were.
    pub fn end(mut self) -> Vec<Step> {
        if self.process.ended().is_none() {
            self.process.signal(Signal::SIGTERM);
        }
        let ended = self.process.wait(DEADLINE);
        assert!(ended.success(), "{ended}: {}", self.process.stderr());
        self.steps()
    }
}

impl Step {
    fn parse(line: &str) -> Step {
        let words: Vec<&str> = line.split('\t').collect();
        let [_, call, place, target, end] = words[..] else {
            panic!("no line of a report: {line:?}");
        };
        Step {
            call: call.to_owned(),
            place: match place {
                "file" => Place::File,
                _ => Place::Socket,
            },
            target: target.to_owned(),
            end: match end {
                "killed" => End::Killed,
                "failed" => End::Failed,
                _ => End::Done,
            },
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Place::File => "file",
            Place::Socket => "socket",
        })
    }
}
