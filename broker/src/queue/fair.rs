//! The order in which jobs of several workloads are served: each workload gets its share, by weight,
//! whatever the others ask for. Start-time fair queueing (Goyal, Vin, Cheng 1996): each workload's next
//! job has a *start*, a number that grows by the job's cost over the workload's weight; the smallest
//! start is served next. One that has asked for nothing lately starts now, so that it waits for no
//! backlog but its own.
//!
//! Pure: no clock, no task, no lock. Putting in and taking out cost O(log n) of the workloads that wait.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

/// What one signature costs a workload of weight 1: large, so that dividing it by a weight loses nothing
/// that anybody would notice. 2⁴⁴ signatures fit the number.
const COST: u64 = 1 << 20;

/// So many jobs come at least between two looks for workloads that wait for nothing.
const LOOK_EVERY: usize = 64;

/// Jobs that wait, by workload.
#[derive(Debug)]
pub struct Fair<J> {
    flows: HashMap<Arc<str>, Flow<J>>,
    /// Each workload that has jobs, by the start of its next one and then by its arrival.
    order: BinaryHeap<Reverse<(u64, u64, Arc<str>)>>,
    /// The start of the job that was served last.
    now: u64,
    arrivals: u64,
    jobs: usize,
    /// Of the workloads that have jobs, together.
    weight: u64,
    /// The arrivals up to the last look for those that wait for nothing.
    looked: u64,
}

/// One workload's jobs, the oldest first.
#[derive(Debug)]
struct Flow<J> {
    jobs: VecDeque<J>,
    weight: u32,
    /// Where its next job starts.
    start: u64,
}

impl<J> Default for Fair<J> {
    fn default() -> Fair<J> {
        Fair {
            flows: HashMap::new(),
            order: BinaryHeap::new(),
            now: 0,
            arrivals: 0,
            jobs: 0,
            weight: 0,
            looked: 0,
        }
    }
}

impl<J> Fair<J> {
    /// Puts a job behind those of its workload. A weight that has changed holds from now on.
    pub fn push(&mut self, workload: &Arc<str>, weight: u32, job: J) {
        self.forget_idle();
        let (weight, now) = (weight.max(1), self.now);
        let flow = self
            .flows
            .entry(workload.clone())
            .or_insert_with(|| Flow::new(weight, now));
        if flow.jobs.is_empty() {
            flow.start = flow.start.max(now);
            self.order
                .push(Reverse((flow.start, self.arrivals, workload.clone())));
            self.arrivals += 1;
        } else {
            self.weight -= u64::from(flow.weight); // of one that always asks it may have changed too
        }
        flow.weight = weight;
        self.weight += u64::from(weight);
        flow.jobs.push_back(job);
        self.jobs += 1;
    }

    /// The next job of which `take` makes something. Others are dropped on the way and cost nothing.
    pub fn pop<T>(&mut self, mut take: impl FnMut(J) -> Option<T>) -> Option<T> {
        while let Some(Reverse((start, _, workload))) = self.order.pop() {
            let flow = self.flows.get_mut(&workload)?;
            let before = flow.jobs.len();
            let taken = std::iter::from_fn(|| flow.jobs.pop_front()).find_map(&mut take);
            self.jobs -= before - flow.jobs.len();
            if taken.is_some() {
                self.now = start;
                flow.start = start + COST / u64::from(flow.weight);
            }
            if flow.jobs.is_empty() {
                self.weight -= u64::from(flow.weight);
            } else {
                self.order
                    .push(Reverse((flow.start, self.arrivals, workload)));
                self.arrivals += 1;
            }
            if taken.is_some() {
                self.rest();
                return taken;
            }
        }
        self.rest();
        None
    }

    /// When nobody waits there is nothing to share, and what each had before is forgotten.
    fn rest(&mut self) {
        if self.jobs == 0 {
            self.flows.clear();
        }
    }

    /// Drops the jobs that are not wanted any more.
    pub fn retain(&mut self, is_wanted: impl Fn(&J) -> bool) {
        for flow in self.flows.values_mut() {
            flow.jobs.retain(&is_wanted);
        }
        let Fair { flows, order, .. } = self;
        order.retain(|Reverse((_, _, workload))| {
            flows
                .get(workload)
                .is_some_and(|flow| !flow.jobs.is_empty())
        });
        let waiting = || flows.values().filter(|flow| !flow.jobs.is_empty());
        self.jobs = waiting().map(|flow| flow.jobs.len()).sum();
        self.weight = waiting().map(|flow| u64::from(flow.weight)).sum();
        self.rest();
    }

    /// How many jobs at most would be served before one that came now, of a workload with this weight.
    pub fn ahead_of(&self, workload: &str, weight: u32) -> usize {
        let waiting = self.flows.get(workload).filter(|it| !it.jobs.is_empty());
        let (own, before) = waiting.map_or((0, 0), |it| (it.jobs.len(), it.weight));
        let weight = u64::from(weight.max(1));
        let others = self.weight - u64::from(before);
        let rounds = (own as u64 + 1) * others / weight + self.order.len() as u64;
        let of_others = self.jobs - own;
        own + of_others.min(usize::try_from(rounds).unwrap_or(usize::MAX))
    }

    /// All that wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &J> {
        self.flows.values().flat_map(|flow| &flow.jobs)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.jobs
    }

    /// A workload that has no jobs is kept only for what it was served ahead of the others that wait. The
    /// look is at all of them, so that as many have to arrive between two.
    fn forget_idle(&mut self) {
        let every = self.flows.len().max(LOOK_EVERY) as u64;
        if self.arrivals - self.looked < every {
            return;
        }
        self.looked = self.arrivals;
        let now = self.now;
        self.flows
            .retain(|_, flow| !flow.jobs.is_empty() || flow.start > now);
    }
}

impl<J> Flow<J> {
    fn new(weight: u32, start: u64) -> Flow<J> {
        Flow {
            jobs: VecDeque::new(),
            weight,
            start,
        }
    }
}

#[cfg(test)]
mod tests;
