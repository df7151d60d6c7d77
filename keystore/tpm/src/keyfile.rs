//! A key as it lies in a file: the TSS2 PEM format that tpm2-openssl, tpm2-tools and others read
//! (draft-bottomley-tpm2-keys). Owns the format alone; knows no TPM and no path. The private part is
//! encrypted by the TPM; with this file and without `tpm.auth` nothing can be signed. Before the key stand
//! lines of text: whose it is, and, of one that is bound to a state of the host, to which.
//!
//! ```text
//! TPMKey ::= SEQUENCE {
//!     type      OBJECT IDENTIFIER,              -- 2.23.133.10.1.3, a loadable key
//!     emptyAuth [0] EXPLICIT BOOLEAN OPTIONAL,  -- never true in ours
//!     parent    INTEGER,                        -- a handle
//!     pubkey    OCTET STRING,                   -- TPM2B_PUBLIC
//!     privkey   OCTET STRING }                  -- TPM2B_PRIVATE
//! ```

use crate::bond::LINE_LEN_MAX;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use keystore::der::{
    BOOLEAN, CONTEXT_0, Elements, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, Wrong,
    boolean, element, unsigned, unsigned_element,
};

/// Longest file in bytes.
pub const FILE_LEN_MAX: usize = 16 * 1024;

/// Longest line of text before the key, in bytes: our label has less.
const LABEL_LEN_MAX: usize = 256;

/// What the line of a bond begins with.
const BOUND: &str = "bound to ";

const BEGIN: &str = "-----BEGIN TSS2 PRIVATE KEY-----";
const END: &str = "-----END TSS2 PRIVATE KEY-----";

/// Characters in a line of base64 (RFC 7468 §2).
const LINE_LEN: usize = 64;

/// 2.23.133.10.1.3
const LOADABLE: [u8; 6] = [0x67, 0x81, 0x05, 0x0a, 0x01, 0x03];

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Whose it is, for people; a line of text before the key (RFC 7468 §2 allows it).
    pub label: String,
    /// What it is bound to, as [`crate::bond`] writes it; the second line.
    pub bond: Option<String>,
    /// The handle of the key it was made under.
    pub parent: u32,
    /// TPMT_PUBLIC.
    pub public: Vec<u8>,
    /// What stands in TPM2B_PRIVATE.
    pub private: Vec<u8>,
}

impl KeyFile {
    /// The text of the file.
    pub fn encode(&self) -> String {
        let content = [
            element(OBJECT_IDENTIFIER, &LOADABLE),
            unsigned_element(self.parent),
            element(OCTET_STRING, &sized(&self.public)),
            element(OCTET_STRING, &sized(&self.private)),
        ];
        let base64 = BASE64.encode(element(SEQUENCE, &content.concat()));
        let mut text = format!("{}\n", self.label);
        if let Some(bond) = &self.bond {
            text.push_str(&format!("{BOUND}{bond}\n"));
        }
        text.push_str(&format!("{BEGIN}\n"));
        for line in base64.as_bytes().chunks(LINE_LEN) {
            text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            text.push('\n');
        }
        text.push_str(END);
        text.push('\n');
        text
    }

    /// From the text of a file that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// The end of a sentence that begins with the file.
    pub fn parse(text: &str) -> Result<KeyFile, Wrong> {
        if text.len() > FILE_LEN_MAX {
            return Err("is too long");
        }
        let (label, rest) = text.split_once('\n').ok_or("ends too early")?;
        if label.len() > LABEL_LEN_MAX || label.contains(char::is_control) {
            return Err("does not begin with a label");
        }
        let (bond, rest) = match rest.strip_prefix(BOUND) {
            Some(rest) => {
                let (bond, rest) = rest.split_once('\n').ok_or("ends too early")?;
                if bond.len() > LINE_LEN_MAX || bond.contains(char::is_control) {
                    return Err("has a second line that is not ours");
                }
                (Some(bond), rest)
            }
            None => (None, rest),
        };
        let body = rest
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.strip_prefix('\n'))
            .ok_or("has no line that begins a TSS2 private key")?;
        let base64 = body
            .strip_suffix('\n')
            .and_then(|rest| rest.strip_suffix(END))
            .ok_or("has no line that ends a TSS2 private key")?;
        let der = BASE64
            .decode(base64.replace('\n', ""))
            .map_err(|_| "is not base64")?;
        let file = KeyFile {
            bond: bond.map(str::to_owned),
            ..KeyFile::from_der(label, &der)?
        };
        match file.encode() == text {
            true => Ok(file), // lines of 64, and nothing that is not ours
            false => Err("is not laid out as it was written"),
        }
    }

    fn from_der(label: &str, der: &[u8]) -> Result<KeyFile, Wrong> {
        let mut whole = Elements::of(der);
        let mut content = Elements::of(whole.take(SEQUENCE)?);
        whole.end()?;
        if content.take(OBJECT_IDENTIFIER)? != LOADABLE {
            return Err("is not a loadable key");
        }
        if let Some(explicit) = content.take_optional(CONTEXT_0)? {
            let mut inner = Elements::of(explicit);
            let empty = boolean(inner.take(BOOLEAN)?)?;
            inner.end()?;
            if empty {
                return Err("has an empty auth value");
            }
        }
        let parent = unsigned(content.take(INTEGER)?)?;
        let public = unsized_(content.take(OCTET_STRING)?)?;
        let private = unsized_(content.take(OCTET_STRING)?)?;
        content.end()?;
        Ok(KeyFile {
            label: label.to_owned(),
            bond: None,
            parent,
            public: public.to_vec(),
            private: private.to_vec(),
        })
    }
}

/// A TPM2B: its size, then it.
fn sized(content: &[u8]) -> Vec<u8> {
    let size = u16::try_from(content.len()).expect("what a TPM gives has less than 4 KiB");
    [&size.to_be_bytes(), content].concat()
}

fn unsized_(bytes: &[u8]) -> Result<&[u8], Wrong> {
    match bytes.split_first_chunk::<2>() {
        Some((size, content)) if usize::from(u16::from_be_bytes(*size)) == content.len() => {
            Ok(content)
        }
        _ => Err("has a structure of another size than it says"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file() -> KeyFile {
        KeyFile {
            label: "assertd/payments/bank/1".into(),
            bond: None,
            parent: 0x4000_0001,
            public: (0..88).collect(),
            private: (0..126).rev().collect(),
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let text = file().encode();
        assert!(text.starts_with("assertd/payments/bank/1\n-----BEGIN TSS2 PRIVATE KEY-----\n"));
        assert!(text.lines().all(|line| line.len() <= LINE_LEN));
        assert_eq!(KeyFile::parse(&text), Ok(file()));
    }

    #[test]
    fn every_prefix_is_refused() {
        let text = file().encode();
        for length in 0..text.len() {
            assert!(KeyFile::parse(&text[..length]).is_err(), "{length}");
        }
        assert!(KeyFile::parse(&format!("{text}\n")).is_err());
        assert!(KeyFile::parse(&text.replace('\n', "\r\n")).is_err());
    }

    #[test]
    fn a_key_that_anyone_may_use_is_refused() {
        let with = |flag: &[u8]| {
            let content = [
                element(OBJECT_IDENTIFIER, &LOADABLE),
                element(CONTEXT_0, &element(BOOLEAN, flag)),
                unsigned_element(1),
                element(OCTET_STRING, &[0, 0]),
                element(OCTET_STRING, &[0, 0]),
            ];
            KeyFile::from_der("", &element(SEQUENCE, &content.concat()))
        };
        assert_eq!(with(&[0xff]), Err("has an empty auth value"));
        assert!(with(&[0x00]).is_ok());
        assert!(with(&[0x01]).is_err());
    }

    #[test]
    fn a_file_ends_at_its_limit() {
        let long = "a".repeat(FILE_LEN_MAX + 1);
        assert_eq!(KeyFile::parse(&long), Err("is too long"));
        for (len, fits) in [(LABEL_LEN_MAX, true), (LABEL_LEN_MAX + 1, false)] {
            let label = "l".repeat(len);
            let text = KeyFile { label, ..file() }.encode();
            assert_eq!(KeyFile::parse(&text).is_ok(), fits, "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_key_is_read_as_it_was_written(
            label in "[ -~]{0,100}",
            bond in proptest::option::of("[ -~]{0,100}"),
            parent: u32,
            public in proptest::collection::vec(any::<u8>(), 0..700),
            private in proptest::collection::vec(any::<u8>(), 0..700),
        ) {
            let file = KeyFile { label, bond, parent, public, private };
            prop_assert_eq!(KeyFile::parse(&file.encode()), Ok(file));
        }

        #[test]
        fn no_text_is_read_in_two_ways(at in 0usize..500, byte in 0u8..128) {
            let mut bytes = file().encode().into_bytes();
            let at = at % bytes.len();
            let changed = std::mem::replace(&mut bytes[at], byte) != byte;
            let text = String::from_utf8(bytes).unwrap();
            match KeyFile::parse(&text) {
                Ok(read) => prop_assert_eq!(read != file(), changed),
                Err(_) => prop_assert!(changed),
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = KeyFile::from_der("", &bytes);
            let _ = KeyFile::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
