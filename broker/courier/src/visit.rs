//! One visit to one https server: one connection, one request, one answer. Owns the limits and deadlines of all
//! of it. Nothing is followed, nothing is kept for the next one, and nothing comes of the environment.

use crate::edition::Errand;
use broker::courier::{FETCH_MAX, Failed, Failure};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Request, Response};
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

/// Who it is that asks, as servers' logs show it.
pub const AGENT: &str = concat!("assertd-courier/", env!("CARGO_PKG_VERSION"));

/// What is waited for.
#[derive(Clone, Copy)]
enum Stage {
    Name,
    Connection,
    Handshake,
    Answer,
    Document,
}

/// One that has begun: its deadlines run.
pub struct Visit<'a> {
    errand: &'a Errand,
    connected: Instant,
    done: Instant,
}

/// The head of an answer; its connection ends with it.
pub struct Heard {
    /// The head, and the body to come.
    pub response: Response<Incoming>,
    _driver: Driver,
}

impl<'a> Visit<'a> {
    /// Begins one, which is over within [`FETCH_MAX`].
    pub fn begin(errand: &'a Errand) -> Visit<'a> {
        let start = Instant::now();
        Visit {
            errand,
            connected: start + CONNECT_MAX,
            done: start + FETCH_MAX,
        }
    }

    /// Connects and asks.
    pub async fn ask<B>(&self, request: Request<B>, tls: Arc<ClientConfig>) -> Result<Heard, Failed>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let tcp = self.connect().await?;
        let stream = self.handshake(tcp, tls).await?;
        let broken = |error: hyper::Error| self.failed(Failure::Http, http_fault(&error));
        let handshake = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_LEN_MAX)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(broken)?;
        let driver = Driver(tokio::spawn(async move {
            let _ = connection.await; // its error is the answer's too
        }));
        let asked = sender.send_request(request);
        let response = self
            .within(Stage::Answer, self.done, asked)
            .await?
            .map_err(broken)?;
        Ok(Heard {
            response,
            _driver: driver,
        })
    }

    /// Reads the body, of so many bytes at most, behind what is in `into`.
    pub async fn body(&self, heard: Heard, most: usize, into: &mut Vec<u8>) -> Result<(), Failed> {
        let Heard { response, _driver } = heard;
        if response.body().size_hint().lower() > most as u64 {
            return Err(self.too_large(most));
        }
        let mut body = Limited::new(response.into_body(), most);
        loop {
            let frame = self.within(Stage::Document, self.done, body.frame());
            match frame.await? {
                None => return Ok(()),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        into.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) if error.is::<LengthLimitError>() => {
                    return Err(self.too_large(most));
                }
                Some(Err(error)) => {
                    let why = match error.downcast::<hyper::Error>() {
                        Ok(error) => http_fault(&error),
                        Err(error) => format!("the document broke off: {error}"),
                    };
                    return Err(self.failed(Failure::Http, why));
                }
            }
        }
    }

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

    fn too_large(&self, most: usize) -> Failed {
        let text = format!("is longer than {most} bytes, which nothing is that is asked for");
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

    /// A failure, told by where it was.
    pub fn failed(&self, kind: Failure, text: String) -> Failed {
        Failed::new(kind, &format!("{}: {text}", self.errand.url))
    }
}

/// What moves bytes; it ends with the visit.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A header, shortened: it is others' text. Of what is none nothing is shown.
pub fn value(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().unwrap_or("?");
    Some(text.chars().take(64).collect())
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
