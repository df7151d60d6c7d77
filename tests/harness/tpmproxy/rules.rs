//! What the proxy does to which command. One rule per line: a command, which call of it, what to do.
//!
//! ```text
//! TPM2_Sign   3    rc:0x922     the third is answered TPM_RC_RETRY, the TPM is not asked
//! TPM2_Sign   3+   lie:0x101    from the third on the TPM is asked, and its answer replaced
//! *           *    delay:50     every command takes 50 ms longer
//! TPM2_Sign   1    drop         the connection is closed, the TPM is not asked
//! TPM2_Sign   1    drop-after   the TPM is asked, and the connection closed instead of an answer
//! TPM2_Sign   1    stall        no answer until the rules are replaced: then the TPM is asked
//! TPM2_Sign   1    truncate     the answer lacks its last bytes, then the connection is closed
//! TPM2_Sign   1    short        the answer lacks its last bytes, and its size says so
//! TPM2_Sign   1    oversize     the answer's size is 0xFFFFFFFF, then the connection is closed
//! TPM2_Sign   1    huge         the answer has 5,000 bytes, more than any TPM gives
//! TPM2_Sign   1    garbage      the answer is as long as it was, all of it noise, then closed
//! TPM2_Sign   1    scramble     the answer has its head, and noise in place of what it gives
//! TPM2_Sign   1    flip         one bit of what a successful answer gives is another
//! ```
//!
//! The TPM has carried out what is answered by `lie` and by everything from `drop-after` on, but
//! for `stall`: objects that it made stay in it. Calls are counted since the rules were read, which
//! is when they were replaced. Of several rules for one command the delays add up, and of the rest
//! the first holds.

use super::commands::Scope;
use pkcs11_shim::which::{Stamp, Which};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer this without asking the TPM.
    Answer(u32),
    /// Ask the TPM and answer this.
    Lie(u32),
    /// Wait first.
    Delay(Duration),
    /// Close the connection.
    Drop,
    /// Ask the TPM and close the connection.
    DropAfter,
    /// Say nothing until there are other rules.
    Stall,
    /// Spoil what the TPM answers.
    Spoil(Spoil),
}

/// How an answer is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of the rules, explained there")]
pub enum Spoil {
    Truncate,
    Short,
    Oversize,
    Huge,
    Garbage,
    Scramble,
    Flip,
}

/// What applies to one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Wait so long first.
    pub delay: Duration,
    /// Then do this.
    pub action: Option<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    scope: Scope,
    which: Which,
    action: Action,
}

/// The current rules of a file, which need not exist.
#[derive(Default)]
pub struct Rules {
    path: PathBuf,
    stamp: Option<Stamp>,
    rules: Vec<Rule>,
    calls: HashMap<u32, u64>,
    all_calls: u64,
}

impl Rules {
    /// Of this file.
    pub fn new(path: PathBuf) -> Rules {
        Rules {
            path,
            ..Rules::default()
        }
    }

    /// Which rules these are.
    pub fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// Notes a command and returns what applies to it, if anything does.
    ///
    /// # Errors
    /// The first line of the file that is no rule.
    pub fn next(&mut self, code: u32) -> Result<Option<Order>, String> {
        self.refresh()?;
        let call = self.calls.entry(code).or_default();
        *call += 1;
        self.all_calls += 1;
        let applies = |rule: &&Rule| match rule.scope {
            Scope::All => rule.which.means(self.all_calls, 0),
            Scope::Code(one) => one == code && rule.which.means(*call, 0),
        };
        let mut order = None;
        for rule in self.rules.iter().filter(applies) {
            order = Some(Order::with(order.unwrap_or_default(), rule.action));
        }
        Ok(order)
    }

    fn refresh(&mut self) -> Result<(), String> {
        let stamp = Stamp::of(&self.path);
        if stamp == self.stamp {
            return Ok(());
        }
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        *self = Rules {
            stamp,
            rules: parse(&text)?,
            ..Rules::new(std::mem::take(&mut self.path))
        };
        Ok(())
    }
}

impl Order {
    fn with(mut self, action: Action) -> Order {
        match action {
            Action::Delay(time) => self.delay += time,
            action => self.action = self.action.or(Some(action)),
        }
        self
    }
}

/// Whether this text could be a file of rules.
///
/// # Errors
/// The first line that is no rule.
pub fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

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
    let rule = Rule {
        scope: Scope::parse(words.next()?)?,
        // All processes come through one proxy.
        which: Which::parse(words.next()?).filter(|which| !matches!(which, Which::Overall(_)))?,
        action: action(words.next()?)?,
    };
    words.next().is_none().then_some(rule)
}

fn action(word: &str) -> Option<Action> {
    let code = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let spoil = |spoil| Some(Action::Spoil(spoil));
    match word.split_once(':') {
        Some(("rc", text)) => code(text).map(Action::Answer),
        Some(("lie", text)) => code(text).map(Action::Lie),
        Some(("delay", ms)) => {
            let ms = ms.parse().ok();
            ms.map(Duration::from_millis).map(Action::Delay)
        }
        Some(_) => None,
        None => match word {
            "drop" => Some(Action::Drop),
            "drop-after" => Some(Action::DropAfter),
            "stall" => Some(Action::Stall),
            "truncate" => spoil(Spoil::Truncate),
            "short" => spoil(Spoil::Short),
            "oversize" => spoil(Spoil::Oversize),
            "huge" => spoil(Spoil::Huge),
            "garbage" => spoil(Spoil::Garbage),
            "scramble" => spoil(Spoil::Scramble),
            "flip" => spoil(Spoil::Flip),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGN: u32 = 0x15d;
    const LOAD: u32 = 0x157;

    #[test]
    fn a_rule_applies_to_the_commands_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules");
        let text =
            "# first\nTPM2_Sign 2 rc:0x922\n\nTPM2_Sign 3+ delay:5\n* 4 drop\n* 4+ delay:6\n";
        std::fs::write(&path, text).unwrap();
        let mut rules = Rules::new(path.clone());
        let order = |ms, action| {
            let delay = Duration::from_millis(ms);
            Ok(Some(Order { delay, action }))
        };
        assert_eq!(rules.next(SIGN), Ok(None));
        assert_eq!(rules.next(LOAD), Ok(None));
        assert_eq!(rules.next(SIGN), order(0, Some(Action::Answer(0x922))));
        assert_eq!(rules.next(SIGN), order(11, Some(Action::Drop)));
        assert_eq!(rules.next(LOAD), order(6, None));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(rules.next(SIGN), Ok(None));
        std::fs::write(&path, "TPM2_Sign 1 flip\n").unwrap();
        let flip = Some(Action::Spoil(Spoil::Flip));
        assert_eq!(rules.next(SIGN), order(0, flip));
        assert_eq!(rules.next(SIGN), Ok(None));
    }

    #[test]
    fn a_line_with_a_typo_is_no_rule() {
        for line in [
            "TPM2_Sing 1 drop",
            "TPM2_Sign drop",
            "TPM2_Sign 1 drops",
            "TPM2_Sign 1 rc:922",
            "TPM2_Sign 1 rc:0x1ffffffff",
            "TPM2_Sign 1 drop now",
            "TPM2_Sign 0 drop",
            "TPM2_Sign 1! drop",
            "TPM2_Sign 1 delay:-1",
            "TPM2_Sign 1 ckr:0x5",
        ] {
            let text = format!("* * delay:1\n{line}\n");
            assert_eq!(check(&text), Err(line.to_owned()));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules");
        std::fs::write(&path, "TPM2_Sign 1 drops\n").unwrap();
        let said = Rules::new(path).next(SIGN);
        assert_eq!(said, Err("TPM2_Sign 1 drops".to_owned()));
    }
}
