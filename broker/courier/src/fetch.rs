//! One GET of one document. Owns its limits, and what is sent: nothing that says who asks for what, no
//! cookie, no wish for a fresh copy, since what verifiers get from a cache is what is to be seen. Nothing
//! is followed and nothing decompressed; whatever else arrives than one document of JSON is a failure
//! with a name.

use crate::edition::Errand;
use broker::courier::{BODY_LEN_MAX, FETCH_MAX, Failed, Failure};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, CertificateError, ClientConfig};

/// How long it may take until there is a connection with TLS on it.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Longest head of an answer, in bytes and in lines.
const HEAD_LEN_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// What stores and web servers say of a file with JSON in it; to some it is just a file. What says that
/// it is something else is an error page or a login form.
const MEDIA_TYPES: [&str; 5] = [
    "application/json",
    "application/jwk-set+json",
    "application/octet-stream",
    "binary/octet-stream",
    "text/plain",
];

/// What is waited for.
#[derive(Clone, Copy)]
enum Stage {
    Name,
    Connection,
    Handshake,
    Answer,
    Document,
}

/// Fetches a document, within [`FETCH_MAX`].
pub async fn fetch(errand: &Errand, tls: Arc<ClientConfig>) -> Result<Vec<u8>, Failed> {
    let start = Instant::now();
    let fetch = Fetch {
        errand,
        connected: start + CONNECT_MAX,
        done: start + FETCH_MAX,
    };
    let tcp = fetch.connect().await?;
    let stream = fetch.handshake(tcp, tls).await?;
    fetch.get(stream).await
}

struct Fetch<'a> {
    errand: &'a Errand,
    connected: Instant,
    done: Instant,
}

impl Fetch<'_> {
    async fn connect(&self) -> Result<TcpStream, Failed> {
        let (host, port) = (self.errand.parts.host.as_str(), self.errand.parts.port);
        let looked_up = self.within(Stage::Name, self.connected, lookup_host((host, port)));
        let found = looked_up.await?.map_err(|error| {
            self.failed(Failure::Dns, format!("{host} cannot be looked up: {error}"))
        })?;
        let addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
        let mut refused = None;
        for (at, address) in addresses.iter().enumerate() {
            // Each has its part of the time: one that swallows packets does not hide the next.
            let now = Instant::now();
            let left = self.connected.saturating_duration_since(now);
            let part = now + left / (addresses.len() - at) as u32;
            let tried = self.within(Stage::Connection, part, TcpStream::connect(address));
            match tried.await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => {
                    let text = format!("{address} cannot be connected to: {error}");
                    refused = Some(self.failed(Failure::Connect, text));
                }
                Err(late) => refused = Some(late),
            }
        }
        Err(refused.unwrap_or_else(|| self.failed(Failure::Dns, format!("{host} has no address"))))
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        tls: Arc<ClientConfig>,
    ) -> Result<TlsStream<TcpStream>, Failed> {
        let host = self.errand.parts.host.clone();
        let name = ServerName::try_from(host).map_err(|_| {
            self.failed(
                Failure::Tls,
                "its host is no name that a certificate has".to_owned(),
            )
        })?;
        let handshake = TlsConnector::from(tls).connect(name, tcp);
        let done = self
            .within(Stage::Handshake, self.connected, handshake)
            .await?;
        done.map_err(|error| self.failed(Failure::Tls, tls_fault(&error)))
    }

    async fn get(&self, stream: TlsStream<TcpStream>) -> Result<Vec<u8>, Failed> {
        let broken = |error: hyper::Error| self.failed(Failure::Http, http_fault(&error));
        let handshake = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_LEN_MAX)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(broken)?;
        let _driver = Driver(tokio::spawn(async move {
            let _ = connection.await; // its error is the answer's too
        }));
        let asked = sender.send_request(self.request());
        let response = self
            .within(Stage::Answer, self.done, asked)
            .await?
            .map_err(broken)?;
        self.check(&response)?;
        let body = Limited::new(response.into_body(), BODY_LEN_MAX).collect();
        let body = self.within(Stage::Document, self.done, body).await?;
        match body {
            Ok(body) => Ok(body.to_bytes().to_vec()),
            Err(error) if error.is::<LengthLimitError>() => Err(self.too_large()),
            Err(error) => {
                let why = match error.downcast::<hyper::Error>() {
                    Ok(error) => http_fault(&error),
                    Err(error) => format!("the document broke off: {error}"),
                };
                Err(self.failed(Failure::Http, why))
            }
        }
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        const AGENT: &str = concat!("assertd-courier/", env!("CARGO_PKG_VERSION"));
        let parts = &self.errand.parts;
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
    fn check(&self, response: &Response<Incoming>) -> Result<(), Failed> {
        let status = response.status();
        if status.is_redirection() {
            let text = "verifiers may not follow it, and nor does the courier; let `verify_url` be \
                        where the document is";
            let text = format!("answers {status}, a redirect: {text}");
            return Err(self.failed(Failure::Redirect(status.as_u16()), text));
        }
        if status != StatusCode::OK {
            let text = format!("answers {status}");
            return Err(self.failed(Failure::Status(status.as_u16()), text));
        }
        let headers = response.headers();
        if let Some(encoding) = value(headers, header::CONTENT_ENCODING)
            && !encoding.eq_ignore_ascii_case("identity")
        {
            let text = format!("is sent as {encoding:?}, which was not asked for");
            return Err(self.failed(Failure::NotJson, text));
        }
        if let Some(media) = value(headers, header::CONTENT_TYPE)
            && !is_json(&media)
        {
            let text = format!("is {media:?}, and not application/json");
            return Err(self.failed(Failure::NotJson, text));
        }
        match response.body().size_hint().lower() > BODY_LEN_MAX as u64 {
            true => Err(self.too_large()),
            false => Ok(()),
        }
    }

    fn too_large(&self) -> Failed {
        let text = format!("is longer than {BODY_LEN_MAX} bytes, which no set of keys is");
        self.failed(Failure::TooLarge, text)
    }

    async fn within<T>(
        &self,
        stage: Stage,
        deadline: Instant,
        work: impl Future<Output = T>,
    ) -> Result<T, Failed> {
        let late = |_| {
            let text = match stage {
                Stage::Name => "the name was not looked up in time; see the host's resolver",
                Stage::Connection => {
                    "nobody took the connection in time; is it filtered on the way?"
                }
                Stage::Handshake => "the TLS handshake was not done in time",
                Stage::Answer => "no answer came in time",
                Stage::Document => "the document was not there in time",
            };
            self.failed(Failure::Timeout, text.to_owned())
        };
        timeout_at(deadline, work).await.map_err(late)
    }

    fn failed(&self, kind: Failure, text: String) -> Failed {
        Failed::new(kind, &format!("{}: {text}", self.errand.url))
    }
}

/// What moves bytes; it ends with the fetch.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A header, shortened: it is others' text. Of what is none nothing is shown.
fn value(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().unwrap_or("?");
    Some(text.chars().take(64).collect())
}

fn is_json(media: &str) -> bool {
    let essence = media.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let structured = essence.starts_with("application/") && essence.ends_with("+json");
    structured || MEDIA_TYPES.contains(&essence.as_str())
}

/// What failed, with what mends it where that is known.
fn tls_fault(error: &io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate is of an authority that is not trusted; let the host trust it, or set `ca` \
             in [courier]"
                .to_owned()
        }
        Some(rustls::Error::InvalidCertificate(why)) => {
            format!("its certificate is not accepted: {why}")
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            format!("what answers there speaks no TLS ({error})")
        }
        _ => format!("the TLS handshake failed: {error}"),
    }
}

/// hyper says the kind, and its source the reason.
fn http_fault(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("the answer cannot be read: {error}: {source}"),
        None => format!("the answer cannot be read: {error}"),
    }
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
