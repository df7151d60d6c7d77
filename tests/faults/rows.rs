//! docs/reliability.md says which test keeps which promise about a fault: each that it names is there,
//! and each that is there is named; and which of them only the long suite runs.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

/// The rows that are about a token or a TPM, those about state, and those about the clock, reload and
/// callers. The others have their tests elsewhere, or under another name.
const ROWS: [RangeInclusive<u32>; 3] = [1..=21, 23..=27, 31..=43];

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

/// The heads of functions in a directory and below that come behind this mark.
fn heads(dir: &Path, mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(heads(&path, mark));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let behind = text.split(mark).skip(1);
            let head = |rest: &str| rest.split('{').next().unwrap_or_default().to_owned();
            found.extend(behind.map(head));
        }
    }
    found
}

/// The tests in a directory and below that are about rows, by the lines behind `#[test]`.
fn tests(dir: &Path) -> BTreeSet<String> {
    let heads = heads(dir, "#[test]\n");
    heads.iter().flat_map(|head| names(head)).collect()
}

/// Those that nobody runs who does not say so.
fn ignored(dir: &Path) -> BTreeSet<String> {
    let name = |head: &String| {
        let (_, name) = head.split_once("\nfn ")?;
        Some(name.split('(').next()?.to_owned())
    };
    // In parts, or this file would have one.
    let mark = ["\n#[", "ignore = "].concat();
    heads(dir, &mark).iter().filter_map(name).collect()
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

#[test]
fn the_document_on_reliability_says_what_only_the_long_suite_runs() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(here.join("../docs/reliability.md")).unwrap();
    let (_, section) = document.split_once("### Only in the long suite\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let words = section.split('`').skip(1).step_by(2);
    let named: BTreeSet<String> = words
        .filter(|word| word.split('_').count() > 2)
        .map(str::to_owned)
        .collect();
    let mut there = ignored(&here.join("faults"));
    there.extend(ignored(&here.join("e2e")));
    assert!(there.len() > 5, "{there:#?}");
    assert_eq!(named, there, "named, and there");
}
