//! `tests/faults/defences` has a patch for each row that takes its defence away; `make defences` shows
//! that the row's test then fails. Here: that none of them has rotted.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rows with tests in this program and with a defence that is a few lines: that a process without memory
/// ends (43) is the allocator's. What is about callers (44 to 47) has its tests in `e2e`.
const ROWS: [RangeInclusive<u32>; 2] = [1..=20, 32..=42];

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
    let rows: BTreeSet<u32> = patches().iter().filter_map(|patch| row(patch)).collect();
    let missing: Vec<u32> = ours().filter(|row| !rows.contains(row)).collect();
    assert!(missing.is_empty(), "no patch for {missing:?}");
}

fn ours() -> impl Iterator<Item = u32> {
    ROWS.into_iter().flatten()
}

/// The row that a patch is about.
fn row(patch: &Path) -> Option<u32> {
    let name = patch.file_name()?.to_str()?;
    name.strip_prefix("row_")?.get(..2)?.parse().ok()
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
    let is_ours = |patch: &PathBuf| row(patch).is_some_and(|row| ours().any(|one| one == row));
    for patch in patches().into_iter().filter(is_ours) {
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
