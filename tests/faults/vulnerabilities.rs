//! docs/past-vulnerabilities.md says which test would notice if a failure of the past came back. Each
//! test that it names is there, each row names one or says what it waits for, and each attack on who is
//! calling is named.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The tables, of which the first two may have no row without a test.
const TABLES: [&str; 4] = [
    "Who is calling",
    "What callers do, and where they live",
    "What is signed and what is checked",
    "The module, the token, the process",
];
const COMPLETE: usize = 2;

/// In the place of a test.
const NOT_YET: &str = "not yet: ";

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().to_owned()
}

/// One row: the failure, and what its last column names.
struct Row {
    failure: String,
    tests: Vec<String>,
    checks: Vec<String>,
    waits: Vec<String>,
}

/// The rows of each table, in the document's order.
fn tables(document: &str) -> Vec<(String, Vec<Row>)> {
    let sections = document.split("\n## ").skip(1);
    let table = |section: &str| {
        let (title, body) = section.split_once('\n').unwrap();
        let rows = body.lines().filter(|line| line.starts_with("| "));
        let rows = rows.skip(2).map(row).collect(); // its head and the line below
        (title.to_owned(), rows)
    };
    sections.map(table).collect()
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    let [failure, _lesson, named] = cells[..] else {
        panic!("not three columns: {line}");
    };
    let (mut tests, mut checks, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    for part in named.split("<br>") {
        if let Some(what) = part.strip_prefix(NOT_YET) {
            waits.push(what.to_owned());
        } else if let Some(check) = part.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
            checks.push(check.to_owned());
        } else {
            let words = part.split('`').skip(1).step_by(2);
            tests.extend(words.filter(|word| is_test_name(word)).map(str::to_owned));
        }
    }
    Row {
        failure: failure.to_owned(),
        tests,
        checks,
        waits,
    }
}

/// Names of tests are promises, of three words and more.
fn is_test_name(word: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    word.split('_').count() > 2 && word.chars().all(|letter| is_part(letter) || letter == '_')
}

/// All sources in a directory and below, but for what was built.
fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// The functions in a text behind one of these marks.
fn functions(text: &str, mark: &str) -> BTreeSet<String> {
    let behind = text.split(mark).skip(1);
    let name = |rest: &str| {
        let name = rest.split_once("fn ")?.1;
        let end = name.find(['(', '<'])?;
        Some(name[..end].to_owned())
    };
    behind.filter_map(name).collect()
}

#[test]
fn the_document_on_past_vulnerabilities_names_tests_that_there_are() {
    let root = root();
    let document = std::fs::read_to_string(root.join("docs/past-vulnerabilities.md")).unwrap();
    let tables = tables(&document);
    let titles: Vec<&str> = tables.iter().map(|(title, _)| title.as_str()).collect();
    assert_eq!(titles, TABLES);

    let sources: Vec<(PathBuf, String)> = ["broker", "keystore", "tests"]
        .iter()
        .flat_map(|dir| sources(&root.join(dir)))
        .collect();
    let (mut tests, mut of_who, mut checks) = (BTreeSet::new(), BTreeSet::new(), String::new());
    for (path, text) in &sources {
        let mut here = functions(text, "#[test]\n");
        if path.ends_with("conformance/promises.rs") {
            here.extend(functions(text, "\npub ")); // tests of every keystore
        }
        if path.starts_with(root.join("tests/e2e/who")) {
            of_who.extend(here.iter().cloned());
        }
        if path.starts_with(root.join("tests/units")) {
            checks.push_str(text);
        }
        tests.extend(here);
    }

    let mut named = BTreeSet::new();
    for (table, (title, rows)) in tables.into_iter().enumerate() {
        assert!(rows.len() >= 5, "{title}: only {} rows", rows.len());
        for row in rows {
            let failure = format!("{title}: {}", row.failure);
            for test in &row.tests {
                assert!(tests.contains(test), "{failure}: no test {test}");
            }
            for check in &row.checks {
                let there = checks.contains(&format!("\"{check}\""));
                assert!(there, "{failure}: no check {check:?}");
            }
            for what in &row.waits {
                assert!(what.len() > 10, "{failure}: what does it wait for?");
            }
            let shown = row.tests.len() + row.checks.len();
            let waits = row.waits.len() * usize::from(table >= COMPLETE);
            assert!(shown + waits > 0, "{failure}: no test");
            named.extend(row.tests);
        }
    }
    let unnamed: Vec<&String> = of_who.difference(&named).collect();
    assert!(unnamed.is_empty(), "add to the document: {unnamed:#?}");
    assert!(of_who.len() > 20, "{of_who:#?}");
}

#[test]
fn a_row_is_read_by_its_last_column() {
    let row = row(
        "| a | b | `no_such_test`, `word`; \"a check\"<br>\"units: it holds\"<br>not yet: later |",
    );
    assert_eq!(row.failure, "a");
    assert_eq!(row.tests, ["no_such_test"]);
    assert_eq!(row.checks, ["units: it holds"]);
    assert_eq!(row.waits, ["later"]);
}
