//! The small values of a bundle, each with its limit.

use crate::textual::textual;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 32;

/// Longest name of a host: that of the DNS.
pub const HOST_LEN_MAX: usize = 253;

/// Longest text that a TPM, a module or an operator chose.
pub const TEXT_LEN_MAX: usize = 256;

/// At most so many bytes; base64url without padding in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes<const MAX: usize>(Vec<u8>);

/// The verifier's challenge: 32 bytes, new each time. Base64url in JSON; on a command line
/// also hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(pub [u8; NONCE_LEN]);

/// What the operator calls a host: 1 to 253 bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host(String);

/// At most 256 bytes of text that others chose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text(String);

/// A TPM's firmware version: 16 hexadecimal digits, lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Firmware(pub u64);

impl<const MAX: usize> Bytes<MAX> {
    /// `None` if they are too many.
    pub fn new(bytes: Vec<u8>) -> Option<Bytes<MAX>> {
        (bytes.len() <= MAX).then_some(Bytes(bytes))
    }

    /// They.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// They.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl<const MAX: usize> fmt::Debug for Bytes<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.0.len())
    }
}

impl<const MAX: usize> Serialize for Bytes<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64URL.encode(&self.0))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Bytes<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Base64Url)
    }
}

struct Base64Url<const MAX: usize>;

impl<const MAX: usize> Visitor<'_> for Base64Url<MAX> {
    type Value = Bytes<MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "base64url without padding, of at most {MAX} bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes<MAX>, E> {
        // Not the text itself: it may be megabytes.
        let wrong = || E::invalid_value(Unexpected::Other("another text"), &self);
        if text.len() > MAX.div_ceil(3) * 4 {
            return Err(wrong());
        }
        let bytes = BASE64URL.decode(text).map_err(|_| wrong())?;
        Bytes::new(bytes).ok_or_else(wrong)
    }
}

impl Nonce {
    /// As it stands in JSON.
    pub fn to_base64url(self) -> String {
        BASE64URL.encode(self.0)
    }
}

/// 43 characters of base64url, or 64 hexadecimal digits.
impl FromStr for Nonce {
    type Err = String;
    fn from_str(text: &str) -> Result<Nonce, String> {
        let bytes = match text.len() {
            64 => hex(text),
            _ => BASE64URL.decode(text).ok(),
        };
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Nonce)
            .ok_or_else(|| {
                format!(
                    "a nonce has {NONCE_LEN} bytes, in base64url without padding or hexadecimal"
                )
            })
    }
}

impl TryFrom<String> for Nonce {
    type Error = String;
    fn try_from(text: String) -> Result<Nonce, String> {
        // One nonce has one form in JSON.
        match text.len() {
            43 => text.parse(),
            _ => Err(format!(
                "a nonce has {NONCE_LEN} bytes in base64url without padding"
            )),
        }
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> String {
        nonce.to_base64url()
    }
}

/// A nonce is public, and short.
impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64url())
    }
}

impl Host {
    /// It.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Host {
    type Err = String;
    fn from_str(text: &str) -> Result<Host, String> {
        let fits = (1..=HOST_LEN_MAX).contains(&text.len());
        match fits && !text.contains(char::is_control) {
            true => Ok(Host(text.to_owned())),
            false => Err(format!(
                "the name of a host has 1 to {HOST_LEN_MAX} bytes and no control characters"
            )),
        }
    }
}

impl Text {
    /// As much of it as fits.
    pub fn cut(text: &str) -> Text {
        let mut end = (0..=TEXT_LEN_MAX.min(text.len())).rev();
        let end = end.find(|end| text.is_char_boundary(*end));
        Text(text[..end.unwrap_or_default()].to_owned())
    }

    /// It.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Text {
    type Error = String;
    fn try_from(text: String) -> Result<Text, String> {
        match text.len() {
            ..=TEXT_LEN_MAX => Ok(Text(text)),
            _ => Err(format!("a text has {TEXT_LEN_MAX} bytes at most")),
        }
    }
}

impl From<Text> for String {
    fn from(text: Text) -> String {
        text.0
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Firmware {
    type Err = String;
    fn from_str(text: &str) -> Result<Firmware, String> {
        let bytes = hex(text).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        let firmware = bytes.map(u64::from_be_bytes).map(Firmware);
        firmware
            .ok_or_else(|| "a firmware version has 16 hexadecimal digits in lower case".to_owned())
    }
}

textual!(Firmware, Host);

/// Bytes of hexadecimal digits in lower case.
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    bytes.collect()
}

/// The same, back.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
