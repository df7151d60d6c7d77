//! What each file of a configuration holds, so that a drop-in that is not read is noticed.

use super::super::out::count as counted;
use crate::config::files;
use keystore::config::{Diagnostic, read_text};
use serde::Serialize;
use std::path::Path;

/// Sections of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileCount {
    /// As it was opened.
    pub path: String,
    /// `[keystore.…]`
    pub keystores: usize,
    /// `[issuer.…]`
    pub issuers: usize,
    /// `[workload.…]`
    pub workloads: usize,
    /// `[workload.….target.…]`
    pub targets: usize,
}

/// Counts the sections of the main file and its drop-ins, which have been loaded before.
pub fn count(path: &Path) -> Result<Vec<FileCount>, Diagnostic> {
    files(path)?.iter().map(|path| of_file(path)).collect()
}

fn of_file(path: &Path) -> Result<FileCount, Diagnostic> {
    let text = read_text(path)?;
    let table: toml::Table =
        toml::from_str(&text).map_err(|error| Diagnostic::from_toml(path, &text, &error))?;
    let sections = |table: &toml::Table, name: &str| {
        table
            .get(name)
            .and_then(toml::Value::as_table)
            .map_or(0, toml::Table::len)
    };
    let workloads = table.get("workload").and_then(toml::Value::as_table);
    let targets = workloads
        .into_iter()
        .flat_map(|workloads| workloads.values())
        .filter_map(toml::Value::as_table)
        .map(|workload| sections(workload, "target"))
        .sum();
    Ok(FileCount {
        path: path.display().to_string(),
        keystores: sections(&table, "keystore"),
        issuers: sections(&table, "issuer"),
        workloads: sections(&table, "workload"),
        targets,
    })
}

impl FileCount {
    /// `1 keystore, 2 workloads, 3 targets`.
    pub fn words(&self) -> String {
        let words: Vec<String> = [
            (self.keystores, "keystore"),
            (self.issuers, "issuer"),
            (self.workloads, "workload"),
            (self.targets, "target"),
        ]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| counted(number, noun))
        .collect();
        if words.is_empty() {
            "nothing".to_owned()
        } else {
            words.join(", ")
        }
    }
}
