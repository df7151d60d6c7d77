//! The claims of one assertion: a closed set (B-AUD-5), integers for times, one audience as a
//! string (B-AUD-2). The broker makes them from a grant; the keystore checks them against the
//! key's charter, which also says which of them are there. Serialised in one fixed order without
//! whitespace.

use crate::clock::Seconds;
use serde::{Deserialize, Serialize};

/// Longest `iss`, `sub`, `aud` or `scope` in bytes, as they stand in JSON. Entra allows 600 characters,
/// Google 256; 1,024 leaves room and keeps an assertion below 8 KiB, under any key.
pub const CLAIM_LEN_MAX: usize = 1024;

/// Length of a `jti`: 16 random bytes in base64url (standards §1.3: at least 128 bits).
pub const JTI_LEN: usize = 22;

/// Digits between the hyphens of a `jti` that is a UUID (RFC 9562 §4), where a vendor documents one.
const UUID_PARTS: [usize; 5] = [8, 4, 4, 4, 12];

/// The claims we mint (RFC 7519 §4.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Issuer: the client id for client authentication, the issuer URL for federation.
    pub iss: String,
    /// Subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The one audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// What is asked for (RFC 8693 §4.2), of an account alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Unique per assertion, in one of the forms of [`is_jti`]; an account's has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Issued at, seconds since the epoch.
    pub iat: Seconds,
    /// Not before; only where a profile demands it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<Seconds>,
    /// Expiry, seconds since the epoch.
    pub exp: Seconds,
}

/// Whether `iss`, `sub`, `aud` or `scope` may have this value: 1 to [`CLAIM_LEN_MAX`] bytes without control
/// characters. A quotation mark and a backslash count twice, since JSON escapes them.
pub fn is_claim(text: &str) -> bool {
    let escaped = text
        .bytes()
        .filter(|byte| matches!(byte, b'"' | b'\\'))
        .count();
    (1..=CLAIM_LEN_MAX).contains(&(text.len() + escaped)) && !text.chars().any(char::is_control)
}

/// Whether `jti` may have this value: [`JTI_LEN`] characters of base64url, or a UUID in lower case.
pub fn is_jti(text: &str) -> bool {
    let base64url = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let mut parts = text.split('-');
    let is_uuid = UUID_PARTS.iter().all(|length| {
        let part = parts.next().unwrap_or_default();
        part.len() == *length && part.bytes().all(is_digit)
    }) && parts.next().is_none();
    is_uuid || (text.len() == JTI_LEN && text.chars().all(base64url))
}

impl Claims {
    /// The payload's bytes.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a struct of strings and integers serialises to JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jti_is_short_or_a_uuid() {
        for good in [
            "q6urq6urq6urq6urq6urqw",
            "----------------------",
            "abababab-abab-4bab-abab-abababababab",
        ] {
            assert!(is_jti(good), "{good}");
        }
        for bad in [
            "",
            "q6urq6urq6urq6urq6urq",
            "q6urq6urq6urq6urq6urqw=",
            "ABABABAB-abab-4bab-abab-abababababab",
            "abababab-abab-4bab-abab-ababababababa",
            "abababab-abab-4bab-abab-abababababab-",
            "ababababababab-4bab-abab-abababababab",
            "{abababab-abab-4bab-abab-abababababab}",
            "abababab-abab-4bab-abab-ababababab\"\n",
        ] {
            assert!(!is_jti(bad), "{bad}");
        }
    }
}
