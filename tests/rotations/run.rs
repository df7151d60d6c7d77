//! One run: a place, two hundred clients, an operator, until enough was seen; then until the last assertion has expired.

use crate::board::{Board, boot_ms};
use crate::cache::Policy;
use crate::client::{CACHING, CLIENTS, Clients};
use crate::keys::Lead;
use crate::operator;
use crate::place::Place;
use crate::report::Row;
use crate::verifier::Verifier;
use crate::{edge, watch};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When a run has seen enough.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    pub rotations: usize,
    pub verified: u64,
}

/// How long that may take: four times what it takes on two cores that others use too.
const RUN_MAX: Duration = Duration::from_secs(360);

/// From the last request to the end of all that was given out: half a minute of life, and as much again.
const LAST_MAX: Duration = Duration::from_secs(60);

/// How often the operator looks.
const EVERY: Duration = Duration::from_millis(250);

/// Runs it, whatever comes.
pub fn run(backend: &'static str, lead: Lead, goal: Goal) -> Row {
    eprintln!("{backend}, lead: {lead:?}");
    let place = Place::new(backend, lead);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads");
    let board = Arc::new(Board::default());
    watch_and_ask(&runtime, &place, &board);
    let began = Instant::now();
    let mut broken = Vec::new();
    while began.elapsed() < RUN_MAX {
        let counts = board.counts();
        let rotations = counts.first_uses.1 / CACHING;
        if rotations >= goal.rotations && counts.verified >= goal.verified {
            break;
        }
        if let Err(why) = operator::rotate(&place.daemon) {
            broken.push(why);
            break;
        }
        std::thread::sleep(EVERY);
    }
    let stopped_ms = boot_ms();
    board.stop();
    if !harness::wait_until(LAST_MAX, || board.open() == 0) {
        broken.push(format!("{} assertions have no end", board.open()));
    }
    let activations = operator::activations(&place.daemon);
    let mut row = Row::new(
        backend,
        lead,
        goal,
        began.elapsed(),
        &board,
        &activations,
        stopped_ms,
    );
    row.broken.extend(broken);
    if !row.broken.is_empty() {
        eprintln!("{}", place.daemon.stderr());
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    row
}

fn watch_and_ask(runtime: &tokio::runtime::Runtime, place: &Place, board: &Arc<Board>) {
    let _inside = runtime.enter();
    watch::start(place.published(), board.clone());
    let edge = runtime.block_on(edge::start(place.publisher.address(), board.clone()));
    let verifier = |number| Arc::new(Verifier::new(number, policy(number), edge, board.clone()));
    let all = (0..CLIENTS).map(verifier).collect();
    Clients::new(all, place.daemon.socket(), board.clone()).start();
}

/// Three keep sets, each in another way; of the others every fourth asks for one each time.
fn policy(number: usize) -> Policy {
    match number {
        0 => Policy::Kept,
        1 => Policy::MaxAge,
        2 => Policy::Timer,
        _ if number.is_multiple_of(4) => Policy::Always,
        _ => Policy::UnknownKid,
    }
}
