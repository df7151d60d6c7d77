//! Attacks the proof of peers by their pid: a process connects, asks and ends; another, whom policy
//! allows, gets its number; only then assertd looks. Whoever kept the socket reads the answer. Prints
//! as JSON how often the number was really taken over, and how often an assertion came of it.
//!
//! Started with the user that policy allows, since a different uid is found out without any of this,
//! and with CAP_CHECKPOINT_RESTORE to choose numbers (clone3(2), `set_tid`), CAP_KILL to stop assertd,
//! CAP_DAC_OVERRIDE to give children to other cgroups. It must never count what it did not see: an
//! attempt whose number was not taken again is not one.
#![allow(
    clippy::unwrap_used,
    reason = "an attacker that cannot go on fails the test that uses it"
)]

mod sys;

use broker::sys::boot_ticks;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pause};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: impostor SOCKET TARGET ASSERTD ATTEMPTS [LIAR VICTIM]

ASSERTD is its pid. LIAR and VICTIM are directories of cgroups: who connects is born in the first,
who takes its number over in the second.
";

/// Attempts at once. Their connections wait while assertd is stopped, and one uid may have 256.
const BATCH: usize = 100;

/// For as many as there is time: systemd kills an assertd that is silent for 15 s (WatchdogSec=).
const BATCH_MAX: Duration = Duration::from_secs(3);

/// For assertd's answer to the last of them.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// How often a child that may have something tries, while it is told to connect again.
const CONNECTIONS_MAX: usize = 50;

/// How one that connected too slowly ends, without having asked.
const LATE: u8 = 1;

/// What came of all attempts.
#[derive(Default)]
struct Counts {
    attempts: usize,
    stopped: usize,
    reused: usize,
    assertions: usize,
    connect_again: usize,
    denied: usize,
    other: usize,
    nothing: usize,
}

struct Attack {
    socket: String,
    request: String,
    assertd: Pid,
    liar: Option<File>,
    victim: Option<File>,
    counts: Counts,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (socket, target, assertd, attempts, cgroups) = match words[..] {
        [socket, target, assertd, attempts] => (socket, target, assertd, attempts, None),
        [socket, target, assertd, attempts, liar, victim] => {
            (socket, target, assertd, attempts, Some((liar, victim)))
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    let body = json!({ "target": target }).to_string();
    let open = |path: &str| File::open(path).unwrap();
    let mut attack = Attack {
        socket: socket.to_owned(),
        request: format!(
            "POST /v1/assertion HTTP/1.1\r\nhost: assertd\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
        assertd: Pid::from_raw(assertd.parse().unwrap()),
        liar: cgroups.map(|(liar, _)| open(liar)),
        victim: cgroups.map(|(_, victim)| open(victim)),
        counts: Counts::default(),
    };
    let started = Instant::now();
    let attempts: usize = attempts.parse().unwrap();
    let before = attack.controls();
    let mut stopped = true;
    while attack.counts.attempts < attempts {
        let size = BATCH.min(attempts - attack.counts.attempts);
        attack.batch(size, stopped);
        stopped = !stopped; // about half against an assertd that runs: it may look at any moment
    }
    let after = attack.controls();
    let counts = &attack.counts;
    println!(
        "{}",
        json!({
            "attempts": counts.attempts,
            "while_stopped": counts.stopped,
            "reused": counts.reused,
            "assertions": counts.assertions,
            "connect_again": counts.connect_again,
            "denied": counts.denied,
            "other": counts.other,
            "nothing": counts.nothing,
            "controls": { "before": before, "after": after },
            "seconds": started.elapsed().as_secs(),
        })
    );
    ExitCode::SUCCESS
}

impl Attack {
    /// One attempt after the other, then what came of them.
    fn batch(&mut self, size: usize, stopped: bool) {
        if stopped {
            harness::process::freeze(self.assertd.as_raw().unsigned_abs());
        }
        let mut attempts = Vec::with_capacity(size);
        let begun = Instant::now();
        while attempts.len() < size && begun.elapsed() < BATCH_MAX {
            attempts.extend(self.attempt());
        }
        if stopped {
            kill(self.assertd, Signal::SIGCONT).unwrap();
        }
        let end = Instant::now() + ANSWER_DEADLINE;
        for (kept, victim) in attempts {
            self.counts.attempts += 1;
            let answer = answer(kept, end);
            if let Some(victim) = victim {
                self.counts.reused += 1;
                self.counts.stopped += usize::from(stopped);
                self.count(&answer);
                kill(victim, Signal::SIGKILL).unwrap();
                waitpid(victim, None).unwrap();
            }
        }
    }

    /// The socket is ours before and after: we read what is written to whoever connected it. None if that
    /// one took longer than a tick: it may be known as itself, and get what is its own.
    fn attempt(&self) -> Option<(OwnedFd, Option<Pid>)> {
        let kept = new_socket();
        let born = boot_ticks();
        let liar = match sys::fork(None, self.liar.as_ref().map(AsFd::as_fd)).unwrap() {
            Some(liar) => liar,
            None => {
                self.connect(kept.as_fd());
                if boot_ticks() != born {
                    sys::end(LATE);
                }
                self.send(kept.as_fd());
                sys::end(0)
            }
        };
        let end = waitpid(liar, None).unwrap(); // its number is free from here
        if end == WaitStatus::Exited(liar, LATE.into()) {
            return None;
        }
        let victim = match sys::fork(Some(liar), self.victim.as_ref().map(AsFd::as_fd)) {
            Ok(Some(victim)) => Some(victim),
            Ok(None) => loop {
                pause();
            },
            Err(_taken_by_another) => None,
        };
        Some((kept, victim))
    }

    /// The victim's own request, which is granted, and the liar's own, which is not unless both are one.
    fn controls(&self) -> serde_json::Value {
        let own = |cgroup: Option<&File>| {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            match sys::fork(None, cgroup.map(AsFd::as_fd)).unwrap() {
                Some(child) => {
                    drop(theirs);
                    let mut said = String::new();
                    ours.read_to_string(&mut said).unwrap();
                    waitpid(child, None).unwrap();
                    said
                }
                None => {
                    let status = self.own_answer();
                    send(theirs.as_raw_fd(), status.as_bytes(), MsgFlags::empty()).unwrap();
                    sys::end(0)
                }
            }
        };
        json!({ "victim": own(self.victim.as_ref()), "liar": own(self.liar.as_ref()) })
    }

    /// What a process gets that asks for itself and does as it is told.
    fn own_answer(&self) -> String {
        let mut text = String::new();
        for _ in 0..CONNECTIONS_MAX {
            let kept = new_socket();
            self.connect(kept.as_fd());
            self.send(kept.as_fd());
            text = answer(kept, Instant::now() + ANSWER_DEADLINE);
            if !text.contains("connect_again") {
                break;
            }
        }
        status(&text).to_owned()
    }

    fn connect(&self, socket: BorrowedFd<'_>) {
        let address = UnixAddr::new(Path::new(&self.socket)).unwrap();
        connect(socket.as_raw_fd(), &address).unwrap();
    }

    fn send(&self, socket: BorrowedFd<'_>) {
        // assertd may have closed it by now.
        let _ = send(
            socket.as_raw_fd(),
            self.request.as_bytes(),
            MsgFlags::MSG_NOSIGNAL,
        );
    }

    fn count(&mut self, answer: &str) {
        let counter = match status(answer) {
            "200" => &mut self.counts.assertions,
            "403" | "429" => &mut self.counts.denied,
            "503" if answer.contains("connect_again") => &mut self.counts.connect_again,
            "" => &mut self.counts.nothing,
            _ => &mut self.counts.other,
        };
        *counter += 1;
    }
}

fn new_socket() -> OwnedFd {
    let stream = SockType::Stream;
    socket(AddressFamily::Unix, stream, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

/// The first bytes that come, or none.
fn answer(socket: OwnedFd, end: Instant) -> String {
    let stream = UnixStream::from(socket);
    let left = end.saturating_duration_since(Instant::now());
    let left = left.max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left)).unwrap();
    let mut bytes = [0; 4096];
    match recv(stream.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
        Ok(length) => String::from_utf8_lossy(&bytes[..length]).into_owned(),
        Err(nix::errno::Errno::ECONNRESET) => String::new(),
        Err(errno) => panic!("no answer and no end: {errno}"),
    }
}
