//! Names of keys. A key is `name` + version: `payments/bank.1` is the first version of the client
//! key of workload `payments` for target `bank`; `issuer/prod.2` is the second of issuer `prod`.
//!
//! A key id is what we persist and show. What a token stores (CKA_ID, label) is derived or
//! recorded elsewhere; a handle is never an identity.

use crate::textual::textual;
use std::{fmt, str::FromStr};

/// Longest part of a key name, in bytes. Section names in the configuration obey the same limit,
/// so that `assertd/<name>/<version>` always fits a token label of 255 bytes.
pub const NAME_PART_LEN_MAX: usize = 64;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName(String);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidName {}

/// Checks one part of a name: 1 to 64 of `a-z A-Z 0-9 _ -`, starting with a letter or digit.
/// No dot (it separates the version), no slash, nothing a file name or a label could misread.
pub fn check_part(part: &str) -> Result<(), InvalidName> {
    let ok_char = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let first = part.chars().next();
    if part.len() > NAME_PART_LEN_MAX {
        return Err(InvalidName(format!(
            "a name has {NAME_PART_LEN_MAX} bytes at most"
        )));
    }
    if !first.is_some_and(|c| c.is_ascii_alphanumeric()) || !part.chars().all(ok_char) {
        return Err(InvalidName(
            "a name is letters, digits, `-` and `_`, and starts with a letter or digit".into(),
        ));
    }
    Ok(())
}

/// `<workload>/<target>` or `issuer/<issuer>`: all versions of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(String);

impl KeyName {
    /// The key of one workload for one target (client authentication).
    pub fn client(workload: &str, target: &str) -> Result<KeyName, InvalidName> {
        check_part(workload)?;
        check_part(target)?;
        Ok(KeyName(format!("{workload}/{target}")))
    }

    /// The key of one issuer (federation). `issuer` is reserved and no workload can have the name.
    pub fn issuer(issuer: &str) -> Result<KeyName, InvalidName> {
        check_part(issuer)?;
        Ok(KeyName(format!("issuer/{issuer}")))
    }

    /// The name as shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This name with a version.
    pub fn version(&self, version: KeyVersion) -> KeyId {
        KeyId {
            name: self.clone(),
            version,
        }
    }
}

impl FromStr for KeyName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<KeyName, InvalidName> {
        let (first, second) = text.split_once('/').ok_or_else(|| {
            InvalidName("a key name is `workload/target` or `issuer/NAME`".into())
        })?;
        KeyName::client(first, second)
    }
}

/// 1, 2, 3 …; a new version is made by rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyVersion(u32);

impl KeyVersion {
    /// The version every key starts with.
    pub const FIRST: KeyVersion = KeyVersion(1);

    /// `None` for 0, which is no version.
    pub fn new(number: u32) -> Option<KeyVersion> {
        (number > 0).then_some(KeyVersion(number))
    }

    /// The number as shown.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// One version of one key; the identity of a private key in everything we store and send.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId {
    /// Which key.
    pub name: KeyName,
    /// Which version of it.
    pub version: KeyVersion,
}

impl FromStr for KeyId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<KeyId, InvalidName> {
        let bad = || InvalidName("a key id is `workload/target.VERSION`".into());
        let (name, version) = text.rsplit_once('.').ok_or_else(bad)?;
        let number: u32 = version.parse().map_err(|_| bad())?;
        if number.to_string() != version {
            return Err(bad()); // one spelling per id: no `+1`, no `01`
        }
        let version = KeyVersion::new(number).ok_or_else(bad)?;
        Ok(KeyId {
            name: name.parse()?,
            version,
        })
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.version.0)
    }
}

textual!(KeyId, KeyName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_and_parses_to_itself() {
        for text in ["payments/bank.1", "issuer/prod.42", "a/b.4294967295"] {
            assert_eq!(text.parse::<KeyId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_id_has_one_spelling() {
        for text in [
            "a/b",
            "a/b.0",
            "a/b.01",
            "a/b.+1",
            "a/b.4294967296",
            "a/b.c.1",
            "a.1",
            "/b.1",
        ] {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_part_ends_at_its_limit() {
        assert!(check_part(&"a".repeat(NAME_PART_LEN_MAX)).is_ok());
        assert!(check_part(&"a".repeat(NAME_PART_LEN_MAX + 1)).is_err());
        for part in ["", "-a", "_a", "a b", "a/b", "a.b", "ä", "a\n"] {
            assert!(check_part(part).is_err(), "{part:?}");
        }
    }
}
