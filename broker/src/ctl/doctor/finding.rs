//! What the doctor can say: its checks, each with an id that never changes its meaning, and the
//! findings, which are one check's answer about one thing. Pure data; looks at nothing.

use serde::Serialize;

/// How bad it is. The order is by badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works now, and is unwise, or may stop working.
    Warn,
    /// It does not work, or is not safe.
    Fail,
}

/// One question that the doctor asks.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// `D01` …, of one keystore `K01` …; never given to another question.
    pub id: &'static str,
    /// The part of the host it is about.
    pub area: &'static str,
}

/// The answer to one question about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's.
    pub id: &'static str,
    /// The check's.
    pub area: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// A command to run or a line to write that makes the finding go away; `None` if it is ok.
    pub remedy: Option<String>,
}

macro_rules! checks {
    ($($name:ident $id:literal $area:literal;)*) => {
        $(pub const $name: Check = Check { id: $id, area: $area };)*
        /// Every check, in the order of their ids.
        #[cfg(test)]
        pub const ALL: &[Check] = &[$($name),*];
    };
}

// What each asks is in assertctl(1), FINDINGS.
checks! {
    PEER_PIDFD "D01" "kernel";
    CGROUP_V2 "D02" "kernel";
    LANDLOCK "D03" "kernel";
    CLOCK_SANE "D04" "clock";
    CLOCK_SYNCHRONISED "D05" "clock";
    SWAP "D06" "memory";
    PROC_SHOWN "D07" "kernel";
    ACCOUNTS "D10" "users";
    MEMBERSHIP "D11" "users";
    CONFIG_LOADS "D12" "config";
    CONFIG_WISE "D13" "config";
    CONFIG_OWNED "D14" "config";
    CONFIG_READABLE "D15" "config";
    MODULE_THERE "D16" "module";
    MODULE_PATH "D17" "module";
    MODULE_STATE "D18" "module";
    MODULE_REACH "D19" "module";
    CREDENTIAL_THERE "D20" "credential";
    CREDENTIAL_OPENS "D21" "credential";
    CREDENTIAL_HANDED_OVER "D22" "credential";
    PIN_FILE "D23" "credential";
    TPM_THERE "D24" "tpm";
    TPM_OPENS "D25" "tpm";
    TPM_SHARED "D26" "tpm";
    TPM_REAL "D27" "tpm";
    TPM_REACH "D28" "tpm";
    TPM_PROGRAM "D29" "tpm";
    SYSTEMD "D30" "units";
    INSTALLED "D31" "units";
    MASKED "D32" "units";
    ENABLED "D33" "units";
    RUNNING "D34" "units";
    IDENTITY "D35" "units";
    PROTECTION "D36" "units";
    RELOADED "D37" "units";
    ISOLATION "D38" "units";
    SOCKET_OF_UNIT "D39" "units";
    SOCKET_THERE "D40" "socket";
    SOCKET_TAKEN "D41" "socket";
    SOCKET_MODE "D42" "socket";
    DIRECTORY "D50" "state";
    DISK "D51" "disk";
    ANSWERS "D60" "assertd";
    CONFIG_IN_FORCE "D61" "assertd";
    PROGRAM "D62" "assertd";
    DENY_LISTS "D63" "deny";
    WITNESS "D64" "witness";
    COURIER "D65" "courier";
    KEYSTORE "D70" "keystore";
    PIN_MISSING "D71" "keystore";
    PIN_WRONG "D72" "keystore";
    PIN_LOCKED "D73" "keystore";
    TOKEN_AMBIGUOUS "D74" "keystore";
    TOKEN_MISSING "D75" "keystore";
    STRANGE "D76" "keystore";
    KEY_MADE "D80" "keys";
    KEY_STATE "D81" "keys";
    CERTIFICATE "D82" "keys";
    AUDIT_WRITES "D90" "audit";
    AUDIT_CHAIN "D91" "audit";
    KEYSTORE_PROGRAM "K01" "program";
    KEYSTORE_UNIT "K02" "unit";
    DEVICE "K03" "device";
    KEYSTORE_ANSWERS "K10" "keystore";
    MODULE_SAYS "K11" "module";
    TOKEN "K12" "token";
    PIN "K13" "pin";
    SESSIONS "K14" "sessions";
    MEMORY "K15" "room";
    ALGS "K16" "algs";
    TPM "K20" "tpm";
    PRIMARY "K21" "primary";
    LOCKOUT "K22" "lockout";
    SLOTS "K23" "slots";
    SALT "K24" "salt";
    KEY "K30" "key";
    STRANGE_OBJECTS "K31" "strange";
    RATE "K32" "rate";
}

impl Check {
    /// As it should be.
    pub fn ok(&self, text: impl Into<String>) -> Finding {
        self.finding(Severity::Ok, text.into(), None)
    }

    /// Unwise.
    pub fn warn(&self, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Severity::Warn, text.into(), Some(remedy.into()))
    }

    /// Wrong.
    pub fn fail(&self, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Severity::Fail, text.into(), Some(remedy.into()))
    }

    fn finding(&self, severity: Severity, text: String, remedy: Option<String>) -> Finding {
        Finding {
            id: self.id,
            area: self.area,
            severity,
            text,
            remedy,
        }
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
            let line = format!("| {} | {} |", check.id, check.area);
            assert!(manual.contains(&line), "assertctl.1.md has no row {line}");
        }
        let is_row = |line: &&str| line.starts_with("| D") || line.starts_with("| K");
        let rows = manual.lines().filter(is_row);
        for row in rows {
            let id = row[2..].split(' ').next().unwrap();
            assert!(ids.contains(id), "assertctl.1.md: no check has the id {id}");
        }
    }
}
