//! What one run of `assertctl check` has found.

use crate::boxed::{Outcome, SysBox};
use serde_json::Value;

/// What one run of the doctor said.
pub struct Report {
    pub exit: Option<i32>,
    findings: Vec<Value>,
}

/// Runs it.
pub fn examine(boxed: &SysBox) -> Result<Report, String> {
    parse(&boxed.run(&["assertctl", "check", "--json"]))
}

/// Of what `assertctl check --json` has printed; its exit code must say the same.
pub fn parse(said: &Outcome) -> Result<Report, String> {
    let report: Value = serde_json::from_str(&said.stdout)
        .map_err(|e| format!("{e}: {}{}", said.stdout, said.stderr))?;
    let findings = report["findings"].as_array().ok_or("no findings")?.clone();
    let fails = findings.iter().any(|it| it["severity"] == "fail");
    if report["ok"] != !fails || said.code != Some(i32::from(fails)) {
        return Err(format!("ok and exit code {:?} differ: {report}", said.code));
    }
    Ok(Report {
        exit: said.code,
        findings,
    })
}

impl Report {
    /// A finding of this id, if it is there and as severe as that.
    pub fn find(&self, id: &str, severity: &str) -> Option<&Value> {
        self.findings
            .iter()
            .find(|it| it["id"] == id && it["severity"] == severity)
    }

    /// What is not ok, for messages.
    pub fn bad(&self) -> String {
        let bad = self.findings.iter().filter(|it| it["severity"] != "ok");
        bad.map(|it| format!("\n{it}")).collect()
    }
}
