//! Stands at the system calls of a process by which it changes something outside of it, counts them,
//! and at a chosen one kills the process or has the call fail. What is between two of them changes
//! nothing that anybody else will ever see, so that a kill before each is a kill at every system call.
//!
//! strace(1) counts for each thread apart, and a file is written by whatever thread is free: the same
//! number would be another call each time. Here one count is of all threads. Told what to do by an
//! [`Order`] in its only argument; SIGTERM ends it and lets the process go on.

mod calls;
mod registers;

use calls::{Call, Entered};
use harness::stepper::{Action, Order, Place};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let order = std::env::args().nth(1).unwrap_or_default();
    let order: Order = match serde_json::from_str(&order) {
        Ok(order) => order,
        Err(error) => {
            eprintln!("stepper: no order: {error}");
            return ExitCode::from(2);
        }
    };
    match run(order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stepper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(order: Order) -> std::io::Result<()> {
    // Blocked before there is anything to be told of, and taken one by one.
    let mut told = SigSet::empty();
    told.add(Signal::SIGCHLD);
    told.add(Signal::SIGTERM);
    told.thread_block()?;
    let mut stepper = Stepper {
        report: File::create(&order.report)?,
        process: Pid::from_raw(order.pid.cast_signed()),
        order,
        threads: BTreeSet::new(),
        failing: BTreeMap::new(),
        counted: 0,
        matched: 0,
    };
    stepper.attach()?;
    eprintln!("stepper: attached");
    let mut leaving = false;
    loop {
        if stepper.step()? == Process::Gone {
            return Ok(());
        }
        // A call that is being failed is waited for: its thread must not be told that it never was.
        if leaving && stepper.failing.is_empty() {
            return Ok(()); // the kernel lets all threads go on (ptrace(2))
        }
        if told.wait()? == Signal::SIGTERM {
            leaving = true;
        }
    }
}

/// Whether there still is one.
#[derive(PartialEq, Eq)]
enum Process {
    There,
    Gone,
}

struct Stepper {
    order: Order,
    process: Pid,
    report: File,
    threads: BTreeSet<Pid>,
    /// Threads inside a call that does not happen, and what it is to answer.
    failing: BTreeMap<Pid, i32>,
    /// Calls that change something outside, and those of them that are meant.
    counted: u64,
    matched: u64,
}

impl Stepper {
    /// Takes all threads, and those that they start from now on.
    fn attach(&mut self) -> std::io::Result<()> {
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
        loop {
            let mut is_complete = true;
            for entry in std::fs::read_dir(format!("/proc/{}/task", self.process))? {
                let name = entry?.file_name();
                let number = name.to_str().and_then(|name| name.parse().ok());
                let thread = Pid::from_raw(number.ok_or(Errno::EINVAL)?);
                if self.threads.contains(&thread) {
                    continue;
                }
                is_complete = false;
                match ptrace::seize(thread, options) {
                    Ok(()) => ptrace::interrupt(thread)?,
                    // It has ended, or is one that a thread of ours has started: it comes by itself.
                    Err(Errno::ESRCH | Errno::EPERM) => {}
                    Err(errno) => return Err(errno.into()),
                }
                self.threads.insert(thread);
            }
            if is_complete {
                return Ok(());
            }
        }
    }

    /// Deals with everything that has stopped since.
    fn step(&mut self) -> std::io::Result<Process> {
        loop {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
            let status = match waitpid(None, Some(flags)) {
                Err(Errno::ECHILD) => return Ok(Process::Gone),
                other => other?,
            };
            let (thread, signal) = match status {
                WaitStatus::StillAlive => return Ok(Process::There),
                WaitStatus::Exited(ended, _) | WaitStatus::Signaled(ended, ..) => {
                    if ended == self.process {
                        return Ok(Process::Gone);
                    }
                    continue;
                }
                WaitStatus::PtraceSyscall(thread) => {
                    self.at_call(thread)?;
                    (thread, None)
                }
                WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
                WaitStatus::PtraceEvent(thread, ..) => (thread, None),
                WaitStatus::Continued(_) => continue,
            };
            alive(ptrace::syscall(thread, signal))?;
        }
    }

    /// A thread has come to a call, or has come out of one.
    fn at_call(&mut self, thread: Pid) -> std::io::Result<()> {
        let info = match ptrace::syscall_info(thread) {
            Err(Errno::ESRCH) => return Ok(()), // killed
            other => other?,
        };
        if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            if let Some(errno) = self.failing.remove(&thread) {
                alive(registers::answer(thread, errno))?;
            }
            return Ok(());
        }
        let (number, arguments) = match registers::call(thread) {
            Err(Errno::ESRCH) => return Ok(()),
            other => other?,
        };
        let Some(call) = Call::of(number) else {
            return Ok(());
        };
        let Some(entered) = call.entered(thread, &arguments) else {
            return Ok(());
        };
        self.counted += 1;
        let is_meant = self.means(&entered);
        self.matched += u64::from(is_meant);
        let done = match (&self.order.action, is_meant) {
            (Action::Kill { at }, true) if *at == self.matched => "killed",
            (Action::Fail { from, times, .. }, true)
                if (*from..from.saturating_add(*times)).contains(&self.matched) =>
            {
                "failed"
            }
            _ => "done",
        };
        let (number, name, target) = (self.counted, entered.call, &entered.target);
        writeln!(
            self.report,
            "{number}\t{name}\t{}\t{target}\t{done}",
            entered.place
        )?;
        match (&self.order.action, done) {
            (_, "killed") => kill(self.process, Signal::SIGKILL)?,
            (Action::Fail { errno, .. }, "failed") => {
                alive(registers::skip(thread))?;
                self.failing.insert(thread, *errno);
            }
            _ => {}
        }
        Ok(())
    }

    fn means(&self, entered: &Entered) -> bool {
        let order = &self.order;
        let below = |place: &String| entered.target.starts_with(place.as_str());
        order.call.as_ref().is_none_or(|call| call == entered.call)
            && order.place.is_none_or(|place| place == entered.place)
            && (order.below.is_empty() || order.below.iter().any(below))
            && !order.not_below.iter().any(below)
            && (entered.place != Place::File || !entered.target.is_empty())
    }
}

/// Whatever is done to a thread that was killed meanwhile is done.
fn alive(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    }
}
