//! How clients keep a JWKS: three ways that are legal, in which what was fetched counts from when it was asked for
//! (RFC 9111 §4.2.3) and is not used for longer than it may be, and two without a cache.

use crate::board::boot_ms;
use crate::jws;
use crate::keys::CACHE_S;
use crate::wire::{Answer, Peer, Wire};
use hyper::StatusCode;
use hyper::header::CACHE_CONTROL;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;

/// When a set is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// For each assertion.
    Always,
    /// When a kid is not in the one that is there.
    UnknownKid,
    /// When the one that is there is as old as it may be, and for nothing else.
    Kept,
    /// When its `max-age` is over; for a kid that is not in it as well, but rarely.
    MaxAge,
    /// On a timer of its own, a moment before it is too old.
    Timer,
}

/// Between two fetches for kids that are not in a set.
const UNKNOWN_EVERY_MS: u64 = 5_000;

/// How long before the end of `CACHE_S` a timer's fetch begins.
pub const TIMER_AHEAD_MS: u64 = 100;

/// One document, as one client has it.
pub struct Cache {
    policy: Policy,
    path: String,
    wire: Wire,
    set: Option<Set>,
    /// When it was last fetched for a kid that was not in it.
    unknown_ms: Option<u64>,
}

struct Set {
    asked_ms: u64,
    max_age_ms: u64,
    keys: HashMap<String, Value>,
}

impl Cache {
    /// Empty.
    pub fn new(policy: Policy, path: String, edge: SocketAddr) -> Cache {
        Cache {
            policy,
            path,
            wire: Wire::to(Peer::Tcp(edge)),
            set: None,
            unknown_ms: None,
        }
    }

    /// The key of this kid, in a set that may be used now; none if that has none of it.
    pub async fn key(&mut self, kid: &str) -> Result<Option<Value>, String> {
        let now_ms = boot_ms();
        let is_fresh = |set: &Set| now_ms < set.asked_ms + set.max_age_ms;
        let is_fresh = self.set.as_ref().is_some_and(is_fresh);
        let has = self
            .set
            .as_ref()
            .is_some_and(|set| set.keys.contains_key(kid));
        let fetches = match self.policy {
            Policy::Always => true,
            Policy::UnknownKid => !has,
            Policy::Kept | Policy::Timer => !is_fresh,
            Policy::MaxAge if is_fresh && !has => {
                let is_rare = self
                    .unknown_ms
                    .is_none_or(|at| now_ms >= at + UNKNOWN_EVERY_MS);
                if is_rare {
                    self.unknown_ms = Some(now_ms);
                }
                is_rare
            }
            Policy::MaxAge => !is_fresh,
        };
        if fetches {
            self.fetch().await?;
        }
        Ok(self.set.as_ref().and_then(|set| set.keys.get(kid)).cloned())
    }

    /// Takes what is published now.
    pub async fn fetch(&mut self) -> Result<(), String> {
        let asked_ms = boot_ms();
        let answer = self.wire.get(&self.path).await?;
        if answer.status != StatusCode::OK {
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(format!("{}: {} {said}", self.path, answer.status));
        }
        let max_age_ms = match self.policy {
            Policy::MaxAge => max_age_s(&answer).ok_or("no max-age")? * 1000,
            _ => CACHE_S * 1000,
        };
        self.set = Some(Set {
            asked_ms,
            max_age_ms,
            keys: jws::set(&answer.body)?,
        });
        Ok(())
    }

    /// When the set that is there was asked for.
    pub fn asked_ms(&self) -> Option<u64> {
        self.set.as_ref().map(|set| set.asked_ms)
    }
}

fn max_age_s(answer: &Answer) -> Option<u64> {
    let value = answer.headers.get(CACHE_CONTROL)?.to_str().ok()?;
    let mut directives = value.split(',').map(str::trim);
    directives.find_map(|directive| directive.strip_prefix("max-age=")?.parse().ok())
}
