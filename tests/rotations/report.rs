//! The figures, for people and for programs, and whether they are what was promised.

use crate::board::{Board, Counts};
use crate::keys::{KEYS, Lead};
use crate::operator::Activation;
use crate::run::Goal;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// What was seen in one run.
#[derive(Serialize)]
pub struct Row {
    keystore: &'static str,
    /// Seconds that assertd was told to wait, and the least that it did wait.
    lead_s: u64,
    lead_min_s: Option<f64>,
    rotations: usize,
    verified: u64,
    failed: u64,
    /// Requests for which there was no assertion; those are not among them that came when the keystore's queue was full.
    refused: u64,
    overloaded: u64,
    /// Looks that came too late to say anything.
    late: u64,
    released: u64,
    /// Verifications of the first and last assertion of a version by clients that keep sets.
    first_uses: usize,
    last_uses: usize,
    seconds: f64,
    /// What should hold and does not.
    #[serde(skip)]
    pub broken: Vec<String>,
    #[serde(skip)]
    lead: Lead,
}

/// A version that came to sign in the last moment need not have been seen by anybody.
const LAST_MOMENT_MS: u64 = 3_000;

impl Row {
    pub fn new(
        keystore: &'static str,
        lead: Lead,
        goal: Goal,
        took: Duration,
        board: &Board,
        activations: &[Activation],
        stopped_ms: u64,
    ) -> Row {
        let counts = board.counts();
        let in_time = activations
            .iter()
            .filter(|it| it.at_ms + LAST_MOMENT_MS < stopped_ms);
        let unseen = in_time.filter(|it| board.kid(&it.kid).used_ms.is_none());
        let unseen: Vec<&str> = unseen.map(|it| it.key.as_str()).collect();
        let leads = activations.iter().filter_map(|it| {
            let published_ms = board.kid(&it.kid).published_ms?;
            Some(it.at_ms.saturating_sub(published_ms))
        });
        let mut row = Row {
            keystore,
            lead_s: lead.seconds(),
            lead_min_s: leads.min().map(|ms| ms as f64 / 1e3),
            rotations: activations.len(),
            verified: counts.verified,
            failed: counts.failed,
            refused: counts.refused,
            overloaded: counts.overloaded,
            late: counts.late,
            released: counts.released,
            first_uses: counts.first_uses.0,
            last_uses: counts.last_uses.0,
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            broken: Vec::new(),
            lead,
        };
        row.judge(goal, &counts, &unseen);
        if !row.broken.is_empty() || lead == Lead::None {
            show_wrong(board);
        }
        row
    }

    fn judge(&mut self, goal: Goal, counts: &Counts, unseen: &[&str]) {
        let mut demand = |holds: bool, what: String| {
            if !holds {
                self.broken.push(what);
            }
        };
        let rotations = self.rotations;
        demand(
            rotations >= goal.rotations,
            format!("{rotations} rotations, {} are asked for", goal.rotations),
        );
        demand(
            counts.verified >= goal.verified,
            format!(
                "{} verifications, {} are asked for",
                counts.verified, goal.verified
            ),
        );
        demand(unseen.is_empty(), format!("nobody saw {unseen:?} sign"));
        match self.lead {
            Lead::None => demand(
                counts.failed > 0,
                "without a lead nothing fails: this finds nothing".to_owned(),
            ),
            Lead::Published => {
                demand(
                    counts.failed == 0,
                    format!("{} verifications failed", counts.failed),
                );
                demand(
                    counts.refused == 0,
                    format!("{} requests got nothing", counts.refused),
                );
                for (what, (done, all)) in
                    [("first", counts.first_uses), ("last", counts.last_uses)]
                {
                    let text =
                        format!("{done} of {all} {what} uses were verified by who keeps sets");
                    demand(done == all, text);
                }
            }
        }
    }
}

impl Lead {
    fn seconds(self) -> u64 {
        match self {
            Lead::Published => crate::keys::PUBLISH_S + crate::keys::CACHE_S,
            Lead::None => 0,
        }
    }
}

fn show_wrong(board: &Board) {
    let (failures, complaints) = board.wrong();
    for failure in failures {
        let kid = board.kid(&failure.kid);
        let ago = |at: Option<u64>| match at {
            Some(at) if at > failure.looked_ms => {
                format!("{:.2} s after", (at - failure.looked_ms) as f64 / 1e3)
            }
            Some(at) => format!("{:.2} s before", (failure.looked_ms - at) as f64 / 1e3),
            None => "never".to_owned(),
        };
        eprintln!(
            "  {} key {} kid {}: {}; published {}, at the edge {}, first used {}, its set fetched {}",
            failure.client,
            KEYS[failure.key].name,
            &failure.kid[..failure.kid.len().min(8)],
            failure.why,
            ago(kid.published_ms),
            ago(kid.served_ms),
            ago(kid.used_ms),
            ago(failure.fetched_ms),
        );
    }
    for complaint in complaints {
        eprintln!("  {complaint}");
    }
}

/// All runs. What is at the top is of those with a lead.
#[derive(Serialize)]
pub struct Report {
    rotations: usize,
    verified: u64,
    failed: u64,
    failed_without_lead: u64,
    runs: Vec<Row>,
    #[serde(skip)]
    verified_min: u64,
}

impl Report {
    pub fn new(runs: Vec<Row>, verified_min: u64) -> Report {
        let with = |lead: Lead| runs.iter().filter(move |row| row.lead == lead);
        Report {
            rotations: with(Lead::Published).map(|row| row.rotations).sum(),
            verified: with(Lead::Published).map(|row| row.verified).sum(),
            failed: with(Lead::Published).map(|row| row.failed).sum(),
            failed_without_lead: with(Lead::None).map(|row| row.failed).sum(),
            runs,
            verified_min,
        }
    }

    pub fn holds(&self) -> bool {
        self.verified >= self.verified_min && self.runs.iter().all(|row| row.broken.is_empty())
    }

    pub fn print(&self) {
        println!(
            "{:<9} {:>6} {:>9} {:>10} {:>10} {:>8} {:>8} {:>6} {:>11} {:>10} {:>8}",
            "keystore",
            "lead",
            "least",
            "rotations",
            "verified",
            "failed",
            "refused",
            "late",
            "first uses",
            "last uses",
            "took"
        );
        for row in &self.runs {
            println!(
                "{:<9} {:>4} s {:>7.2} s {:>10} {:>10} {:>8} {:>8} {:>6} {:>11} {:>10} {:>6.0} s",
                row.keystore,
                row.lead_s,
                row.lead_min_s.unwrap_or(f64::NAN),
                row.rotations,
                row.verified,
                row.failed,
                row.refused,
                row.late,
                row.first_uses,
                row.last_uses,
                row.seconds,
            );
        }
        for row in &self.runs {
            for what in &row.broken {
                println!("FAIL {}, lead {} s: {what}", row.keystore, row.lead_s);
            }
        }
        if self.verified < self.verified_min {
            println!(
                "FAIL {} verifications, {} are asked for",
                self.verified, self.verified_min
            );
        }
    }

    pub fn write(&self, path: &Path) {
        let dir = path.parent().expect("a file in a directory");
        std::fs::create_dir_all(dir).expect("target/ is ours");
        let json = serde_json::to_string_pretty(self).expect("names and numbers");
        std::fs::write(path, json + "\n").expect("target/ is ours");
        println!("written to {}", path.display());
    }
}
