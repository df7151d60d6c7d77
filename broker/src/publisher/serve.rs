//! Accepts connections and bounds them: how many, how long, how large a head. One connection is one
//! request, so that nobody keeps one open; what it gets is [`super::answer`]'s.

use super::answer::{Site, answer};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Most connections at once; more wait in the socket's backlog. Verifiers keep what they fetch.
pub const CONNECTIONS_MAX: usize = 256;

/// How long a head may take from the connection on.
const HEAD_DEADLINE: Duration = Duration::from_secs(3);

/// How long a connection may take in all, answer and farewell.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);

/// Most bytes of a request's head, and most headers: what proxies add, and room.
pub const HEAD_LEN_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// Out of descriptors: accept again after this, do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// At most so often one thing that is wrong is said.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);

/// Serves until `stop` ends, then what was accepted.
pub async fn serve(site: Arc<Site>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let complaints = Arc::new(Complaints::default());
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (site, complaints) = (site.clone(), complaints.clone());
                connections.spawn(async move {
                    let _held = permit;
                    connection(site, stream, &complaints).await;
                });
            }
            Err(error) => {
                complaints.say(&format!("accept: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {} // each has its deadline
}

async fn connection(site: Arc<Site>, stream: TcpStream, complaints: &Complaints) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let site = site.clone();
        async move {
            let (answer, wrong) = answer(&site, &request).await;
            if let Some(wrong) = wrong {
                complaints.say(&wrong);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .keep_alive(false)
        .max_buf_size(HEAD_LEN_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever breaks off, or is too slow, is nobody's business.
    let _ = tokio::time::timeout(CONNECTION_DEADLINE, served).await;
}

/// What is wrong with our own files, said now and then however many ask.
#[derive(Default)]
struct Complaints(Mutex<Option<Instant>>);

impl Complaints {
    fn say(&self, what: &impl std::fmt::Display) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() > COMPLAINT_PAUSE) {
            eprintln!("assertd-publish: {what}");
            *last = Some(Instant::now());
        }
    }
}
