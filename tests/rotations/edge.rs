//! The cache of a site's own before `assertd-publish`, as a CDN's edge is one: what it has fetched it shows for as long as
//! `publish_latency` says that old documents may be seen, and tells clients how long they may keep them. It
//! is as slow as it may be, and never slower.

use crate::board::{Board, boot_ms};
use crate::keys::{CACHE_S, PUBLISH_S};
use crate::wire::{Peer, Wire};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};

struct Edge {
    origin: SocketAddr,
    board: Arc<Board>,
    copies: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Copy>>>>>,
}

struct Copy {
    /// When it was asked for.
    asked_ms: u64,
    body: Bytes,
}

/// Begins to listen on loopback; ends with the runtime.
pub async fn start(origin: SocketAddr, board: Arc<Board>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound");
    let edge = Arc::new(Edge {
        origin,
        board,
        copies: Mutex::default(),
    });
    tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(edge.clone(), stream));
            }
        }
    });
    address
}

async fn serve(edge: Arc<Edge>, stream: TcpStream) {
    let _ = stream.set_nodelay(true); // it is only slower without
    let service = service_fn(|request: Request<Incoming>| {
        let edge = edge.clone();
        async move { Ok::<_, Infallible>(answer(&edge, request.uri().path()).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = connection.await; // the client has seen it too
}

async fn answer(edge: &Edge, path: &str) -> Response<Full<Bytes>> {
    match document(edge, path).await {
        Ok(body) => {
            let mut answer = Response::new(Full::new(body));
            let max_age = HeaderValue::from_str(&format!("public, max-age={CACHE_S}"));
            let max_age = max_age.expect("a number and words");
            answer.headers_mut().insert(CACHE_CONTROL, max_age);
            answer
        }
        Err(why) => {
            let mut answer = Response::new(Full::new(Bytes::from(why)));
            *answer.status_mut() = StatusCode::BAD_GATEWAY;
            answer
        }
    }
}

/// The copy, or a new one if it is too old.
async fn document(edge: &Edge, path: &str) -> Result<Bytes, String> {
    let slot = {
        let mut copies = edge.copies.lock().expect("nobody panics while holding it");
        copies.entry(path.to_owned()).or_default().clone()
    };
    let mut slot = slot.lock().await;
    let now_ms = boot_ms();
    if let Some(copy) = slot
        .as_ref()
        .filter(|copy| now_ms < copy.asked_ms + PUBLISH_S * 1000)
    {
        return Ok(copy.body.clone());
    }
    let answer = Wire::to(Peer::Tcp(edge.origin)).get(path).await?;
    if answer.status != StatusCode::OK {
        return Err(format!("the origin says {}", answer.status));
    }
    edge.board.served(&answer.body, boot_ms());
    *slot = Some(Copy {
        asked_ms: now_ms,
        body: answer.body.clone(),
    });
    Ok(answer.body)
}
