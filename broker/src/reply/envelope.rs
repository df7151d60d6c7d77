//! The answer that carries an assertion, encoded once for all the requests that get it. They differ in
//! their id alone: looking through a kilobyte for what JSON would escape takes longer than copying it.
//! Whether one of them gets it is decided before, each time, under a record of its own. Never printed.

use super::{Answer, json_answer};
use crate::id::RequestId;
use assertd_client::api::AssertionResponse;
use hyper::StatusCode;
use keystore::Assertion;

/// What follows the id, which is the last member.
const END: &[u8] = b"\"}";

/// An answer without the id of its request. No `Debug`: it holds a credential.
pub struct Envelope {
    until_id: Box<[u8]>,
}

impl Envelope {
    /// Of an assertion for this target that expires then, under a key of this kid.
    pub fn new(assertion: &Assertion, expires_at: u64, kid: &str, target: &str) -> Envelope {
        Envelope::of(&AssertionResponse {
            assertion: assertion.as_str().to_owned(),
            expires_at,
            kid: kid.to_owned(),
            target: target.to_owned(),
            id: String::new(),
        })
    }

    fn of(without_id: &AssertionResponse) -> Envelope {
        let json = serde_json::to_vec(without_id).expect("strings and a number");
        let until_id = json
            .strip_suffix(END)
            .expect("an object that ends with a string");
        assert!(
            until_id.ends_with(b"\"id\":\""),
            "the id is the last member"
        );
        Envelope {
            until_id: until_id.into(),
        }
    }

    /// The answer to the request of this id.
    pub fn addressed(&self, id: RequestId) -> Answer {
        let id = id.as_str().as_bytes();
        let json = [&self.until_id, id, END].concat();
        json_answer(StatusCode::OK, "application/json", json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::ok;
    use http_body_util::BodyExt;
    use keystore::Time;

    #[tokio::test]
    async fn each_request_gets_what_was_encoded_for_it_alone() {
        let id = |s| RequestId::new(Time::from_unix_s(s), [7; 10]);
        let response = |id: &str| AssertionResponse {
            assertion: "eyJhbGciOiJFUzI1NiJ9.e30.c2ln".into(),
            expires_at: 1_700_000_300,
            kid: "kid \"quoted\" \\ ".into(),
            target: "aws".into(),
            id: id.to_string(),
        };
        let envelope = Envelope::of(&response(""));
        for id in [id(1_700_000_000), id(1_700_000_001)] {
            let (addressed, alone) = (envelope.addressed(id), ok(&response(id.as_str())));
            assert_eq!(addressed.status(), alone.status());
            assert_eq!(addressed.headers(), alone.headers());
            let body = addressed.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, alone.into_body().collect().await.unwrap().to_bytes());
        }
    }
}
