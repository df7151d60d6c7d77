//! What came of all trials, as a table: one line for each program, call and fault.

use crate::rotation::points::{Left, Point};
use std::collections::BTreeMap;

/// How many numbers hit a call, and what did not hold.
#[derive(Default)]
pub struct Table {
    lines: BTreeMap<String, Line>,
    failures: Vec<String>,
}

#[derive(Default)]
struct Line {
    hit: u64,
    failed: u64,
    /// So often an object was left in the token that status names.
    reported: u64,
    /// A rotation came to its end without being hit.
    is_complete: bool,
}

/// What a line of the table begins with.
pub fn line(point: &Point) -> String {
    format!(
        "{:24} {:10} {:6} {:5} {}",
        point.subject, point.class.call, point.class.place, point.writes, point.fault
    )
}

impl Table {
    /// Takes note of one.
    pub fn note(&mut self, point: &Point, outcome: Result<(Option<String>, Left), String>) {
        let name = line(point);
        let number = point.number;
        let line = self.lines.entry(name.clone()).or_default();
        match outcome {
            Ok((Some(target), left)) => {
                line.hit += 1;
                line.reported += u64::from(left == Left::Reported);
                eprintln!("ok   {name} N={number} at {target}");
            }
            Ok((None, _)) => line.is_complete = true,
            Err(why) => {
                line.failed += 1;
                eprintln!("FAIL {name} N={number}: {why}");
                self.failures.push(format!("{name} N={number}: {why}"));
            }
        }
    }

    /// How many did not hold.
    pub fn failures(&self) -> usize {
        self.failures.len() + self.lines.values().filter(|line| !line.is_complete).count()
    }

    /// To standard output.
    pub fn print(&self) {
        let heads = ["program", "call", "at", "of", "fault"];
        let [program, call, place, writes, fault] = heads;
        println!(
            "{program:24} {call:10} {place:6} {writes:5} {fault:16} {:>5} reported failed",
            "N"
        );
        for (name, line) in &self.lines {
            let incomplete = if line.is_complete {
                ""
            } else {
                "  (not to its end)"
            };
            let (all, reported, failed) = (line.hit + line.failed, line.reported, line.failed);
            println!("{name:65} {all:>5} {reported:>8} {failed:>6}{incomplete}");
        }
        let (hit, failed) = self.lines.values().fold((0, 0), |(hit, failed), it| {
            (hit + it.hit, failed + it.failed)
        });
        println!("{} points, {failed} failed", hit + failed);
        for failure in &self.failures {
            println!("FAIL {failure}");
        }
    }
}
