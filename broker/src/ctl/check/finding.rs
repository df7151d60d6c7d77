//! What can be said about a configuration that loads: the checks, each with an id that never changes
//! its meaning, and findings, which are one check's answer about one place. Pure data.

use crate::config::Place;
use serde::Serialize;
use std::fmt;

/// How bad it is. The order is the one they are shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It can never work.
    Error,
    /// It works, and is unwise.
    Warning,
    /// It is as it should be, and worth knowing.
    Info,
}

/// One question that is asked of a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// `E1`, `W1`, `I1`; with the facts of a host `H1` … Never given to another question.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
}

/// One thing to know about a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's.
    pub id: &'static str,
    /// The check's.
    pub severity: Severity,
    /// The section.
    pub object: String,
    /// Where it is written: a file and, but for the configuration as a whole, a line.
    pub place: String,
    /// What it means.
    pub text: String,
    /// What to write instead.
    pub remedy: String,
}

macro_rules! checks {
    ($($name:ident $id:literal $severity:ident;)*) => {
        $(pub const $name: Check = Check { id: $id, severity: Severity::$severity };)*
        /// Every check, in the order they are explained in.
        pub const ALL: &[Check] = &[$($name),*];
    };
}

// What each says is in assertctl(1), FINDINGS, and at length in explain.toml.
checks! {
    SAME_OWNERS "E1" Error;
    NEVER_MATCHES "E2" Error;
    COVERED "E3" Error;
    NO_WORKLOAD "W1" Warning;
    USER_ALONE "W2" Warning;
    DYNAMIC_USER "W3" Warning;
    NO_EXPIRY "W4" Warning;
    EXPIRED "W5" Warning;
    EXPIRES_SOON "W6" Warning;
    NO_OWNER "W7" Warning;
    NO_TARGET "W8" Warning;
    PID_FALLBACK "W9" Warning;
    SAME_PROCESSES "W10" Warning;
    LONG_TOKEN "W11" Warning;
    OVERLAP "W12" Warning;
    SLICE_ALONE "W13" Warning;
    USER_UNIT "W14" Warning;
    LONG_ASSERTION "W15" Warning;
    WIDE_PATTERN "W16" Warning;
    SHARED_SUBJECT "W17" Warning;
    SHARED_CLIENT "W18" Warning;
    BOUNDS_WITHOUT_FILE "W19" Warning;
    BOUNDS_OF_EVERYTHING "W20" Warning;
    IDLE_SHADOW "W21" Warning;
    INTERACTIVE_SERVICE "W22" Warning;
    CONTAINER_SCOPE "W23" Warning;
    OVERFLOW_USER "W24" Warning;
    IDLE_UNLESS "W25" Warning;
    NO_PURPOSE "I1" Info;
    NEEDS_WITNESS "I2" Info;
    NOT_ALL_PAIRS "I3" Info;
    NO_UNIT "H1" Warning;
    OTHER_USER "H2" Error;
    RUNS_AS_ROOT "H3" Warning;
    DYNAMIC_UNIT "H4" Warning;
    OTHER_PROGRAM "H5" Warning;
    OTHER_SLICE "H6" Error;
    NO_PEER_PIDFD "H7" Warning;
    NO_WITNESS "H8" Error;
    NO_MODULE "H9" Error;
    NO_SOCKET "H10" Warning;
    NO_USER "H11" Warning;
}

impl Check {
    /// The check of this id.
    pub fn named(id: &str) -> Option<&'static Check> {
        ALL.iter().find(|check| check.id.eq_ignore_ascii_case(id))
    }

    /// Its answer about one place.
    pub fn at(
        &self,
        object: impl Into<String>,
        place: &Place,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        self.finding(object.into(), place.to_string(), text.into(), remedy.into())
    }

    /// Its answer about a configuration as a whole, of which the main file is named.
    pub fn of_all(
        &self,
        file: &std::path::Path,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        let place = file.display().to_string();
        self.finding(
            "configuration".to_owned(),
            place,
            text.into(),
            remedy.into(),
        )
    }

    fn finding(&self, object: String, place: String, text: String, remedy: String) -> Finding {
        Finding {
            id: self.id,
            severity: self.severity,
            object,
            place,
            text,
            remedy,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "note",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_check_has_an_id_of_its_own_and_a_line_in_the_manual() {
        let manual = include_str!("../../../../docs/man/assertctl.1.md");
        let ids: BTreeSet<&str> = ALL.iter().map(|check| check.id).collect();
        assert_eq!(ids.len(), ALL.len());
        for check in ALL {
            let row = format!("| {} | {} |", check.id, check.severity);
            assert!(manual.contains(&row), "assertctl.1.md has no row {row}");
            let letter = match check.severity {
                Severity::Error => 'E',
                Severity::Warning => 'W',
                Severity::Info => 'I',
            };
            assert!(check.id.starts_with([letter, 'H']), "{}", check.id);
        }
        let begins = |line: &&str| {
            ["| E", "| W", "| I", "| H"]
                .iter()
                .any(|it| line.starts_with(it))
        };
        for row in manual.lines().filter(begins) {
            let id = row[2..].split(' ').next().unwrap();
            assert!(ids.contains(id), "assertctl.1.md: no check has the id {id}");
        }
    }
}
