//! Every state that can be reached in so many moves, each looked at (reliability §6: cheapest first).
//! In each the invariants hold, and from each it ends well.

use super::super::Sync;
use super::world::{Defect, Move, VerbOf, World};
use std::collections::HashSet;

/// What happens by itself, and what an operator does every day.
const USUAL: &[Move] = &[
    Move::Step,
    Move::Crash,
    Move::Fail,
    Move::Tick,
    Move::Sign,
    Move::Begin,
    Move::Finish,
    Move::TokenAway,
    Move::TokenBack,
    Move::Ahead,
    Move::Reboot(Sync::Unknown),
    Move::Lengthen,
    Move::Shorten,
];

const VERBS: &[Move] = &[
    Move::Step,
    Move::Crash,
    Move::Tick,
    Move::Sign,
    Move::Begin,
    Move::Finish,
    Move::Lose,
    Move::Reboot(Sync::Synchronised),
    Move::Ask(VerbOf::Rotate),
    Move::Ask(VerbOf::Hold),
    Move::Ask(VerbOf::Resume),
    Move::Ask(VerbOf::RevokeActive),
    Move::Ask(VerbOf::AbandonComing),
    Move::Ask(VerbOf::BackToRetiring),
    Move::Ask(VerbOf::ReplaceActive),
    Move::Ask(VerbOf::DestroyOldest),
];

const GATED: &[Move] = &[
    Move::Step,
    Move::Crash,
    Move::Tick,
    Move::Sign,
    Move::Look,
    Move::TokenAway,
    Move::TokenBack,
    Move::Ask(VerbOf::RevokeActive),
    Move::Ask(VerbOf::Rotate),
];

/// Another side that is told, and shows by a canary that it was.
const TOLD: &[Move] = &[
    Move::Step,
    Move::Crash,
    Move::Fail,
    Move::Tick,
    Move::Sign,
    Move::Push,
    Move::Try,
    Move::TokenAway,
    Move::TokenBack,
    Move::Ahead,
    Move::Ask(VerbOf::Rotate),
    Move::Ask(VerbOf::Hold),
    Move::Ask(VerbOf::Resume),
    Move::Ask(VerbOf::RevokeActive),
    Move::Ask(VerbOf::AbandonComing),
];

/// A host that is started in one state and in another one, and its keys bound to them.
const BOUND: &[Move] = &[
    Move::Step,
    Move::Crash,
    Move::Fail,
    Move::Tick,
    Move::Sign,
    Move::TokenAway,
    Move::TokenBack,
    Move::Otherwise,
    Move::Ask(VerbOf::Rotate),
    Move::Ask(VerbOf::ReplaceActive),
];

/// What a walk came to.
struct Walk {
    states: usize,
    /// The moves to the first state in which something does not hold, and what.
    found: Option<(Vec<Move>, String)>,
}

/// Breadth first, so that what is found is found by the shortest way.
fn walk(from: World, moves: &[Move], depth: usize, defect: Defect) -> Walk {
    let mut seen: HashSet<World> = HashSet::from([from.told_from_now()]);
    let mut edge: Vec<(World, Vec<Move>)> = vec![(from, Vec::new())];
    for _ in 0..depth {
        let mut further = Vec::new();
        for (world, way) in edge {
            for what in moves {
                let mut next = world.clone();
                let mut way = way.clone();
                way.push(*what);
                let changed = match next.go(*what, defect) {
                    Ok(changed) => changed,
                    Err(broken) => {
                        return Walk {
                            states: seen.len(),
                            found: Some((way, broken)),
                        };
                    }
                };
                if changed && seen.insert(next.told_from_now()) {
                    if defect == Defect::None
                        && let Err(broken) = next.ends_well()
                    {
                        return Walk {
                            states: seen.len(),
                            found: Some((way, broken)),
                        };
                    }
                    further.push((next, way));
                }
            }
        }
        edge = further;
    }
    Walk {
        states: seen.len(),
        found: None,
    }
}

fn holds(name: &str, from: World, moves: &[Move], depth: usize) {
    let Walk { states, found } = walk(from, moves, depth, Defect::None);
    println!("{name}: {states} states in {depth} moves");
    assert_eq!(found, None, "after {states} states");
    assert!(states > 1000, "{name}: only {states} states");
}

#[test]
fn the_invariants_hold_from_the_first_key_on() {
    holds("from the first key", World::new(), USUAL, 11);
}

#[test]
fn the_invariants_hold_through_a_rotation() {
    holds("through a rotation", World::rotating(), USUAL, 10);
}

#[test]
fn the_invariants_hold_while_one_version_takes_the_place_of_another() {
    holds("from one version to the next", World::turning(), USUAL, 10);
}

#[test]
fn the_invariants_hold_whatever_an_operator_asks() {
    holds("with an operator", World::turning(), VERBS, 7);
}

#[test]
fn the_invariants_hold_with_the_gate() {
    let mut world = World::new();
    world.gate_back = true;
    holds("with the gate", world, GATED, 14);
}

#[test]
fn the_invariants_hold_in_states_of_the_host_that_keys_are_bound_to() {
    holds("bound to a state", World::rotating(), BOUND, 11);
    holds("bound, and the next on its way", World::turning(), BOUND, 9);
}

#[test]
fn the_invariants_hold_with_canaries() {
    holds("with canaries", World::told(), TOLD, 10);
}

#[test]
fn every_sown_defect_is_found() {
    let mut all: Vec<Move> = USUAL.to_vec();
    all.push(Move::Ask(VerbOf::Rotate));
    for (defect, names) in [
        (Defect::NoLead, "I2"),
        (Defect::OutcomeFirst, "I"),
        (Defect::NoLag, "I3"),
        (Defect::NoFlight, "I3"),
        (Defect::ShortMemory, "I3"),
        (Defect::DestroyPublished, "I"),
        (Defect::TwoActive, "P4"),
        (Defect::MakeFirst, "P6"),
        (Defect::ActivateBlind, "I1"),
        (Defect::WallClock, "I"),
        (Defect::GiveUpAway, "I4"),
        (Defect::ForgetIntent, "P6"),
        (Defect::AnyState, "bound"),
        (Defect::NoCanary, "I2"),
        (Defect::DeafCanary, "I2"),
    ] {
        let moves = match defect {
            Defect::AnyState => BOUND,
            Defect::NoCanary | Defect::DeafCanary => TOLD,
            _ => &all,
        };
        let (first, depth) = match defect {
            Defect::NoCanary | Defect::DeafCanary => (World::told(), 8),
            _ => (World::rotating(), 6),
        };
        let found = walk(first, moves, depth, defect).found;
        let found = found.or_else(|| walk(World::turning(), moves, 9, defect).found);
        let Some((way, broken)) = found else {
            panic!("{defect:?} is not found");
        };
        println!("{defect:?}: {broken}, by {way:?}");
        assert!(broken.starts_with(names), "{defect:?}: {broken}");
    }
}
