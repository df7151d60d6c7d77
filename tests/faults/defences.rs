//! `tests/faults/defences` has a patch for each row of the token faults that takes its defence away;
//! `make defences` shows that the row's test then fails. Here: that none of them has rotted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rows of docs/reliability.md that are about a token.
const ROWS: std::ops::RangeInclusive<u32> = 1..=20;

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().to_owned()
}

fn patches() -> Vec<PathBuf> {
    let directory = root().join("tests/faults/defences");
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut patches: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "patch"))
        .collect();
    patches.sort();
    patches
}

/// A line of its head.
fn header(patch: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(patch).unwrap();
    let start = format!("# {name}: ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{}: no line `{start}`", patch.display()))
        .to_owned()
}

#[test]
fn every_row_has_a_defence_that_can_be_taken_away() {
    let row = |patch: &PathBuf| {
        let name = patch.file_name()?.to_str()?;
        name.strip_prefix("row_")?.get(..2)?.parse::<u32>().ok()
    };
    let rows: BTreeSet<u32> = patches().iter().filter_map(row).collect();
    assert_eq!(rows, ROWS.collect());
}

#[test]
fn every_defence_is_still_where_its_patch_takes_it_away() {
    for patch in patches() {
        assert!(!header(&patch, "defence").is_empty());
        let check = Command::new("git")
            .args(["apply", "--check"])
            .arg(&patch)
            .current_dir(root())
            .env("GIT_CEILING_DIRECTORIES", root().parent().unwrap()) // whosever repository it is
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&check.stderr);
        assert!(check.status.success(), "{}: {text}", patch.display());
    }
}

#[test]
fn every_defence_names_a_test_of_its_row() {
    let list = Command::new(std::env::current_exe().unwrap())
        .arg("--list")
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let tests: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    for patch in patches() {
        let filter = header(&patch, "test");
        let name = filter
            .strip_prefix("test(")
            .and_then(|rest| rest.strip_suffix(')'))
            .unwrap_or_else(|| panic!("{}: not `test(NAME)`: {filter}", patch.display()))
            .trim_matches(['=', '/', '^', '$']);
        let row = patch.file_name().unwrap().to_str().unwrap();
        let row = row.get(.."row_00_".len()).unwrap();
        assert!(name.contains(row), "{}: {name}", patch.display());
        let there = tests.iter().any(|test| test.contains(name));
        assert!(there, "{}: no test {name}", patch.display());
    }
}
