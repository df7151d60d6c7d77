//! What a decision takes, alone: who is calling, read from the kernel as for a request, and what it may
//! have, by the policy, which is timed by itself too.
//!
//! Its callers are real: processes of the sections' users in cgroups of the units' names, attested as
//! the broker attests a peer. Each decision is about another of them, by chance, and comes right after
//! a peer was attested, so that the processor's caches are as a request leaves them, not as a loop
//! does. Every decision is checked.

use super::sections::{Caller, Sections, TARGET};
use broker::config::Config;
use broker::peer::Peer;
use broker::policy::{Decision, Denial, Policy};
use broker::workload::Workload;
use harness::cgroup::Slice;
use harness::user::as_uid;
use keystore::Time;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many callers ask at most. Their sections are far more than the nearest caches hold.
const CALLERS: usize = 1_000;

/// As many as ten sections have beside ours.
pub const FEW: usize = 9;

/// Decisions of one round.
const DECISIONS: usize = 20_000;

/// A policy and processes that ask it.
pub struct Decisions {
    policy: Policy,
    callers: Vec<(Caller, Workload)>,
    us: Peer,
    dice: u64,
}

/// What one round of them took, each at the median, in nanoseconds.
pub struct Round {
    /// Who is calling, and what it may have.
    pub decision: f64,
    /// The second half alone.
    pub policy: f64,
}

impl Decisions {
    /// Loads a configuration and starts callers that its sections are about.
    pub fn prepare(config: &Path, sections: &Sections, slice: &Slice) -> Decisions {
        let config = Config::load(config).expect("assertd has loaded it too");
        let policy = Policy::new(config.workloads);
        let own = sections.teams_own();
        let step = own.div_ceil(CALLERS).max(1);
        let attested = |number: usize| {
            let caller = sections.caller(number);
            let workload = attested(&caller, &policy, slice);
            (caller, workload)
        };
        let callers: Vec<_> = (0..own).step_by(step).map(attested).collect();
        assert!(!callers.is_empty());
        Decisions {
            callers,
            policy,
            us: Peer::by_pid(std::process::id()).expect("we run"),
            dice: 1,
        }
    }

    /// Decides many times about callers by chance: about all of them or only these few.
    pub fn round(&mut self, callers: usize) -> Round {
        let callers = callers.min(self.callers.len());
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = Time::from_unix_s(since_1970.expect("this is later").as_secs());
        let (mut decisions, mut policies) = (Vec::new(), Vec::new());
        for _ in 0..DECISIONS {
            let number = self.throw(callers);
            let (caller, workload) = &self.callers[number];
            let begun = Instant::now();
            let us = Workload::attest(&self.us, self.policy.extent()).expect("we run");
            let read = begun.elapsed();
            // As attesting leaves it: near.
            let workload = std::hint::black_box(workload.clone());
            let begun = Instant::now();
            let asks = self.policy.asks_for_program(&workload, Some(TARGET));
            let decision = self.policy.decide(&workload, TARGET, None, now);
            let took = begun.elapsed();
            assert!(!asks && us.pid() == std::process::id());
            check(caller, decision);
            policies.push(took);
            decisions.push(read + took);
        }
        let clock = median((0..DECISIONS).map(|_| Instant::now().elapsed()).collect());
        Round {
            decision: median(decisions) - 2.0 * clock,
            policy: median(policies) - clock,
        }
    }

    /// A caller by chance (xorshift).
    fn throw(&mut self, callers: usize) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let number = self.dice % callers as u64;
        usize::try_from(number).expect("less than there are callers")
    }
}

/// Starts a caller, attests it and ends it.
fn attested(caller: &Caller, policy: &Policy, slice: &Slice) -> Workload {
    let mut child = as_uid(caller.uid, "/bin/sleep")
        .arg("600")
        .spawn()
        .expect("coreutils are there");
    slice.unit(&caller.unit).take(child.id());
    let peer = Peer::by_pid(child.id());
    let workload = peer
        .map_err(|error| error.to_string())
        .and_then(|peer| {
            Workload::attest(&peer, policy.extent()).map_err(|why| why.reason().to_owned())
        })
        .expect("it sleeps");
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    assert_eq!(
        workload.unit().map(broker::workload::Unit::name),
        Some(caller.unit.as_str())
    );
    workload
}

/// The section that is about a caller grants, and no other; none does where a container is wanted.
fn check(caller: &Caller, decision: Decision) {
    match decision {
        Decision::Allow(grant) => {
            assert!(!caller.container);
            assert_eq!(*grant.section().name, *caller.section);
        }
        Decision::Deny(denial) => {
            assert_eq!((denial, caller.container), (Denial::NotYours, true));
        }
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e9
}
