//! A client that asks at a steady rate, whatever becomes of its requests (an open loop): each is
//! sent when it is due, on a connection that rests or a new one. Every one of them is logged.
//! It judges nothing but the signature.

use super::log::{Entry, Outcome};
use assertd_client::api::AssertionResponse;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::http::{Answer, Raw, post_target};
use harness::{DEADLINE, Daemon, wait_until};
use keystore::publickey::Verifier;
use keystore::{Alg, PublicKey};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// 50 requests a second.
pub const EVERY: Duration = Duration::from_millis(20);

/// assertd gives a request 5 s; what is not answered by then is given up.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// A connection that is not needed for so long is closed: assertd closes it after 30 s.
const REST_MAX: Duration = Duration::from_secs(5);

/// Asks until it is dropped.
pub struct Client {
    shared: Arc<Shared>,
    pacer: Option<JoinHandle<()>>,
}

struct Shared {
    began: Instant,
    every: Duration,
    socket: PathBuf,
    request: Vec<u8>,
    verifier: Verifier,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Who waits for the next request; who came last is the first to get it, so that connections
    /// which are too many come to their end.
    resting: Vec<(u64, Sender<Duration>)>,
    asking: usize,
    stop: bool,
    entries: Vec<Entry>,
}

impl Client {
    /// Begins to ask for the target of that name, which has its key in the keystore of that name.
    pub fn start(daemon: &Daemon, target: &str, every: Duration) -> Client {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            every,
            socket: daemon.socket(),
            request: post_target(target),
            verifier: verifier(daemon, target),
            state: Mutex::default(),
        });
        let pacer = shared.clone();
        Client {
            pacer: Some(thread::spawn(move || pace(&pacer))),
            shared,
        }
    }

    /// Time since it began.
    pub fn now(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// What was logged so far, in the order in which it ended.
    pub fn with_entries<T>(&self, look: impl FnOnce(&[Entry]) -> T) -> T {
        look(&self.shared.lock().entries)
    }

    /// Whether something has ended since then, and everything that has is an assertion.
    pub fn serves_since(&self, since: Duration) -> bool {
        self.with_entries(|entries| {
            let mut late = entries.iter().rev().take_while(|entry| entry.ended > since);
            late.all(|entry| entry.outcome == Outcome::Released)
                && entries.last().is_some_and(|entry| entry.ended > since)
        })
    }

    /// Forgets what was logged so far.
    pub fn forget(&self) {
        self.shared.lock().entries.clear();
    }

    /// Sends no more, waits for the answers that are due, and returns all in the order in which
    /// they were sent.
    pub fn stop(mut self) -> Vec<Entry> {
        self.end();
        let answered = wait_until(ANSWER_DEADLINE + DEADLINE, || {
            self.shared.lock().asking == 0
        });
        assert!(answered, "a request that was sent has no end");
        let mut entries = std::mem::take(&mut self.shared.lock().entries);
        entries.sort_by_key(|entry| entry.sent);
        entries
    }

    fn end(&mut self) {
        self.shared.lock().stop = true;
        if let Some(pacer) = self.pacer.take() {
            pacer.join().expect("it panics nowhere");
        }
        self.shared.lock().resting.clear(); // whoever rests hears that no more will come
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}

/// Hands out one request after the other, each on its time.
fn pace(shared: &Arc<Shared>) {
    for number in 0.. {
        let due = shared.every * number;
        thread::sleep(due.saturating_sub(shared.began.elapsed()));
        let mut state = shared.lock();
        if state.stop {
            return;
        }
        state.asking += 1;
        let rested = state.resting.pop();
        drop(state);
        let taken = rested.is_some_and(|(_, asker)| asker.send(due).is_ok());
        if !taken {
            let asker = shared.clone();
            thread::spawn(move || ask(&asker, u64::from(number), due));
        }
    }
}

/// One connection: asks, logs, rests.
fn ask(shared: &Shared, number: u64, first: Duration) {
    let mut connection: Option<Raw> = None;
    let mut due = Some(first);
    while let Some(sent) = due {
        let raw = match connection.take() {
            Some(raw) => Ok(raw),
            None => UnixStream::connect(&shared.socket).map(Raw::over),
        };
        let outcome = match raw {
            Ok(mut raw) => match exchange(&mut raw, &shared.request) {
                Ok(answer) => {
                    // assertd closes a connection when it says so.
                    let stays = answer.header("connection") != Some("close");
                    connection = stays.then_some(raw);
                    judge(&answer, &shared.verifier)
                }
                Err(error) => Outcome::Strange(error),
            },
            Err(error) => Outcome::Strange(format!("no connection: {error}")),
        };
        let entry = Entry {
            sent,
            ended: shared.began.elapsed(),
            outcome,
        };
        due = rest(shared, number, entry);
    }
}

/// Hands in what became of one request; when the next is due, if one comes soon.
fn rest(shared: &Shared, number: u64, entry: Entry) -> Option<Duration> {
    let (asker, orders): (Sender<Duration>, Receiver<Duration>) = mpsc::channel();
    let mut state = shared.lock();
    state.entries.push(entry);
    state.asking -= 1;
    if state.stop {
        return None;
    }
    state.resting.push((number, asker));
    drop(state);
    if let Ok(due) = orders.recv_timeout(REST_MAX) {
        return Some(due);
    }
    shared.lock().resting.retain(|(other, _)| *other != number);
    orders.recv().ok() // one that was being handed over, or none
}

fn exchange(raw: &mut Raw, request: &[u8]) -> Result<Answer, String> {
    let lost = |error| format!("the request was not taken: {error}");
    raw.send(request).map_err(lost)?;
    let answer = raw.answer(ANSWER_DEADLINE);
    answer.ok_or_else(|| "the connection ended without an answer".to_owned())
}

fn judge(answer: &Answer, verifier: &Verifier) -> Outcome {
    match answer.status {
        200 if verifies(answer, verifier) => Outcome::Released,
        200 => Outcome::Wrong,
        503 if answer.header("retry-after").is_some() => Outcome::Refused(answer.problem()),
        status => Outcome::Strange(format!("{status} {}", answer.body())),
    }
}

fn verifies(answer: &Answer, verifier: &Verifier) -> bool {
    let Ok(response) = serde_json::from_str::<AssertionResponse>(answer.body()) else {
        return false;
    };
    let Some((message, signature)) = response.assertion.rsplit_once('.') else {
        return false;
    };
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    verifier.verify(message.as_bytes(), &signature).is_ok()
}

/// For signatures of a target's key, as the broker publishes it.
fn verifier(daemon: &Daemon, target: &str) -> Verifier {
    let keys = daemon.keys();
    let key = keys.iter().find(|key| key.keystore == target);
    let jwk = &key
        .unwrap_or_else(|| panic!("no key for {target}: {keys:?}"))
        .jwk;
    let coordinate = |name: &str| {
        let text = jwk[name].as_str().expect("an ES256 key has coordinates");
        URL_SAFE_NO_PAD.decode(text).expect("base64url")
    };
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let key = PublicKey::from_sec1(&point).expect("the broker shows a P-256 key");
    key.verifier(Alg::ES256).expect("a P-256 key is for ES256")
}
