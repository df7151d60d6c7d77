//! Every mistake that a configuration can have, and what is said about it, word for word: one file
//! each in `errors/`, with what it holds above and the answer below.
//!
//! ```text
//! A key that is nearly one.                     what it is about
//! run: assertctl -c {dir}/x.toml config check   unless it is the usual command
//! schema: refuses                               what the JSON Schema makes of it (see `schema`)
//! --- conf.d/payments.toml                      a file, by its path below {dir}
//! …
//! --- says                                      exit code and standard error
//! ```
//!
//! A case without an assertd.toml has the one in `errors/`. `UPDATE=1` in the environment has the
//! answers written anew; read them in the diff as somebody would who sees them for the first time.

use crate::here;
use harness::programs::Programs;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Before that even a start on a busy machine has failed. In seconds.
const FAILS_WITHIN: &str = "30";

/// What is run unless a case says otherwise.
const USUAL: &str = "assertctl -c {dir}/assertd.toml config check";

/// One file of `errors/`.
pub struct Case {
    pub path: PathBuf,
    /// Its name, without the suffix.
    pub name: String,
    run: String,
    pub schema: Verdict,
    /// By path below `{dir}`.
    pub files: BTreeMap<String, String>,
    pub says: String,
}

/// What a tool makes of a case that knows the schema alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It refuses one of the files.
    Refuses,
    /// It takes all of them.
    CannotKnow,
    /// There is nothing to hold against a schema.
    NoToml,
}

/// All of them, by name.
pub fn cases() -> Vec<Case> {
    let files = fs::read_dir(here().join("errors")).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "txt"));
    paths.sort();
    paths.into_iter().map(Case::read).collect()
}

#[test]
fn every_mistake_is_told_as_it_was_read_by_people() {
    let programs = Programs::installed();
    let update = std::env::var_os("UPDATE").is_some();
    let cases = cases();
    let wrong = &|cases: &[Case]| -> Vec<String> {
        let told = cases.iter().map(|case| (case, case.answer(&programs)));
        let other = told.filter(|(case, says)| *says != case.says);
        other
            .map(|(case, says)| {
                if update {
                    case.rewrite(&says);
                }
                let Case {
                    name, says: old, ..
                } = case;
                format!("{name}\n--- expected\n{old}--- got\n{says}")
            })
            .collect()
    };
    // Each is a process that waits more than it computes.
    let share = cases.len().div_ceil(8);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let shares = cases.chunks(share);
        let threads: Vec<_> = shares
            .map(|cases| scope.spawn(move || wrong(cases)))
            .collect();
        let found = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        found.collect()
    });
    assert!(update || wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A table for those who look for one: what each begins with is whom it is about.
#[test]
fn every_mistake_is_a_failure_with_a_reason() {
    for case in cases() {
        let (exit, text) = case.says.split_once('\n').unwrap_or_default();
        assert_eq!(exit, "exit 78", "{}", case.name);
        let program = case.run.split(' ').next().unwrap_or_default();
        let (who, reason) = text.split_once(": ").unwrap_or_default();
        assert_eq!(who, program, "{}", case.name);
        assert!(!reason.is_empty(), "{}", case.name);
        for line in text.lines() {
            assert_eq!(line.trim_end(), line, "{}", case.name);
        }
    }
}

impl Case {
    fn read(path: PathBuf) -> Case {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (head, rest) = text
            .split_once("\n--- ")
            .unwrap_or_else(|| panic!("{name}: no `--- says`"));
        let field = |field: &str| {
            let mut lines = head.lines().skip(1);
            lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(": "))
        };
        let schema = match field("schema") {
            Some("refuses") => Verdict::Refuses,
            Some("cannot know") => Verdict::CannotKnow,
            Some("no TOML") => Verdict::NoToml,
            other => panic!("{name}: schema: {other:?}"),
        };
        let run = field("run").unwrap_or(USUAL).to_owned();
        let sections = rest
            .split("\n--- ")
            .map(|section| match section.split_once('\n') {
                Some((title, text)) => (
                    title.to_owned(),
                    text.trim_end_matches('\n').to_owned() + "\n",
                ),
                None => (section.to_owned(), String::new()),
            });
        let mut files: BTreeMap<String, String> = sections.collect();
        let says = files
            .remove("says")
            .unwrap_or_else(|| panic!("{name}: no `--- says`"));
        let common = || fs::read_to_string(here().join("errors/assertd.toml")).unwrap();
        files
            .entry("assertd.toml".to_owned())
            .or_insert_with(common);
        Case {
            path,
            name,
            run,
            schema,
            files,
            says,
        }
    }

    /// Runs it.
    fn answer(&self, programs: &Programs) -> String {
        let tmp = harness::public_dir();
        let dir = tmp.path().to_str().unwrap();
        for (path, text) in &self.files {
            let path = tmp.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("{dir}", dir)).unwrap();
        }
        let mut words = self.run.split(' ');
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", FAILS_WITHIN]);
        command.arg(programs.path(words.next().unwrap()));
        command.args(words.map(|word| word.replace("{dir}", dir).replace("''", "")));
        command
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{}", self.name);
        let said = String::from_utf8_lossy(&output.stderr).replace(dir, "{dir}");
        // What assertd says on the way, of this machine.
        let said = said
            .lines()
            .filter(|line| !line.starts_with("assertd: sandbox: "));
        let said: String = said.map(|line| format!("{line}\n")).collect();
        let code = output.status.code().unwrap_or(-1);
        format!("exit {code}\n{said}")
    }

    fn rewrite(&self, says: &str) {
        let text = fs::read_to_string(&self.path).unwrap();
        let (input, _) = text.split_once("\n--- says").unwrap();
        fs::write(&self.path, format!("{input}\n--- says\n{says}")).unwrap();
    }
}
