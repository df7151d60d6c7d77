//! `make rotations`: whether anybody who verifies notices that keys rotate. Two hundred clients have assertions
//! of a running assertd and verify them, from their first second to their last, while version follows version;
//! three keep JWKS for as long as they may, and what is published reaches them by a cache as slow as it may be.
//! Once with keys in SoftHSM, once in swtpm, and each again without a publication lead, which has to show.
//!
//! The figures are in `target/bench/rotation.json`, what they mean in docs/reliability.md. Ends with 1 if a
//! promise does not hold. `pkcs11` or `tpm` on the command line runs that one alone.

mod board;
mod cache;
mod client;
mod edge;
mod jws;
mod keys;
mod operator;
mod place;
mod report;
mod run;
mod verifier;
mod watch;
mod wire;

use keys::Lead;
use report::Row;
use run::Goal;
use std::path::Path;
use std::process::ExitCode;

/// What a run with honest settings is to see, for each keystore. A TPM signs a tenth of what SoftHSM does.
const GOALS: [(&str, Goal); 2] = [
    (
        "pkcs11",
        Goal {
            rotations: 100,
            verified: 70_000,
        },
    ),
    (
        "tpm",
        Goal {
            rotations: 100,
            verified: 40_000,
        },
    ),
];

/// What a run without a lead is to see before it ends: it fails from the first of them on.
const WITHOUT_LEAD: Goal = Goal {
    rotations: 12,
    verified: 1_000,
};

/// Issue 8, done when 2: over all honest runs.
const VERIFIED_MIN: u64 = 100_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let known = words
        .iter()
        .all(|word| GOALS.iter().any(|(name, _)| name == word));
    assert!(known, "{words:?}: `pkcs11`, `tpm`, or both without a word");
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let mut rows: Vec<Row> = Vec::new();
    for (name, goal) in GOALS.into_iter().filter(|(name, _)| wanted(name)) {
        rows.push(run::run(name, Lead::Published, goal));
        rows.push(run::run(name, Lead::None, WITHOUT_LEAD));
    }
    let least = if words.is_empty() { VERIFIED_MIN } else { 0 };
    let report = report::Report::new(rows, least);
    report.print();
    report.write(Path::new("target/bench/rotation.json"));
    match report.holds() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
