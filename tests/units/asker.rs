//! A workload for use inside the box: asks assertd once, or many times at once while something
//! happens to it. It says what it saw, in JSON; what that ought to be is the checks' business.
//! It must never try more often than it was told, or count a failure as anything else.
#![allow(
    clippy::unwrap_used,
    reason = "a test client that cannot go on fails the check that uses it"
)]

use assertd_client::{Client, Error, SOCKET};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: asker once TARGET
       asker load TARGET THREADS retry|once kept|fresh OVER

once: asks once and prints what came of it.
load: THREADS at a time ask again and again. Prints `begun` when each has an answer, goes on until
there is a file OVER, then prints the counts. With `retry`, what failed is tried once more.
With `kept`, connections are kept; with `fresh`, each request has its own.
";

/// Between two requests of one thread: this is to be many clients, not a busy loop.
const PAUSE: Duration = Duration::from_millis(5);

/// Before the second try, where the answer named no time.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// A load that nobody ends is over after this.
const LOAD_MAX: Duration = Duration::from_secs(60);

/// As many reasons for lost requests are told.
const REASONS_MAX: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = match words[..] {
        ["once", target] => once(target),
        [
            "load",
            target,
            threads,
            tries @ ("retry" | "once"),
            how @ ("kept" | "fresh"),
            over,
        ] => {
            let load = Load {
                target,
                tries: if tries == "retry" { 2 } else { 1 },
                kept: how == "kept",
                over: Path::new(over),
            };
            load.run(threads.parse().unwrap())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    println!("{report}");
    ExitCode::SUCCESS
}

/// What came of one attempt.
enum Attempt {
    Answered {
        id: String,
    },
    /// 429 or 503: may be tried again, after a while.
    Unavailable {
        id: String,
        status: u16,
        wait: Duration,
    },
    /// Any other problem.
    Refused {
        id: String,
        status: u16,
    },
    /// Nobody listens.
    NotConnected(String),
    /// Connected, and no answer.
    Cut(String),
}

fn attempt(connection: &mut Option<Client>, target: &str) -> Attempt {
    let client = match connection {
        Some(client) => client,
        None => match Client::connect(Path::new(SOCKET)) {
            Ok(client) => connection.insert(client),
            Err(error) => return Attempt::NotConnected(error.to_string()),
        },
    };
    let answer = client.assertion(target, None);
    if answer.is_err() {
        *connection = None;
    }
    match answer {
        Ok(answer) => Attempt::Answered { id: answer.id },
        Err(Error::Refused {
            problem,
            retry_after_s,
        }) => match problem.status {
            429 | 503 => Attempt::Unavailable {
                id: problem.id,
                status: problem.status,
                wait: retry_after_s.map_or(RETRY_WAIT, Duration::from_secs),
            },
            status => Attempt::Refused {
                id: problem.id,
                status,
            },
        },
        Err(error) => Attempt::Cut(error.to_string()),
    }
}

fn once(target: &str) -> Value {
    match attempt(&mut None, target) {
        Attempt::Answered { id } => json!({"status": 200, "id": id}),
        Attempt::Unavailable { id, status, .. } | Attempt::Refused { id, status } => {
            json!({"status": status, "id": id})
        }
        Attempt::NotConnected(why) | Attempt::Cut(why) => json!({"status": 0, "why": why}),
    }
}

/// What one thread has seen.
#[derive(Default)]
struct Seen {
    /// Requests that got their assertion, at the first try or the second.
    served: usize,
    /// Tries that found nobody listening.
    not_connected: usize,
    /// Tries that were connected and got no answer.
    cut: usize,
    /// Tries answered with 429 or 503.
    unavailable: usize,
    /// Requests without an assertion after all their tries, and why.
    lost: Vec<String>,
    slowest: Duration,
}

struct Load<'a> {
    target: &'a str,
    tries: usize,
    kept: bool,
    over: &'a Path,
}

impl Load<'_> {
    fn run(&self, threads: usize) -> Value {
        let (begun, start) = (AtomicUsize::new(0), Instant::now());
        let goes_on = || !self.over.exists() && start.elapsed() < LOAD_MAX;
        let seen: Vec<Seen> = thread::scope(|scope| {
            let asking: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| self.ask_while(goes_on, &begun)))
                .collect();
            while begun.load(Ordering::Relaxed) < threads && goes_on() {
                thread::sleep(Duration::from_millis(1));
            }
            println!("begun");
            std::io::stdout().flush().unwrap();
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let sum = |of: fn(&Seen) -> usize| seen.iter().map(of).sum::<usize>();
        let lost: Vec<&String> = seen.iter().flat_map(|seen| &seen.lost).collect();
        json!({
            "served": sum(|seen| seen.served),
            "not_connected": sum(|seen| seen.not_connected),
            "cut": sum(|seen| seen.cut),
            "unavailable": sum(|seen| seen.unavailable),
            "lost": lost.len(),
            "why": lost.iter().take(REASONS_MAX).collect::<Vec<_>>(),
            "slowest_ms": seen.iter().map(|seen| seen.slowest.as_millis()).max(),
        })
    }

    fn ask_while(&self, goes_on: impl Fn() -> bool, begun: &AtomicUsize) -> Seen {
        let (mut seen, mut connection) = (Seen::default(), None);
        while goes_on() {
            let (first, asked) = (seen.served == 0, Instant::now());
            request(&mut seen, &mut connection, self.target, self.tries);
            seen.slowest = seen.slowest.max(asked.elapsed());
            if first && seen.served == 1 {
                begun.fetch_add(1, Ordering::Relaxed);
            }
            if !self.kept {
                connection = None;
            }
            thread::sleep(PAUSE);
        }
        seen
    }
}

/// One request with all its tries.
fn request(seen: &mut Seen, connection: &mut Option<Client>, target: &str, tries: usize) {
    let mut why = String::new();
    for left in (0..tries).rev() {
        let wait = match attempt(connection, target) {
            Attempt::Answered { .. } => {
                seen.served += 1;
                return;
            }
            Attempt::Unavailable { status, wait, id } => {
                seen.unavailable += 1;
                why += &format!("status {status} ({id}); ");
                wait
            }
            Attempt::Refused { status, id } => {
                why += &format!("status {status} ({id}); ");
                break; // asking again does not help
            }
            Attempt::NotConnected(text) => {
                seen.not_connected += 1;
                why += &format!("{text}; ");
                RETRY_WAIT
            }
            Attempt::Cut(text) => {
                seen.cut += 1;
                why += &format!("{text}; ");
                RETRY_WAIT
            }
        };
        if left > 0 {
            thread::sleep(wait);
        }
    }
    seen.lost.push(why);
}
