//! Requests by HTTP/1.1 on a connection that stays: to assertd by its socket, to who publishes by TCP.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// assertd gives a request 5 s.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// Longest body; a set of eight keys has two kilobytes.
const BODY_LEN_MAX: usize = 256 * 1024;

/// To whom.
#[derive(Clone, Debug)]
pub enum Peer {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// A connection, made when it is needed.
pub struct Wire {
    peer: Peer,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// An answer, whole.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Wire {
    pub fn to(peer: Peer) -> Wire {
        Wire { peer, sender: None }
    }

    /// A document.
    pub async fn get(&mut self, path: &str) -> Result<Answer, String> {
        self.ask(Request::get(path), "").await
    }

    /// An assertion for a target.
    pub async fn assertion(&mut self, target: &str) -> Result<Answer, String> {
        let request = Request::post(assertd_client::api::ASSERTION_PATH);
        let request = request.header("content-type", "application/json");
        self.ask(request, &format!("{{\"target\":\"{target}\"}}"))
            .await
    }

    async fn ask(
        &mut self,
        request: hyper::http::request::Builder,
        body: &str,
    ) -> Result<Answer, String> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let request = request.header("host", "rotations").body(Full::new(body));
        let request = request.map_err(|error| error.to_string())?;
        let asked = tokio::time::timeout(ANSWER_DEADLINE, self.exchange(request)).await;
        let answer = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if answer.is_err() {
            self.sender = None;
        }
        answer
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let rested = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !rested {
            self.sender = Some(self.peer.connect().await?);
        }
        let sender = self.sender.as_mut().ok_or("no connection")?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, BODY_LEN_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        if head
            .headers
            .get("connection")
            .is_some_and(|value| value == "close")
        {
            self.sender = None;
        }
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}

impl Peer {
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let lost = |error: std::io::Error| format!("{self:?}: {error}");
        match self {
            Peer::Unix(path) => handshake(UnixStream::connect(path).await.map_err(lost)?).await,
            Peer::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(lost)?;
                stream.set_nodelay(true).map_err(lost)?;
                handshake(stream).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}
