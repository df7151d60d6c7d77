//! Who verifies: one party with a cache of its own for each key.

use crate::board::{Board, Failure, boot_ms, wall_ms};
use crate::cache::{Cache, Policy, TIMER_AHEAD_MS};
use crate::client::Assertion;
use crate::jws;
use crate::keys::{CACHE_S, KEYS, LEEWAY_S};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

pub struct Verifier {
    name: String,
    policy: Policy,
    caches: Vec<Mutex<Cache>>,
    board: Arc<Board>,
}

/// What came of looking at an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Verified,
    /// Recorded on the board.
    Failed,
    /// It expired before anybody came to look: says nothing.
    Late,
}

impl Verifier {
    /// Without any set yet.
    pub fn new(number: usize, policy: Policy, edge: SocketAddr, board: Arc<Board>) -> Verifier {
        let cache = |key: &crate::keys::Key| Mutex::new(Cache::new(policy, key.path(), edge));
        Verifier {
            name: format!("client {number} ({policy:?})"),
            policy,
            caches: KEYS.iter().map(cache).collect(),
            board,
        }
    }

    /// Looks at an assertion as it is now.
    pub async fn verify(&self, assertion: &Assertion) -> Verdict {
        let mut cache = self.caches[assertion.key].lock().await;
        let looked_ms = boot_ms();
        if wall_ms() >= (assertion.exp_s + LEEWAY_S) * 1000 {
            self.board.late();
            return Verdict::Late;
        }
        let judged = match cache.key(&assertion.kid).await {
            Ok(Some(jwk)) => jws::verify(&assertion.text, &jwk),
            Ok(None) => Err("its kid is not in the set".to_owned()),
            Err(why) => Err(format!("no set: {why}")),
        };
        match judged {
            Ok(()) => {
                self.board.verified();
                Verdict::Verified
            }
            Err(why) => {
                self.board.failed(Failure {
                    client: self.name.clone(),
                    key: assertion.key,
                    kid: assertion.kid.clone(),
                    looked_ms,
                    fetched_ms: cache.asked_ms(),
                    why,
                });
                Verdict::Failed
            }
        }
    }

    /// Fetches all sets on its own time, if that is its way, until the runtime ends.
    pub fn tick(self: &Arc<Verifier>) {
        if self.policy != Policy::Timer {
            return;
        }
        for number in 0..KEYS.len() {
            let verifier = self.clone();
            tokio::spawn(async move {
                // Each at another phase.
                tokio::time::sleep(Duration::from_millis(230 * number as u64)).await;
                let every = Duration::from_millis(CACHE_S * 1000 - TIMER_AHEAD_MS);
                let mut ticks = tokio::time::interval(every);
                loop {
                    ticks.tick().await;
                    let fetched = verifier.caches[number].lock().await.fetch().await;
                    if let Err(why) = fetched {
                        verifier.board.no_set(&verifier.name, &why);
                    }
                }
            });
        }
    }
}
