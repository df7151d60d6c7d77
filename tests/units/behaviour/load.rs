//! Many clients that ask while something is done to assertd.

use super::units::{PATIENCE, demand};
use crate::boxed::SysBox;
use harness::wait_until;
use serde::Deserialize;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc;
use std::time::Duration;

/// How many ask at a time.
const THREADS: &str = "8";

/// When this is there, the load ends.
const OVER: &str = "/run/load-is-over";

/// What the clients do with their connections, and when a request fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// A connection for each request, and no second try.
    OnceFresh,
    /// A connection for each request, and one more try.
    RetryFresh,
    /// Connections are kept, and one more try.
    RetryKept,
}

/// Clients at work, as `load.service`.
pub struct Load<'b> {
    boxed: &'b SysBox,
    child: Child,
    lines: mpsc::Receiver<String>,
}

/// What they saw. Tries and requests are different things: see `asker`.
#[derive(Deserialize)]
pub struct Counts {
    pub served: usize,
    pub not_connected: usize,
    pub cut: usize,
    pub unavailable: usize,
    pub lost: usize,
    why: Vec<String>,
    slowest_ms: u64,
}

impl Counts {
    /// Of the requests that were served or lost, with all their tries.
    pub fn slowest(&self) -> Duration {
        Duration::from_millis(self.slowest_ms)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} served, slowest {} ms; tries: {} not connected, {} cut, {} unavailable; {} lost",
            self.served, self.slowest_ms, self.not_connected, self.cut, self.unavailable, self.lost
        )?;
        self.why
            .iter()
            .try_for_each(|why| write!(f, "\n     | {why}"))
    }
}

impl Load<'_> {
    /// Starts them and waits until each has been served once.
    pub fn start(boxed: &SysBox, manner: Manner) -> Result<Load<'_>, String> {
        let _ = std::fs::remove_file(boxed.root().join(&OVER[1..])); // there is one after a load
        let (tries, connections) = match manner {
            Manner::OnceFresh => ("once", "fresh"),
            Manner::RetryFresh => ("retry", "fresh"),
            Manner::RetryKept => ("retry", "kept"),
        };
        let mut child = boxed
            .spawn(&[
                "systemd-run",
                "--quiet",
                "--collect",
                "--wait",
                "--pipe",
                "--unit=load.service",
                "asker",
                "load",
                "load",
                THREADS,
                tries,
                connections,
                OVER,
            ])
            .map_err(|e| format!("nsenter: {e}"))?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line); // nobody waits for it any more
            }
        });
        let load = Load {
            boxed,
            child,
            lines,
        };
        let line = load.line("the load never began")?;
        demand(line == "begun", || line)?;
        Ok(load)
    }

    /// Ends it.
    pub fn end(mut self) -> Result<Counts, String> {
        self.boxed.write(OVER, "")?;
        let line = self.line("the load does not end")?;
        let ended = wait_until(PATIENCE, || matches!(self.child.try_wait(), Ok(Some(_))));
        demand(ended, || "load.service does not end".to_owned())?;
        let counts: Counts =
            serde_json::from_str(&line).map_err(|e| format!("asker: {e}: {line}"))?;
        println!("     {counts}");
        Ok(counts)
    }

    fn line(&self, otherwise: &str) -> Result<String, String> {
        self.lines
            .recv_timeout(PATIENCE)
            .map_err(|_| otherwise.to_owned())
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.boxed.run(&["systemctl", "stop", "load.service"]);
            let _ = self.child.kill(); // it ends with its unit
            let _ = self.child.wait();
        }
    }
}
