//! What most tests begin with.

use harness::http::Answer;
use harness::token::Keystore;
use harness::{Config, Daemon, Token};

/// The user who runs the tests.
pub fn us() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A request every daemon of [`with_bank`] grants.
pub const BANK: &str = r#"{"target":"bank"}"#;

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

/// Header and claims of an assertion.
pub fn decode(assertion: &str) -> (serde_json::Value, serde_json::Value) {
    use base64::Engine;
    let part = |text: &str| {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text)
            .unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let parts: Vec<&str> = assertion.split('.').collect();
    assert_eq!(parts.len(), 3, "not a compact JWS");
    (part(parts[0]), part(parts[1]))
}

/// The problem's code: the last word of its `type`.
pub fn code(answer: &Answer) -> String {
    let kind = answer.member("type");
    let code = kind.strip_prefix("urn:assertd:problem:");
    code.unwrap_or_else(|| panic!("no problem: {} {}", answer.status, answer.body()))
        .to_owned()
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}
