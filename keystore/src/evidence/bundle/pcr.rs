//! PCRs: banks, indices, values and selections.

use super::bytes::{hex, to_hex};
use crate::textual::textual;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// PCRs of a PC (TCG PC Client Platform TPM Profile §4.6).
pub const PCRS: u8 = 24;

/// A bank, by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bank {
    /// Which satisfies no policy.
    Sha1,
    /// The usual one.
    Sha256,
    /// Also.
    Sha384,
    /// Also.
    Sha512,
}

/// A PCR: 0 to 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PcrIndex(u8);

/// The value of one: as long as its bank's hash, hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PcrValue(Vec<u8>);

/// Values by bank and index.
pub type Pcrs = BTreeMap<Bank, BTreeMap<PcrIndex, PcrValue>>;

/// Which PCRs of which banks.
pub type Selection = BTreeMap<Bank, BTreeSet<PcrIndex>>;

impl Bank {
    /// Every one, by its TPM_ALG_ID.
    pub const ALL: [(Bank, u16); 4] = [
        (Bank::Sha1, 0x0004),
        (Bank::Sha256, 0x000b),
        (Bank::Sha384, 0x000c),
        (Bank::Sha512, 0x000d),
    ];

    /// Bytes of a value.
    pub fn digest_len(self) -> usize {
        match self {
            Bank::Sha1 => 20,
            Bank::Sha256 => 32,
            Bank::Sha384 => 48,
            Bank::Sha512 => 64,
        }
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Bank::Sha1 => "sha1",
            Bank::Sha256 => "sha256",
            Bank::Sha384 => "sha384",
            Bank::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PcrIndex {
    /// `None` if there is no such PCR.
    pub fn new(index: u8) -> Option<PcrIndex> {
        (index < PCRS).then_some(PcrIndex(index))
    }

    /// The number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Whether programs can set it back at any time (PC Client Platform TPM Profile §4.6).
    pub fn is_resettable(self) -> bool {
        matches!(self.0, 16 | 23)
    }
}

impl fmt::Display for PcrIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for PcrIndex {
    type Err = String;
    fn from_str(text: &str) -> Result<PcrIndex, String> {
        let index = text.parse().ok().and_then(PcrIndex::new);
        index
            .filter(|index| index.to_string() == text)
            .ok_or_else(|| format!("a PCR is a number from 0 to {}", PCRS - 1))
    }
}

impl PcrValue {
    /// Of these bytes.
    pub fn new(bytes: &[u8]) -> PcrValue {
        PcrValue(bytes.to_vec())
    }

    /// They.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for PcrValue {
    type Err = String;
    fn from_str(text: &str) -> Result<PcrValue, String> {
        hex(text)
            .filter(|bytes| {
                Bank::ALL
                    .iter()
                    .any(|(bank, _)| bank.digest_len() == bytes.len())
            })
            .map(PcrValue)
            .ok_or_else(|| "a PCR's value is hexadecimal, as long as a hash".to_owned())
    }
}

// A number in a list, and a text as a key of a map, which is all that JSON has there.
impl Serialize for PcrIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for PcrIndex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PcrIndex, D::Error> {
        deserializer.deserialize_any(NumberOrKey)
    }
}

struct NumberOrKey;

impl Visitor<'_> for NumberOrKey {
    type Value = PcrIndex;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a PCR, which is a number from 0 to {}", PCRS - 1)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<PcrIndex, E> {
        let index = u8::try_from(number).ok().and_then(PcrIndex::new);
        index.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<PcrIndex, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PcrIndex, E> {
        text.parse().map_err(E::custom)
    }
}

textual!(PcrValue);
