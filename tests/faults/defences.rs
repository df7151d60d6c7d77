//! `tests/faults/defences` has a patch for each row that takes its defence away, and some for what all
//! share: the order of the queue, and what is handed out again. `make defences` shows that the test
//! which a patch names then fails. Here: that none of them has rotted.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rows with a defence that is a few lines: that a process without memory ends (43) is the allocator's.
const ROWS: [RangeInclusive<u32>; 5] = [1..=21, 23..=23, 25..=27, 31..=42, OF_CALLERS];

/// Rows about callers have their tests in `e2e`; those of the others are in this program.
const OF_CALLERS: RangeInclusive<u32> = 44..=47;

/// How the names of the others begin.
const SHARED: [&str; 2] = ["queue_", "reuse_"];

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

fn file_name(patch: &Path) -> String {
    let name = patch.file_name().expect("a file");
    name.to_str().expect("ASCII").to_owned()
}

/// The row that a patch is about.
fn row(patch: &Path) -> Option<u32> {
    let name = file_name(patch);
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

/// The test that a patch names.
fn test_of(patch: &Path) -> String {
    let filter = header(patch, "test");
    let name = filter
        .strip_prefix("test(")
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap_or_else(|| panic!("{}: not `test(NAME)`: {filter}", patch.display()));
    name.trim_matches(['=', '/', '^', '$']).to_owned()
}

fn is_of_callers(patch: &Path) -> bool {
    row(patch).is_some_and(|row| OF_CALLERS.contains(&row))
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
    let of_rows = patches().into_iter().filter(|patch| row(patch).is_some());
    for patch in of_rows.filter(|patch| !is_of_callers(patch)) {
        let name = test_of(&patch);
        let row = file_name(&patch);
        let row = row.get(.."row_00_".len()).unwrap();
        assert!(name.contains(row), "{}: {name}", patch.display());
        let there = tests.iter().any(|test| test.contains(&name));
        assert!(there, "{}: no test {name}", patch.display());
    }
}

/// Whether there is a test of this name in the sources below: `who::pid::NAME` is in who/pid.rs or
/// who/pid/mod.rs, and one of `queue::tests` may be at the end of queue.rs.
fn is_test_below(dir: &Path, name: &str) -> bool {
    let (module, function) = name.rsplit_once("::").expect("a test is in a module");
    let file = |module: &str| dir.join(module.replace("::", "/"));
    let outer = module.strip_suffix("::tests").unwrap_or(module);
    let files = [
        file(module).with_extension("rs"),
        file(module).join("mod.rs"),
        file(outer).with_extension("rs"),
    ];
    let head = ["#[test]".to_owned(), format!("fn {function}() {{")];
    let texts = files
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok());
    texts.into_iter().any(|text| {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.windows(2).any(|two| two == head)
    })
}

/// By their sources, as they are of another program.
#[test]
fn every_defence_against_callers_names_a_test_that_there_is() {
    let (mut seen, e2e) = (0, root().join("tests/e2e"));
    for patch in patches().into_iter().filter(|patch| is_of_callers(patch)) {
        let name = test_of(&patch);
        let is_there = is_test_below(&e2e, &name);
        assert!(is_there, "{}: no test {name}", patch.display());
        seen += 1;
    }
    assert!(seen >= OF_CALLERS.count(), "{seen}");
}

/// Likewise; of this program, or the broker's own.
#[test]
fn every_defence_of_what_is_shared_names_a_test_that_there_is() {
    let below = ["tests/faults", "broker/src"].map(|dir| root().join(dir));
    for shared in SHARED {
        let is_of_it = |patch: &PathBuf| file_name(patch).starts_with(shared);
        let patches: Vec<PathBuf> = patches().into_iter().filter(is_of_it).collect();
        assert!(!patches.is_empty(), "no patch for {shared}");
        for patch in patches {
            let name = test_of(&patch);
            let is_there = below.iter().any(|dir| is_test_below(dir, &name));
            assert!(is_there, "{}: no test {name}", patch.display());
        }
    }
}

#[test]
fn every_defence_is_of_a_row_or_of_what_is_shared() {
    for patch in patches() {
        let name = file_name(&patch);
        let is_shared = SHARED.iter().any(|shared| name.starts_with(shared));
        assert!(row(&patch).is_some() || is_shared, "{name}");
    }
}
