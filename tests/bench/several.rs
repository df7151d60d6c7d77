//! What one keystore's targets feel when another hangs or is absent: the same steady load on a SoftHSM
//! token while a TPM's keystore is well, stands still, is well, and has no process, round after round.
//!
//! The TPM's target is asked all the time too, so many times a second, as its workloads would: what
//! they wait and what they are refused for is part of what the others might feel.

use crate::load::{self, Times};
use crate::site::NO_LIMIT;
use crate::summary::{Summary, median};
use crate::window::{Cpu, Run, rate, run, together};
use harness::process::send;
use harness::{Config, DEADLINE, Daemon, SoftHsm, Tpm, wait_until};
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Rounds of well, hung, well, absent. Ratios are taken between neighbours, so that a build that
/// begins or ends on the machine decides nothing.
const ROUNDS: usize = 7;

/// Windows each time: a keystore that hangs is noticed after a second, and known to be down after six.
const WINDOWS: usize = 5;

/// Connections of the steady load.
const CONNECTIONS: usize = 8;

/// The other keystore's target is asked this often.
const ASKED_EVERY: Duration = Duration::from_millis(50);

const WELL: &str = "well";
const ILL: &str = "ill";

/// How the other keystore is.
#[derive(Clone, Copy)]
enum Other {
    Well,
    Hung,
    Absent,
}

/// Measures all of it.
pub fn report(summary: &mut Summary) {
    let (hsm, tpm) = (SoftHsm::new(), Tpm::new());
    let uid = nix::unistd::geteuid().as_raw();
    let of = |keystore: &str| format!("keystore = \"{keystore}\"");
    let config = Config::default()
        .keystore(WELL, &hsm, "")
        .keystore(ILL, &tpm, "")
        .workload("bench", uid, NO_LIMIT)
        .target("bench", WELL, &of(WELL))
        .target("bench", ILL, &of(ILL));
    let daemon = Daemon::with_keys(config);
    let trickle = Trickle::start(&daemon.socket());
    let (mut hung, mut absent) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        eprintln!("several keystores, round {round} of {ROUNDS}");
        for (other, pairs) in [(Other::Hung, &mut hung), (Other::Absent, &mut absent)] {
            let before = windows(&daemon, Other::Well);
            pairs.push((before, windows(&daemon, other)));
        }
    }
    for (name, pairs) in [("hung", &hung), ("absent", &absent)] {
        let each = |of: fn(&(Vec<Run>, Vec<Run>)) -> f64| median(pairs.iter().map(of).collect());
        let mut push = |what: &str, value, unit| {
            summary.push(&format!("other_keystore_{what}_{name}"), value, unit);
        };
        push("p99_us_before", each(|(before, _)| p99(before)), "us");
        push("p99_us", each(|(_, ill)| p99(ill)), "us");
        push(
            "p99_ratio",
            each(|(before, ill)| p99(ill) / p99(before)),
            "",
        );
        push(
            "rate_ratio",
            each(|(before, ill)| rate(ill) / rate(before)),
            "",
        );
    }
    let (granted, refused) = trickle.stop();
    summary.push("ill_keystore_granted", granted as f64, "");
    summary.push("ill_keystore_refused", refused.count() as f64, "");
    let slowest = refused.percentile_us(100.0) / 1e6;
    summary.push("ill_keystore_slowest_refusal_s", slowest, "s");
}

/// Of each window; then the one in the middle, so that a neighbour's burst does not decide.
fn p99(runs: &[Run]) -> f64 {
    let each = runs
        .chunks(1)
        .map(|run| together(run).0.percentile_us(99.0));
    median(each.collect())
}

/// Windows of the steady load while the other keystore is like that.
fn windows(daemon: &Daemon, other: Other) -> Vec<Run> {
    let request = load::request(WELL);
    let windows = || {
        let window = |_| run(&daemon.socket(), CONNECTIONS, &request, Cpu::default);
        (0..WINDOWS).map(window).collect()
    };
    let pid = || daemon.keystore_process(ILL).expect("it is well");
    match other {
        Other::Well => windows(),
        Other::Hung => {
            send(pid(), Signal::SIGSTOP);
            let runs = windows();
            send(pid(), Signal::SIGCONT);
            daemon.wait_usable();
            runs
        }
        Other::Absent => {
            // Without its program it cannot be started again.
            let program = daemon.site().programs().path("assertd-keystore-tpm");
            let aside = program.with_extension("aside");
            std::fs::rename(&program, &aside).expect("the directory is ours");
            send(pid(), Signal::SIGKILL);
            let runs = windows();
            std::fs::rename(&aside, &program).expect("the directory is ours");
            let back = wait_until(DEADLINE, || daemon.keystore_process(ILL).is_some());
            assert!(back, "{}", daemon.stderr());
            daemon.wait_usable();
            runs
        }
    }
}

/// Requests for the other keystore's target, each on a connection of its own, answered or not.
struct Trickle {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Times)>,
}

impl Trickle {
    fn start(socket: &Path) -> Trickle {
        let stop = Arc::new(AtomicBool::new(false));
        let (socket, told) = (socket.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || ask_until(&socket, &told));
        Trickle { stop, thread }
    }

    /// How many were granted, and how long refusals took.
    fn stop(self) -> (usize, Times) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("no panic")
    }
}

fn ask_until(socket: &PathBuf, stop: &AtomicBool) -> (usize, Times) {
    let request = load::request(ILL);
    let (mut waiting, mut granted, mut refused) = (Vec::new(), 0, Vec::new());
    while !stop.load(Ordering::SeqCst) || !waiting.is_empty() {
        if !stop.load(Ordering::SeqCst) {
            let mut stream = UnixStream::connect(socket).expect("assertd listens");
            let asked = Instant::now();
            stream.write_all(&request).expect("assertd reads");
            stream.set_nonblocking(true).expect("a socket can be that");
            waiting.push((stream, asked));
        }
        waiting.retain_mut(|(stream, asked)| match status(stream) {
            None => true,
            Some(200) => {
                granted += 1;
                false
            }
            Some(status) => {
                assert_eq!(status, 503);
                refused.push(asked.elapsed());
                false
            }
        });
        std::thread::sleep(ASKED_EVERY);
    }
    (granted, Times::new(refused))
}

/// The answer's status, if there is one yet.
fn status(stream: &mut UnixStream) -> Option<u16> {
    let mut head = [0; 4096];
    match stream.read(&mut head) {
        Ok(length) => {
            let text = std::str::from_utf8(&head[9..12.min(length)]);
            Some(
                text.ok()
                    .and_then(|text| text.parse().ok())
                    .expect("a status"),
            )
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("a connection broke: {error}"),
    }
}
