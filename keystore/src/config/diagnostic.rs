//! An error in a configuration file as people want to read it: file, line, column, the line itself,
//! a caret and a suggestion. Owns the wording; never decides what is an error.

use super::secret;
use super::wording::reword;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// As much of a line is shown, in characters.
const EXCERPT_LEN: usize = 160;

/// Said of whatever is wrong on a line where a secret may stand.
const NO_SECRET: &str = "a secret is not written here: { credential = \"NAME\" } or { file = \"/PATH\" } says \
                         where it is";

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

    /// The same with a remedy, if it has none yet.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help.get_or_insert(help.into());
        self
    }

    /// From the TOML parser, with serde's wording turned into ours.
    pub fn from_toml(path: &Path, text: &str, error: &toml::de::Error) -> Diagnostic {
        let is_about_a_key = error.message().starts_with("unknown field");
        let hidden = |span: &Range<usize>| secret::is_on_hidden_line(text, span);
        let (message, help) = match error.span() {
            // The parser's words hold the value.
            Some(span) if !is_about_a_key && hidden(&span) => (NO_SECRET.to_owned(), None),
            _ => reword(error.message()),
        };
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

/// Where the value of a key is written, which is below tables of these names; of a table that is
/// made of several, its name.
pub(super) fn place(text: &str, path: &[&str]) -> Option<Range<usize>> {
    let (last, tables) = path.split_last()?;
    let document = toml::de::DeTable::parse(text).ok()?.into_inner();
    let mut table = &document;
    for name in tables {
        table = table.get(*name)?.get_ref().as_table()?;
    }
    let (name, value) = table.get_key_value(*last)?;
    match value.get_ref() {
        toml::de::DeValue::Table(_) if tables.len() < 2 => Some(name.span()),
        _ => Some(value.span()),
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
        let line = &text[line_start..line_end];
        let hidden = secret::shown(&text[..line_start], line);
        let excerpt = hidden.as_deref().unwrap_or(line);
        // A tab is as wide as a terminal likes, and other control characters are worse.
        let excerpt = excerpt.replace(char::is_control, " ");
        Place {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            excerpt: excerpt.chars().take(EXCERPT_LEN).collect(),
            width: text[start..end].chars().count().max(1),
        }
    }
}

/// The nearest known name, or all of them.
pub fn suggest(name: &str, known: &[&str]) -> String {
    let measured = |k: &&str| {
        (
            distance(name, k),
            name.len().abs_diff(k.len()),
            k.to_string(),
        )
    };
    let nearest = known.iter().map(measured).min();
    match nearest {
        Some((far, _, near)) if far <= 1 + name.len() / 3 => format!("did you mean `{near}`?"),
        _ if known.is_empty() => "none is configured".to_owned(),
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
