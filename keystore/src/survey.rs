//! What a look at a keystore found, for people: a [`Line`] for each thing, with a remedy where
//! something is not as it should be. Pure. What is in a line may come from a token or a file that
//! others wrote, so that lines are bounded in length and number before they are sent ([`fit`]).

use crate::protocol::FRAME_LEN_MAX;
use crate::shown::printable;
use serde::{Deserialize, Serialize};

/// Most bytes of a line's text, and of its remedy: the longest of our sentences with the longest
/// names in it.
pub const TEXT_LEN_MAX: usize = 1200;

/// Most bytes of all lines as JSON, so that the reply fits a frame.
const LINES_LEN_MAX: usize = FRAME_LEN_MAX - 2048;

/// How bad it is. The order is by badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be, or merely worth knowing.
    Ok,
    /// It works now, and is unwise, or may stop working.
    Warn,
    /// It does not work, or is not safe.
    Fail,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The process: whether it serves.
    Keystore,
    /// PKCS#11: the vendor's library.
    Module,
    /// PKCS#11: the token.
    Token,
    /// PKCS#11: the user PIN.
    Pin,
    /// TPM: the chip, its maker and firmware.
    Tpm,
    /// TPM: the parent of our keys.
    Primary,
    /// TPM: the defence against guessing of auth values.
    Lockout,
    /// TPM: places for objects. What others left there.
    Slots,
    /// Sessions: of a token how many, of a TPM which.
    Sessions,
    /// What it can sign with.
    Algs,
    /// What a PSS signature is here.
    Salt,
    /// PKCS#11: room for objects.
    Memory,
    /// One of our keys.
    Key,
    /// What looks like ours and is not recorded.
    Strange,
    /// How fast it signs.
    Rate,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// How bad it is.
    pub verdict: Verdict,
    /// What it is about.
    pub subject: Subject,
    /// What was found.
    pub text: String,
    /// What to do about it; `None` if it is as it should be.
    pub remedy: Option<String>,
}

impl Line {
    /// As it should be.
    pub fn ok(subject: Subject, text: impl Into<String>) -> Line {
        Line {
            verdict: Verdict::Ok,
            subject,
            text: text.into(),
            remedy: None,
        }
    }

    /// Unwise.
    pub fn warn(subject: Subject, text: impl Into<String>, remedy: impl Into<String>) -> Line {
        Line {
            verdict: Verdict::Warn,
            subject,
            text: text.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// Wrong.
    pub fn fail(subject: Subject, text: impl Into<String>, remedy: impl Into<String>) -> Line {
        Line {
            verdict: Verdict::Fail,
            ..Line::warn(subject, text, remedy)
        }
    }

    fn bounded(self) -> Line {
        Line {
            text: bounded(&self.text),
            remedy: self.remedy.as_deref().map(bounded),
            ..self
        }
    }
}

/// One line of text without control characters, cut at [`TEXT_LEN_MAX`].
fn bounded(text: &str) -> String {
    let (mut out, end) = (String::new(), "…");
    for c in printable(text).chars() {
        if out.len() + c.len_utf8() > TEXT_LEN_MAX - end.len() {
            return out + end;
        }
        out.push(c);
    }
    out
}

/// The lines that fit a frame, each bounded. Where there are too many, what fails stays before what
/// warns, and that before what is fine; how many are left out is a line of its own.
pub fn fit(lines: Vec<Line>) -> Vec<Line> {
    let lines: Vec<Line> = lines.into_iter().map(Line::bounded).collect();
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(lines[*index].verdict)); // stable
    let mut length = 0;
    let mut kept = vec![false; lines.len()];
    for index in order {
        let json = serde_json::to_vec(&lines[index]);
        length += json.map_or(LINES_LEN_MAX, |json| json.len() + 1);
        if length > LINES_LEN_MAX {
            break;
        }
        kept[index] = true;
    }
    let (all, mut kept) = (lines.len(), kept.into_iter());
    let mut lines: Vec<Line> = lines
        .into_iter()
        .filter(|_| kept.next().unwrap_or(false))
        .collect();
    let left_out = all - lines.len();
    if left_out > 0 {
        let text = format!("{left_out} more lines do not fit one answer");
        let remedy =
            "mend what is shown as failed and look again; `assertctl keys` lists every key";
        lines.push(Line::warn(Subject::Keystore, text, remedy));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Reply, encode};

    #[test]
    fn hostile_lines_fit_a_frame_and_the_worst_ones_stay() {
        for stuff in ["\u{1}", "\"", "\\", "\u{9f}", "🔑", "a"] {
            let text = stuff.repeat(5000);
            let mut lines: Vec<Line> = (0..1000)
                .map(|n| Line::ok(Subject::Key, format!("{n}{text}")))
                .collect();
            lines[999] = Line::fail(Subject::Key, "the last one", "mend it");
            let fitting = fit(lines);
            let bad: Vec<&Line> = fitting
                .iter()
                .filter(|line| line.verdict != Verdict::Ok)
                .collect();
            assert_eq!(bad[0].text, "the last one", "{stuff:?}");
            let left_out = 1000 - (fitting.len() - 1);
            let text = format!("{left_out} more lines do not fit one answer");
            assert_eq!(bad[1].text, text, "{stuff:?}");
            assert!(encode(&Reply::Checked { lines: fitting }).is_ok());
        }
    }

    #[test]
    fn what_fits_is_left_as_it_is_and_in_its_order() {
        let lines = vec![
            Line::ok(Subject::Module, "a"),
            Line::fail(Subject::Pin, "b", "c"),
            Line::warn(Subject::Key, "d", "e"),
        ];
        assert_eq!(fit(lines.clone()), lines);
    }

    #[test]
    fn a_text_ends_at_its_limit() {
        for length in [TEXT_LEN_MAX - 4, TEXT_LEN_MAX - 3] {
            assert_eq!(bounded(&"a".repeat(length)), "a".repeat(length));
        }
        let cut = bounded(&"a".repeat(TEXT_LEN_MAX - 2));
        assert_eq!(cut, "a".repeat(TEXT_LEN_MAX - 3) + "…");
        assert_eq!(bounded("a\nb\u{1b}"), "a\\nb\\u{1b}");
    }
}
