//! What an operator and a workload see of a daemon while something is wrong with a keystore: its
//! state, its answers, its log.

use crate::{DEADLINE, Daemon, wait_for, wait_until};
use assertd_client::api::KeystoreStatus;

impl Daemon {
    /// A keystore as `assertctl status --json` shows it; `None` if there is none of that name, or
    /// the daemon does not answer now.
    pub fn keystore(&self, name: &str) -> Option<KeystoreStatus> {
        let keystores = self.try_status()?.keystores;
        keystores.into_iter().find(|keystore| keystore.name == name)
    }

    /// Waits until a keystore is in a state, and returns what is said of it.
    #[track_caller]
    pub fn wait_keystore(&self, name: &str, state: &str) -> KeystoreStatus {
        let found = wait_for(DEADLINE, || {
            self.keystore(name)
                .filter(|keystore| keystore.state == state)
        });
        found.unwrap_or_else(|| {
            let last = self.keystore(name);
            panic!(
                "{name} was never {state}; it is {last:?}\n{}",
                self.stderr()
            )
        })
    }

    /// Asks for an assertion for a target: the status, and the problem's code, which is empty for
    /// an assertion.
    pub fn outcome(&self, target: &str) -> (u16, String) {
        let answer = self.ask(&format!("{{\"target\":\"{target}\"}}"));
        (answer.status, answer.problem())
    }

    /// Asks until there is an assertion for a target.
    #[track_caller]
    pub fn wait_served(&self, target: &str) {
        let mut last = (0, String::new());
        let served = wait_until(DEADLINE, || {
            last = self.outcome(target);
            last.0 == 200
        });
        assert!(served, "{target}: {last:?}\n{}", self.stderr());
    }

    /// The lines of the log so far, its keystores' among them, that have this text.
    pub fn logged(&self, text: &str) -> Vec<String> {
        let log = self.stderr();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }

    /// Waits until the log has so many lines with this text, and returns all there are by then.
    #[track_caller]
    pub fn wait_logged(&self, text: &str, lines: usize) -> Vec<String> {
        let there = wait_until(DEADLINE, || self.logged(text).len() >= lines);
        let log = self.stderr();
        assert!(there, "no {lines} lines with {text:?} in:\n{log}");
        self.logged(text)
    }
}
