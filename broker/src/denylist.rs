//! Deny lists: executables, units and users that get nothing, whatever a section says. Kept in files
//! of their own, which somebody else may write than the configuration (an incident's tool), and read
//! again when they change. Only what would be granted is held against them.
//!
//! A list that cannot be read any more stays as it was, loudly: it must not stop denying because its
//! file is being replaced.

use crate::audit::Sha256;
use crate::selector::Pattern;
use crate::workload::{Program, Workload};
use keystore::config::{Diagnostic, read_text};
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

mod watch;
#[cfg(test)]
use watch::News;
pub use watch::{Reading, Sight, Watched, watch};
#[cfg(test)]
mod tests;

/// Which files. Each holds one entry a line; what follows a `#` is a remark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// SHA-256 digests of executables.
    pub executables: Option<PathBuf>,
    /// Units, by name or path, with one `*` at most.
    pub units: Option<PathBuf>,
    /// Users, by name or number.
    pub users: Option<PathBuf>,
}

/// What they hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DenyLists {
    executables: HashSet<Sha256>,
    units: Vec<Pattern>,
    users: HashSet<u32>,
    /// Over the text of all of them; none where there is no list.
    sha256: Option<Sha256>,
}

/// Why a workload gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// Its executable is listed.
    Executable,
    /// Its unit is.
    Unit,
    /// Its user is.
    User,
    /// Executables are listed, and what it runs could not be found out.
    NotAttestable,
}

impl Files {
    /// All of them that there are.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let all = [&self.executables, &self.units, &self.users];
        all.into_iter().flatten()
    }

    /// Reads them.
    ///
    /// # Errors
    /// The first line that is no entry, with its place; a file that cannot be read.
    pub fn read(&self) -> Result<DenyLists, Diagnostic> {
        let mut texts = Vec::new();
        Ok(DenyLists {
            executables: entries(
                "executables",
                self.executables.as_deref(),
                &mut texts,
                digest,
            )?
            .into_iter()
            .collect(),
            units: entries("units", self.units.as_deref(), &mut texts, unit)?,
            users: entries("users", self.users.as_deref(), &mut texts, user)?
                .into_iter()
                .collect(),
            sha256: self
                .paths()
                .next()
                .map(|_| Sha256::of_texts(texts.iter().map(Option::as_deref))),
        })
    }
}

impl DenyLists {
    /// Whether it has to be known what a workload runs.
    pub fn asks_for_program(&self) -> bool {
        !self.executables.is_empty()
    }

    /// Whether a workload is listed.
    pub fn hit(&self, workload: &Workload) -> Option<Hit> {
        if self.users.contains(&workload.uid()) {
            return Some(Hit::User);
        }
        let unit = workload.unit();
        if unit.is_some_and(|unit| self.units.iter().any(|pattern| unit.fits(pattern))) {
            return Some(Hit::Unit);
        }
        match workload.program() {
            _ if !self.asks_for_program() => None,
            Program::Is { sha256, .. } => {
                self.executables.contains(sha256).then_some(Hit::Executable)
            }
            Program::Unread | Program::NotAttestable(_) => Some(Hit::NotAttestable),
        }
    }

    /// What the lists are called in records: the SHA-256 over their files, each after its length in
    /// eight bytes; of a file that is not configured that is 2⁶⁴ − 1. None where there is no list.
    pub fn sha256(&self) -> Option<Sha256> {
        self.sha256
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.executables.len() + self.units.len() + self.users.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Hit {
    /// The reason as records say it: a fixed word.
    pub fn reason(self) -> &'static str {
        match self {
            Hit::Executable => "listed_executable",
            Hit::Unit => "listed_unit",
            Hit::User => "listed_user",
            Hit::NotAttestable => "program_not_attestable",
        }
    }
}

/// The entries of one file.
fn entries<T>(
    key: &str,
    path: Option<&Path>,
    read: &mut Vec<Option<String>>,
    entry: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Diagnostic> {
    let Some(path) = path else {
        read.push(None);
        return Ok(Vec::new());
    };
    let named = || format!("named by `{key}` in [deny]; it may be empty");
    let text = read_text(path).map_err(|error| error.with_help(named()))?;
    let mut found = Vec::new();
    for (word, span) in words(&text) {
        match entry(word) {
            Ok(entry) => found.push(entry),
            Err(why) => return Err(Diagnostic::at(path, &text, span, why, None)),
        }
    }
    read.push(Some(text));
    Ok(found)
}

/// What stands on each line before a remark, and where.
fn words(text: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    let mut start = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let at = start;
        start += line.len();
        let entry = line.split('#').next().unwrap_or_default();
        let word = entry.trim();
        let from = at + (entry.len() - entry.trim_start().len());
        (!word.is_empty()).then(|| (word, from..from + word.len()))
    })
}

fn digest(word: &str) -> Result<Sha256, String> {
    // As sha256sum prints it: the name that follows is for people.
    let digits = word.split_ascii_whitespace().next().unwrap_or_default();
    Sha256::from_hex(digits)
        .ok_or_else(|| "write a SHA-256, 64 hexadecimal digits, as sha256sum prints it".to_owned())
}

fn unit(word: &str) -> Result<Pattern, String> {
    Pattern::of_units(word).map_err(|error| error.to_string())
}

fn user(word: &str) -> Result<u32, String> {
    if let Ok(uid) = word.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(word) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!(
            "this host has no user `{word}`: write its number, or remove the line"
        )),
        Err(errno) => Err(format!(
            "whether there is a user `{word}` cannot be asked now ({})",
            errno.desc()
        )),
    }
}
