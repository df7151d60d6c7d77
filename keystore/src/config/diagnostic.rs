//! An error in a configuration file as people want to read it: file, line, column, the line itself,
//! a caret and a suggestion. Owns the wording; never decides what is an error.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// An error in a configuration file, as it is shown:
///
/// ```text
/// assertd.toml:14:1: unknown key `audience`
///    14 | audience = ["https://sts.example"]
///       | ^~~~~~~~ did you mean `audiences`?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    path: PathBuf,
    place: Option<Place>,
    message: String,
    help: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    excerpt: String,
    width: usize,
}

impl Diagnostic {
    /// About the file as a whole.
    pub fn file(path: &Path, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            path: path.to_owned(),
            place: None,
            message: message.into(),
            help: None,
        }
    }

    /// About a span of its text.
    pub fn at(
        path: &Path,
        text: &str,
        span: Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Diagnostic {
        let place = Some(Place::of(text, span));
        Diagnostic {
            path: path.to_owned(),
            place,
            message: message.into(),
            help,
        }
    }

    /// From the TOML parser, with serde's wording turned into ours.
    pub fn from_toml(path: &Path, text: &str, error: &toml::de::Error) -> Diagnostic {
        let (message, help) = reword(error.message());
        match error.span() {
            Some(span) => Diagnostic::at(path, text, span, message, help),
            None => Diagnostic {
                path: path.to_owned(),
                place: None,
                message,
                help,
            },
        }
    }
}

impl Place {
    fn of(text: &str, span: Range<usize>) -> Place {
        let start = (0..=span.start.min(text.len()))
            .rev()
            .find(|i| text.is_char_boundary(*i));
        let start = start.unwrap_or(0);
        let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        let end = span.end.clamp(start, line_end);
        let end = (end..=line_end)
            .find(|i| text.is_char_boundary(*i))
            .unwrap_or(line_end);
        Place {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            excerpt: text[line_start..line_end].chars().take(160).collect(),
            width: text[start..end].chars().count().max(1),
        }
    }
}

/// serde says "unknown field `x`, expected one of `a`, `b`"; people want "did you mean `a`?".
fn reword(message: &str) -> (String, Option<String>) {
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
    (first_line.to_owned(), None)
}

/// The nearest known name, or all of them.
pub fn suggest(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|k| (distance(name, k), *k)).min();
    match nearest {
        Some((far, near)) if far <= 1 + name.len() / 3 => format!("did you mean `{near}`?"),
        _ if known.is_empty() => "no key is expected here".to_owned(),
        _ => format!("known here: {}", known.join(", ")),
    }
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        let Some(place) = &self.place else {
            write!(f, " {}", self.message)?;
            return self.help.iter().try_for_each(|help| write!(f, " ({help})"));
        };
        let Place {
            line,
            column,
            excerpt,
            width,
        } = place;
        writeln!(f, "{line}:{column}: {}", self.message)?;
        writeln!(f, "{line:>5} | {excerpt}")?;
        write!(
            f,
            "      | {}^{}",
            " ".repeat(column - 1),
            "~".repeat(width.saturating_sub(1).min(100))
        )?;
        self.help.iter().try_for_each(|help| write!(f, " {help}"))
    }
}

impl std::error::Error for Diagnostic {}
