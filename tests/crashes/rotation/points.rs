//! Where a rotation is cut off, and how: each is tried on a world and leaves it as good as before.

use super::disk;
use super::program::{Program, Subject};
use super::promises;
pub use super::promises::Left;
use super::world::{Came, World};
use harness::stepper::{Action, End, Meant, Place, Step, Stepper};
use harness::wait_until;
use nix::errno::Errno;
use std::fmt;
use std::time::Duration;

/// How long may go by until somebody who asks is told why a rotation does not go on.
const SAID_WITHIN: Duration = Duration::from_secs(10);

/// Calls of one kind in one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    pub call: String,
    pub place: Place,
}

/// What is done at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed.
    Kill,
    /// This call fails, and no other.
    Once(Errno),
    /// So do all after it, until somebody mends what is wrong.
    Lasting(Errno),
}

/// Whose writes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// All.
    Any,
    /// Of state, keys and documents.
    State,
    /// Of the audit log: while it takes nothing, nothing is signed.
    Audit,
}

/// One trial: of which the number goes up until a rotation comes to its end without it.
#[derive(Clone, Debug)]
pub struct Point {
    pub subject: Subject,
    pub class: Class,
    pub fault: Fault,
    pub writes: Writes,
    pub number: u64,
    /// Whether it is more than an undisturbed rotation does, so that one more comes after it if it hits.
    pub is_highest: bool,
}

/// What a rotation does outside, as it is when nothing goes wrong.
pub fn steps_of(world: &mut World, program: Program) -> Vec<Step> {
    let stepper = Stepper::attach(world.pid(program), &Meant::default(), Action::Count);
    assert_eq!(world.go_on(|_| false), Came::ToItsEnd);
    let steps = stepper.end();
    assert_eq!(promises::hold(world), Left::Nothing);
    steps
}

/// Tries it. The call that was hit, none if there are not so many; and what is left behind.
pub fn try_one(world: &mut World, point: &Point) -> (Option<Step>, Left) {
    let program = point.subject.program;
    let meant = meant(world, point);
    let attach = |action| Stepper::attach(world.pid(program), &meant, action);
    let from = point.number;
    let steps = match point.fault {
        Fault::Kill => {
            let stepper = attach(Action::Kill { at: from });
            to_its_end(world);
            stepper.end()
        }
        Fault::Once(errno) => {
            let (errno, times) = (errno as i32, 1);
            let stepper = attach(Action::Fail { errno, from, times });
            to_its_end(world);
            let steps = stepper.end();
            // An interrupted flush has lost nothing.
            if errno == Errno::EINTR as i32 {
                return (hit(steps), promises::hold(world));
            }
            what_failed_is_done_again(&steps);
            steps
        }
        Fault::Lasting(errno) => {
            let stepper = attach(Action::Fail {
                errno: errno as i32,
                from,
                times: u64::MAX,
            });
            match world.go_on(|_| stepper.hit().is_some()) {
                Came::AsFarAsWanted => {
                    is_blocked(world, point, errno);
                    let steps = stepper.end();
                    to_its_end(world);
                    if point.class.call == "unlink" {
                        // What could not be taken away then is taken away by the next start.
                        world.start_again().unwrap_or_else(|why| panic!("{why}"));
                    }
                    steps
                }
                Came::ToItsEnd => stepper.end(),
                Came::UntilTheEndOfAssertd => panic!("it ended: {}", world.daemon().stderr()),
            }
        }
    };
    let left = promises::hold(world);
    (hit(steps), left)
}

fn hit(steps: Vec<Step>) -> Option<Step> {
    steps.into_iter().find(|step| step.end != End::Done)
}

fn meant(world: &World, point: &Point) -> Meant {
    let audit = world.site().state_dir().join("audit");
    let (below, not_below) = match point.writes {
        Writes::Any => (Vec::new(), Vec::new()),
        Writes::State => (world.directories().to_vec(), vec![audit]),
        Writes::Audit => (vec![audit], Vec::new()),
    };
    Meant {
        call: Some(point.class.call.clone()),
        place: Some(point.class.place),
        below,
        not_below,
    }
}

/// Whoever is gone is started again as it was started before, by us or by assertd.
fn to_its_end(world: &mut World) {
    while world.go_on(|_| false) == Came::UntilTheEndOfAssertd {
        disk::is_whole(world);
        if let Err(refusal) = world.start_again() {
            panic!("it does not start again: {refusal}");
        }
    }
}

/// While state cannot be written the old state is there, what signed goes on signing, and who asks is
/// told what is wrong.
fn is_blocked(world: &World, point: &Point, errno: Errno) {
    disk::is_whole(world);
    if point.writes == Writes::State {
        promises::all_sign(world);
    }
    let by_libc = std::io::Error::from_raw_os_error(errno as i32).to_string();
    let why = [&by_libc, errno.desc()].map(str::to_owned);
    let said = wait_until(SAID_WITHIN, || {
        let says = world.says();
        why.iter().any(|why| says.contains(why))
    });
    assert!(
        said || point.writes == Writes::Audit,
        "nobody is told of {why:?}: {}\n{}",
        world.says(),
        world.daemon().stderr()
    );
    // What cannot be removed is the one thing that may be left.
    let half = disk::half_written(world);
    let is_removable = point.class.call != "unlink";
    assert!(!is_removable || half.is_empty(), "left behind: {half:?}");
}

/// A flush that failed may have lost what it was to flush, and a second one that succeeds says nothing
/// of that: the file is written anew before it takes its place (reliability row 25).
fn what_failed_is_done_again(steps: &[Step]) {
    let failed = steps.iter().position(|step| step.end == End::Failed);
    let Some(failed) = failed else {
        return;
    };
    let (step, after) = (&steps[failed], &steps[failed + 1..]);
    if !matches!(step.call.as_str(), "fsync" | "fdatasync") {
        return;
    }
    let target = &step.target;
    for later in after {
        let is_file = later.target == *target;
        let took_its_place = target.strip_suffix(".new") == Some(later.target.as_str());
        match later.call.as_str() {
            "open" if is_file || later.target.starts_with(&format!("{target}/")) => return,
            "fsync" | "fdatasync" if is_file => panic!("{target} is flushed again"),
            "rename" | "link" if took_its_place => {
                panic!("{} is what was not flushed", later.target)
            }
            _ => {}
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill => f.pad("SIGKILL"),
            Fault::Once(errno) => f.pad(&format!("{errno:?} once")),
            Fault::Lasting(errno) => f.pad(&format!("{errno:?} lasting")),
        }
    }
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Writes::Any => "",
            Writes::State => "state",
            Writes::Audit => "audit",
        })
    }
}
