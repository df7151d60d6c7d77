//! A file with a private key in it, as somebody has handed it over: PEM (RFC 7468), or the DER itself. Who
//! hands it over does not look into it; the keystore does, in memory that is wiped, and takes one key out
//! of it. Certificates and parameters beside the key are passed over.

use crate::privatekey::refused;
use crate::{Error, PrivateKey};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use zeroize::Zeroizing;

/// Longest file in bytes: a key with 4096 bits has less than 3.3 KiB, and some have their certificates
/// beside it.
pub const KEY_FILE_LEN_MAX: usize = 16 * 1024;

/// Labels of private keys without a password: PKCS #8, PKCS #1, SEC 1.
const LABELS: [&[u8]; 3] = [b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY"];

const ENCRYPTED: &str = "is encrypted with a password: decrypt it first (`openssl pkey -in FILE`)";

/// It, unread.
#[derive(PartialEq, Eq)]
pub struct KeyFile(Zeroizing<Vec<u8>>);

impl KeyFile {
    /// From a file's bytes.
    ///
    /// # Errors
    /// `Refused` if there are none, or too many.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<KeyFile, Error> {
        match (1..=KEY_FILE_LEN_MAX).contains(&bytes.len()) {
            true => Ok(KeyFile(bytes)),
            false => Err(refused("is in a file that is empty or too long")),
        }
    }

    /// The one private key in it.
    ///
    /// # Errors
    /// `Refused` if there is none, if there are two, or if it is encrypted; nothing of it is in that.
    pub fn private_key(&self) -> Result<PrivateKey, Error> {
        let mut found = None;
        let mut lines = self.0.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let mut is_pem = false;
        while let Some(line) = lines.next() {
            let Some(label) = between(line, b"-----BEGIN ") else {
                continue;
            };
            is_pem = true;
            match label {
                b"ENCRYPTED PRIVATE KEY" => return Err(refused(ENCRYPTED)),
                label if !LABELS.contains(&label) => continue,
                label => {
                    let key = content(&mut lines, label).map_err(refused)?;
                    if found.replace(key).is_some() {
                        return Err(refused("is one of two in the file"));
                    }
                }
            }
        }
        match (found, is_pem) {
            (Some(der), _) => PrivateKey::new(der),
            (None, true) => Err(refused(
                "is not in the file as PKCS #8, PKCS #1 or SEC 1 (`-----BEGIN PRIVATE KEY-----`)",
            )),
            (None, false) => PrivateKey::new(self.0.clone()),
        }
    }
}

/// The label in a line that begins or ends what is encoded.
fn between<'a>(line: &'a [u8], begin: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(begin)?.strip_suffix(b"-----")
}

/// What stands between the lines.
fn content<'a>(
    lines: &mut impl Iterator<Item = &'a [u8]>,
    label: &[u8],
) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let mut base64 = Zeroizing::new(Vec::with_capacity(KEY_FILE_LEN_MAX)); // never moved
    for line in lines {
        if between(line, b"-----END ") == Some(label) {
            let mut der = Zeroizing::new(vec![0; base64::decoded_len_estimate(base64.len())]);
            let length = BASE64
                .decode_slice(&*base64, &mut der)
                .map_err(|_| "is not base64 between its lines")?;
            der.truncate(length);
            return Ok(der);
        }
        if line.contains(&b':') {
            return Err(ENCRYPTED); // RFC 1421 §4.6: `Proc-Type: 4,ENCRYPTED`
        }
        base64.extend(line);
    }
    Err("has a line that begins it and none that ends it")
}

/// Nothing of it.
impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFile")
    }
}

/// For the one message that carries it, into a frame that is wiped.
impl Serialize for KeyFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64.encode(&*self.0)))
    }
}

/// From the frame itself and no copy of it: text with escapes, which would be one, is refused.
impl<'de> Deserialize<'de> for KeyFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeyFile, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = KeyFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 without escapes")
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<KeyFile, E> {
                let bad = || E::invalid_value(Unexpected::Other("something else"), &self);
                let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
                let length = BASE64.decode_slice(text, &mut bytes).map_err(|_| bad())?;
                bytes.truncate(length);
                KeyFile::new(bytes).map_err(|_| bad())
            }
            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<KeyFile, E> {
                // What is wrong is not shown: it may be a key.
                Err(E::invalid_value(Unexpected::Other("something else"), &self))
            }
        }
        deserializer.deserialize_str(Borrowed)
    }
}

#[cfg(test)]
mod tests;
