//! Which PIN each token has accepted in this process. A full-length HMAC under a key that is made at
//! the start and is nowhere else; it never leaves this memory, and nothing of it goes to disk.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// What was accepted, by the token's serial number.
pub struct Accepted {
    /// None if no random number was to be had: then nothing is known to be right.
    key: Option<hmac::Key>,
    tags: Mutex<BTreeMap<String, hmac::Tag>>,
}

impl Accepted {
    /// Nothing.
    pub fn new() -> Accepted {
        Accepted {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            tags: Mutex::default(),
        }
    }

    /// Of this process, for as long as it lives: a token is opened anew many times.
    pub fn of_this_process() -> &'static Accepted {
        static ACCEPTED: LazyLock<Accepted> = LazyLock::new(Accepted::new);
        &ACCEPTED
    }

    /// The token has accepted this PIN.
    pub fn note(&self, serial: &str, pin: &[u8]) {
        if let Some(key) = &self.key {
            self.tags().insert(serial.to_owned(), hmac::sign(key, pin));
        }
    }

    /// The token refuses what it accepted.
    pub fn forget(&self, serial: &str) {
        self.tags().remove(serial);
    }

    /// Whether the token has accepted this PIN.
    pub fn has(&self, serial: &str, pin: &[u8]) -> bool {
        let tags = self.tags();
        match (&self.key, tags.get(serial)) {
            (Some(key), Some(tag)) => hmac::verify(key, pin, tag.as_ref()).is_ok(),
            _ => false,
        }
    }

    fn tags(&self) -> MutexGuard<'_, BTreeMap<String, hmac::Tag>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_known_by_the_token_that_accepted_it_until_that_refuses_it() {
        let accepted = Accepted::new();
        assert!(!accepted.has("1", b"1234"));
        accepted.note("1", b"1234");
        assert!(accepted.has("1", b"1234"));
        assert!(!accepted.has("1", b"1235") && !accepted.has("2", b"1234"));
        accepted.forget("1");
        assert!(!accepted.has("1", b"1234"));
    }
}
