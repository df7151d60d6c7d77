//! The clients: each asks assertd again and again, and has what it gets verified from then until it expires.

use crate::board::{Arrival, Board, wall_ms};
use crate::jws;
use crate::keys::{KEYS, LEEWAY_S};
use crate::verifier::Verifier;
use crate::wire::{Peer, Wire};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How many there are.
pub const CLIENTS: usize = 200;

/// The first of them keep sets for as long as they may.
pub const CACHING: usize = 3;

/// From an answer to the next request.
const PAUSE: Duration = Duration::from_millis(400);

/// They come one after the other: how long a signature takes is to be known before the queue is full.
const COMING: Duration = Duration::from_secs(4);

/// Between two looks at an assertion.
const AGAIN_MS: u64 = 1_000;

/// The last look is so long before it is too late: all assertions expire when a second begins, and not all clients
/// can look at once.
const LAST_MS: std::ops::Range<u64> = 300..900;

/// And those at the last assertion of a version.
const LAST_USE_MS: [u64; 3] = [2_000, 1_000, 400];

/// One that was released.
#[derive(Debug)]
pub struct Assertion {
    pub text: String,
    /// Which of [`KEYS`] it is to be signed by.
    pub key: usize,
    pub kid: String,
    pub exp_s: u64,
}

impl Assertion {
    /// How long it is until so long before nobody accepts it any more.
    fn left_ms(&self, before_ms: u64) -> u64 {
        let last_ms = (self.exp_s + LEEWAY_S) * 1000 - before_ms;
        last_ms.saturating_sub(wall_ms())
    }
}

/// Everybody, and who of them verifies what comes first and last of a version.
pub struct Clients {
    all: Vec<Arc<Verifier>>,
    socket: PathBuf,
    board: Arc<Board>,
}

impl Clients {
    pub fn new(all: Vec<Arc<Verifier>>, socket: PathBuf, board: Arc<Board>) -> Arc<Clients> {
        Arc::new(Clients { all, socket, board })
    }

    /// They begin to ask.
    pub fn start(self: &Arc<Clients>) {
        for number in 0..self.all.len() {
            self.all[number].tick();
            tokio::spawn(ask(self.clone(), number));
        }
    }

    /// An assertion came: for who asked, and, where it is the first of its version, for all who keep sets.
    fn arrived(self: &Arc<Clients>, number: usize, assertion: Arc<Assertion>) {
        match self.board.arrived(&assertion) {
            Arrival::Known => {}
            Arrival::First { before } => {
                for caching in 0..CACHING {
                    let (clients, assertion) = (self.clone(), assertion.clone());
                    self.board.track(async move {
                        let verdict = clients.all[caching].verify(&assertion).await;
                        clients.board.first_use(&assertion.kid, caching, verdict);
                    });
                }
                if let Some(before) = before {
                    self.board
                        .track(last_use(self.clone(), assertion.key, before));
                }
            }
        }
        let verifier = self.all[number].clone();
        self.board
            .track(async move { live(&verifier, number, &assertion).await });
    }
}

/// One of them, until the board says stop. Those with caches ask for all targets in turn, the others for one.
async fn ask(clients: Arc<Clients>, number: usize) {
    let mut wire = Wire::to(Peer::Unix(clients.socket.clone()));
    let mut last: Option<Arc<Assertion>> = None;
    tokio::time::sleep(COMING * number as u32 / CLIENTS as u32).await;
    for turn in number.. {
        if clients.board.stops() {
            return;
        }
        let key = if number < CACHING { turn } else { number } % KEYS.len();
        match released(&mut wire, key).await {
            Ok(assertion) => match &last {
                Some(known) if known.text == assertion.text => {
                    clients.all[number].verify(known).await;
                }
                _ => {
                    let assertion = Arc::new(assertion);
                    last = Some(assertion.clone());
                    clients.arrived(number, assertion);
                }
            },
            // The keystore has more to do than it can: no key is missing.
            Err(why) if why.contains("urn:assertd:problem:queue_full") => {
                clients.board.overloaded();
            }
            Err(why) => clients.board.refused(&format!("{}: {why}", KEYS[key].name)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn released(wire: &mut Wire, key: usize) -> Result<Assertion, String> {
    let answer = wire.assertion(KEYS[key].name).await?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status != hyper::StatusCode::OK {
        return Err(format!("{} {body}", answer.status));
    }
    let body: serde_json::Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    let text = body["assertion"].as_str().ok_or("no assertion")?.to_owned();
    let (header, claims) = jws::read(&text)?;
    let lived_s = claims.exp - claims.iat;
    if lived_s != KEYS[key].lifetime_s {
        return Err(format!("it lives for {lived_s} s"));
    }
    Ok(Assertion {
        text,
        key,
        kid: header.kid,
        exp_s: claims.exp,
    })
}

/// Has it verified each second, and at the end of its life once more.
async fn live(verifier: &Verifier, number: usize, assertion: &Assertion) {
    let before_ms = LAST_MS.start + number as u64 * 7 % (LAST_MS.end - LAST_MS.start);
    loop {
        verifier.verify(assertion).await;
        let left_ms = assertion.left_ms(before_ms);
        if left_ms == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(left_ms.min(AGAIN_MS))).await;
    }
}

/// Has what expires last of a version verified by all who keep sets, in the last two seconds in which it is accepted: more
/// than once, because a busy machine lets one look come too late.
async fn last_use(clients: Arc<Clients>, key: usize, kid: String) {
    for before_ms in LAST_USE_MS {
        let assertion = loop {
            let Some(latest) = clients.board.latest(key, &kid) else {
                return;
            };
            let left_ms = latest.left_ms(before_ms);
            if left_ms == 0 {
                break latest;
            }
            tokio::time::sleep(Duration::from_millis(left_ms)).await; // another one may come meanwhile
        };
        let looks = (0..CACHING).map(|caching| {
            let (clients, assertion) = (clients.clone(), assertion.clone());
            tokio::spawn(async move {
                let verdict = clients.all[caching].verify(&assertion).await;
                clients.board.last_use(&assertion.kid, caching, verdict);
            })
        });
        for look in looks.collect::<Vec<_>>() {
            let _ = look.await; // it panics nowhere
        }
    }
}
