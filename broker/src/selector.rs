//! One thing that a section says about a workload, and whether it holds. A section's `match` is a
//! list of these, all of which must hold.
//!
//! Three verdicts, for what cannot be read is neither true nor false: where a selector has to hold
//! *unknown* is not enough, and where one must not hold (`unless`) it is too much. Pure: nothing
//! here asks the system; what a workload is was attested before.

use crate::audit::Sha256;
use crate::workload::{Groups, Program, Session, Workload};
use std::fmt;

mod compare;
mod pattern;
pub use compare::{contradiction, imply};
pub use pattern::{NotAPattern, Pattern, unescaped, unit_name};
#[cfg(test)]
mod tests;

/// A selector with what it demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `unit`: a system unit, by its name, or by its cgroup path if it starts with `/`.
    Unit(Pattern),
    /// `slice`: a slice it is in, at any depth.
    Slice(String),
    /// `user_unit`: a unit of the user's own service manager. Whoever is that user can start one of
    /// any name, so that it says no more about a stranger than the user does.
    UserUnit(Pattern),
    /// `user`, `uid`: real, effective, saved and file-system user id, which are equal.
    User(u32),
    /// `group`, `gid`: the same of the group.
    Group(u32),
    /// `supplementary_group`: one of its other groups.
    SupplementaryGroup(u32),
    /// `exe`: the path of the executable. Never enough alone.
    Executable(String),
    /// `exe_sha256`: the SHA-256 of the executable, one of these. Never enough alone.
    Digest(Vec<Sha256>),
    /// `container`: whether it runs in a pid namespace of its own.
    Container(bool),
    /// `interactive`: whether it has a terminal or belongs to a login session.
    Interactive(bool),
}

/// What a selector says of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as demanded.
    Holds,
    /// It is not.
    Fails,
    /// It could not be found out.
    Unknown,
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Verdict {
        if holds {
            Verdict::Holds
        } else {
            Verdict::Fails
        }
    }
}

/// What has to be read of a workload, beyond what every request reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing.
    Always,
    /// Its terminal.
    Session,
    /// Its executable, which the witness reads.
    Program,
}

impl Selector {
    /// Its key in the configuration, and its name in records.
    pub fn key(&self) -> &'static str {
        match self {
            Selector::Unit(_) => "unit",
            Selector::Slice(_) => "slice",
            Selector::UserUnit(_) => "user_unit",
            Selector::User(_) => "user",
            Selector::Group(_) => "group",
            Selector::SupplementaryGroup(_) => "supplementary_group",
            Selector::Executable(_) => "exe",
            Selector::Digest(_) => "exe_sha256",
            Selector::Container(_) => "container",
            Selector::Interactive(_) => "interactive",
        }
    }

    /// What it needs to know.
    pub fn source(&self) -> Source {
        match self {
            Selector::Executable(_) | Selector::Digest(_) => Source::Program,
            Selector::Interactive(_) => Source::Session,
            _ => Source::Always,
        }
    }

    /// Whether it holds.
    pub fn verdict(&self, workload: &Workload) -> Verdict {
        match self {
            Selector::Unit(wanted) => workload.unit().is_some_and(|unit| unit.fits(wanted)).into(),
            Selector::Slice(wanted) => workload.slices().any(|slice| slice == wanted).into(),
            Selector::UserUnit(wanted) => workload
                .user_unit()
                .is_some_and(|unit| wanted.matches(unit))
                .into(),
            Selector::User(uid) => (*uid == workload.uid()).into(),
            Selector::Group(gid) => (*gid == workload.gid()).into(),
            Selector::SupplementaryGroup(gid) => match workload.groups() {
                Groups::Unread => Verdict::Unknown,
                Groups::Are(groups) => groups.contains(gid).into(),
            },
            Selector::Executable(wanted) => match workload.program() {
                Program::Is {
                    path: Some(path), ..
                } => (path == wanted).into(),
                Program::Is { path: None, .. } | Program::Unread | Program::NotAttestable(_) => {
                    Verdict::Unknown
                }
            },
            Selector::Digest(wanted) => match workload.program() {
                Program::Is { sha256, .. } => wanted.contains(sha256).into(),
                Program::Unread | Program::NotAttestable(_) => Verdict::Unknown,
            },
            Selector::Container(wanted) => (*wanted == workload.container()).into(),
            Selector::Interactive(wanted) => match workload.session() {
                Session::Unread => Verdict::Unknown,
                session => (*wanted == session.is_interactive()).into(),
            },
        }
    }

    /// What it demands, for people.
    pub fn wanted(&self) -> String {
        match self {
            Selector::Unit(pattern) | Selector::UserUnit(pattern) => pattern.to_string(),
            Selector::Slice(text) | Selector::Executable(text) => text.clone(),
            Selector::User(id) | Selector::Group(id) | Selector::SupplementaryGroup(id) => {
                id.to_string()
            }
            Selector::Digest(digests) => {
                let digests: Vec<String> = digests.iter().map(ToString::to_string).collect();
                digests.join(" or ")
            }
            Selector::Container(wanted) | Selector::Interactive(wanted) => wanted.to_string(),
        }
    }

    /// What a workload has instead, for people.
    pub fn found(&self, workload: &Workload) -> String {
        let none = || "none".to_owned();
        match self {
            Selector::Unit(wanted) => {
                let unit = workload.unit();
                unit.map_or_else(none, |unit| unit.as_in(wanted).to_owned())
            }
            Selector::Slice(_) => {
                let slices: Vec<&str> = workload.slices().collect();
                if slices.is_empty() {
                    none()
                } else {
                    slices.join(", ")
                }
            }
            Selector::UserUnit(_) => workload.user_unit().map_or_else(none, str::to_owned),
            Selector::User(_) => workload.uid().to_string(),
            Selector::Group(_) => workload.gid().to_string(),
            Selector::SupplementaryGroup(_) => match workload.groups() {
                Groups::Unread => "not read".to_owned(),
                Groups::Are(groups) if groups.is_empty() => none(),
                Groups::Are(groups) => {
                    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
                    groups.join(", ")
                }
            },
            Selector::Executable(_) => match workload.program() {
                Program::Is {
                    path: Some(path), ..
                } => path.clone(),
                Program::Is { path: None, .. } => {
                    "not attestable: no path of this host leads to it any more".to_owned()
                }
                other => other.to_string(),
            },
            Selector::Digest(_) => workload.program().to_string(),
            Selector::Container(_) => workload.container().to_string(),
            Selector::Interactive(_) => workload.session().to_string(),
        }
    }
}

/// As it would be written in a configuration.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Container(_) | Selector::Interactive(_) => {
                write!(f, "{} = {}", self.key(), self.wanted())
            }
            Selector::User(_) => write!(f, "uid = {}", self.wanted()),
            Selector::Digest(digests) if digests.len() > 1 => {
                let digests: Vec<String> = digests.iter().map(|one| format!("\"{one}\"")).collect();
                write!(f, "{} = [{}]", self.key(), digests.join(", "))
            }
            Selector::Group(_) => write!(f, "gid = {}", self.wanted()),
            Selector::SupplementaryGroup(_) => write!(f, "{} = {}", self.key(), self.wanted()),
            _ => write!(f, "{} = \"{}\"", self.key(), self.wanted()),
        }
    }
}
