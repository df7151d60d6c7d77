//! What every request needs, in one place, made once at start.

use crate::audit::Audit;
use crate::config::Config;
use crate::id::{RequestId, random};
use crate::keyring::Keyring;
use crate::keystores::Keystore;
use crate::policy::Policy;
use crate::rate::Limiter;
use crate::reply::Counts;
use keystore::Clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

/// The daemon's parts.
pub struct App {
    /// The configuration in force.
    pub config: Config,
    /// Its decisions.
    pub policy: Policy,
    /// Recorded keys.
    pub keyring: Arc<Keyring>,
    /// By name.
    pub keystores: BTreeMap<String, Arc<Keystore>>,
    /// The audit log.
    pub audit: Audit,
    /// The wall clock.
    pub clock: Clock,
    /// Requests of each workload.
    pub workload_rate: Limiter<Arc<str>>,
    /// Denials of each uid.
    pub denial_rate: Limiter<u32>,
    /// Answers since start.
    pub counts: Counts,
    /// Open connections of workloads.
    pub connections: AtomicUsize,
    /// When it started.
    pub started: Instant,
}

impl App {
    /// A new request's id. Without random bytes the id is still unique enough to be found.
    pub fn request_id(&self) -> RequestId {
        RequestId::new(self.clock.read(), random::<10>().unwrap_or([0; 10]))
    }
}
