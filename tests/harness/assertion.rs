//! What an assertion says, to those who believe it without a signature: tests.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// Header and claims of an assertion.
pub fn decode(assertion: &str) -> (Value, Value) {
    let part = |text: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let parts: Vec<&str> = assertion.split('.').collect();
    assert_eq!(parts.len(), 3, "not a compact JWS");
    (part(parts[0]), part(parts[1]))
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}
