//! Answers and refusals as they leave: JSON for what was asked for, RFC 9457 problems for the
//! rest. A denial is one constant sentence with an id; what is down is said, for it is the
//! host's fault and not the caller's business to hide.

use crate::audit;
use crate::config::Target;
use crate::id::RequestId;
use crate::keyring::ActiveKey;
use crate::peer::Proof;
use crate::policy::Grant;
use crate::workload::{Program, Workload};
use assertd_client::api::{CONNECT_AGAIN, Problem, RequestCounts};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use keystore::Claims;
use keystore::protocol::EvidenceLevel;
use serde::Serialize;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

mod envelope;
pub use envelope::Envelope;

/// What goes over the wire.
pub type Answer = Response<Full<Bytes>>;

/// Why there is no answer.
#[derive(Debug)]
pub enum Refusal {
    /// Policy. The same for everybody and everything.
    Denied,
    /// The request is not one of ours.
    Invalid(String),
    /// Nothing can be said of the process that an administrator asks about, and why.
    NoProcess(String),
    /// Body too long.
    BodyTooLong,
    /// Body too slow.
    BodyTimeout,
    /// No such path.
    Path,
    /// No denial of that id is remembered.
    NotRemembered,
    /// No such method on this path.
    Method,
    /// Too often.
    TooFast(Duration),
    /// Denied too often.
    DeniedTooOften,
    /// The keystore's queue is full.
    QueueFull,
    /// So many wait for the keystore that this one could not be answered in time, but for so long.
    QueueLong(Duration),
    /// The caller is younger than its connection may be, on a kernel without SO_PEERPIDFD.
    ConnectAgain,
    /// Something this host needs is down: a code for records, a sentence for people.
    Unavailable {
        /// A fixed word.
        code: &'static str,
        /// What and what to do.
        detail: String,
    },
    /// The caller has died. Nobody reads this.
    PeerGone,
    /// A configuration that does not come into force, and why.
    Configuration(String),
    /// A verb that a key cannot take now, and why.
    KeyRefused(String),
    /// The peer of the admin socket is not an administrator.
    NotAdmin,
}

impl Refusal {
    /// The record did not become durable in time.
    pub const AUDIT_NOT_DURABLE: Refusal = Refusal::Unavailable {
        code: "audit_unavailable",
        detail: String::new(),
    };

    /// Something is down.
    pub fn unavailable(code: &'static str, detail: impl Display) -> Refusal {
        Refusal::Unavailable {
            code,
            detail: detail.to_string(),
        }
    }

    /// The request is not one of ours. What is quoted of it is bounded.
    pub fn invalid(what: &str) -> Refusal {
        Refusal::Invalid(what.chars().filter(|c| !c.is_control()).take(200).collect())
    }

    /// The fixed word for records and `type`.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Denied => "denied",
            Refusal::Invalid(_) | Refusal::NoProcess(_) => "invalid_request",
            Refusal::BodyTooLong => "body_too_long",
            Refusal::BodyTimeout => "body_timeout",
            Refusal::Path => "not_found",
            Refusal::NotRemembered => "not_remembered",
            Refusal::Method => "method_not_allowed",
            Refusal::TooFast(_) | Refusal::DeniedTooOften => "too_many_requests",
            Refusal::QueueFull | Refusal::QueueLong(_) => "queue_full",
            Refusal::ConnectAgain => CONNECT_AGAIN,
            Refusal::Unavailable { code, .. } => code,
            Refusal::PeerGone => "peer_gone",
            Refusal::Configuration(_) => "configuration_rejected",
            Refusal::KeyRefused(_) => "key_refused",
            Refusal::NotAdmin => "not_an_administrator",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Refusal::Denied | Refusal::NotAdmin => StatusCode::FORBIDDEN,
            Refusal::Invalid(_) | Refusal::NoProcess(_) => StatusCode::BAD_REQUEST,
            Refusal::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Refusal::Path | Refusal::NotRemembered => StatusCode::NOT_FOUND,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::TooFast(_) | Refusal::DeniedTooOften => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Configuration(_) | Refusal::KeyRefused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::QueueFull
            | Refusal::QueueLong(_)
            | Refusal::ConnectAgain
            | Refusal::Unavailable { .. }
            | Refusal::PeerGone => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn title_and_detail(&self) -> (&'static str, String) {
        match self {
            Refusal::Denied => (
                "denied",
                "an administrator learns why by `assertctl explain` and this id; the audit log has the \
                 reason, and counts denials that repeat".to_owned(),
            ),
            Refusal::NotAdmin => ("not permitted", "this socket is for root".to_owned()),
            Refusal::Configuration(why) => (
                "configuration rejected",
                format!("the old configuration stays in force\n{}", why.trim_end()),
            ),
            Refusal::Invalid(what) => (
                "invalid request",
                format!("{what}; a request is {{\"target\":NAME}} and may hold `lifetime`"),
            ),
            Refusal::NoProcess(why) => ("not attested", why.clone()),
            Refusal::KeyRefused(why) => ("refused", why.clone()),
            Refusal::BodyTooLong => ("body too long", "16 KiB is the most".to_owned()),
            Refusal::BodyTimeout => ("body too slow", "send it within 2 s".to_owned()),
            Refusal::Path => (
                "not found",
                "see assertd's docs/protocol.md for the paths".to_owned(),
            ),
            Refusal::NotRemembered => (
                "not remembered",
                "assertd remembers its last denials, and this is none of them".to_owned(),
            ),
            Refusal::Method => ("method not allowed", "see the Allow header".to_owned()),
            Refusal::DeniedTooOften => (
                "too many requests",
                "this user is denied again and again; ask an administrator why".to_owned(),
            ),
            Refusal::TooFast(_) => (
                "too many requests",
                "this workload is above its rate; its `rate` and `burst` are in the configuration"
                    .to_owned(),
            ),
            Refusal::QueueFull => (
                "overloaded",
                "this workload has its share of the keystore's queue".to_owned(),
            ),
            Refusal::QueueLong(wait) => (
                "overloaded",
                format!(
                    "the keystore would answer after {} s, which is longer than a request may take",
                    wait.as_secs() + 1
                ),
            ),
            Refusal::ConnectAgain => (
                "connect again",
                "this kernel (before Linux 6.5) tells a process from another that had its pid only \
                 if it is some time older than its connection; ask again over a new connection"
                    .to_owned(),
            ),
            Refusal::Unavailable { detail, code } if detail.is_empty() => {
                ("unavailable", format!("{code}: see `assertctl status`"))
            }
            Refusal::Unavailable { detail, .. } => ("unavailable", detail.clone()),
            Refusal::PeerGone => ("peer gone", "the caller has died".to_owned()),
        }
    }

    /// What happened and what to do, for people.
    pub fn detail(&self) -> String {
        self.title_and_detail().1
    }

    /// Seconds after which asking again makes sense.
    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Refusal::TooFast(wait) | Refusal::QueueLong(wait) => Some(wait.as_secs() + 1),
            Refusal::QueueFull
            | Refusal::ConnectAgain
            | Refusal::DeniedTooOften
            | Refusal::Unavailable { .. } => Some(1),
            _ => None,
        }
    }
}

/// 200 with JSON.
pub fn ok(body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(json) => json_answer(StatusCode::OK, "application/json", json),
        Err(_) => json_answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            "application/json",
            Vec::new(),
        ),
    }
}

/// A refusal as problem+json.
pub fn problem(refusal: &Refusal, id: &str) -> Answer {
    let (title, detail) = refusal.title_and_detail();
    let status = refusal.status();
    let problem = Problem {
        r#type: format!("urn:assertd:problem:{}", refusal.code()),
        title: title.to_owned(),
        status: status.as_u16(),
        detail,
        id: id.to_owned(),
    };
    let json = serde_json::to_vec(&problem).unwrap_or_default();
    let mut answer = json_answer(status, "application/problem+json", json);
    if let Some(seconds) = refusal.retry_after_s() {
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Refusal::Method = refusal {
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    answer
}

fn json_answer(status: StatusCode, content_type: &'static str, json: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(json)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// What is written to a connection that gets no server: too many are open.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\ncache-control: no-store\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 135\r\n\r\n\
    {\"type\":\"urn:assertd:problem:too_many_connections\",\"title\":\"overloaded\",\"status\":503,\
    \"detail\":\"too many connections are open\",\"id\":\"-\"}";

/// What was granted, of which a record is made.
pub struct Granted {
    /// The workload section that owns the target.
    pub section: Arc<str>,
    /// The target.
    pub target: Arc<Target>,
    /// Keys of shadow conditions that do not hold.
    pub shadowed: Vec<&'static str>,
}

impl Granted {
    /// What a grant says, which is used up by making claims.
    pub fn of(grant: &Grant) -> Granted {
        Granted {
            section: grant.section().name.clone(),
            target: grant.target().clone(),
            shadowed: grant.shadowed().to_vec(),
        }
    }
}

/// What is recorded of claims: made once, for all requests that get the assertion.
pub struct Content {
    jti_sha256: audit::Sha256,
    claims_sha256: audit::Sha256,
    iat: u64,
    exp: u64,
}

impl Content {
    /// Of these.
    pub fn of(claims: &Claims) -> Content {
        Content {
            jti_sha256: match &claims.jti {
                Some(jti) => audit::Sha256::of(jti.as_bytes()),
                None => audit::Sha256::ZERO, // an account's has none; the digest of its claims is below
            },
            claims_sha256: audit::Sha256::of(claims.to_json().as_bytes()),
            iat: claims.iat,
            exp: claims.exp,
        }
    }

    /// When it expires, in seconds since 1970.
    pub fn exp(&self) -> u64 {
        self.exp
    }
}

/// The audit record of a grant.
pub fn decision_record(
    id: RequestId,
    workload: &Workload,
    granted: &Granted,
    key: &ActiveKey,
    evidence: EvidenceLevel,
    content: &Content,
) -> audit::Decision {
    let unit = workload.unit();
    let Granted {
        section,
        target,
        shadowed,
    } = granted;
    audit::Decision {
        id: id.as_str().into(),
        uid: workload.uid(),
        gid: workload.gid(),
        pid: workload.pid(),
        peer_proof: match workload.proof() {
            Proof::Pidfd => audit::PeerProof::Pidfd,
            Proof::Pid => audit::PeerProof::Pid,
        },
        unit: unit.map(|unit| unit.path().into()),
        nested: unit.is_some_and(|unit| unit.nested()),
        invocation: unit.and_then(|unit| unit.invocation()).map(Into::into),
        container: workload.container(),
        exe_sha256: match workload.program() {
            Program::Is { sha256, .. } => Some(*sha256),
            Program::Unread | Program::NotAttestable(_) => None,
        },
        shadow: shadowed.iter().map(|key| (*key).into()).collect(),
        workload: (&**section).into(),
        target: target.name.as_str().into(),
        profile: target.profile.name.as_str().into(),
        kid: key.kid.as_str().into(),
        jti_sha256: content.jti_sha256,
        iat: content.iat,
        exp: content.exp,
        claims_sha256: content.claims_sha256,
        evidence: Some(evidence),
        reuse: None,
    }
}

/// Answers since start, by what they were.
#[derive(Default)]
pub struct Counts {
    released: AtomicU64,
    reused: AtomicU64,
    denied: AtomicU64,
    invalid: AtomicU64,
    unavailable: AtomicU64,
    peer_gone: AtomicU64,
}

impl Counts {
    /// Counts one answer.
    pub fn note(&self, result: &Result<Answer, Refusal>) {
        let counter = match result {
            Ok(_) => &self.released,
            Err(Refusal::Denied | Refusal::NotAdmin) => &self.denied,
            Err(Refusal::PeerGone) => &self.peer_gone,
            Err(refusal)
                if refusal.status().is_client_error() && refusal.retry_after_s().is_none() =>
            {
                &self.invalid
            }
            Err(_) => &self.unavailable,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that was handed out again, beside [`Counts::note`].
    pub fn reused(&self, released: &Result<Answer, Refusal>) {
        self.reused
            .fetch_add(u64::from(released.is_ok()), Ordering::Relaxed);
    }

    /// The numbers.
    pub fn read(&self) -> RequestCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            released: read(&self.released),
            reused: read(&self.reused),
            denied: read(&self.denied),
            invalid: read(&self.invalid),
            unavailable: read(&self.unavailable),
            peer_gone: read(&self.peer_gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_answer_has_the_length_it_says() {
        let text = std::str::from_utf8(TOO_MANY_CONNECTIONS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.ends_with(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        assert!(serde_json::from_str::<Problem>(body).is_ok());
    }

    #[test]
    fn every_temporary_refusal_says_when_to_come_back() {
        for refusal in [
            Refusal::QueueFull,
            Refusal::ConnectAgain,
            Refusal::unavailable("deadline", "x"),
            Refusal::AUDIT_NOT_DURABLE,
            Refusal::TooFast(Duration::from_millis(10)),
            Refusal::QueueLong(Duration::from_millis(10)),
        ] {
            let answer = problem(&refusal, "id");
            assert!(answer.status() == 503 || answer.status() == 429);
            assert_eq!(answer.headers()[RETRY_AFTER], "1");
        }
    }
}
