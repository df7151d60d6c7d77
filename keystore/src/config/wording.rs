//! What the TOML parser and serde say, in words for somebody who knows neither. Pure text to text.

use super::suggest;

/// serde says "unknown field `x`, expected one of `a`, `b`"; people want "did you mean `a`?".
pub fn reword(message: &str) -> (String, Option<String>) {
    let first_line = message.lines().next().unwrap_or(message);
    for (theirs, ours) in [
        ("unknown field `", "unknown key `"),
        ("unknown variant `", "unknown value `"),
    ] {
        if let Some(rest) = first_line.strip_prefix(theirs)
            && let Some((name, expected)) = rest.split_once('`')
        {
            let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            return (format!("{ours}{name}`"), Some(suggest(name, &known)));
        }
    }
    if let Some(key) = first_line.strip_prefix("missing field `") {
        let key = key.trim_end_matches('`');
        let example = NEEDED.iter().find(|(needed, _)| *needed == key);
        let help = example.map(|(key, example)| format!("write {key} = {example}"));
        return (format!("`{key}` is missing"), help);
    }
    // A list where a table belongs: serde counts its members.
    if first_line.starts_with("invalid length ") && first_line.contains(", expected struct ") {
        return (format!("{A_TABLE} is needed here, not a list"), None);
    }
    if let Some((_, ours)) = REWORDED
        .iter()
        .find(|(theirs, _)| first_line.starts_with(theirs))
    {
        return ((*ours).to_owned(), None);
    }
    let mismatch = ["invalid type: ", "invalid value: "];
    let mismatch = mismatch
        .iter()
        .find_map(|start| first_line.strip_prefix(start));
    match mismatch.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((is, needed)) => {
            let (needed, is) = (kind(needed), what(is));
            (format!("{needed} is needed here, not {is}"), None)
        }
        None => (first_line.to_owned(), None),
    }
}

/// What a key that may not be missing looks like.
const NEEDED: [(&str, &str); 7] = [
    ("backend", "\"pkcs11\" or \"tpm\""),
    ("files", "\"TEAM.toml\""),
    ("keystore", "\"NAME\", of a [keystore.NAME]"),
    ("match", "{ unit = \"NAME.service\" }"),
    ("profile", "\"NAME\"; `assertctl profiles` lists them"),
    ("subjects", "[\"NAME\"]"),
    ("url", "\"https://…\""),
];

/// The parser's words that need others, by their beginnings.
const REWORDED: [(&str, &str); 3] = [
    (
        "duplicate key",
        "this key, or this section, is there already",
    ),
    (
        "string values must be quoted",
        "a value is missing here, or the quotation marks of a text",
    ),
    (
        "wanted exactly 1 element",
        "one of the two is needed, and not both: { credential = \"NAME\" } or { file = \"/PATH\" }",
    ),
];

const A_TABLE: &str = "a table, { KEY = VALUE },";

/// serde's name of what a key takes, in words that somebody knows who does not know Rust.
fn kind(theirs: &str) -> String {
    let words = match theirs {
        "a string" => "a text in quotation marks",
        "path string" => "a path in quotation marks",
        "a boolean" => "true or false",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0 on",
        "a sequence" => "a list in brackets",
        "a map" => A_TABLE,
        "a TOML datetime" => "a date without quotation marks, such as 2027-06-30,",
        other if other.starts_with("struct ") => A_TABLE,
        other => other,
    };
    words.to_owned()
}

/// And of what it has.
fn what(theirs: &str) -> String {
    if theirs.starts_with("string ") {
        return "a text".to_owned();
    }
    if let Some((_, number)) = theirs.split_once('`')
        && let Some(number) = number.strip_suffix('`')
    {
        return number.to_owned();
    }
    let words = match theirs {
        "sequence" => "a list",
        "map" => "a table",
        other => other,
    };
    words.to_owned()
}
