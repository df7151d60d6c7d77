//! A blocking client. It keeps one connection alive and asks one thing at a time; every wait has
//! a deadline. assertd closes a connection that is silent for half a minute, and all of them when it
//! is restarted: what is asked then goes by a new one.

use crate::api::{
    ANSWER_LEN_MAX, ASSERTION_PATH, ATTEST_PATH, AdoptRequest, AssertionRequest, AssertionResponse,
    AttestRequest, ConfigStatus, EXPLAIN_PATH, ExplainRequest, Explained, GRANTS_PATH, Grants,
    KEY_VERB_PATH, KEYS_PATH, KeyStatus, KeyVerbRequest, Keys, Problem, RELOAD_PATH, STATUS_PATH,
    Status, TARGETS_PATH, Targets, WHOAMI_PATH, Whoami,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::runtime::{self, Runtime};

/// How long one answer may take: the daemon's own request deadline is 5 s.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long recording a key may take: the daemon asks the keystore, which has 20 s, and waits until
/// the audit log and its own record are on a disk, which may be slow. The key is made by then; giving
/// up early would only leave it without a record.
const ADOPT_DEADLINE: Duration = Duration::from_secs(60);

/// How long a connection that nobody has asked on is known to be open: the daemon leaves it so for 30 s.
const FRESH: Duration = Duration::from_secs(5);

/// How many connections are made for one request while the daemon wants a new one: the second is old
/// enough, unless a crowd keeps connecting.
const CONNECTIONS_MAX: usize = 3;

/// What went wrong, by what a caller can do about it.
#[derive(Debug)]
pub enum Error {
    /// Nobody listens, or the answer broke off. May be tried again.
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The daemon refused, and says why.
    Refused {
        /// Its words.
        problem: Problem,
        /// Seconds to wait before asking again, where asking again makes sense.
        retry_after_s: Option<u64>,
    },
    /// The answer is not one of this protocol.
    Garbled(String),
}

/// A connection to assertd.
pub struct Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    past: Past,
    socket: PathBuf,
}

/// What a connection has been used for.
#[derive(Clone, Copy)]
enum Past {
    /// Nothing, since then: whoever turns it away says why, and that is read as the answer.
    New(Instant),
    /// It was asked on before, and may have been closed since.
    Asked,
}

impl Client {
    /// Connects to `socket`, usually [`crate::SOCKET`].
    pub fn connect(socket: &Path) -> Result<Client, Error> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unreachable(socket, error.to_string()))?;
        let sender = runtime
            .block_on(open(socket))
            .map_err(|reason| unreachable(socket, reason))?;
        Ok(Client {
            runtime,
            sender,
            past: Past::New(Instant::now()),
            socket: socket.to_owned(),
        })
    }

    /// Asks for an assertion for a target.
    pub fn assertion(
        &mut self,
        target: &str,
        lifetime: Option<u32>,
    ) -> Result<AssertionResponse, Error> {
        let request = AssertionRequest {
            target: target.to_owned(),
            lifetime,
        };
        self.ask(Method::POST, ASSERTION_PATH, Some(&request))
    }

    /// Asks what the kernel says about this process.
    pub fn whoami(&mut self) -> Result<Whoami, Error> {
        self.ask(Method::GET, WHOAMI_PATH, None::<&()>)
    }

    /// Asks for this process's targets.
    pub fn targets(&mut self) -> Result<Targets, Error> {
        self.ask(Method::GET, TARGETS_PATH, None::<&()>)
    }

    /// Administrators: the daemon at a glance.
    pub fn status(&mut self) -> Result<Status, Error> {
        self.ask(Method::GET, STATUS_PATH, None::<&()>)
    }

    /// Administrators: all keys.
    pub fn keys(&mut self) -> Result<Keys, Error> {
        self.ask(Method::GET, KEYS_PATH, None::<&()>)
    }

    /// Administrators: what the configuration in force grants.
    pub fn grants(&mut self) -> Result<Grants, Error> {
        self.ask(Method::GET, GRANTS_PATH, None::<&()>)
    }

    /// Administrators: tells the daemon that a keystore has made a key.
    pub fn adopt(&mut self, request: &AdoptRequest) -> Result<KeyStatus, Error> {
        self.ask_within(ADOPT_DEADLINE, Method::POST, KEYS_PATH, Some(request))
    }

    /// Administrators: does something with one key; answers with all its versions.
    pub fn key_verb(&mut self, request: &KeyVerbRequest) -> Result<Keys, Error> {
        self.ask_within(ADOPT_DEADLINE, Method::POST, KEY_VERB_PATH, Some(request))
    }

    /// Administrators: evidence of keys, or how far it is; the same again until it is there. What is in it
    /// is the keystore crate's to know.
    pub fn attest<A: DeserializeOwned>(&mut self, request: &AttestRequest) -> Result<A, Error> {
        self.ask(Method::POST, ATTEST_PATH, Some(request))
    }

    /// Administrators: has the daemon read its configuration again, and waits for the verdict.
    pub fn reload(&mut self) -> Result<ConfigStatus, Error> {
        self.ask(Method::POST, RELOAD_PATH, None::<&()>)
    }

    /// Administrators: why a request of the last while was denied.
    pub fn explain_id(&mut self, id: &str) -> Result<Explained, Error> {
        let id = id.to_owned();
        self.ask(Method::POST, EXPLAIN_PATH, Some(&ExplainRequest::Id { id }))
    }

    /// Administrators: what a process would get now.
    pub fn explain_process(&mut self, pid: u32, target: &str) -> Result<Explained, Error> {
        let target = target.to_owned();
        let asked = ExplainRequest::Process { pid, target };
        self.ask(Method::POST, EXPLAIN_PATH, Some(&asked))
    }

    fn ask<A: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<A, Error> {
        self.ask_within(DEADLINE, method, path, body)
    }

    fn ask_within<A: DeserializeOwned>(
        &mut self,
        deadline: Duration,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<A, Error> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|e| Error::Garbled(e.to_string()))?,
            None => Vec::new(),
        };
        let body = Bytes::from(body);
        let mut connections = 1;
        loop {
            let request = Request::builder()
                .method(&method)
                .uri(path)
                .header("host", "assertd")
                .header("content-type", "application/json")
                .body(Full::new(body.clone()))
                .map_err(|error| Error::Garbled(error.to_string()))?;
            match self.exchange_within(deadline, request) {
                Err(Error::Refused { problem, .. })
                    if problem.wants_new_connection() && connections < CONNECTIONS_MAX =>
                {
                    let opened = self.runtime.block_on(open(&self.socket));
                    self.sender = opened.map_err(|reason| unreachable(&self.socket, reason))?;
                    self.past = Past::New(Instant::now());
                    connections += 1;
                }
                done => {
                    let bytes = done?;
                    return serde_json::from_slice(&bytes)
                        .map_err(|e| Error::Garbled(e.to_string()));
                }
            }
        }
    }

    fn exchange_within(
        &mut self,
        deadline: Duration,
        request: Request<Full<Bytes>>,
    ) -> Result<Bytes, Error> {
        let (sender, socket) = (&mut self.sender, &self.socket);
        let past = std::mem::replace(&mut self.past, Past::Asked);
        self.runtime.block_on(async {
            let asked = exchange(sender, past, socket, request);
            let answer = tokio::time::timeout(deadline, asked).await;
            let lost = |reason: String| unreachable(socket, reason);
            let (status, retry_after_s, bytes) = answer
                .map_err(|_| lost(format!("no answer within {} s", deadline.as_secs())))?
                .map_err(lost)?;
            if status == StatusCode::OK {
                return Ok(bytes);
            }
            let problem = serde_json::from_slice(&bytes)
                .map_err(|e| Error::Garbled(format!("status {status} with {e}")))?;
            Err(Error::Refused {
                problem,
                retry_after_s,
            })
        })
    }
}

fn unreachable(socket: &Path, reason: String) -> Error {
    Error::Unreachable {
        socket: socket.to_owned(),
        reason,
    }
}

/// A new connection, carried by the runtime that this is called in.
async fn open(socket: &Path) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| error.to_string())?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    past: Past,
    socket: &Path,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Option<u64>, Bytes), String> {
    let answer = match past {
        Past::New(since) if since.elapsed() < FRESH => on_this(sender, request).await?,
        Past::New(_) | Past::Asked => on_this_or_another(sender, socket, request).await?,
    };
    let status = answer.status();
    let retry_after_s = answer
        .headers()
        .get("retry-after")
        .and_then(|v| v.to_str().ok()?.parse().ok());
    let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX);
    let bytes = body
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    Ok((status, retry_after_s, bytes))
}

async fn on_this(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, String> {
    sender.ready().await.map_err(|error| error.to_string())?;
    let sent = sender.send_request(request).await;
    sent.map_err(|error| error.to_string())
}

/// On a new connection if this one has been closed, and then alone: of what was sent nobody knows
/// whether it was done.
async fn on_this_or_another(
    sender: &mut SendRequest<Full<Bytes>>,
    socket: &Path,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, String> {
    // Nothing ran since the last answer: the connection must have had its turn to see the end.
    tokio::task::yield_now().await;
    let unsent = match sender.ready().await {
        Err(_closed) => request,
        Ok(()) => match sender.try_send_request(request).await {
            Ok(answer) => return Ok(answer),
            Err(mut error) => match error.take_message() {
                Some(unsent) => unsent,
                None => return Err(error.into_error().to_string()),
            },
        },
    };
    *sender = open(socket).await?;
    on_this(sender, unsent).await
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreachable { socket, reason } => {
                write!(f, "{}: {reason}; is assertd running?", socket.display())
            }
            Error::Refused {
                problem,
                retry_after_s,
            } => {
                write!(f, "{} ({}); {}", problem.title, problem.id, problem.detail)?;
                match retry_after_s {
                    Some(seconds) => write!(f, "; try again in {seconds} s"),
                    None => Ok(()),
                }
            }
            Error::Garbled(what) => {
                write!(
                    f,
                    "the answer is not one of assertd's ({what}); do both have one version?"
                )
            }
        }
    }
}

impl std::error::Error for Error {}
