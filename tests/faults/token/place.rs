//! A daemon with its token behind the shim, and what the two were like before a fault.

use crate::observed::{self, TARGET};
use harness::daemon::Site;
use harness::fault::{Function, Shimmed};
use harness::token::KEYSTORE;
use harness::{Config, DEADLINE, Daemon, process, wait_until};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A second target of [`Place::with_two_keys`], with a key of its own.
pub const OTHER: &str = "other";

/// A request has five seconds; the rest is for two busy cores.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// The daemon and its token, which outlives it.
pub struct Place {
    pub daemon: Daemon,
    pub token: Shimmed,
}

/// What was there before a fault.
pub struct Before {
    /// Bytes of the log.
    log: usize,
    /// The keystore's process.
    pub pid: u32,
    restarts: u64,
    calls: Vec<u64>,
    fired: Vec<u64>,
    changes: u64,
    files: Files,
}

/// Every file below some directories, with its content.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

impl Place {
    /// With one key, which has signed.
    pub fn new() -> Place {
        let token = Shimmed::new();
        Place::of(observed::config(&token), token)
    }

    /// With two, of [`TARGET`] and of [`OTHER`], in two signers.
    pub fn with_two_keys() -> Place {
        let token = Shimmed::new();
        Place::of(two_keys(&token, "signers = 2\n"), token)
    }

    /// With this configuration for it. Every target of it that is one of ours has signed.
    pub fn of(config: Config, token: Shimmed) -> Place {
        let daemon = Daemon::with_keys(&config);
        let place = Place { daemon, token };
        let has = |target: &&str| config.text().contains(&format!(".target.{target}]"));
        let ours: Vec<&str> = [TARGET, OTHER].into_iter().filter(has).collect();
        for target in &ours {
            place.daemon.wait_served(target);
        }
        // Or the records change once more when it is.
        let is_counted = || {
            let keystore = place.daemon.keystore(KEYSTORE);
            let counter = keystore.and_then(|it| it.counter);
            counter.is_some_and(|it| it.value.is_some())
        };
        assert!(ours.is_empty() || wait_until(DEADLINE, is_counted));
        place
    }

    /// assertd and its keystore end; what is left is where they were.
    pub fn end(mut self) -> (Site, Shimmed) {
        let daemon = &mut self.daemon;
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
        (self.daemon.into_site(), self.token)
    }

    /// They start where others were.
    pub fn again((site, token): (Site, Shimmed)) -> Place {
        let daemon = Daemon::start_at(site);
        Place { daemon, token }
    }

    /// Ends the keystore's process and waits for the next one. Who opens a token is another process
    /// then, as after a restart of its unit.
    pub fn restart_keystore(&self) {
        let pid = self.daemon.keystore_process(KEYSTORE);
        let pid = pid.unwrap_or_else(|| panic!("no keystore:\n{}", self.daemon.stderr()));
        process::send(pid, Signal::SIGKILL);
        let replaced = wait_until(DEADLINE, || {
            let status = self.daemon.keystore(KEYSTORE);
            let answers = status.and_then(|status| status.pid);
            answers.is_some_and(|now| now != pid)
        });
        assert!(replaced, "no keystore again:\n{}", self.daemon.stderr());
    }

    /// Asks for an assertion that must not come: within its time there is a 503 with this code that
    /// says when to ask again. Returns its sentence.
    #[track_caller]
    pub fn refused(&self, target: &str, code: &str) -> String {
        let asked = Instant::now();
        let answer = self.daemon.ask(&format!("{{\"target\":\"{target}\"}}"));
        let took = asked.elapsed();
        assert!(took < ANSWERED_WITHIN, "{took:?}: {answer:?}");
        assert_eq!((answer.status, answer.problem().as_str()), (503, code));
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        answer.member("detail")
    }

    /// The same without a word about the code.
    #[track_caller]
    pub fn served(&self, target: &str) {
        let (status, code) = self.daemon.outcome(target);
        assert_eq!(status, 200, "{target}: {code}\n{}", self.daemon.stderr());
    }

    /// A key's state in `assertctl keys`, and why.
    pub fn key(&self, target: &str) -> (String, String) {
        let mut keys = self.daemon.keys().into_iter();
        let key = keys.find(|key| key.key == format!("payments/{target}.1"));
        let key = key.unwrap_or_else(|| panic!("no key for {target}"));
        (key.state, key.why.unwrap_or_default())
    }

    /// Waits until `assertctl keys` shows a key in a state; returns why.
    #[track_caller]
    pub fn wait_key(&self, target: &str, state: &str) -> String {
        let there = wait_until(DEADLINE, || self.key(target).0 == state);
        let (now, why) = self.key(target);
        assert!(there, "{target} is {now}, not {state}: {why}");
        why
    }

    /// How it is now.
    pub fn before(&self) -> Before {
        // What a keystore's counter says is written down once, soon after the start.
        let is_settled = || {
            let keystore = self.daemon.status().keystores.remove(0);
            let counted = keystore.counter.and_then(|counter| counter.value);
            keystore.state != "usable" || counted.is_some()
        };
        assert!(wait_until(DEADLINE, is_settled));
        let status = self.daemon.status();
        let count =
            |count: &dyn Fn(Function) -> u64| Function::ALL.iter().map(|f| count(*f)).collect();
        Before {
            log: self.daemon.stderr().len(),
            pid: self.daemon.keystore_pid(),
            restarts: status.keystores[0].restarts,
            calls: count(&|function| self.token.calls(function)),
            fired: count(&|function| self.token.fired(function)),
            changes: self.token.changes(),
            files: self.files(),
        }
    }

    /// What the keystore and assertd remember of keys, and the objects that the token's module
    /// keeps. It counts logins in `token.object`; which PINs were refused is in `pin.v1`, and what assertd
    /// has written so far is counted in `counter.v1`.
    fn files(&self) -> Files {
        let site = self.daemon.site();
        let mut files = files_below(&site.keystore_state(KEYSTORE));
        files.extend(files_below(&self.token.token().state()));
        let counts = [
            "token.object",
            "pin.v1",
            "pin.v1.prev",
            "counter.v1",
            "counter.v1.prev",
            "counter.v1.new",
        ];
        files.retain(|path, _| !counts.iter().any(|name| path.ends_with(name)));
        for name in ["keyring.v1", "keyring.v1.prev"] {
            let path = site.state_dir().join(name);
            let content = std::fs::read(&path).unwrap_or_default();
            files.insert(path, content);
        }
        files
    }
}

impl Before {
    /// Calls of a function since then.
    pub fn calls(&self, place: &Place, function: Function) -> u64 {
        place.token.calls(function) - self.calls[function as usize]
    }

    /// Calls before then that a rule spoilt.
    pub fn all_fired(&self, function: Function) -> u64 {
        self.fired[function as usize]
    }

    /// Calls since then that a rule spoilt.
    pub fn fired(&self, place: &Place, function: Function) -> u64 {
        place.token.fired(function) - self.fired[function as usize]
    }

    /// Waits until a function has been called so often since then.
    #[track_caller]
    pub fn wait_calls(&self, place: &Place, function: Function, times: u64) {
        let called = wait_until(DEADLINE, || self.calls(place, function) >= times);
        let (name, calls) = (function.name(), self.calls(place, function));
        let log = place.daemon.stderr();
        assert!(
            called,
            "{name} was called {calls} times, not {times}\n{log}"
        );
    }

    /// Lines of the log since then that begin so.
    fn lines(&self, place: &Place, beginning: &str) -> Vec<String> {
        let log = place.daemon.stderr();
        let lines = log[self.log..].lines();
        let lines = lines.filter(|line| line.starts_with(beginning));
        lines.map(str::to_owned).collect()
    }

    /// Waits until the log has so many lines since then that begin so; there are no more. It is
    /// read by way of a pipe, and so a moment later than it is written.
    #[track_caller]
    pub fn said(&self, place: &Place, beginning: &str, times: usize) -> Vec<String> {
        let _ = wait_until(DEADLINE, || self.lines(place, beginning).len() >= times);
        let lines = self.lines(place, beginning);
        let log = place.daemon.stderr();
        assert_eq!(lines.len(), times, "{beginning:?}: {lines:#?}\n{log}");
        lines
    }

    /// Waits until the keystore has said once more that it is usable: from then on it serves.
    #[track_caller]
    pub fn wait_usable(&self, place: &Place) {
        self.said(place, "keystore hsm: usable", 1);
    }

    /// Both the keystore and assertd have said once that it is degraded, and once that it is
    /// usable, and nothing ended.
    #[track_caller]
    pub fn went_and_came_back_once(&self, place: &Place) {
        place.daemon.wait_keystore(KEYSTORE, "usable");
        for whose in ["keystore hsm", "assertd: keystore hsm"] {
            for state in ["degraded", "usable"] {
                self.said(place, &format!("{whose}: {state}"), 1);
            }
        }
        self.in_the_same_process(place);
    }

    /// The keystore's process is the one it was.
    #[track_caller]
    pub fn in_the_same_process(&self, place: &Place) {
        let log = place.daemon.stderr();
        assert_eq!(place.daemon.keystore_pid(), self.pid, "{log}");
        let restarts = place.daemon.status().keystores[0].restarts;
        assert_eq!(restarts, self.restarts, "{log}");
    }

    /// Calls since then that make, change or destroy something.
    pub fn changes(&self, place: &Place) -> u64 {
        place.token.changes() - self.changes
    }

    /// Nothing was made, changed or destroyed in the token, and what is on the disk is the same,
    /// byte for byte.
    #[track_caller]
    pub fn nothing_changed(&self, place: &Place) {
        assert_eq!(self.changes(place), 0, "the token was changed");
        same_files(&self.files, &place.files());
    }
}

/// The configuration of [`Place::with_two_keys`]; `extra` is more lines of the keystore's section.
pub fn two_keys(token: &Shimmed, extra: &str) -> Config {
    let uid = nix::unistd::geteuid().as_raw();
    let config = Config::default().keystore(KEYSTORE, token, extra);
    let config = config.workload("payments", uid, "rate = 1000000\nburst = 1000000");
    let config = config.target("payments", TARGET, "");
    config.target("payments", OTHER, "")
}

/// Panics with the names of those that differ; the content may be a secret.
#[track_caller]
pub fn same_files(before: &Files, after: &Files) {
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(after), "files came or went");
    let changed = before.iter().filter(|(path, was)| after[*path] != **was);
    let changed: Vec<&PathBuf> = changed.map(|(path, _)| path).collect();
    assert!(changed.is_empty(), "changed: {changed:?}");
}

/// Every file below a directory.
pub fn files_below(dir: &Path) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => match std::fs::read(&path) {
                Ok(content) => drop(files.insert(path, content)),
                Err(error) if error.kind() == ErrorKind::NotFound => {} // it has its name now
                Err(error) => panic!("{}: {error}", path.display()),
            },
        }
    }
    files
}
