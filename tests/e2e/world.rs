//! What most tests begin with.

pub use harness::assertion::{decode, now_s};

use harness::http::Answer;
use harness::token::Keystore;
use harness::{Config, Daemon, Token};

/// The user who runs the tests.
pub fn us() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A request every daemon of [`with_bank`] grants.
pub const BANK: &str = r#"{"target":"bank"}"#;

/// More of a target, whose key rotates by itself: lead two seconds, lag a dozen.
pub const SHORT: &str = "lifetime = 2\nrotation = { period = \"15s\", publish_latency = \"1s\", \
                         verifier_cache = \"1s\", skew = \"0s\", leeway = \"0s\", rollback = \"0s\", \
                         activation = \"time\" }";

/// A configuration in which our own user owns the target `bank`.
pub fn bank(token: &impl Keystore) -> Config {
    Config::new(token)
        .workload("ours", us(), "")
        .target("ours", "bank", "")
}

/// A daemon that grants [`BANK`] to our own user, and its token, which must outlive it.
pub fn with_bank() -> (Daemon, Token) {
    let token = Token::new();
    (Daemon::with_keys(bank(&token)), token)
}

/// Demands that the daemon is the process that was started and does its main job.
pub fn serves(daemon: &mut Daemon) {
    assert!(daemon.lives(), "assertd has ended:\n{}", daemon.stderr());
    let answer = daemon.ask(BANK);
    assert_eq!(answer.status, 200, "{}\n{}", answer.body(), daemon.stderr());
}

/// The problem's code: the last word of its `type`.
pub fn code(answer: &Answer) -> String {
    let kind = answer.member("type");
    let code = kind.strip_prefix("urn:assertd:problem:");
    code.unwrap_or_else(|| panic!("no problem: {} {}", answer.status, answer.body()))
        .to_owned()
}
