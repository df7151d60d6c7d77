//! How the shim misbehaves. One rule per line: a function, which call of it, what to do.
//!
//! ```text
//! C_Sign         3    ckr:0x32     the third call answers CKR_DEVICE_REMOVED, the module is not asked
//! C_Sign         3+   lie:0x30     from the third on the module is asked and its answer replaced
//! C_Sign         1!   segfault     the first call of all processes together since this file is there
//! *              *    ckr:0x30     every function but C_Initialize and C_Finalize fails: the device
//! C_SignInit     *    delay:50     every call takes 50 ms longer, before the module is asked
//! C_SignInit     *    after:50     and so it does, after the module was asked
//! C_Sign         1    dead:0x30    this and every later call of this process, of whatever function,
//!                                  answers CKR_DEVICE_ERROR until C_Finalize has been called
//! C_Sign         *    zeros        the signature is all zeros
//! C_Sign         *    random       the signature has its length, and other bytes
//! C_Sign         *    short        the signature lacks its last byte
//! C_Sign         1    abort        (or segfault) the process dies
//! C_Sign         1    exit         the module calls exit(3) with 0, or another status: exit:3
//! C_Sign         1    hang         the call never returns
//! C_SignInit     1!   logout       the user is logged out first, for all sessions, then the module asked
//! C_SignInit     1!   close-all    all sessions with the token are closed first, this one too
//! C_Sign         *    probe        first tries what code in this process can do (see [`crate::probe`])
//! C_GetTokenInfo *    flags:0x40000   these token flags are added (CKF_USER_PIN_LOCKED)
//! C_GetTokenInfo * another         the token has another serial number: it is another one
//! ```
//!
//! Calls are counted by each process from the moment it read the file, but for `N!`. It is read
//! again when it is replaced: write another file and rename it. Of several rules for one call the
//! delays add up, and of the rest the first holds. A line that is not understood ends the process,
//! so that no test passes because of a typo.

use crate::counts::{Counts, Tally};
use crate::functions::Function;
use crate::which::{Stamp, Which};
use std::path::PathBuf;
use std::time::Duration;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer this without asking the module.
    Answer(u64),
    /// Ask the module and answer this.
    Lie(u64),
    /// Answer this from now on, whatever is called, until the module has been finalised.
    Die(u64),
    /// Wait first.
    Delay(Duration),
    /// Wait afterwards.
    After(Duration),
    /// Give zeros for the signature.
    Zeros,
    /// Give other bytes for the signature.
    Random,
    /// Give a signature that is one byte too short.
    Short,
    /// Add flags to the token information.
    Flags(u64),
    /// Give it another serial number.
    Another,
    /// abort(3)
    Abort,
    /// SIGSEGV
    Segfault,
    /// exit(3) with this status.
    Exit(i32),
    /// Never return.
    Hang,
    /// Log the user out, then go on.
    Logout,
    /// Close all sessions with the token, then go on.
    CloseAll,
    /// Try what the file `P11SHIM_PROBE` says and report in `P11SHIM_REPORT`, then go on.
    Probe,
}

/// Whose calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    One(Function),
    Device,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    scope: Scope,
    which: Which,
    action: Action,
}

/// The current rules of a file.
pub struct Rules {
    path: PathBuf,
    stamp: Option<Stamp>,
    rules: Vec<Rule>,
    calls: Vec<u64>,
    device_calls: u64,
}

impl Rules {
    /// Rules of this file, which need not exist.
    pub fn new(path: PathBuf) -> Rules {
        Rules {
            path,
            stamp: None,
            rules: Vec::new(),
            calls: vec![0; Function::ALL.len()],
            device_calls: 0,
        }
    }

    /// Notes a call and returns what applies to it, in the order of the lines. `counts` is where
    /// calls of all processes are counted.
    pub fn next(&mut self, function: Function, counts: Option<&Counts>) -> Vec<Action> {
        let overall = self.overall(function, counts);
        self.calls[function as usize] += 1;
        self.device_calls += u64::from(function.needs_device());
        let own = Tally {
            function: self.calls[function as usize],
            device: self.device_calls,
        };
        let applies = |rule: &&Rule| match rule.scope {
            Scope::One(one) => one == function && rule.which.means(own.function, overall.function),
            Scope::Device => {
                function.needs_device() && rule.which.means(own.device, overall.device)
            }
        };
        let of_this = self.rules.iter().filter(applies);
        of_this.map(|rule| rule.action).collect()
    }

    /// Reads the rules if they are others, and counts for those that ask for calls of all processes.
    fn overall(&mut self, function: Function, counts: Option<&Counts>) -> Tally {
        loop {
            self.refresh();
            let asks = |rule: &Rule| matches!(rule.which, Which::Overall(_));
            let Some(stamp) = self.stamp.filter(|_| self.rules.iter().any(asks)) else {
                return Tally::default();
            };
            let Some(counts) = counts else {
                self.end("a rule for all processes needs P11SHIM_COUNTS");
            };
            let still = || Stamp::of(&self.path) == Some(stamp);
            match counts.add_since(function, stamp, still) {
                Ok(Some(tally)) => return tally,
                Ok(None) => {} // replaced just now
                Err(error) => self.end(&format!("counts: {error}")),
            }
        }
    }

    fn refresh(&mut self) {
        let stamp = Stamp::of(&self.path);
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        self.calls.fill(0);
        self.device_calls = 0;
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        self.rules = match parse(&text) {
            Ok(rules) => rules,
            Err(line) => self.end(&format!("not a rule: {line}")),
        };
    }

    fn end(&self, why: &str) -> ! {
        eprintln!("pkcs11-shim: {}: {why}", self.path.display());
        std::process::abort();
    }
}

/// Whether this text could be a file of rules.
///
/// # Errors
/// The first line that is no rule.
pub fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
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
    let scope = match words.next()? {
        "*" => Scope::Device,
        name => Scope::One(Function::named(name)?),
    };
    let which = Which::parse(words.next()?)?;
    let action = action(words.next()?).filter(|action| action.fits(scope))?;
    let rule = Rule {
        scope,
        which,
        action,
    };
    words.next().is_none().then_some(rule)
}

fn action(word: &str) -> Option<Action> {
    let hexadecimal = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let time = |ms: &str| ms.parse().ok().map(Duration::from_millis);
    match word.split_once(':') {
        Some(("ckr", code)) => hexadecimal(code).map(Action::Answer),
        Some(("lie", code)) => hexadecimal(code).map(Action::Lie),
        Some(("dead", code)) => hexadecimal(code).filter(|code| *code != 0).map(Action::Die),
        Some(("flags", flags)) => hexadecimal(flags).map(Action::Flags),
        Some(("delay", ms)) => time(ms).map(Action::Delay),
        Some(("after", ms)) => time(ms).map(Action::After),
        Some(("exit", status)) => status.parse().ok().map(Action::Exit),
        Some(_) => None,
        None => match word {
            "zeros" => Some(Action::Zeros),
            "random" => Some(Action::Random),
            "short" => Some(Action::Short),
            "abort" => Some(Action::Abort),
            "segfault" => Some(Action::Segfault),
            "exit" => Some(Action::Exit(0)),
            "hang" => Some(Action::Hang),
            "logout" => Some(Action::Logout),
            "close-all" => Some(Action::CloseAll),
            "another" => Some(Action::Another),
            "probe" => Some(Action::Probe),
            _ => None,
        },
    }
}

impl Action {
    /// Whether it changes what the module gave, so that there is nothing to do if that failed.
    pub fn spoils_result(self) -> bool {
        matches!(
            self,
            Action::Zeros | Action::Random | Action::Short | Action::Flags(_) | Action::Another
        )
    }

    /// Whether it takes something away before the module is asked.
    pub fn takes_away(self) -> bool {
        matches!(self, Action::Logout | Action::CloseAll)
    }

    /// A rule that could never fire is a mistake.
    fn fits(self, scope: Scope) -> bool {
        match self {
            Action::Zeros | Action::Random | Action::Short => scope == Scope::One(Function::C_Sign),
            Action::Flags(_) | Action::Another => scope == Scope::One(Function::C_GetTokenInfo),
            Action::Logout | Action::CloseAll => scope == Scope::One(Function::C_SignInit),
            _ => true,
        }
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
        assert_eq!(rules.next(Function::C_Sign, None), []);
        assert_eq!(rules.next(Function::C_Sign, None), [Action::Answer(0x32)]);
        assert_eq!(rules.next(Function::C_Sign, None), [delay]);
        assert_eq!(rules.next(Function::C_Sign, None), [delay]);
        assert_eq!(rules.next(Function::C_Login, None), [Action::Abort]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(rules.next(Function::C_Sign, None), []);
    }

    #[test]
    fn a_rule_for_the_device_applies_to_all_but_the_librarys_own_functions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules");
        std::fs::write(&path, "* 2+ ckr:0x30\n").unwrap();
        let mut rules = Rules::new(path);
        let fails = [Action::Answer(0x30)];
        assert_eq!(rules.next(Function::C_Initialize, None), []);
        assert_eq!(rules.next(Function::C_OpenSession, None), []);
        assert_eq!(rules.next(Function::C_Finalize, None), []);
        assert_eq!(rules.next(Function::C_Sign, None), fails);
        assert_eq!(rules.next(Function::C_GetTokenInfo, None), fails);
    }

    #[test]
    fn a_rule_for_all_processes_fires_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules");
        let counts = || Counts::open(&dir.path().join("counts")).unwrap();
        let write = |text: &str| {
            let next = dir.path().join("rules.new");
            std::fs::write(&next, text).unwrap();
            std::fs::rename(&next, &path).unwrap();
        };
        write("C_Sign 1! segfault\n");
        let process = || (Rules::new(path.clone()), counts());
        let ((mut first, one), (mut second, two)) = (process(), process());
        assert_eq!(first.next(Function::C_Login, Some(&one)), []);
        assert_eq!(first.next(Function::C_Sign, Some(&one)), [Action::Segfault]);
        assert_eq!(second.next(Function::C_Sign, Some(&two)), []);
        let (mut third, three) = process();
        assert_eq!(third.next(Function::C_Sign, Some(&three)), []);
        write("C_Sign 2! abort\n");
        assert_eq!(third.next(Function::C_Sign, Some(&three)), []);
        assert_eq!(second.next(Function::C_Sign, Some(&two)), [Action::Abort]);
        assert_eq!(first.next(Function::C_Sign, Some(&one)), []);
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
            "C_Sign 0 abort",
            "C_Sign 1 dead:0x0",
            "C_Sign 1 exit:",
            "C_Sign 1 after:x",
        ] {
            assert_eq!(check(line), Err(line.to_owned()));
        }
        assert_eq!(parse("# nothing\n\n"), Ok(vec![]));
    }

    #[test]
    fn a_rule_that_could_never_fire_is_no_rule() {
        for line in [
            "C_Login 1 zeros",
            "C_SignInit * random",
            "* * short",
            "C_Sign 1 flags:0x40000",
            "C_Sign 1 logout",
            "* 1 close-all",
        ] {
            assert_eq!(check(line), Err(line.to_owned()));
        }
        let fit = "C_Sign 1 random\nC_GetTokenInfo * flags:0x40000\n* * ckr:0x30\nC_Sign 1 exit:3\n\
                   C_SignInit 1! logout\nC_SignInit 2 close-all";
        assert_eq!(check(fit), Ok(()));
    }
}
