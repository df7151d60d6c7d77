//! How the shim misbehaves. One rule per line: a function, which call of it, what to do.
//!
//! ```text
//! C_Sign         3    ckr:0x32     the third call answers CKR_DEVICE_REMOVED, the module is not asked
//! C_Sign         3+   lie:0x30     from the third on the module is asked and its answer replaced
//! C_SignInit     *    delay:50     every call takes 50 ms longer
//! C_Sign         *    zeros        the signature is all zeros
//! C_Sign         *    short        the signature lacks its last byte
//! C_Sign         1    abort        (or segfault) the process dies
//! C_Sign         1    hang         the call never returns
//! C_Sign         *    probe        first tries what code in this process can do (see [`crate::probe`])
//! C_GetTokenInfo *    flags:0x40000   these token flags are added (CKF_USER_PIN_LOCKED)
//! ```
//!
//! Calls are counted from the moment the file was read. It is read again when it is replaced:
//! write another file and rename it. A line that is not understood ends the process, so that no
//! test passes because of a typo.

use crate::functions::Function;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer this without asking the module.
    Answer(u64),
    /// Ask the module and answer this.
    Lie(u64),
    /// Wait first.
    Delay(Duration),
    /// Give zeros for the signature.
    Zeros,
    /// Give a signature that is one byte too short.
    Short,
    /// Add flags to the token information.
    Flags(u64),
    /// abort(3)
    Abort,
    /// SIGSEGV
    Segfault,
    /// Never return.
    Hang,
    /// Try what the file `P11SHIM_PROBE` says and report in `P11SHIM_REPORT`, then go on.
    Probe,
}

/// Which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Every,
    Exactly(u64),
    From(u64),
}

type Rule = (Function, Which, Action);

/// The identity of a file's content, near enough: inode, length, time of change in ns.
type Stamp = (u64, u64, i64, i64);

/// The current rules of a file.
pub struct Rules {
    path: PathBuf,
    stamp: Option<Stamp>,
    rules: Vec<Rule>,
    calls: Vec<u64>,
}

impl Rules {
    /// Rules of this file, which need not exist.
    pub fn new(path: PathBuf) -> Rules {
        Rules {
            path,
            stamp: None,
            rules: Vec::new(),
            calls: vec![0; Function::ALL.len()],
        }
    }

    /// Notes a call and returns what applies to it, in the order of the lines.
    pub fn next(&mut self, function: Function) -> Vec<Action> {
        self.refresh();
        let call = &mut self.calls[function as usize];
        *call += 1;
        let applies = |which: Which| match which {
            Which::Every => true,
            Which::Exactly(n) => *call == n,
            Which::From(n) => *call >= n,
        };
        let of_this = self
            .rules
            .iter()
            .filter(|rule| rule.0 == function && applies(rule.1));
        of_this.map(|rule| rule.2).collect()
    }

    fn refresh(&mut self) {
        let stamp = stamp(&self.path);
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        self.calls.fill(0);
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        self.rules = match parse(&text) {
            Ok(rules) => rules,
            Err(line) => {
                eprintln!("pkcs11-shim: {}: not a rule: {line}", self.path.display());
                std::process::abort();
            }
        };
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = path.metadata().ok()?;
    Some((
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

/// The rules in a text.
///
/// # Errors
/// The first line that is none.
fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let lines = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| rule(line).ok_or_else(|| line.to_owned()))
        .collect()
}

fn rule(line: &str) -> Option<Rule> {
    let mut words = line.split_whitespace();
    let function = Function::named(words.next()?)?;
    let which = match words.next()? {
        "*" => Which::Every,
        word => match word.strip_suffix('+') {
            Some(n) => Which::From(n.parse().ok()?),
            None => Which::Exactly(word.parse().ok()?),
        },
    };
    let action = action(words.next()?)?;
    words.next().is_none().then_some((function, which, action))
}

fn action(word: &str) -> Option<Action> {
    let hexadecimal = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    match word.split_once(':') {
        Some(("ckr", code)) => hexadecimal(code).map(Action::Answer),
        Some(("lie", code)) => hexadecimal(code).map(Action::Lie),
        Some(("flags", flags)) => hexadecimal(flags).map(Action::Flags),
        Some(("delay", ms)) => ms
            .parse()
            .ok()
            .map(Duration::from_millis)
            .map(Action::Delay),
        Some(_) => None,
        None => match word {
            "zeros" => Some(Action::Zeros),
            "short" => Some(Action::Short),
            "abort" => Some(Action::Abort),
            "segfault" => Some(Action::Segfault),
            "hang" => Some(Action::Hang),
            "probe" => Some(Action::Probe),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_applies_to_the_calls_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules");
        std::fs::write(
            &path,
            "C_Sign 2 ckr:0x32\nC_Sign 3+ delay:5\nC_Login * abort\n",
        )
        .unwrap();
        let mut rules = Rules::new(path.clone());
        let delay = Action::Delay(Duration::from_millis(5));
        assert_eq!(rules.next(Function::C_Sign), []);
        assert_eq!(rules.next(Function::C_Sign), [Action::Answer(0x32)]);
        assert_eq!(rules.next(Function::C_Sign), [delay]);
        assert_eq!(rules.next(Function::C_Sign), [delay]);
        assert_eq!(rules.next(Function::C_Login), [Action::Abort]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(rules.next(Function::C_Sign), []);
    }

    #[test]
    fn a_line_with_a_typo_is_no_rule() {
        for line in [
            "C_Sing 1 abort",
            "C_Sign abort",
            "C_Sign 1 aborts",
            "C_Sign 1 ckr:50",
            "C_Sign 1 abort now",
            "C_Sign 1- abort",
        ] {
            assert_eq!(parse(line), Err(line.to_owned()));
        }
        assert_eq!(parse("# nothing\n\n"), Ok(vec![]));
    }
}
