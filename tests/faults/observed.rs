//! What these tests see: all answers of a load that runs beside the test, the keystore's own count
//! of mints, and a workload that is allowed everything.

use crate::generator::{self, Answer, Next};
use assertd_client::api::AssertionResponse;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::token::Keystore;
use harness::{Config, DEADLINE, Daemon, wait_until};
use keystore::client::Client as KeystoreClient;
use keystore::protocol::{Reply, Request};
use keystore::publickey::Verifier;
use keystore::{Alg, PublicKey};
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A rate that no machine reaches: these tests look for other limits.
pub const NO_LIMIT: &str = "rate = 1000000\nburst = 1000000";

/// The target of [`config`].
pub const TARGET: &str = "bank";

/// Longer than anything that was accepted before a fault may still take: what was promised room
/// in the log before the disk was full gives some back with each group, ten times a second.
const QUIET: Duration = Duration::from_secs(1);

/// One workload, this test's own uid, and one target.
pub fn config(token: &impl Keystore) -> Config {
    let uid = nix::unistd::geteuid().as_raw();
    Config::new(token)
        .workload("payments", uid, NO_LIMIT)
        .target("payments", TARGET, "")
}

/// One answer as it was observed.
pub struct Seen {
    pub asked: Instant,
    pub answered: Instant,
    pub status: u16,
    pub retry_after: Option<String>,
    pub body: String,
}

/// A closed-loop load on one thread beside the test.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    released: AtomicU64,
    refused: AtomicU64,
    seen: Mutex<Vec<Seen>>,
}

impl Load {
    /// Begins to ask for [`TARGET`] on so many connections.
    pub fn start(socket: &Path, connections: usize) -> Load {
        let shared = Arc::new(Shared::default());
        let (socket, told) = (socket.to_owned(), shared.clone());
        let thread = std::thread::spawn(move || {
            let request = generator::request(TARGET);
            generator::ask(&socket, connections, &request, |answer| told.note(answer))
        });
        Load {
            shared,
            thread: Some(thread),
        }
    }

    /// Answers with 200 so far.
    pub fn released(&self) -> u64 {
        self.shared.released.load(Ordering::SeqCst)
    }

    /// Other answers so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Waits for so many more answers with 200.
    pub fn wait_released(&self, more: u64) {
        let wanted = self.released() + more;
        let came = wait_until(DEADLINE, || self.released() >= wanted);
        assert!(
            came,
            "{} assertions came, {wanted} were waited for",
            self.released()
        );
    }

    /// Waits for so many more answers other than 200.
    pub fn wait_refused(&self, more: u64) {
        let wanted = self.refused() + more;
        let came = wait_until(DEADLINE, || self.refused() >= wanted);
        assert!(
            came,
            "{} refusals came, {wanted} were waited for",
            self.refused()
        );
    }

    /// Waits until nothing has been released for [`QUIET`] although it is asked for all the time.
    pub fn wait_quiet(&self) {
        let (mut released, mut since) = (self.released(), Instant::now());
        let quiet = wait_until(DEADLINE, || {
            if self.released() != released {
                (released, since) = (self.released(), Instant::now());
            }
            since.elapsed() >= QUIET
        });
        assert!(quiet, "assertions are still released");
        self.wait_refused(1);
    }

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.shared.seen.lock().unwrap()
    }

    /// Lets every connection have its last answer and gives all answers back. Panics if one broke
    /// or was not answered: faults cost an answer's content, never the answer.
    pub fn stop(mut self) -> Vec<Seen> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("taken only here");
        thread
            .join()
            .unwrap()
            .expect("every request is answered on its connection");
        std::mem::take(&mut *self.seen())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn note(&self, answer: &Answer) -> Next {
        let seen = Seen {
            asked: answer.asked,
            answered: answer.answered,
            status: answer.status,
            retry_after: generator::header(answer.head, "retry-after").map(str::to_owned),
            body: String::from_utf8_lossy(answer.body).into_owned(),
        };
        self.seen.lock().unwrap().push(seen);
        let counter = if answer.status == 200 {
            &self.released
        } else {
            &self.refused
        };
        counter.fetch_add(1, Ordering::SeqCst);
        if self.stop.load(Ordering::SeqCst) {
            Next::Stop
        } else {
            Next::Ask
        }
    }
}

impl Seen {
    /// The assertion in a 200.
    pub fn assertion(&self) -> AssertionResponse {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The word in a problem's `type`, and its detail.
    pub fn problem(&self) -> (String, String) {
        let problem: assertd_client::api::Problem = serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.body));
        let code = problem
            .r#type
            .trim_start_matches("urn:assertd:problem:")
            .to_owned();
        (code, problem.detail)
    }
}

/// Only 200, and 503 that says when to come back; every assertion is signed by the target's key.
/// Returns how many there were of each.
pub fn only_assertions_and_503(seen: &[Seen], verifier: &Verifier) -> (usize, usize) {
    let (mut released, mut refused) = (0, 0);
    for answer in seen {
        match answer.status {
            200 => {
                let jws = answer.assertion().assertion;
                let (message, signature) = jws.rsplit_once('.').unwrap();
                let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
                assert!(
                    verifier.verify(message.as_bytes(), &signature).is_ok(),
                    "{jws}"
                );
                released += 1;
            }
            503 => {
                let seconds = answer
                    .retry_after
                    .as_deref()
                    .and_then(|text| text.parse().ok());
                assert!(
                    seconds.is_some_and(|s: u64| s > 0),
                    "no Retry-After: {}",
                    answer.body
                );
                refused += 1;
            }
            other => panic!("status {other}: {}", answer.body),
        }
    }
    (released, refused)
}

/// For signatures of the only key, as the broker publishes it.
pub fn verifier(daemon: &Daemon) -> Verifier {
    let keys = daemon.keys();
    assert_eq!(keys.len(), 1);
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(keys[0].jwk[name].as_str().unwrap());
    let point = [vec![4], coordinate("x").unwrap(), coordinate("y").unwrap()].concat();
    PublicKey::from_sec1(&point)
        .unwrap()
        .verifier(Alg::ES256)
        .unwrap()
}

/// Mints done by the keystore process that runs now, as it says itself.
pub fn minted(daemon: &Daemon) -> u64 {
    let socket = daemon.keystore_socket("hsm");
    let mut client = KeystoreClient::connect(&socket, Duration::from_secs(5)).unwrap();
    match client.call(&Request::Health {}).unwrap() {
        Reply::Health(health) => health.minted,
        other => panic!("{other:?}"),
    }
}

/// Records of one kind.
pub fn of_kind<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records
        .iter()
        .filter(|record| record["kind"] == kind)
        .collect()
}

/// Each released assertion has its decision in the log, and the log its outcomes.
pub fn every_release_is_recorded(seen: &[Seen], records: &[Value]) {
    let decided: std::collections::HashSet<&str> = of_kind(records, "decision")
        .into_iter()
        .map(|record| record["id"].as_str().unwrap())
        .collect();
    for answer in seen.iter().filter(|answer| answer.status == 200) {
        let id = answer.assertion().id;
        assert!(
            decided.contains(id.as_str()),
            "released without a record: {id}"
        );
    }
}

/// The product's own check of the chain.
pub fn chain_verifies(daemon: &Daemon) {
    let output = daemon.assertctl(&["audit", "verify"]);
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
