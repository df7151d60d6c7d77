//! What every request needs, in one place, made once at start.

use crate::audit::Audit;
use crate::complaints::Complaints;
use crate::ctl::out::count;
use crate::denylist;
use crate::evidence::Workshop;
use crate::handover::Handovers;
use crate::http::Signed;
use crate::id::{RequestId, chance};
use crate::keeper::Keeper;
use crate::keyring::Keyring;
use crate::keystores::Keystore;
use crate::rate::Limiter;
use crate::recent::Recent;
use crate::reply::Counts;
use crate::reuse::Shelf;
use crate::rules::InForce;
use crate::witness;
use keystore::Clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

/// The daemon's parts.
pub struct App {
    /// The configuration in force and its decisions.
    pub rules: InForce,
    /// The files of what gets nothing.
    pub denied: denylist::Watched,
    /// Recorded keys.
    pub keyring: Arc<Keyring>,
    /// Who keeps them going.
    pub keeper: Keeper,
    /// This host's name.
    pub host: String,
    /// By name.
    pub keystores: BTreeMap<String, Arc<Keystore>>,
    /// Assertions that are handed out again.
    pub shelf: Shelf<Arc<Signed>>,
    /// Where evidence is made.
    pub workshop: Workshop,
    /// Answers on their way to a socket.
    pub handovers: Handovers,
    /// The audit log.
    pub audit: Audit,
    /// The wall clock.
    pub clock: Clock,
    /// Requests of each workload.
    pub workload_rate: Limiter<Arc<str>>,
    /// Requests for each target that has a rate of its own, by workload and target.
    pub target_rate: Limiter<(Arc<str>, String)>,
    /// Denials of each uid.
    pub denial_rate: Limiter<u32>,
    /// The last denials, to be explained.
    pub recent: Recent,
    /// Answers since start.
    pub counts: Counts,
    /// Open connections of workloads.
    pub connections: AtomicUsize,
    /// Who is asked what a process executes.
    pub witness: witness::Client,
    /// Answers that the witness owes.
    pub unwitnessed: Complaints,
    /// When it started.
    pub started: Instant,
    /// Whether it was said that it is ready.
    pub ready: AtomicBool,
}

impl App {
    /// How many keystores are in a state, as status names it.
    pub fn keystores_in(&self, state: &str) -> usize {
        let keystores = self.keystores.values();
        keystores.filter(|k| k.status().state == state).count()
    }

    /// What it serves, for log and service manager.
    pub fn in_a_line(&self) -> String {
        format!(
            "{}, {} of {} keystores usable",
            count(self.rules.now().config.workloads.len(), "workload"),
            self.keystores_in("usable"),
            self.keystores.len()
        )
    }

    /// A new request's id. Without random bytes the id is still unique enough to be found.
    pub fn request_id(&self) -> RequestId {
        RequestId::new(self.clock.read(), chance().unwrap_or_default())
    }
}
