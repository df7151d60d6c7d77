//! Shares, order, and what becomes of jobs that nobody waits for.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A job of a workload, with its number among all.
type Job = (usize, u64);

fn name(workload: usize) -> Arc<str> {
    format!("w{workload}").into()
}

fn all(job: Job) -> Option<Job> {
    Some(job)
}

/// How many of `served` jobs each of these always-waiting workloads gets.
fn shares(weights: &[u32], served: u64) -> Vec<u64> {
    let mut fair = Fair::default();
    let mut number = 0;
    let mut push = |fair: &mut Fair<Job>, workload: usize| {
        fair.push(&name(workload), weights[workload], (workload, number));
        number += 1;
    };
    for workload in 0..weights.len() {
        (0..4).for_each(|_| push(&mut fair, workload));
    }
    let mut shares = vec![0; weights.len()];
    for _ in 0..served {
        let (workload, _) = fair.pop(all).unwrap();
        shares[workload] += 1;
        push(&mut fair, workload);
    }
    shares
}

#[test]
fn who_always_asks_gets_a_share_by_weight() {
    assert_eq!(shares(&[1, 3], 4_000), [1_000, 3_000]);
    assert_eq!(shares(&[1, 1, 1, 1], 4_000), [1_000; 4]);
    let uneven = shares(&[1, 7, 100], 10_800);
    for (share, wanted) in uneven.iter().zip([100, 700, 10_000]) {
        assert!(share.abs_diff(wanted) <= 1, "{uneven:?}");
    }
}

/// A reload may change the weight of one that is never without a job.
#[test]
fn another_weight_holds_at_once() {
    let mut fair = Fair::default();
    for workload in [0, 1] {
        (0..4).for_each(|_| fair.push(&name(workload), 1, (workload, 0)));
    }
    let mut served = |weights: [u32; 2]| {
        let mut shares = [0_u32; 2];
        for _ in 0..400 {
            for (workload, weight) in weights.into_iter().enumerate() {
                fair.push(&name(workload), weight, (workload, 0));
            }
            shares[fair.pop(all).unwrap().0] += 1;
            assert_eq!(fair.weight, u64::from(weights[0] + weights[1]));
        }
        shares
    };
    assert_eq!(served([1, 1]), [200, 200]);
    let shares = served([1, 3]);
    assert!(shares[0].abs_diff(100) <= 1, "{shares:?}");
    let shares = served([3, 1]);
    assert!(shares[1].abs_diff(100) <= 1, "{shares:?}");
}

#[test]
fn a_thousand_that_always_ask_are_served_in_rounds() {
    let weights = [1; 1_000];
    assert_eq!(shares(&weights, 5_000), [5; 1_000]);
}

#[test]
fn one_that_was_quiet_waits_for_nobodys_backlog() {
    let mut fair = Fair::default();
    for number in 0..60 {
        fair.push(&name(0), 1, (0, number));
    }
    for _ in 0..30 {
        assert_eq!(fair.pop(all).unwrap().0, 0);
    }
    fair.push(&name(1), 1, (1, 60));
    assert!(fair.ahead_of("w2", 1) <= 4);
    let served = (0..2).position(|_| fair.pop(all).unwrap().0 == 1);
    assert!(
        served.is_some(),
        "one job of another goes before it at most"
    );
}

#[test]
fn a_round_and_what_the_others_may_have_meanwhile_go_before_one_that_comes() {
    let mut fair = Fair::default();
    for number in 0..10 {
        fair.push(&name(0), 1, (0, number));
        fair.push(&name(1), 1, (1, number));
        fair.push(&name(2), 4, (2, number));
    }
    assert_eq!(fair.ahead_of("w9", 1), 6 + 3);
    assert_eq!(fair.ahead_of("w9", 2), 3 + 3);
    assert_eq!(fair.ahead_of("w0", 1), 10 + 20, "no more than there are");
    assert_eq!(fair.ahead_of("w0", 5), 10 + 11 * 5 / 5 + 3);
    assert_eq!(fair.ahead_of("w9", 0), fair.ahead_of("w9", 1));
}

#[test]
fn one_that_asks_for_little_has_saved_nothing() {
    let mut fair = Fair::default();
    for number in 0..100 {
        fair.push(&name(0), 1, (0, number));
        assert!(fair.pop(all).is_some());
    }
    // Now both wait: that the second has had nothing before gives it no more than its share.
    for number in 0..20 {
        fair.push(&name(0), 1, (0, number));
        fair.push(&name(1), 1, (1, number));
    }
    let first = (0..10).filter(|_| fair.pop(all).unwrap().0 == 0).count();
    assert!((4..=6).contains(&first), "{first}");
}

#[test]
fn jobs_that_nobody_waits_for_are_dropped_and_cost_nothing() {
    let mut fair = Fair::default();
    for number in 0..12 {
        fair.push(&name(0), 1, (0, number));
        fair.push(&name(1), 1, (1, number));
    }
    // The first has given up its first nine; it is served in turns with the second.
    let awaited = |job: Job| (job.0 == 1 || job.1 >= 9).then_some(job);
    let served: Vec<Job> = (0..6).map(|_| fair.pop(awaited).unwrap()).collect();
    assert_eq!(served, [(0, 9), (1, 0), (0, 10), (1, 1), (0, 11), (1, 2)]);
    let rest = std::iter::from_fn(|| fair.pop(awaited)).count();
    assert_eq!((rest, fair.waiting(), fair.weight), (9, 0, 0));
}

#[test]
fn workloads_that_come_once_are_not_kept() {
    let mut fair = Fair::default();
    for workload in 0..1_000 {
        fair.push(&name(workload), 1, (workload, 0));
        assert!(fair.pop(all).is_some());
    }
    assert_eq!(fair.flows.len(), 0);
    // Nor while one of them always waits.
    for number in 0..10_000 {
        fair.push(&name(0), 1, (0, number));
        fair.push(&name(1 + number as usize), 1, (1, number));
        assert!(fair.pop(all).is_some());
    }
    while fair.waiting() > 5 {
        assert!(fair.pop(all).is_some());
    }
    for number in 0..10_000 {
        fair.push(&name(0), 1, (0, number)); // and as many come again
        assert!(fair.pop(all).is_some());
    }
    assert!(fair.flows.len() <= LOOK_EVERY, "{}", fair.flows.len());
}

/// Those that were not given up.
fn awaited(given_up: &[u64]) -> impl Fn(Job) -> Option<Job> {
    |job| (!given_up.contains(&job.1)).then_some(job)
}

/// Whoever comes once in a round is kept until the round is over, and looked at a few times at most.
#[test]
fn workloads_that_are_kept_are_not_looked_at_for_each_that_comes() {
    let mut fair = Fair::default();
    (0..2).for_each(|number| fair.push(&name(0), 1, (0, number)));
    assert!(fair.pop(all).is_some()); // the turn of its second is the next round's
    let (mut looks, mut before) = (0, fair.looked);
    for workload in 1..=1_000 {
        fair.push(&name(workload), 1, (workload, 0));
        assert_eq!(fair.pop(all).unwrap().0, workload);
        looks += u32::from(fair.looked != before);
        before = fair.looked;
    }
    assert_eq!(fair.flows.len(), 1_001);
    assert!((1..20).contains(&looks), "{looks}");
}

#[derive(Clone, Debug)]
enum Act {
    Push { workload: usize, weight: u32 },
    Pop,
    GiveUp { number: u64 },
    Tidy,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0_usize..6, 1_u32..5).prop_map(|(workload, weight)| Act::Push { workload, weight }),
        2 => Just(Act::Pop),
        1 => (0_u64..200).prop_map(|number| Act::GiveUp { number }),
        1 => Just(Act::Tidy),
    ];
    prop::collection::vec(act, 0..200)
}

proptest! {
    /// Whatever happens: each job that is waited for comes out once, in the order of its workload, and
    /// never after more than `ahead_of` has promised.
    #[test]
    fn nothing_is_lost_doubled_or_overtaken_by_its_own(acts in acts()) {
        let mut fair = Fair::default();
        let (mut waiting, mut given_up) = (BTreeMap::<u64, usize>::new(), Vec::new());
        let mut last = [None; 6];
        for (number, act) in (0_u64..).zip(acts) {
            match act {
                Act::Push { workload, weight } => {
                    fair.push(&name(workload), weight, (workload, number));
                    waiting.insert(number, workload);
                }
                Act::GiveUp { number } => {
                    if waiting.remove(&number).is_some() {
                        given_up.push(number);
                    }
                }
                Act::Tidy => {
                    fair.retain(|job| !given_up.contains(&job.1));
                    prop_assert_eq!(fair.waiting(), waiting.len());
                }
                Act::Pop => match fair.pop(awaited(&given_up)) {
                    None => prop_assert!(waiting.is_empty()),
                    Some((workload, number)) => {
                        prop_assert_eq!(waiting.remove(&number), Some(workload));
                        prop_assert!(last[workload].is_none_or(|last| last < number));
                        last[workload] = Some(number);
                    }
                },
            }
            prop_assert!(waiting.len() <= fair.waiting());
            prop_assert_eq!(fair.iter().count(), fair.waiting());
        }
        let rest = std::iter::from_fn(|| fair.pop(awaited(&given_up)));
        prop_assert_eq!(rest.count(), waiting.len());
        prop_assert_eq!((fair.waiting(), fair.weight), (0, 0));
    }

    /// A job that comes while others wait is served before more than that have been.
    #[test]
    fn no_more_go_before_than_was_said(
        backlog in prop::collection::vec((0_usize..5, 1_u32..4), 0..80),
        served in 0_usize..40,
        weight in 1_u32..4,
    ) {
        let weight_of = |workload: usize| 1 + workload as u32 % 3;
        let mut fair = Fair::default();
        for (number, (workload, _)) in (0_u64..).zip(&backlog) {
            fair.push(&name(*workload), weight_of(*workload), (*workload, number));
        }
        for _ in 0..served {
            let _ = fair.pop(all);
        }
        let said = fair.ahead_of("w9", weight);
        fair.push(&name(9), weight, (9, 1_000));
        let before = std::iter::from_fn(|| fair.pop(all)).take_while(|job| job.0 != 9).count();
        prop_assert!(before <= said, "{before} > {said}");
    }
}
