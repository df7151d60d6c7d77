//! What the courier is asked: an issuer's published document, or an access token by an assertion. Owns that a
//! question names something of the configuration, and has no place for a URL.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use keystore::Claims;
use keystore::jws::ASSERTION_LEN_MAX;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use zeroize::Zeroizing;

/// All that is ever asked. On the wire it is one object: the version, and `issuer` or `canary`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Question {
    /// [`super::VERSION`]
    pub version: u32,
    /// What.
    pub subject: Subject,
}

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What is published of an `[issuer.NAME]` that has a `verify_url`?
    Issuer(String),
    /// Does the other side of a target give an access token for this?
    Canary(Canary),
}

/// An assertion that is to be redeemed, to see whether its key is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The `[workload.NAME]`
    pub workload: String,
    /// The target in it, whose `rotation` has a canary.
    pub target: String,
    /// What its key has signed.
    pub assertion: Credential,
}

/// A compact JWS by its characters; that its key has signed it nobody looks at here. It is never printed, and wiped.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Credential(Zeroizing<String>);

impl Credential {
    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it says, if it is one of ours. Nothing that a keystore of ours has signed says anything else than
    /// these do, and by its charter nothing else than its target's.
    pub fn claims(&self) -> Option<Claims> {
        let mut parts = self.0.split('.').skip(1);
        let (payload, _signature, None) = (parts.next()?, parts.next()?, parts.next()) else {
            return None;
        };
        let payload = BASE64URL.decode(payload).ok()?;
        serde_json::from_slice(&payload).ok()
    }
}

impl TryFrom<String> for Credential {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Credential, &'static str> {
        let text = Zeroizing::new(text);
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let fits = (1..=ASSERTION_LEN_MAX).contains(&text.len()) && text.bytes().all(is_fit);
        match fits {
            true => Ok(Credential(text)),
            false => Err("the assertion is no compact JWS"),
        }
    }
}

impl Serialize for Credential {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({} bytes)", self.0.len())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    canary: Option<Canary>,
}

impl TryFrom<Wire> for Question {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<Question, &'static str> {
        let subject = match (wire.issuer, wire.canary) {
            (Some(issuer), None) => Subject::Issuer(issuer),
            (None, Some(canary)) => Subject::Canary(canary),
            _ => return Err("a question is about an issuer or a canary"),
        };
        Ok(Question {
            version: wire.version,
            subject,
        })
    }
}

impl From<Question> for Wire {
    fn from(question: Question) -> Wire {
        let (issuer, canary) = match question.subject {
            Subject::Issuer(issuer) => (Some(issuer), None),
            Subject::Canary(canary) => (None, Some(canary)),
        };
        Wire {
            version: question.version,
            issuer,
            canary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{QUESTION_LEN_MAX, VERSION};
    use super::*;
    use keystore::protocol::{decode, encode_within};

    fn canary(assertion: &str) -> Question {
        Question {
            version: VERSION,
            subject: Subject::Canary(Canary {
                workload: "w".repeat(64),
                target: "t".repeat(64),
                assertion: assertion.to_owned().try_into().unwrap(),
            }),
        }
    }

    #[test]
    fn a_question_cannot_name_a_url() {
        for text in [
            r#"{"version":2,"issuer":"prod","url":"https://other.example/"}"#,
            r#"{"version":2,"url":"https://other.example/"}"#,
            r#"{"version":2,"issuer":["prod"]}"#,
            r#"{"version":2,"canary":{"workload":"a","target":"b","assertion":"c","url":"https://other.example/"}}"#,
        ] {
            assert!(decode::<Question>(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_question_is_about_one_thing() {
        let issuer = r#""issuer":"prod""#;
        let canary = r#""canary":{"workload":"a","target":"b","assertion":"c.d.e"}"#;
        for (members, is_one) in [
            (String::new(), false),
            (format!(",{issuer}"), true),
            (format!(",{canary}"), true),
            (format!(",{issuer},{canary}"), false),
        ] {
            let text = format!(r#"{{"version":2{members}}}"#);
            let decoded = decode::<Question>(text.as_bytes());
            assert_eq!(decoded.is_ok(), is_one, "{text}");
            if let Ok(question) = decoded {
                assert_eq!(serde_json::to_string(&question).unwrap(), text);
            }
        }
    }

    #[test]
    fn the_longest_assertion_fits_a_question_and_nothing_that_would_end_a_form_is_one() {
        let longest = canary(&"a".repeat(ASSERTION_LEN_MAX));
        assert!(encode_within(&longest, QUESTION_LEN_MAX).is_ok());
        let long = "a".repeat(ASSERTION_LEN_MAX + 1);
        for text in ["", "a&scope=b", "a&b", "a b", "a\r\n", "ä", "a=", &long] {
            assert!(Credential::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_an_assertion_says_is_read_strictly() {
        let claims = |payload: &str, rest: &str| {
            let text = format!("e30.{}{rest}", BASE64URL.encode(payload));
            let claims = Credential::try_from(text).unwrap().claims();
            claims.map(|it| (it.iss, it.sub, it.aud))
        };
        let right = r#"{"iss":"a","sub":"b","aud":"c","iat":1,"exp":2}"#;
        let said = ("a".to_owned(), Some("b".to_owned()), Some("c".to_owned()));
        assert_eq!(claims(right, ".c2ln"), Some(said));
        for rest in ["", ".c2ln.c2ln"] {
            assert_eq!(claims(right, rest), None, "{rest:?}");
        }
        for wrong in [
            "",
            "{}",
            r#"{"iss":"a","sub":"b","aud":["c","d"],"iat":1,"exp":2}"#,
            r#"{"iss":"a","sub":"b","aud":"c","aud":"d","iat":1,"exp":2}"#,
        ] {
            assert_eq!(claims(wrong, ".c2ln"), None, "{wrong}");
        }
    }

    #[test]
    fn an_assertion_is_not_printed() {
        let said = format!("{:?}", canary("eyJhbGciOiJFUzI1NiJ9.e30.c2ln"));
        assert!(!said.contains("eyJ"), "{said}");
    }
}
