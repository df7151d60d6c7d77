//! What was seen of every version in one run, by everybody together: when it was published and served, first and
//! last used, who has verified its first and its last assertion; and all that went wrong.

use crate::client::{Assertion, CACHING};
use crate::jws;
use crate::keys::KEYS;
use crate::verifier::Verdict;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// So many failures are kept whole.
const FAILURES_MAX: usize = 10;

#[derive(Default)]
pub struct Board {
    verified: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    released: AtomicU64,
    refused: AtomicU64,
    overloaded: AtomicU64,
    open: AtomicUsize,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

/// By kid, and by key the kids in the order in which they came to sign.
#[derive(Default)]
struct Seen {
    kids: HashMap<String, Kid>,
    orders: [Vec<String>; KEYS.len()],
    failures: Vec<Failure>,
    complaints: Vec<String>,
}

/// One version. Times are milliseconds of the boot clock.
#[derive(Clone, Debug, Default)]
pub struct Kid {
    /// In a document, and at the edge.
    pub published_ms: Option<u64>,
    pub served_ms: Option<u64>,
    /// Its first assertion came.
    pub used_ms: Option<u64>,
    /// Its assertion that expires last.
    latest: Option<Arc<Assertion>>,
    first_by: [bool; CACHING],
    last_by: [bool; CACHING],
}

/// One verification that should have held.
#[derive(Clone, Debug)]
pub struct Failure {
    pub client: String,
    pub key: usize,
    pub kid: String,
    pub looked_ms: u64,
    pub fetched_ms: Option<u64>,
    pub why: String,
}

/// What an assertion is to those who have seen the others.
pub enum Arrival {
    /// Its version has signed before.
    Known,
    /// The first of its version, and of which version the others were.
    First { before: Option<String> },
}

/// Counts, at the end.
#[derive(Clone, Debug)]
pub struct Counts {
    pub verified: u64,
    pub failed: u64,
    pub late: u64,
    pub released: u64,
    pub refused: u64,
    pub overloaded: u64,
    /// Of versions that took another's place: uses by each of those who keep sets, and how many there should be.
    pub first_uses: (usize, usize),
    /// Of versions in whose place another came.
    pub last_uses: (usize, usize),
}

impl Board {
    pub fn verified(&self) {
        self.verified.fetch_add(1, Relaxed);
    }

    pub fn late(&self) {
        self.late.fetch_add(1, Relaxed);
    }

    pub fn failed(&self, failure: Failure) {
        self.failed.fetch_add(1, Relaxed);
        let mut seen = self.lock();
        if seen.failures.len() < FAILURES_MAX {
            seen.failures.push(failure);
        }
    }

    /// A document did not come: for whoever verified with it, it is a failure too.
    pub fn no_set(&self, client: &str, why: &str) {
        self.failed.fetch_add(1, Relaxed);
        self.complain(format!("{client}: {why}"));
    }

    /// assertd gave no assertion, because the queue before the keystore was full.
    pub fn overloaded(&self) {
        self.overloaded.fetch_add(1, Relaxed);
    }

    /// assertd gave no assertion, for another reason.
    pub fn refused(&self, why: &str) {
        self.refused.fetch_add(1, Relaxed);
        self.complain(format!("refused: {why}"));
    }

    fn complain(&self, what: String) {
        let mut seen = self.lock();
        if seen.complaints.len() < FAILURES_MAX {
            seen.complaints.push(what);
        }
    }

    /// A document with these keys was written.
    pub fn published(&self, document: &[u8], now_ms: u64) {
        self.note(document, |kid| kid.published_ms.get_or_insert(now_ms));
    }

    /// And shown.
    pub fn served(&self, document: &[u8], now_ms: u64) {
        self.note(document, |kid| kid.served_ms.get_or_insert(now_ms));
    }

    fn note(&self, document: &[u8], mut note: impl FnMut(&mut Kid) -> &mut u64) {
        let Ok(set) = jws::set(document) else {
            return self.complain("a document is no set".to_owned());
        };
        let mut seen = self.lock();
        for kid in set.into_keys() {
            note(seen.kids.entry(kid).or_default());
        }
    }

    /// An assertion came.
    pub fn arrived(&self, assertion: &Arc<Assertion>) -> Arrival {
        self.released.fetch_add(1, Relaxed);
        let now_ms = boot_ms();
        let mut seen = self.lock();
        let seen = &mut *seen;
        let kid = seen.kids.entry(assertion.kid.clone()).or_default();
        let is_first = kid.used_ms.is_none();
        kid.used_ms.get_or_insert(now_ms);
        let is_later = |known: &Arc<Assertion>| known.exp_s < assertion.exp_s;
        if kid.latest.as_ref().is_none_or(is_later) {
            kid.latest = Some(assertion.clone());
        }
        let order = &mut seen.orders[assertion.key];
        match is_first {
            false => Arrival::Known,
            true => {
                let before = order.last().cloned();
                order.push(assertion.kid.clone());
                Arrival::First { before }
            }
        }
    }

    /// What expires last of a version.
    pub fn latest(&self, key: usize, kid: &str) -> Option<Arc<Assertion>> {
        let latest = self.lock().kids.get(kid)?.latest.clone();
        latest.filter(|assertion| assertion.key == key)
    }

    /// One of those who keep sets has verified the first assertion of a version.
    pub fn first_use(&self, kid: &str, by: usize, verdict: Verdict) {
        if let Some(kid) = self.lock().kids.get_mut(kid) {
            kid.first_by[by] = verdict == Verdict::Verified;
        }
    }

    /// And the last.
    pub fn last_use(&self, kid: &str, by: usize, verdict: Verdict) {
        if let Some(kid) = self.lock().kids.get_mut(kid) {
            kid.last_by[by] |= verdict == Verdict::Verified;
        }
    }

    /// Does it beside everything else, and knows that it is not done yet.
    pub fn track(self: &Arc<Board>, work: impl Future<Output = ()> + Send + 'static) {
        let board = self.clone();
        self.open.fetch_add(1, Relaxed);
        tokio::spawn(async move {
            work.await;
            board.open.fetch_sub(1, Relaxed);
        });
    }

    /// What is not done yet.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub fn stops(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// So far.
    pub fn counts(&self) -> Counts {
        let seen = self.lock();
        let uses = |versions: Vec<&String>, by: fn(&Kid) -> &[bool; CACHING]| {
            let done = versions.iter().map(|kid| by(&seen.kids[*kid]));
            let done = done.map(|by| by.iter().filter(|it| **it).count()).sum();
            (done, versions.len() * CACHING)
        };
        let orders = || seen.orders.iter();
        let came = orders().flat_map(|order| order.iter().skip(1)).collect();
        let went = orders()
            .flat_map(|order| order.iter().rev().skip(1))
            .collect();
        Counts {
            verified: self.verified.load(Relaxed),
            failed: self.failed.load(Relaxed),
            late: self.late.load(Relaxed),
            released: self.released.load(Relaxed),
            refused: self.refused.load(Relaxed),
            overloaded: self.overloaded.load(Relaxed),
            first_uses: uses(came, |kid| &kid.first_by),
            last_uses: uses(went, |kid| &kid.last_by),
        }
    }

    /// What is known of a version.
    pub fn kid(&self, kid: &str) -> Kid {
        self.lock().kids.get(kid).cloned().unwrap_or_default()
    }

    /// The first failures, and what else went wrong.
    pub fn wrong(&self) -> (Vec<Failure>, Vec<String>) {
        let seen = self.lock();
        (seen.failures.clone(), seen.complaints.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics while holding it")
    }
}

/// Milliseconds since boot, the clock of assertd's audit log.
pub fn boot_ms() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("Linux has it");
    now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000
}

/// Milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is later than 1970");
    now.as_millis() as u64
}
