//! What an error shows of a line that may hold a secret: somebody wrote the PIN itself into the file,
//! and the error goes to logs that others read. Knows the names of such keys and nothing of values,
//! so that a mistyped one is found too.

use std::ops::Range;

/// Names of keys, or parts of them, that a secret may be written behind.
const NAMES: [&str; 8] = [
    "auth",
    "pass",
    "passphrase",
    "password",
    "pin",
    "secret",
    "sopin",
    "userpin",
];

/// Keys that say where a secret is.
const PLACES: [&str; 2] = ["credential", "file"];

/// What may be shown of a line, as wide as it is; `None` if that is all of it. `above` is the text
/// before it, for the table that it is in.
pub fn shown(above: &str, line: &str) -> Option<String> {
    let header = above
        .lines()
        .rev()
        .find(|line| line.trim_start().starts_with('['));
    let mut is_secret = header.is_some_and(is_name);
    let (mut is_place, mut is_remark) = (false, false);
    let (mut word, mut quote) = (String::new(), None);
    let mut hidden = false;
    let mut show = |c: char| {
        let is_text = quote.is_some_and(|end| c != end);
        let is_number = quote.is_none() && word.is_empty() && c.is_ascii_digit();
        if is_secret && !is_place && (is_text || is_number || is_remark) && !c.is_whitespace() {
            hidden = true;
            return '*';
        }
        match (quote, c) {
            (Some(end), _) if c == end => quote = None,
            (Some(_), _) => {}
            _ if is_remark => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') => (is_remark, is_place) = (true, false),
            (None, '=') => {
                is_secret |= is_name(&word);
                is_place = PLACES.iter().any(|place| word.trim_end().ends_with(place));
                word.clear();
            }
            (None, ',' | '{' | '[') => word.clear(),
            (None, _) if word.is_empty() && c.is_whitespace() => {}
            (None, _) => word.push(c),
        }
        c
    };
    let shown: String = line.chars().map(&mut show).collect();
    hidden.then_some(shown)
}

/// Whether a span of the text is on a line that is not shown as it is.
pub fn is_on_hidden_line(text: &str, span: &Range<usize>) -> bool {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let (above, from) = text.split_at(line_start);
    shown(above, from.lines().next().unwrap_or_default()).is_some()
}

/// Whether a key, or one of a table's dotted names, is a secret's.
fn is_name(key: &str) -> bool {
    let parts = key.split(|c: char| !c.is_ascii_alphanumeric());
    parts
        .map(str::to_ascii_lowercase)
        .any(|part| NAMES.contains(&part.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_wherever_it_was_written() {
        for (line, wanted) in [
            ("pin = \"1234\"", "pin = \"****\""),
            ("pin = { value = '1234' }", "pin = { value = '****' }"),
            ("pin = 1234", "pin = ****"),
            ("user_pin = \"ä\" # 1", "user_pin = \"*\" # *"),
            ("pin.value = \"1234\"", "pin.value = \"****\""),
            (
                "hsm = { backend = \"x\", PIN=\"1\" }",
                "hsm = { backend = \"x\", PIN=\"*\" }",
            ),
            ("pin = \"1234", "pin = \"****"),
            ("pin-value = \"1\"", "pin-value = \"*\""),
        ] {
            assert_eq!(shown("", line).as_deref(), Some(wanted), "{line}");
        }
        let below = shown("[keystore.hsm.pin]\nx = 1\n", "value = \"1234\"");
        assert_eq!(below.as_deref(), Some("value = \"****\""));
    }

    #[test]
    fn what_holds_no_secret_is_shown() {
        for line in [
            "pin = { credential = \"hsm.pin\" }",
            "auth = { file = \"/etc/assertd/tpm.auth\" }",
            "[keystore.hsm.pin]",
            "authorization_server = \"https://as.bank.example\"",
            "owner = \"shipping\" # pin = x",
            "match = { unit = \"pin.service\" }",
        ] {
            assert_eq!(shown("[keystore.hsm]\n", line), None, "{line}");
        }
    }
}
