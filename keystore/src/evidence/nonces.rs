//! Nonces that a verifier hands out, each for one answer that comes soon (standards §4.4, 3): what is kept of
//! them until then, and what is known of one when evidence comes. Where that is kept, and that it is written before
//! a nonce is handed out and before its answer is accepted, is the caller's.

use super::bundle::{Bytes, Nonce};
use super::enrolment::VERSION;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most that are open at a time: a fleet's, all asked at once.
pub const OPEN_MAX: usize = 10_000;

/// Longest file of them, in bytes of JSON.
pub const NONCES_LEN_MAX: usize = 2 * 1024 * 1024;

/// How far one clock may be ahead of another, or of itself before it was set, in seconds.
const AHEAD_MAX_S: u64 = 60;

/// Those that are open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nonces {
    /// What this document is.
    pub r#type: NoncesType,
    /// [`VERSION`]
    pub version: u32,
    /// They.
    pub open: Vec<Open>,
}

/// The one value of `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoncesType {
    #[serde(rename = "assertd-open-nonces")]
    OpenNonces,
}

/// One of them: not the nonce itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// SHA-256 of it.
    pub digest: Bytes<32>,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
}

/// What who asks for a verdict knows of the nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceUse {
    /// Nothing: that each is used once, and soon, is seen to elsewhere.
    NotKept,
    /// It is open.
    Open {
        /// Since then, in seconds since 1970.
        made_at: u64,
    },
    /// It is not: it was answered, has grown too old, or was made elsewhere.
    NotOpen,
}

/// Whether something of a time is young enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It is.
    Young,
    /// It is older than it may be: so many seconds.
    Old(u64),
    /// It is from so many seconds hence.
    Ahead(u64),
}

impl Nonces {
    /// None.
    pub fn new() -> Nonces {
        Nonces {
            r#type: NoncesType::OpenNonces,
            version: VERSION,
            open: Vec::new(),
        }
    }

    /// Reads them.
    ///
    /// # Errors
    /// A sentence's end: what is wrong with the file.
    pub fn parse(json: &[u8]) -> Result<Nonces, String> {
        if json.len() > NONCES_LEN_MAX {
            return Err(format!("it is longer than {NONCES_LEN_MAX} bytes"));
        }
        let nonces: Nonces = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if nonces.version != VERSION {
            let found = nonces.version;
            return Err(format!(
                "its version is {found}, and this program knows {VERSION}"
            ));
        }
        let digests = nonces.open.iter().map(|it| it.digest.as_slice());
        let digests: BTreeSet<&[u8]> = digests.filter(|it| it.len() == 32).collect();
        match digests.len() == nonces.open.len() && digests.len() <= OPEN_MAX {
            true => Ok(nonces),
            false => Err(format!(
                "it is not a list of at most {OPEN_MAX} digests, each there once"
            )),
        }
    }

    /// As they are written.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("these types have no map and no float")
    }

    /// A new one, which is to be written down before anybody learns of it.
    ///
    /// # Errors
    /// A sentence: too many are open; no random bytes from the operating system.
    pub fn make(&mut self, now: u64, age_max_s: u64) -> Result<Nonce, String> {
        self.forget_old(now, age_max_s);
        if self.open.len() >= OPEN_MAX {
            return Err(format!(
                "{OPEN_MAX} nonces are open, which is the most; each is, until it is answered or \
                 {age_max_s} s old"
            ));
        }
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| "no random bytes from the operating system")?;
        let nonce = Nonce(bytes);
        self.keep(&nonce, now);
        Ok(nonce)
    }

    /// Keeps one that was made then.
    pub fn keep(&mut self, nonce: &Nonce, made_at: u64) {
        self.open.push(Open {
            digest: of(nonce),
            made_at,
        });
    }

    /// What is known of one.
    pub fn find(&self, nonce: &Nonce) -> NonceUse {
        let digest = of(nonce);
        match self.open.iter().find(|it| it.digest == digest) {
            Some(open) => NonceUse::Open {
                made_at: open.made_at,
            },
            None => NonceUse::NotOpen,
        }
    }

    /// It is answered, and never again.
    pub fn close(&mut self, nonce: &Nonce) {
        let digest = of(nonce);
        self.open.retain(|it| it.digest != digest);
    }

    fn forget_old(&mut self, now: u64, age_max_s: u64) {
        let is_young = |it: &Open| Age::of(it.made_at, now, age_max_s) == Age::Young;
        self.open.retain(is_young);
    }
}

impl Default for Nonces {
    fn default() -> Nonces {
        Nonces::new()
    }
}

impl Age {
    /// Of what was made at a time, where so many seconds are allowed.
    pub fn of(made_at: u64, now: u64, age_max_s: u64) -> Age {
        if made_at > now.saturating_add(AHEAD_MAX_S) {
            return Age::Ahead(made_at - now);
        }
        match now.saturating_sub(made_at) {
            age if age <= age_max_s => Age::Young,
            age => Age::Old(age),
        }
    }
}

fn of(nonce: &Nonce) -> Bytes<32> {
    let digest = digest(&SHA256, &nonce.0);
    Bytes::new(digest.as_ref().to_vec()).expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_open_until_it_is_answered_or_old() {
        let mut nonces = Nonces::new();
        let one = nonces.make(1000, 300).unwrap();
        let two = nonces.make(1001, 300).unwrap();
        assert_ne!(one, two);
        let open = |made_at| NonceUse::Open { made_at };
        assert_eq!(
            (nonces.find(&one), nonces.find(&two)),
            (open(1000), open(1001))
        );
        assert!(!nonces.to_json().contains(&one.to_base64url()));
        let mut nonces = Nonces::parse(nonces.to_json().as_bytes()).unwrap();
        nonces.close(&one);
        assert_eq!(
            (nonces.find(&one), nonces.find(&two)),
            (NonceUse::NotOpen, open(1001))
        );
        let three = nonces.make(1302, 300).unwrap();
        assert_eq!(
            (nonces.find(&two), nonces.find(&three)),
            (NonceUse::NotOpen, open(1302))
        );
    }

    #[test]
    fn they_are_no_more_than_there_is_room_for() {
        let mut nonces = Nonces::new();
        for index in 0..OPEN_MAX {
            let mut nonce = Nonce([0; 32]);
            nonce.0[..8].copy_from_slice(&index.to_be_bytes());
            nonces.keep(&nonce, u64::MAX - 1);
        }
        let json = nonces.to_json();
        assert!(json.len() <= NONCES_LEN_MAX);
        let mut nonces = Nonces::parse(json.as_bytes()).unwrap();
        let full = nonces.make(u64::MAX - 1, 300).unwrap_err();
        assert!(full.contains("10000 nonces are open"), "{full}");
        // Those of a time that is not yet are as good as old.
        assert!(nonces.make(1000, 300).is_ok());
        assert_eq!(nonces.open.len(), 1);
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        let mut nonces = Nonces::new();
        nonces.keep(&Nonce([1; 32]), 1000);
        let json = nonces.to_json();
        nonces.keep(&Nonce([1; 32]), 1001);
        for wrong in [
            nonces.to_json(),
            json.replace("\"version\":1", "\"version\":2"),
            json.replace("\"digest\":\"", "\"digest\":\"AAAA"),
            json.replace("nonces\"", "nonce\""),
            json.replace("\"open\":", "\"more\":1,\"open\":"),
            String::new(),
        ] {
            assert!(Nonces::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_young_is_so_to_the_second() {
        let of = |made_at| Age::of(made_at, 1000, 300);
        assert_eq!(of(1000), Age::Young);
        assert_eq!((of(700), of(699)), (Age::Young, Age::Old(301)));
        assert_eq!((of(1060), of(1061)), (Age::Young, Age::Ahead(61)));
        assert_eq!(Age::of(u64::MAX, u64::MAX, 0), Age::Young);
    }
}
