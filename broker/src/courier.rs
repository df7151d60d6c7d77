//! What the world sees of our published keys, and whether another side knows a key that it was told, as
//! `assertd-courier` finds out. The broker has no network (docs/decisions/0007), so another process has:
//! [`client`] asks it, [`readback`] judges what it brings, [`child`] runs it where no unit does. Its
//! program is a package of its own, so that no TLS is in the broker's (docs/decisions/0023, 0031).
//!
//! Owns the types that cross the socket, and their limits. A [`Question`] names an issuer or a target and
//! never a URL: which one that is the courier reads in the configuration, so that a broker that was taken
//! over can have nothing else fetched, and assertions sent nowhere else. One question a connection, one [`Answer`], each in a frame of
//! [`keystore::protocol`]. Nothing here decides which key signs.

use crate::config::url::URL_LEN_MAX;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use keystore::jws::ASSERTION_LEN_MAX;
use keystore::{Error, Kind, protocol};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::time::Duration;

pub mod child;
pub mod client;
mod question;
pub mod readback;

pub use client::{Client, Why};
pub use question::{Canary, Credential, Question, Subject};

/// The socket's name in the runtime directory.
pub const SOCKET: &str = "courier.sock";

/// The version both sides must speak; they are installed together.
pub const VERSION: u32 = 2;

/// Longest document in bytes that is brought: a thousand keys, where verifiers read a hundred.
pub const BODY_LEN_MAX: usize = 256 * 1024;

/// Longest question in bytes: an assertion, and names of 64 at most.
pub const QUESTION_LEN_MAX: usize = ASSERTION_LEN_MAX + 1024;

/// Longest answer in bytes: the document in base64, its URL, and what is around them.
pub const ANSWER_LEN_MAX: usize = BODY_LEN_MAX.div_ceil(3) * 4 + 8 * 1024;

/// Longest sentence in bytes about a failure.
pub const MESSAGE_LEN_MAX: usize = 512;

/// Longest [`ErrorCode`] in bytes.
pub const ERROR_CODE_LEN_MAX: usize = 64;

/// How long one fetch may take, from looking the name up to the last byte.
pub const FETCH_MAX: Duration = Duration::from_secs(10);

/// How long a question may wait for its turn, while others are answered.
pub const TURN_MAX: Duration = Duration::from_secs(5);

/// How long to wait for an answer: the courier has given up before, and says why. Between the turn and
/// the fetch it may have to read its configuration.
pub const DEADLINE: Duration = Duration::from_secs(25);

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// There is a document, of which nothing is known but where it is from.
    Document(Document),
    /// There was an access token, which nobody has any more.
    Accepted(Accepted),
    /// There is none.
    Failed(Failed),
}

/// What was found at an issuer's `verify_url`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The URL, as the courier's configuration has it.
    pub url: String,
    /// Its bytes, in base64.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub body: Vec<u8>,
}

/// A token endpoint has given an access token for an assertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// Which, as the courier's configuration has it.
    pub url: String,
}

/// Why there is no document, or no access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// What kind of reason it is.
    pub kind: Failure,
    /// What a token endpoint has said of it, if that is a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorCode>,
    /// A lower-case sentence for people.
    pub message: String,
}

/// Why a token endpoint refuses, in its own word (RFC 6749 §5.2): lower-case letters, digits and `_`, as all
/// that are registered have. What else it says goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ErrorCode(String);

impl ErrorCode {
    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ErrorCode {
    type Error = &'static str;

    fn try_from(word: String) -> Result<ErrorCode, &'static str> {
        let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        match (1..=ERROR_CODE_LEN_MAX).contains(&word.len()) && word.bytes().all(is_fit) {
            true => Ok(ErrorCode(word)),
            false => Err("no error code"),
        }
    }
}

impl From<ErrorCode> for String {
    fn from(code: ErrorCode) -> String {
        code.0
    }
}

/// What keeps a document from being fetched, or an assertion from being redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Failure {
    /// Broker and courier are of different versions.
    Version,
    /// The courier's configuration cannot be used, or the authorities it is to trust.
    Configuration,
    /// There is no such issuer in it, or it has no `verify_url`.
    Issuer,
    /// It was asked too often.
    Busy,
    /// The name cannot be looked up.
    Dns,
    /// Nobody accepts a connection there.
    Connect,
    /// It is not who it should be, or speaks no TLS.
    Tls,
    /// It took too long.
    Timeout,
    /// What was answered is no HTTP, or broke off.
    Http,
    /// Another status than 200.
    Status(u16),
    /// It is elsewhere, where nobody looks.
    Redirect(u16),
    /// Longer than [`BODY_LEN_MAX`].
    TooLarge,
    /// It is something else than JSON, as it says itself.
    NotJson,
    /// There is no such target in the courier's configuration, or it has no canary, or the assertion is none
    /// of its.
    Target,
    /// The token endpoint refuses the assertion, by this status.
    Refused(u16),
    /// The token endpoint says that all is well, and gives no access token.
    NoToken,
}

impl Failed {
    /// A failure with its sentence, of which what others have written may be a part: one line, and not
    /// longer than fits.
    pub fn new(kind: Failure, message: &str) -> Failed {
        let mut line: String = message
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        while line.len() > MESSAGE_LEN_MAX {
            line.pop();
        }
        Failed {
            kind,
            error: None,
            message: line,
        }
    }

    /// The same with what a token endpoint has said.
    pub fn saying(self, error: Option<ErrorCode>) -> Failed {
        Failed { error, ..self }
    }
}

impl Answer {
    /// An answer from the bytes of a frame.
    ///
    /// # Errors
    /// `Protocol`, if it is none or breaks a limit.
    pub fn decode(bytes: &[u8]) -> Result<Answer, Error> {
        let answer: Answer = protocol::decode(bytes)?;
        let broken = match &answer {
            Answer::Document(document) => document.body.len() > BODY_LEN_MAX,
            Answer::Accepted(accepted) => accepted.url.len() > URL_LEN_MAX,
            Answer::Failed(Failed { message, .. }) => {
                message.len() > MESSAGE_LEN_MAX || message.chars().any(char::is_control)
            }
        };
        match broken {
            true => Err(Error::new(Kind::Protocol, "answer breaks a limit")),
            false => Ok(answer),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn to_base64<S: Serializer>(body: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(body))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    let decoded = BASE64.decode(text);
    decoded.map_err(|_| de::Error::custom("the body is not in base64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn document(len: usize) -> Answer {
        Answer::Document(Document {
            url: "u".repeat(crate::config::url::URL_LEN_MAX),
            body: vec![0xff; len],
        })
    }

    #[test]
    fn the_longest_document_fits_an_answer_and_a_longer_one_is_none() {
        let frame = protocol::encode_within(&document(BODY_LEN_MAX), ANSWER_LEN_MAX).unwrap();
        let header = *frame.first_chunk::<4>().unwrap();
        let length = protocol::frame_len_within(header, ANSWER_LEN_MAX).unwrap();
        assert_eq!(Answer::decode(&frame[4..]).unwrap(), document(BODY_LEN_MAX));
        assert_eq!(length, frame.len() - 4);
        let longer = serde_json::to_vec(&document(BODY_LEN_MAX + 1)).unwrap();
        assert!(Answer::decode(&longer).is_err());
    }

    #[test]
    fn a_sentence_is_one_line_and_no_longer_than_fits() {
        let failed = Failed::new(Failure::Tls, &format!("a\nb\u{1b}[31m{}", "ü".repeat(600)));
        assert!(failed.message.starts_with("a b [31mü"));
        assert!(failed.message.len() <= MESSAGE_LEN_MAX);
        let answer = serde_json::to_vec(&Answer::Failed(failed)).unwrap();
        assert!(Answer::decode(&answer).is_ok());
        for message in ["\n".to_owned(), "a".repeat(MESSAGE_LEN_MAX + 1)] {
            let kind = Failure::Status(500);
            let failed = Failed {
                kind,
                error: None,
                message,
            };
            let answer = serde_json::to_vec(&Answer::Failed(failed)).unwrap();
            assert!(Answer::decode(&answer).is_err());
        }
    }

    #[test]
    fn of_what_a_token_endpoint_says_a_word_passes_and_no_text() {
        let long = "a".repeat(ERROR_CODE_LEN_MAX);
        for word in ["invalid_client", "a", "aadsts_700027", &long] {
            let code = ErrorCode::try_from(word.to_owned()).unwrap();
            assert_eq!(code.as_str(), word);
        }
        for text in [
            "",
            "no key, ask me",
            "Invalid",
            "a\n",
            "a\u{1b}[31m",
            &(long + "a"),
        ] {
            assert!(ErrorCode::try_from(text.to_owned()).is_err(), "{text:?}");
            let answer = serde_json::json!({
                "failed": { "kind": { "refused": 401 }, "error": text, "message": "no" },
            });
            assert!(Answer::decode(answer.to_string().as_bytes()).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_decoders(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Answer::decode(&bytes);
            let _ = protocol::decode::<Question>(&bytes);
        }
    }
}
