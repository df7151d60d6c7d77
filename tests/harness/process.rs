//! One process with its standard error collected. It is ended when the value is dropped.

use crate::{DEADLINE, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running program.
pub struct Process {
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Process {
    /// Starts it; standard error is collected, standard output goes where the caller set it.
    pub fn start(command: &mut Command) -> Process {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{}: cannot be started: {error}",
                    command.get_program().display()
                )
            });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (pipe, text) = (child.stderr.take().unwrap(), stderr.clone());
        let reader = std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe
                .read_until(b'\n', &mut line)
                .is_ok_and(|length| length > 0)
            {
                text.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Process {
            child,
            stderr,
            reader,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until standard error has this text; panics with all it said otherwise.
    pub fn wait_for_stderr(&self, text: &str) {
        let there = wait_until(DEADLINE, || self.stderr().contains(text));
        assert!(
            there,
            "standard error never had {text:?}; it is:\n{}",
            self.stderr()
        );
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end, and for its last words; panics if it goes on.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let ended = wait_for(deadline, || self.child.try_wait().unwrap());
        let ended =
            ended.unwrap_or_else(|| panic!("still runs after {deadline:?}:\n{}", self.stderr()));
        let heard = wait_until(DEADLINE, || self.reader.is_finished());
        assert!(
            heard,
            "ended, and a process it left holds its standard error"
        );
        ended
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }
}

impl Drop for Process {
    /// Ends it, and the processes it started if they do not end with it.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let children = children(self.pid());
        let _ = self.child.kill(); // it may have ended just now
        let _ = self.child.wait();
        for child in children.into_iter().filter(|child| runs(*child)) {
            let _ = kill(Pid::from_raw(child.cast_signed()), Signal::SIGKILL); // likewise
            let _gone = wait_until(DEADLINE, || !runs(child));
        }
    }
}

/// Sends a signal to a process that the test owns.
pub fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
}

/// Stops a process, and waits until it has: the signal goes to one of its threads, and on a busy
/// machine the others go on until that one has run.
pub fn freeze(pid: u32) {
    send(pid, Signal::SIGSTOP);
    let stopped = wait_until(DEADLINE, || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut stats =
            tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")));
        // A thread that has ended meanwhile does nothing either.
        stats.all(|stat| stat.map_or(true, |text| parse(&text).is_none_or(|(s, _)| s == 'T')))
    });
    assert!(stopped, "{pid} goes on after SIGSTOP");
}

/// Whether a process of this number runs; a zombie does not.
pub fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The letter `/proc/PID/stat` has for its state.
pub fn state(pid: u32) -> Option<char> {
    stat(pid).map(|(state, _)| state)
}

/// Processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let numbers = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|child| stat(*child).is_some_and(|(_, parent)| parent == pid))
        .collect()
}

/// State and parent (proc_pid_stat(5)); the last `)` ends the name.
fn stat(pid: u32) -> Option<(char, u32)> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(text: &str) -> Option<(char, u32)> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
