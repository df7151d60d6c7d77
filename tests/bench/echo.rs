//! The bare hyper echo: what HTTP/1.1 on a Unix socket costs here when nothing is done about the
//! request. It answers with as many bytes as an assertion has, in a process of its own, on the
//! same kind of runtime as assertd's.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Tells a process that it is the server, where it listens and how long its answers are.
const JOB: &str = "ASSERTD_BENCH_ECHO";

/// Runtime threads: as many as the machine has cores that the figures were taken on, so that it is never
/// they that hold it back. assertd has half as many (broker's `daemon`).
const WORKER_THREADS: usize = 2;

/// How long the server may take to listen.
const START: Duration = Duration::from_secs(5);

/// A running server; ends when dropped.
pub struct Echo {
    process: Child,
    /// Where it listens.
    pub socket: PathBuf,
}

impl Echo {
    /// Starts a server in `dir` whose answers have `body_len` bytes.
    ///
    /// # Panics
    /// If it does not listen in time.
    pub fn start(dir: &Path, body_len: usize) -> Echo {
        let socket = dir.join("echo.sock");
        let process = Command::new(std::env::current_exe().expect("a process has a program"))
            .env(JOB, format!("{body_len} {}", socket.display()))
            .stdin(Stdio::null())
            .spawn()
            .expect("this program can be started");
        let deadline = Instant::now() + START;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "the echo server does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
        Echo { process, socket }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended by itself
        let _ = self.process.wait();
    }
}

/// Serves for ever, if this process was started by [`Echo::start`].
pub fn child() -> Option<ExitCode> {
    let job = std::env::var(JOB).ok()?;
    let (body_len, socket) = job.split_once(' ').expect("Echo::start wrote the job");
    let body = Bytes::from(vec![b'x'; body_len.parse().expect("a length")]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(serve(PathBuf::from(socket), body));
    Some(ExitCode::SUCCESS)
}

async fn serve(socket: PathBuf, body: Bytes) {
    let listener = tokio::net::UnixListener::bind(socket).expect("the directory is ours");
    loop {
        let (stream, _) = listener.accept().await.expect("descriptors are enough");
        let body = body.clone();
        let service = service_fn(move |request| answer(request, body.clone()));
        tokio::spawn(
            http1::Builder::new()
                .auto_date_header(false)
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn answer(
    request: Request<Incoming>,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let _asked = request.into_body().collect().await; // read whole, as assertd must
    let mut answer = Response::new(Full::new(body));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}
