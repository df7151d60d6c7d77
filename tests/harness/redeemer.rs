//! A client of an authorization server that never rests: several times a second it asks assertd for an assertion
//! and the server for an access token, and writes down what came of it.

use crate::http::{Answer, Raw, post_target};
use crate::peers::AuthorizationServer;
use crate::{DEADLINE, Daemon};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// From an answer to the next request.
const PAUSE: Duration = Duration::from_millis(100);

/// One that works until it is stopped or dropped.
pub struct Redeemer {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

/// What came of one request.
#[derive(Clone, Debug)]
pub struct Redeemed {
    /// Which key had signed.
    pub kid: String,
    /// When the server had answered, since the first request.
    pub at: Duration,
    /// Why there was no access token.
    pub refusal: Option<String>,
}

struct Shared {
    socket: PathBuf,
    request: Vec<u8>,
    issuer: String,
    began: Instant,
    stop: AtomicBool,
    log: Mutex<Vec<Redeemed>>,
}

impl Redeemer {
    /// Begins, with assertions for this target.
    pub fn start(daemon: &Daemon, target: &str, server: &AuthorizationServer) -> Redeemer {
        let shared = Arc::new(Shared {
            socket: daemon.socket(),
            request: post_target(target),
            issuer: server.issuer().to_owned(),
            began: Instant::now(),
            stop: AtomicBool::new(false),
            log: Mutex::default(),
        });
        let works = shared.clone();
        let work = move || {
            while !works.stop.load(Ordering::Relaxed) {
                let redeemed = works.once();
                works.log.lock().unwrap().push(redeemed);
                std::thread::sleep(PAUSE);
            }
        };
        Redeemer {
            shared,
            worker: Some(std::thread::spawn(work)),
        }
    }

    /// What came of all requests so far, oldest first.
    pub fn so_far(&self) -> Vec<Redeemed> {
        self.shared.log.lock().unwrap().clone()
    }

    /// How often the server has accepted what this key has signed.
    pub fn accepted(&self, kid: &str) -> usize {
        let log = self.so_far();
        let of_kid = log.iter().filter(|it| it.kid == kid);
        of_kid.filter(|it| it.refusal.is_none()).count()
    }

    /// Ends it.
    pub fn stop(mut self) -> Vec<Redeemed> {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            worker.join().expect("it panics nowhere");
        }
    }
}

impl Drop for Redeemer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn once(&self) -> Redeemed {
        let (kid, refusal) = match self.assertion() {
            Ok(assertion) => (kid_of(&assertion), self.access_token(&assertion).err()),
            Err(why) => (String::new(), Some(why)),
        };
        Redeemed {
            kid,
            at: self.began.elapsed(),
            refusal,
        }
    }

    fn assertion(&self) -> Result<String, String> {
        let mut raw = Raw::connect(&self.socket);
        raw.send(&self.request).map_err(|error| error.to_string())?;
        let answer = raw.answer(DEADLINE).ok_or("assertd does not answer")?;
        match answer.status {
            200 => Ok(answer.member("assertion")),
            status => Err(format!("assertd: {status} {}", answer.body())),
        }
    }

    /// RFC 7523 §2.2. What an assertion is made of needs no encoding in a form.
    fn access_token(&self, assertion: &str) -> Result<(), String> {
        let authority = self
            .issuer
            .strip_prefix("http://")
            .expect("it is on loopback");
        let form = format!(
            "grant_type=client_credentials&scope=api%3Aread&client_assertion_type=\
             urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={assertion}"
        );
        let request = format!(
            "POST /token HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            form.len()
        );
        let lost = |error: std::io::Error| format!("the server: {error}");
        let mut stream = TcpStream::connect(authority).map_err(lost)?;
        stream.set_read_timeout(Some(DEADLINE)).map_err(lost)?;
        stream.write_all(request.as_bytes()).map_err(lost)?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said).map_err(lost)?;
        let answer = Answer::parse(said).ok_or("the server answers no HTTP")?;
        match answer.status {
            200 if answer.body().contains("\"access_token\"") => Ok(()),
            status => Err(format!("the server: {status} {}", answer.body())),
        }
    }
}

fn kid_of(assertion: &str) -> String {
    let header = assertion.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap_or_default();
    header["kid"].as_str().unwrap_or_default().to_owned()
}
