//! Asks assertd as some unit of the box, and reads what the audit log has about it.

use super::units::demand;
use crate::boxed::SysBox;
use serde_json::Value;

/// What came of a request.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status; 0 if there was no answer.
    pub status: u64,
    /// Of the request, in the answer and in the audit log.
    pub id: String,
    text: String,
}

impl Answer {
    /// Of a line that `asker once` has printed.
    pub fn parse(text: &str) -> Result<Answer, String> {
        let text = text.trim();
        let value: Value = serde_json::from_str(text).map_err(|e| format!("asker: {e}: {text}"))?;
        Ok(Answer {
            status: value["status"].as_u64().ok_or("asker: no status")?,
            id: value["id"].as_str().unwrap_or_default().to_owned(),
            text: text.to_owned(),
        })
    }

    /// It is this one.
    pub fn must_be(self, status: u64) -> Result<Answer, String> {
        demand(self.status == status, || {
            format!("{} instead of {status}", self.text)
        })?;
        Ok(self)
    }
}

/// Runs a command as a transient unit with these options of systemd-run(1); what it printed.
pub fn run_as(boxed: &SysBox, options: &[&str], command: &[&str]) -> Result<String, String> {
    let mut words = vec!["systemd-run", "--quiet", "--collect"];
    words.extend(options);
    if !options.contains(&"--scope") {
        words.extend(["--wait", "--pipe"]);
    }
    words.extend(command);
    boxed
        .run(&words)
        .success()
        .map_err(|why| format!("{}: {why}", words.join(" ")))
}

/// Asks once, as a transient unit.
pub fn ask_as(boxed: &SysBox, options: &[&str], target: &str) -> Result<Answer, String> {
    Answer::parse(&run_as(boxed, options, &["asker", "once", target])?)
}

/// Asks for `bank` as payments.service, which may.
pub fn pay(boxed: &SysBox) -> Result<Answer, String> {
    ask_as(boxed, &["--unit=payments.service"], "bank")
}

/// What `assertctl whoami --json` has printed.
pub fn whoami(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("assertctl whoami: {e}: {text}"))
}

/// The audit log's decision about a request.
pub fn decision(boxed: &SysBox, id: &str) -> Result<Value, String> {
    let shown = boxed
        .run(&["assertctl", "audit", "show", "-n", "100", "--json"])
        .success()?;
    let records = shown
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records
        .filter(|record| record["kind"] == "decision")
        .find(|record| record["id"] == id)
        .ok_or_else(|| format!("the audit log has no decision {id}"))
}
