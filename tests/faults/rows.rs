//! docs/reliability.md says which test keeps which promise about a fault: each that it names is there,
//! and each that is there is named.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

/// The rows that are about a token or a TPM, and those about the clock, reload and callers.
const ROWS: [RangeInclusive<u32>; 2] = [1..=20, 32..=43];

/// Words in a text that begin as the names of these tests do.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    let is_name = |word: &&str| row(word).is_some() && word.len() > "row_00_".len();
    words.filter(is_name).map(str::to_owned).collect()
}

/// The row that a test is about.
fn row(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("row_")?;
    (rest.get(2..3)? == "_").then(|| rest[..2].parse().ok())?
}

/// The tests in a directory and below, by the lines behind `#[test]`.
fn tests(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tests(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let behind = text.split("#[test]\n").skip(1);
            found.extend(behind.flat_map(|rest| {
                let head = rest.split('{').next().unwrap_or_default();
                names(head)
            }));
        }
    }
    found
}

#[test]
fn the_document_on_reliability_names_the_tests_that_there_are() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(here.join("../docs/reliability.md")).unwrap();
    let (named, there) = (names(&document), tests(&here.join("faults")));
    let missing: Vec<&String> = named.difference(&there).collect();
    assert!(missing.is_empty(), "named, and no test: {missing:#?}");
    let unnamed: Vec<&String> = there.difference(&named).collect();
    assert!(
        unnamed.is_empty(),
        "add to docs/reliability.md: {unnamed:#?}"
    );
    let rows: BTreeSet<u32> = there.iter().filter_map(|name| row(name)).collect();
    let wanted = ROWS.into_iter().flatten().collect();
    assert_eq!(rows, wanted, "rows with a test");
}
