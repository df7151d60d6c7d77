//! Text of others in a line of ours: it moves no cursor, begins no line, and comes to an end.

/// Longest reason that quotes a document, in bytes before control characters are made visible, which takes up to
/// six for one. What serde says of a document without quoting it is shorter.
pub const REASON_LEN_MAX: usize = 600;

/// Its control characters as Rust writes them: `\n`, `\u{1b}`.
pub fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        c if c.is_control() => c.escape_default().collect(),
        c => vec![c],
    };
    text.chars().flat_map(shown).collect()
}

/// Why a document in JSON was not read. serde quotes what it does not know, whole and as it is; of that the middle
/// is left out, so that what was expected is still said, and where.
pub fn unread(error: &serde_json::Error) -> String {
    printable(&middle_out(&error.to_string()))
}

fn middle_out(text: &str) -> String {
    if text.len() <= REASON_LEN_MAX {
        return text.to_owned();
    }
    let half = (REASON_LEN_MAX - '…'.len_utf8()) / 2;
    let is_boundary = |at: &usize| text.is_char_boundary(*at);
    let head = (0..=half).rev().find(is_boundary).unwrap_or(0);
    let tail = (text.len() - half..).find(is_boundary).unwrap_or(half);
    format!("{}…{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    enum Fruit {
        #[serde(rename = "apple")]
        Apple,
    }

    fn why(name: &str) -> String {
        let json = serde_json::to_string(name).unwrap();
        let error = serde_json::from_str::<Fruit>(&json).unwrap_err();
        unread(&error)
    }

    #[test]
    fn what_is_short_is_said_whole_and_on_one_line() {
        assert_eq!(
            why("a\u{1b}[2Jb\n<0>c"),
            "unknown variant `a\\u{1b}[2Jb\\n<0>c`, expected `apple` at line 1 column 19"
        );
    }

    #[test]
    fn of_what_is_long_both_ends_are_said() {
        let said = why(&"é".repeat(1 << 20));
        assert!(said.starts_with("unknown variant `éé"), "{said}");
        assert!(said.contains("éé…éé"), "{said}");
        assert!(
            said.ends_with("éé`, expected `apple` at line 1 column 2097154"),
            "{said}"
        );
        assert!((598..=REASON_LEN_MAX).contains(&said.len()), "{said}");
    }

    proptest! {
        #[test]
        fn it_is_never_longer_than_it_may_be(text in "(?s).{0,900}") {
            let said = middle_out(&text);
            prop_assert!(said.len() <= REASON_LEN_MAX);
            prop_assert_eq!(said == text, text.len() <= REASON_LEN_MAX);
            prop_assert!(!printable(&said).contains(char::is_control));
        }
    }
}
