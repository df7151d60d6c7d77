//! One GET of one document. Owns what is sent: nothing that says who asks for what, no
//! cookie, no wish for a fresh copy, since what verifiers get from a cache is what is to be seen. Nothing
//! is followed and nothing decompressed; whatever else arrives than one document of JSON is a failure
//! with a name.

use crate::edition::Errand;
use crate::visit::{AGENT, Visit, value};
use broker::courier::{BODY_LEN_MAX, Failed, Failure};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header;
use hyper::{Request, Response, StatusCode};
use std::sync::Arc;
use tokio_rustls::rustls::ClientConfig;

/// What stores and web servers say of a file with JSON in it; to some it is just a file. What says that
/// it is something else is an error page or a login form.
const MEDIA_TYPES: [&str; 5] = [
    "application/json",
    "application/jwk-set+json",
    "application/octet-stream",
    "binary/octet-stream",
    "text/plain",
];

/// Fetches a document, within [`broker::courier::FETCH_MAX`].
pub async fn fetch(errand: &Errand, tls: Arc<ClientConfig>) -> Result<Vec<u8>, Failed> {
    let visit = Visit::begin(errand);
    let heard = visit.ask(request(errand), tls).await?;
    check(&visit, &heard.response)?;
    let mut document = Vec::new();
    visit.body(heard, BODY_LEN_MAX, &mut document).await?;
    Ok(document)
}

fn request(errand: &Errand) -> Request<Empty<Bytes>> {
    let parts = &errand.parts;
    let request = Request::get(parts.path.as_str())
        .header(header::HOST, parts.authority.as_str())
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::USER_AGENT, AGENT)
        .header(header::CONNECTION, "close");
    let request = request.body(Empty::new());
    request.expect("the parts of a URL that was parsed are a path and a host")
}

/// Before a byte of the document is read.
fn check(visit: &Visit, response: &Response<Incoming>) -> Result<(), Failed> {
    let status = response.status();
    if status.is_redirection() {
        let text = "verifiers may not follow it, and nor does the courier; let `verify_url` be \
                    where the document is";
        let text = format!("answers {status}, a redirect: {text}");
        return Err(visit.failed(Failure::Redirect(status.as_u16()), text));
    }
    if status != StatusCode::OK {
        let text = format!("answers {status}");
        return Err(visit.failed(Failure::Status(status.as_u16()), text));
    }
    let headers = response.headers();
    if let Some(encoding) = value(headers, header::CONTENT_ENCODING)
        && !encoding.eq_ignore_ascii_case("identity")
    {
        let text = format!("is sent as {encoding:?}, which was not asked for");
        return Err(visit.failed(Failure::NotJson, text));
    }
    match value(headers, header::CONTENT_TYPE) {
        Some(media) if !is_json(&media) => {
            let text = format!("is {media:?}, and not application/json");
            Err(visit.failed(Failure::NotJson, text))
        }
        _ => Ok(()),
    }
}

fn is_json(media: &str) -> bool {
    let essence = media.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let structured = essence.starts_with("application/") && essence.ends_with("+json");
    structured || MEDIA_TYPES.contains(&essence.as_str())
}

#[cfg(test)]
mod tests {
    use super::is_json;

    #[test]
    fn a_document_may_be_called_what_stores_call_it_but_not_a_page() {
        for media in [
            "application/json",
            "application/json; charset=utf-8",
            "Application/JWK-Set+JSON",
            "application/vnd.example+json",
            "text/plain;charset=UTF-8",
            "binary/octet-stream",
        ] {
            assert!(is_json(media), "{media}");
        }
        for media in [
            "text/html",
            "text/html; a=application/json",
            "",
            "image/svg+json",
            "json",
        ] {
            assert!(!is_json(media), "{media}");
        }
    }
}
