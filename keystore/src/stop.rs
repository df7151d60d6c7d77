//! The end of a keystore process that is told to end: requests under way are answered, the token is
//! closed, the exit code is 0. What comes after waits in the socket for the next process, or sees
//! its connection end. Must never take longer than a service manager waits.

use crate::Error;
use crate::Kind;
use nix::sys::signal::{SigSet, Signal};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long requests under way may take, and the token to be closed: the units are given 5 s.
pub const DRAIN: Duration = Duration::from_secs(3);

/// How long the module may take for what it does at exit(3).
pub const EXIT: Duration = Duration::from_secs(1);

/// Keeps the signals that ask for our end until [`told`] takes them. To be called while there is one
/// thread: the others, the library's too, are started with what it holds back.
///
/// # Errors
/// If the kernel refuses.
pub fn hold_back() -> Result<(), Error> {
    asking()
        .thread_block()
        .map_err(|e| Error::new(Kind::Internal, "SIGTERM cannot be held back").because(e))
}

/// Ends the process with this code, also where what the module does at exit(3) waits for ever.
pub fn exit(code: i32) -> ! {
    kill_after(EXIT);
    std::process::exit(code)
}

/// Has the process killed after so long, unless it has ended by then. One thread alone can be in
/// exit(3), and what the module does there may wait for ever.
pub fn kill_after(wait: Duration) {
    let killer = std::thread::Builder::new().name("stop-too-late".to_owned());
    let _ = killer.spawn(move || {
        std::thread::sleep(wait);
        let _ = nix::sys::signal::raise(Signal::SIGKILL);
    }); // without it we only may be late
}

/// For a thread that has nothing to do until the process has ended.
pub fn wait_for_it() -> ! {
    loop {
        std::thread::park();
    }
}

/// Returns when our end is asked for.
pub fn told() {
    while asking().wait().is_err() {} // it can only be interrupted
}

fn asking() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

/// Requests go through while it is open.
#[derive(Default)]
pub struct Gate {
    inside: Mutex<Inside>,
    left: Condvar,
}

#[derive(Default)]
struct Inside {
    passes: usize,
    stage: Stage,
}

#[derive(Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    Closed,
}

/// One request, until its answer has been sent.
pub struct Pass(Arc<Gate>);

impl Gate {
    /// Lets a request in; nobody once the gate is closed.
    pub fn enter(self: &Arc<Self>) -> Option<Pass> {
        let mut inside = self.lock();
        if inside.stage == Stage::Closed {
            return None;
        }
        inside.passes += 1;
        Some(Pass(self.clone()))
    }

    /// Lets nobody in any more, and returns when all are out.
    pub fn close(&self) {
        let mut inside = self.lock();
        inside.stage = Stage::Closed;
        let occupied = |inside: &mut Inside| inside.passes > 0;
        drop(self.left.wait_while(inside, occupied));
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.0.lock();
        inside.passes -= 1;
        let is_awaited = inside.stage == Stage::Closed && inside.passes == 0;
        drop(inside);
        if is_awaited {
            self.0.left.notify_all();
        }
    }
}
