//! Ids of requests: 26 characters of Crockford base32, 48 bits of time and 80 of chance (the ULID
//! layout). The same id stands in the answer, in the log and in the audit record.

use keystore::Time;
use std::cell::RefCell;
use std::fmt;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Length of an id in characters.
pub const LEN: usize = 26;

/// Bytes of chance in an id.
const CHANCE_LEN: usize = 10;

/// One request's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId([u8; LEN]);

impl RequestId {
    /// The id for a moment and its random bytes.
    pub fn new(now: Time, chance: [u8; CHANCE_LEN]) -> RequestId {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&now.unix_ms().to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&chance);
        let mut rest = u128::from_be_bytes(bytes);
        let mut text = [0; LEN];
        for place in text.iter_mut().rev() {
            *place = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        RequestId(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the alphabet is ASCII")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The system gave no random bytes.
#[derive(Debug)]
pub struct NoRandom;

impl fmt::Display for NoRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no random bytes from the operating system")
    }
}

/// Ids for which chance is drawn at once: the generator takes longer to be asked than to answer.
const DRAWN: usize = 32;

thread_local! {
    /// Drawn and not yet used. Each is used once, by one thread.
    static STORE: RefCell<Vec<[u8; CHANCE_LEN]>> = const { RefCell::new(Vec::new()) };
}

/// Chance for one id, which no other gets.
///
/// # Errors
/// [`NoRandom`].
pub fn chance() -> Result<[u8; CHANCE_LEN], NoRandom> {
    STORE.with_borrow_mut(|store| {
        if store.is_empty() {
            let drawn = random::<{ DRAWN * CHANCE_LEN }>()?;
            store.extend(drawn.as_chunks().0);
        }
        store.pop().ok_or(NoRandom)
    })
}

/// Bytes nobody can guess.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_chance_is_given_twice() {
        let all: HashSet<[u8; CHANCE_LEN]> = (0..10 * DRAWN).map(|_| chance().unwrap()).collect();
        assert_eq!(all.len(), 10 * DRAWN);
    }

    #[test]
    fn an_id_holds_time_and_chance() {
        let id = RequestId::new(Time::from_unix_s(1_469_918_176), [0xff; 10]);
        assert_eq!(id.as_str(), "01ARYZ6RR0ZZZZZZZZZZZZZZZZ"); // the time of the ULID document
        assert_ne!(
            id,
            RequestId::new(Time::from_unix_s(1_469_918_176), [0; 10])
        );
    }
}
