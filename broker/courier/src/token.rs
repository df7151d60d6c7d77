//! One access token for one assertion (RFC 7523 §2.2, client credentials), to see whether its key is known. Owns
//! what is sent, and that the token goes no further than the buffer it was read into, which is wiped: nothing but
//! whether there was one, the status and a word of the refusal is told.

use crate::edition::{Errand, TokenErrand};
use crate::visit::{AGENT, Visit, value};
use broker::courier::{Credential, ErrorCode, Failed, Failure};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header;
use hyper::{Request, StatusCode};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt::{self, Write as _};
use std::sync::Arc;
use tokio_rustls::rustls::ClientConfig;
use zeroize::Zeroizing;

/// Longest answer in bytes: tokens with many groups in them have some 10 KiB.
const ANSWER_LEN_MAX: usize = 64 * 1024;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Redeems an assertion, within [`broker::courier::FETCH_MAX`].
pub async fn redeem(
    token: &TokenErrand,
    assertion: &Credential,
    tls: Arc<ClientConfig>,
) -> Result<(), Failed> {
    let visit = Visit::begin(&token.errand);
    let request = request(&token.errand, form(token, assertion));
    let heard = visit.ask(request, tls).await?;
    let status = heard.response.status();
    if status.is_redirection() {
        let text = format!(
            "answers {status}, a redirect, which is not followed: let `token_endpoint` be where tokens are given"
        );
        return Err(visit.failed(Failure::Redirect(status.as_u16()), text));
    }
    if let Some(encoding) = value(heard.response.headers(), header::CONTENT_ENCODING)
        && !encoding.eq_ignore_ascii_case("identity")
    {
        let text = format!("is sent as {encoding:?}, which was not asked for");
        return Err(visit.failed(Failure::NotJson, text));
    }
    // Of its full size from the start: what grows leaves copies behind.
    let mut answer = Zeroizing::new(Vec::with_capacity(ANSWER_LEN_MAX));
    visit.body(heard, ANSWER_LEN_MAX, &mut answer).await?;
    match judge(status, &answer) {
        Verdict::Accepted => Ok(()),
        Verdict::NoToken => {
            let text = "answers 200 and gives no access token; is it the token endpoint?";
            Err(visit.failed(Failure::NoToken, text.to_owned()))
        }
        Verdict::Refused(error) => {
            let said = error.as_ref().map_or("", ErrorCode::as_str);
            let space = if said.is_empty() { "" } else { " " };
            let text = format!("answers {}{space}{said}", status.as_u16());
            let failed = visit.failed(Failure::Refused(status.as_u16()), text);
            Err(failed.saying(error))
        }
    }
}

fn request(errand: &Errand, form: String) -> Request<Full<Bytes>> {
    let parts = &errand.parts;
    let request = Request::post(parts.path.as_str())
        .header(header::HOST, parts.authority.as_str())
        .header(header::ACCEPT, "application/json")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::USER_AGENT, AGENT)
        .header(header::CONNECTION, "close");
    let request = request.body(Full::new(Bytes::from(form)));
    request.expect("the parts of a URL that was parsed are a path and a host")
}

/// RFC 6749 §4.4.2 with RFC 7521 §4.2. The client is named too: Entra wants it so, and RFC 7521 allows it.
fn form(token: &TokenErrand, assertion: &Credential) -> String {
    let mut form = "grant_type=client_credentials".to_owned();
    let members = [
        ("client_id", Some(token.client_id.as_str())),
        ("client_assertion_type", Some(ASSERTION_TYPE)),
        ("client_assertion", Some(assertion.as_str())),
        ("scope", token.scope.as_deref()),
        ("audience", token.audience.as_deref()),
    ];
    for (name, text) in members {
        if let Some(text) = text {
            form.extend(["&", name, "="]);
            escape(text, &mut form);
        }
    }
    form
}

/// Everything but what no reader of forms takes for something else (RFC 3986 §2.3).
fn escape(text: &str, form: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => form.push(byte.into()),
            _ => write!(form, "%{byte:02X}").expect("a String takes every write"),
        }
    }
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// There is an access token in it.
    Accepted,
    /// It should be one with a token, and is none.
    NoToken,
    /// It is another status, with a word if it has one.
    Refused(Option<ErrorCode>),
}

/// RFC 6749 §5.1 and §5.2. Members that it does not look at may be anything.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    access_token: Option<Given>,
    #[serde(default)]
    error: Option<String>,
}

/// A text that is there. It is not kept.
struct Given;

fn judge(status: StatusCode, answer: &[u8]) -> Verdict {
    // For a struct serde would take an array of its members' values too.
    let said = match answer.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice::<Said>(answer).unwrap_or_default(),
        _ => Said::default(),
    };
    match (status, said.access_token) {
        (StatusCode::OK, Some(Given)) => Verdict::Accepted,
        (StatusCode::OK, None) => Verdict::NoToken,
        _ => Verdict::Refused(said.error.and_then(|word| word.try_into().ok())),
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Given, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text that is not empty")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Given, E> {
                match text.is_empty() {
                    true => Err(E::custom("it is empty")),
                    false => Ok(Given),
                }
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker::config::url::Https;

    #[test]
    fn an_answer_with_a_token_is_accepted_and_no_other() {
        let ok = |text: &str| judge(StatusCode::OK, text.as_bytes());
        for text in [
            r#"{"access_token":"a","token_type":"Bearer"}"#,
            r#" {"token_type":5,"access_token":"a\u0062","more":[{}]}"#,
        ] {
            assert_eq!(ok(text), Verdict::Accepted, "{text}");
        }
        for text in [
            "",
            "{}",
            "<!DOCTYPE html>",
            r#"["a"]"#,
            r#"[null,"a"]"#,
            r#"{"access_token":""}"#,
            r#"{"access_token":5}"#,
            r#"{"access_token":null}"#,
            r#"{"id_token":"a"}"#,
            r#"{"access_token":"a","access_token":"b"}"#,
            r#"{"access_token":"a"} more"#,
            r#"{"access_token":"a""#,
            r#"{"error":"invalid_client"}"#,
        ] {
            assert_eq!(ok(text), Verdict::NoToken, "{text}");
        }
    }

    #[test]
    fn a_refusal_is_told_by_its_word_and_by_nothing_else() {
        let refused = |text: &str| judge(StatusCode::UNAUTHORIZED, text.as_bytes());
        let word = |word: &str| Verdict::Refused(Some(word.to_owned().try_into().unwrap()));
        let text =
            r#"{"error":"invalid_client","error_description":"the key is not known, ask me"}"#;
        assert_eq!(refused(text), word("invalid_client"));
        for text in [
            r#"{"error":"call us: 5"}"#,
            r#"{"error":["invalid_client"]}"#,
            "<html>invalid_client</html>",
            "",
            r#"{"access_token":"a"}"#,
        ] {
            assert_eq!(refused(text), Verdict::Refused(None), "{text}");
        }
        assert_eq!(
            judge(StatusCode::CREATED, br#"{"access_token":"a"}"#),
            Verdict::Refused(None),
            "RFC 6749 §5.1 has 200 alone"
        );
    }

    #[test]
    fn what_the_configuration_says_stays_inside_its_member() {
        let url = "https://as.example/token".to_owned();
        let token = TokenErrand {
            errand: Errand {
                parts: Https::parse(&url).unwrap(),
                url,
            },
            client_id: "a&grant_type=password".to_owned(),
            says: (String::new(), None, None),
            scope: Some("api:read https://x.example/.default".to_owned()),
            audience: None,
        };
        let assertion = Credential::try_from("e30.e30.c2ln".to_owned()).unwrap();
        assert_eq!(
            form(&token, &assertion),
            "grant_type=client_credentials&client_id=a%26grant_type%3Dpassword&client_assertion_type=\
             urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=e30.e30.c2ln\
             &scope=api%3Aread%20https%3A%2F%2Fx.example%2F.default"
        );
    }
}
