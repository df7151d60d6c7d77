//! No mistake without its case: what the loader can say stands in its source as texts, and each of
//! them has to be in an answer of `errors/`. Who adds one is told by this test that it misses a case.

use crate::errors::cases;
use std::fs;
use std::path::{Path, PathBuf};

/// Where configurations are read. Directories with all that is below.
const SOURCES: [&str; 11] = [
    "broker/src/config.rs",
    "broker/src/config",
    "broker/src/denylist.rs",
    "broker/src/selector/pattern.rs",
    "keystore/src/config.rs",
    "keystore/src/config",
    "keystore/src/tcti.rs",
    "keystore/src/keyid.rs",
    "broker/src/attestation.rs",
    "broker/src/profile/rule.rs",
    "broker/src/profile/spiffe.rs",
];

/// What is no mistake of a configuration, or cannot be shown by a file of a few lines.
const NOT_HERE: [(&str, &str); 31] = [
    ("unknown field", PARSERS),
    ("unknown field `", PARSERS),
    ("unknown variant `", PARSERS),
    ("missing field", PARSERS),
    ("missing field `", PARSERS),
    ("invalid length ", PARSERS),
    (", expected struct ", PARSERS),
    ("invalid type: ", PARSERS),
    ("invalid value: ", PARSERS),
    ("duplicate key", PARSERS),
    ("string values must be quoted", PARSERS),
    ("wanted exactly 1 element", PARSERS),
    ("a string", PARSERS),
    ("path string", PARSERS),
    ("a boolean", PARSERS),
    ("a sequence", PARSERS),
    ("a map", PARSERS),
    ("a TOML datetime", PARSERS),
    ("struct ", PARSERS),
    ("string ", PARSERS),
    ("a key name is `workload/target` or `issuer/NAME`", ARGUMENT),
    ("a key id is `workload/target.VERSION`", ARGUMENT),
    ("^https://[^?# ]+$", "a pattern of the schema"),
    (
        "this system has no host name; say `host` in [attest]",
        "said when evidence is asked for, of a system without a name",
    ),
    ("pidfd_open: {errno}", "no kernel that runs here says it"),
    (
        "what process {pid} runs cannot be told now: {why}",
        "about a request: e2e::who::program",
    ),
    (
        "whether there is a user `{word}` cannot be asked now ({})",
        NAME_SERVICE,
    ),
    (
        "whether there is a {what} `{text}` cannot be asked now ({why})",
        NAME_SERVICE,
    ),
    ("`getent` must find it; try again then", NAME_SERVICE),
    (
        "is longer than {CONFIG_LEN_MAX} bytes",
        "a file of 16 MiB: faults::reload",
    ),
    (
        "{count} subjects are more than a key's charter holds ({SUBJECTS_MAX}); use prefixes \
         (\"reports-*\"), or a second issuer",
        "a thousand of them: config::tests",
    ),
];

const PARSERS: &str = "the parser's words, which are replaced";
const NAME_SERVICE: &str = "no name service that fails is here";
const ARGUMENT: &str = "said about an argument of a command";

/// Texts that nothing said before are those of somebody who works on it now.
#[test]
fn every_sentence_of_the_loader_is_shown_by_a_case() {
    let says: Vec<String> = cases().into_iter().map(|case| case.says).collect();
    let mut missing = Vec::new();
    let (mut found, mut excused) = (0, Vec::new());
    for file in sources() {
        let source = fs::read_to_string(&file).unwrap();
        for sentence in sentences(&source) {
            found += 1;
            if let Some((start, _)) = NOT_HERE.iter().find(|(it, _)| sentence == *it) {
                excused.push(*start);
            } else if !says.iter().any(|says| fits(&sentence, says)) {
                missing.push(format!("{}: {sentence:?}", file.display()));
            }
        }
    }
    assert!(
        found > 100,
        "{found} sentences: is this still where configurations are read?"
    );
    assert!(
        missing.is_empty(),
        "write a case in tests/cli/errors for:\n{}",
        missing.join("\n")
    );
    for (start, why) in NOT_HERE {
        assert!(
            excused.contains(&start),
            "{start:?} ({why}) is gone: take it out of NOT_HERE"
        );
    }
}

#[test]
fn texts_are_found_in_source() {
    let source = r##"
        // "not a word of this"
        fn f<'a>(c: char) -> &'a str { if c == '"' { "is \"here\"" } else { r#"and a "raw one""# } }
        const WHY: &str = "of two \
                           lines";
        x.expect("never said"); y(name, "word");
        #[expect(lint, reason = "not said either")]
        #[cfg(test)]
        mod tests { "of a test" }
    "##;
    assert_eq!(
        sentences(source),
        ["is \"here\"", "and a \"raw one\"", "of two lines"]
    );
    assert!(fits(
        "`{key}` must be {} at most",
        "x\n`rate` must be 5 at most (a day)"
    ));
    assert!(!fits("`{key}` must be {} at most", "`rate` must be 5"));
    assert!(fits(
        "{{ file = … }} takes",
        "`pin` { file = … } takes a path"
    ));
}

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut waiting: Vec<PathBuf> = SOURCES.iter().map(|path| root.join(path)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        let name = path.file_name().unwrap_or_default();
        if name == "tests" || name == "tests.rs" || name == "schema.rs" {
            continue; // no program has them
        }
        match path.is_dir() {
            true => waiting.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            ),
            false => found.push(path),
        }
    }
    found
}

/// The texts of a source that have a space, without those of tests, and those that are for whoever
/// reads the source.
fn sentences(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = without_tests(source);
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let (before, from) = rest.split_at(at);
        if from.starts_with("//") {
            rest = from.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(inside) = from.strip_prefix('"') {
            let prefix = before.trim_end_matches('#');
            let end = format!("\"{}", "#".repeat(before.len() - prefix.len()));
            let (text, after) = match prefix.ends_with('r') {
                true => inside.split_once(&end).unwrap_or_default(),
                false => quoted(inside),
            };
            let silent = ["expect(", "unreachable!(", "reason = "];
            let is_silent = silent.iter().any(|end| before.ends_with(end));
            if !is_silent && text.contains(' ') {
                found.push(match prefix.ends_with('r') {
                    true => text.to_owned(),
                    false => unescaped(text),
                });
            }
            rest = after;
        } else {
            // A character, or the name of a lifetime.
            let skip = match from.as_bytes() {
                [b'\'', b'\\', _, b'\'', ..] => 4,
                [b'\'', _, b'\'', ..] => 3,
                _ => 1,
            };
            rest = &from[skip..];
        }
    }
    found
}

fn without_tests(source: &str) -> &str {
    let tests = source.match_indices("#[cfg(test)]").find(|(at, mark)| {
        let below = source[at + mark.len()..].trim_start();
        below.starts_with("mod tests {")
    });
    tests.map_or(source, |(at, _)| &source[..at])
}

/// What stands before the closing quotation mark, and what follows it.
fn quoted(text: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => return (&text[..at], &text[at + 1..]),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    (text, "")
}

fn unescaped(text: &str) -> String {
    let mut lines = text.split("\\\n");
    let mut joined = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        joined += line.trim_start();
    }
    joined
        .replace("\\\"", "\"")
        .replace("\\n", "\n")
        .replace("\\\\", "\\")
}

/// Whether what stands between the placeholders of a format is there, in this order.
fn fits(sentence: &str, says: &str) -> bool {
    let sentence = sentence.replace("{{", "\u{1}").replace("}}", "\u{2}");
    let mut rest = says;
    for part in sentence.split('{') {
        let part = part.split_once('}').map_or(part, |(_, part)| part);
        let part = part.replace('\u{1}', "{").replace('\u{2}', "}");
        match rest.find(&part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}
