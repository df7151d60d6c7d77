//! A name, or many by one `*`. One star is enough for what people mean (`app@*.service`), and two
//! patterns can still be compared: whether one covers the other, or both have a name in common.

use std::fmt;

/// An exact text, or everything that begins and ends so. The star stands for one character at
/// least, and never for `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    before: String,
    /// What follows the star; nothing for an exact text.
    after: Option<String>,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAPattern {
    /// There is nothing at all.
    Empty,
    /// There is nothing before the star.
    NothingBefore,
    /// More than one star.
    TwoStars,
    /// The name of something else than a unit that has processes.
    NoUnit,
    /// The name of a template, in which nothing runs.
    Template,
    /// Something that is in no unit's name.
    OddLetter(char),
    /// Neither a name nor a whole path.
    HalfAPath,
}

impl Pattern {
    /// A pattern as written.
    ///
    /// # Errors
    /// If it is empty, has two stars, or begins with one: a pattern that fits nearly everything is a mistake.
    pub fn new(text: &str) -> Result<Pattern, NotAPattern> {
        let (before, after) = match text.split_once('*') {
            None => (text, None),
            Some((_, after)) if after.contains('*') => return Err(NotAPattern::TwoStars),
            Some((before, after)) => (before, Some(after.to_owned())),
        };
        if before.is_empty() {
            return Err(match after {
                None => NotAPattern::Empty,
                Some(_) => NotAPattern::NothingBefore,
            });
        }
        let before = before.to_owned();
        Ok(Pattern { before, after })
    }

    /// A pattern of units, by name or by path.
    ///
    /// # Errors
    /// As [`Pattern::new`], and if it fits nothing that has processes.
    pub fn of_units(text: &str) -> Result<Pattern, NotAPattern> {
        let pattern = Pattern::new(text)?;
        if ![".service", ".scope"].iter().any(|end| text.ends_with(end)) {
            return Err(NotAPattern::NoUnit);
        }
        if text.ends_with("@.service") {
            return Err(NotAPattern::Template);
        }
        if text.contains('/') && !pattern.is_path() {
            return Err(NotAPattern::HalfAPath);
        }
        match text.chars().find(|letter| !is_of_a_unit(*letter)) {
            Some(odd) => Err(NotAPattern::OddLetter(odd)),
            None => Ok(pattern),
        }
    }

    /// Everything, where an administrator means that.
    pub fn everything() -> Pattern {
        Pattern {
            before: String::new(),
            after: Some(String::new()),
        }
    }

    /// Whether it is of this text.
    pub fn matches(&self, text: &str) -> bool {
        let Some(after) = &self.after else {
            return text == self.before;
        };
        let rest = text.strip_prefix(self.before.as_str());
        let star = rest.and_then(|rest| rest.strip_suffix(after.as_str()));
        star.is_some_and(|star| !star.is_empty() && !star.contains('/'))
    }

    /// The one text it is of, if it has no star.
    pub fn exact(&self) -> Option<&str> {
        self.after.is_none().then_some(self.before.as_str())
    }

    /// What stands before the star.
    pub fn before(&self) -> &str {
        &self.before
    }

    /// What stands after it.
    pub fn after(&self) -> &str {
        self.after.as_deref().unwrap_or("")
    }

    /// Whether it is a path.
    pub fn is_path(&self) -> bool {
        self.before.starts_with('/')
    }

    /// Whether every text that fits `other` fits this one too.
    pub fn covers(&self, other: &Pattern) -> bool {
        let (Some(after), Some(other_after)) = (&self.after, &other.after) else {
            return match &other.after {
                None => self.matches(&other.before),
                Some(_) => false, // one text covers no pattern
            };
        };
        // What the other has beyond ours our star has to stand for, which is no `/`.
        let beyond = other.before.strip_prefix(self.before.as_str());
        let (beyond, behind) = (beyond, other_after.strip_suffix(after.as_str()));
        let (Some(beyond), Some(behind)) = (beyond, behind) else {
            return false;
        };
        !beyond.contains('/') && !behind.contains('/')
    }

    /// A text that fits both, if there is one.
    pub fn common(&self, other: &Pattern) -> Option<String> {
        if !self.meets(other) {
            return None;
        }
        if let Some(text) = self.exact().or(other.exact()) {
            return Some(text.to_owned());
        }
        let longest =
            |one: &str, two: &str| if one.len() >= two.len() { one } else { two }.to_owned();
        let before = longest(&self.before, &other.before);
        Some(format!("{before}1{}", longest(self.after(), other.after())))
    }

    /// Whether some text fits both.
    pub fn meets(&self, other: &Pattern) -> bool {
        let (Some(after), Some(other_after)) = (&self.after, &other.after) else {
            return match (self.exact(), other.exact()) {
                (Some(text), _) => other.matches(text),
                (_, Some(text)) => self.matches(text),
                (None, None) => false,
            };
        };
        let either =
            |one: &str, two: &str, fits: fn(&str, &str) -> bool| fits(one, two) || fits(two, one);
        either(&self.before, &other.before, |a, b| a.starts_with(b))
            && either(after, other_after, |a, b| a.ends_with(b))
            && !longer(&self.before, &other.before).contains('/')
            && !longer(after, other_after).contains('/')
    }
}

/// The name of the unit that a text is of, which a cgroup path has in its last part.
pub fn unit_name(text: &str) -> &str {
    let last = text.rsplit_once('/').map(|(_, last)| unescaped(last));
    last.unwrap_or(text)
}

/// A unit's name as systemd has it, of its cgroup's: one that the kernel could take for a file of
/// its own, as `memory.service`, or that begins with `_`, gets a `_` before it (systemd's
/// src/basic/cgroup-util.c, cg_escape()).
pub fn unescaped(component: &str) -> &str {
    component.strip_prefix('_').unwrap_or(component)
}

/// Whether units' names may have it (systemd.unit(5)), or what is written of them: paths, the star.
fn is_of_a_unit(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || ":-_.\\@/*".contains(letter)
}

/// What the longer of two has beyond the shorter, of which it is known that one holds the other at
/// an end; where a `/` in it would have to be what a star stands for.
fn longer<'a>(one: &'a str, two: &'a str) -> &'a str {
    let (long, short) = if one.len() >= two.len() {
        (one, two)
    } else {
        (two, one)
    };
    long.strip_prefix(short)
        .or_else(|| long.strip_suffix(short))
        .unwrap_or(long)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.before)?;
        match &self.after {
            Some(after) => write!(f, "*{after}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for NotAPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            NotAPattern::OddLetter(odd) => {
                return write!(
                    f,
                    "`{}` is in no unit's name, which has letters, digits and `: - _ . \\ @` alone; \
                     only one `*` stands for something else",
                    odd.escape_debug()
                );
            }
            NotAPattern::Empty => "a name is missing here",
            NotAPattern::NothingBefore => {
                "a pattern has a text before its `*`, or it would fit nearly everything"
            }
            NotAPattern::TwoStars => "a pattern has one `*` at most",
            NotAPattern::NoUnit => {
                "a unit's name ends in .service or .scope, such as payments.service"
            }
            NotAPattern::Template => {
                "a template is not what runs: write `app@*.service` for all instances of app@.service"
            }
            NotAPattern::HalfAPath => {
                "a unit's name has no `/`, and its cgroup path begins with one, as in \
                 /system.slice/payments.service"
            }
        };
        f.write_str(text)
    }
}
