//! What one request gets: a document, "not modified", or a refusal. Owns headers and status codes; a
//! file is read anew for each request, by descriptors below the published directory
//! ([`crate::publication::tree`]).

use super::routes::{Route, Routes};
use crate::audit::Sha256;
use crate::publication::tree::{Dir, Found};
use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use keystore::{Error, Kind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long verifiers may keep a document without asking again (standards §2.3).
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300, must-revalidate");

/// For answers that are no document: whoever asks for one that is not published yet finds it when it is.
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-store");

/// How long reading a file of a few kilobytes may take; more is a disk that hangs.
const READ_DEADLINE: Duration = Duration::from_secs(2);

/// When to try again after that, in seconds.
const RETRY_S: HeaderValue = HeaderValue::from_static("5");

/// An answer, whole.
pub type Answer = Response<Full<Bytes>>;

/// What is served.
#[derive(Debug)]
pub struct Site {
    /// The published directory.
    pub directory: PathBuf,
    /// What is in it, by path.
    pub routes: Routes,
}

/// Why there is no document. Who asks learns no more than the status.
#[derive(Debug)]
enum Refusal {
    Path,
    Method,
    Body,
    /// It cannot be read now; the log has why.
    Unreadable(Error),
}

/// Answers one request. What is wrong on our side is in the second part, for the log.
pub async fn answer<B: Body>(site: &Arc<Site>, request: &Request<B>) -> (Answer, Option<Error>) {
    match document(site, request).await {
        Ok(answer) => (answer, None),
        Err(Refusal::Unreadable(why)) => (plain(StatusCode::SERVICE_UNAVAILABLE), Some(why)),
        Err(Refusal::Path) => (plain(StatusCode::NOT_FOUND), None),
        Err(Refusal::Method) => (plain(StatusCode::METHOD_NOT_ALLOWED), None),
        Err(Refusal::Body) => (plain(StatusCode::PAYLOAD_TOO_LARGE), None),
    }
}

async fn document<B: Body>(site: &Arc<Site>, request: &Request<B>) -> Result<Answer, Refusal> {
    let route = site.routes.find(request.uri().path());
    let route = route.ok_or(Refusal::Path)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refusal::Method);
    }
    if !request.body().is_end_stream() {
        return Err(Refusal::Body);
    }
    let (reader, content_type) = (site.clone(), route.content_type);
    let reading = tokio::task::spawn_blocking(move || read(&reader, &route));
    let slow = |why: &str| Refusal::Unreadable(Error::new(Kind::Unavailable, why));
    let read = timeout(READ_DEADLINE, reading).await;
    let read = read.map_err(|_| slow("reading a document takes too long: does the disk hang?"))?;
    let read = read.map_err(|_| slow("reading a document has failed"))?;
    let bytes = read.map_err(Refusal::Unreadable)?.ok_or(Refusal::Path)?;
    let etag = format!("\"{}\"", Sha256::of(&bytes));
    let is_known = is_known(request.headers(), &etag);
    let mut answer = Response::new(match is_known {
        true => Full::default(),
        false => Full::new(Bytes::from(bytes)),
    });
    if is_known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = answer.headers_mut();
    let etag = HeaderValue::from_str(&etag).expect("hexadecimal digits in quotation marks");
    headers.insert(ETAG, etag);
    headers.insert(CACHE_CONTROL, CACHE);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !is_known {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    Ok(answer)
}

/// The file of a route; nothing if it has not been published.
fn read(site: &Site, route: &Route) -> Result<Option<Vec<u8>>, Error> {
    let mut dir = Dir::open(&site.directory)?;
    for name in &route.directories {
        match dir.sub(name)? {
            Some(sub) => dir = sub,
            None => return Ok(None),
        }
    }
    match dir.read(route.name)? {
        Found::File(bytes) => Ok(Some(bytes)),
        Found::Nothing => Ok(None),
        Found::Strange(what) => {
            let path = dir.path().join(route.name);
            let text = format!("{}: is {what}; it is not shown", path.display());
            Err(Error::new(Kind::Corrupt, text))
        }
    }
}

/// Whether the asker has this content (RFC 9110 §13.1.2; compared weakly, §8.8.3.2).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let given = headers.get_all(IF_NONE_MATCH).into_iter();
    let given = given.filter_map(|value| value.to_str().ok());
    let mut tags = given.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// A refusal, in words that say nothing of this host.
fn plain(status: StatusCode) -> Answer {
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, NO_CACHE);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, RETRY_S);
    }
    answer
}
