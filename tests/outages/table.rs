//! The figures: one row for each fault, for people and for programs.

use crate::scene::fault::Fault;
use crate::scene::log::Outage;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// What was measured of one fault.
#[derive(Serialize)]
pub struct Row {
    fault: &'static str,
    keystore: &'static str,
    runs: usize,
    /// The token's own, in each run.
    absence_s: Vec<f64>,
    outage_s_worst: f64,
    outage_s_median: f64,
    /// Of all runs.
    failed_requests: usize,
    longest_answer_s: f64,
    /// Of all runs.
    pub keystore_restarts: u64,
    pub assertd_restarts: u64,
    /// What should hold and does not.
    #[serde(skip)]
    pub broken: Vec<String>,
    #[serde(skip)]
    outages: Vec<f64>,
}

impl Row {
    /// Before the first run.
    pub fn new(fault: Fault) -> Row {
        Row {
            fault: fault.name(),
            keystore: fault.keystore(),
            runs: 0,
            absence_s: Vec::new(),
            outage_s_worst: 0.0,
            outage_s_median: 0.0,
            failed_requests: 0,
            longest_answer_s: 0.0,
            keystore_restarts: 0,
            assertd_restarts: 0,
            broken: Vec::new(),
            outages: Vec::new(),
        }
    }

    /// Adds a run.
    pub fn add(&mut self, outage: Outage, absence: Duration) {
        let ms = |time: Duration| (time.as_secs_f64() * 1e3).round() / 1e3;
        self.runs += 1;
        self.absence_s.push(ms(absence));
        self.outages.push(ms(outage.outage));
        self.outages.sort_unstable_by(f64::total_cmp);
        self.outage_s_worst = self.outages[self.outages.len() - 1];
        self.outage_s_median = self.outages[self.outages.len() / 2];
        self.failed_requests += outage.failed;
        self.longest_answer_s = self.longest_answer_s.max(ms(outage.longest));
    }

    /// Adds what does not hold of the row as a whole.
    pub fn judge(&mut self, outage_max: Duration) {
        let (fault, worst) = (self.fault, self.outage_s_worst);
        if worst > outage_max.as_secs_f64() {
            let text = format!("{fault}: an outage of {worst} s, {outage_max:?} are promised");
            self.broken.push(text);
        }
        if self.assertd_restarts != 0 {
            self.broken.push(format!("{fault}: assertd has ended"));
        }
    }
}

/// For people.
pub fn print(rows: &[Row]) {
    println!(
        "{:<34} {:<8} {:>12} {:>8} {:>8} {:>8} {:>10} {:>9}",
        "fault", "keystore", "absence (s)", "worst", "median", "failed", "longest", "restarts"
    );
    for row in rows {
        let absences: Vec<String> = row.absence_s.iter().map(|s| format!("{s:.1}")).collect();
        println!(
            "{:<34} {:<8} {:>12} {:>6.2} s {:>6.2} s {:>8} {:>8.2} s {:>9}",
            row.fault,
            row.keystore,
            absences.join(" "),
            row.outage_s_worst,
            row.outage_s_median,
            row.failed_requests,
            row.longest_answer_s,
            row.keystore_restarts,
        );
    }
}

/// For programs.
pub fn write(rows: &[Row], path: &Path) {
    let json = serde_json::to_string_pretty(rows).expect("names and numbers");
    std::fs::write(path, json + "\n").expect("target/ is ours");
    println!("written to {}", path.display());
}

/// A log: the client's of all runs of one fault, assertd's of all so far.
pub fn write_log(name: &str, text: &str) {
    let dir = Path::new("target/bench/outages");
    std::fs::create_dir_all(dir).expect("target/ is ours");
    let name = name.replace([' ', '\''], "-");
    std::fs::write(dir.join(format!("{name}.log")), text).expect("target/ is ours");
}
