//! Time stands still unless a test moves it. Requests are tasks of a runtime with one thread, so that
//! each runs as far as it can before the test goes on.

use super::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::task::{JoinHandle, LocalSet};

/// What stands for an assertion: what it was signed for and when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signed {
    of: Use,
    wall_s: u64,
    mono_s: u64,
    /// The how manieth event it was kept at.
    event: u64,
}

/// Both clocks.
#[derive(Clone)]
struct Clocks {
    zero: Instant,
    wall_s: Rc<Cell<u64>>,
    mono_s: Rc<Cell<u64>>,
}

impl Clocks {
    fn new() -> Clocks {
        Clocks {
            zero: Instant::now(),
            wall_s: Rc::new(Cell::new(1_800_000_000)),
            mono_s: Rc::default(),
        }
    }

    fn now(&self) -> Moment {
        Moment {
            wall: Time::from_unix_s(self.wall_s.get()),
            mono: self.zero + Duration::from_secs(self.mono_s.get()),
        }
    }

    fn advance(&self, seconds: u64) {
        self.wall_s.set(self.wall_s.get() + seconds);
        self.mono_s.set(self.mono_s.get() + seconds);
    }

    fn sign(&self, of: &Use, event: u64) -> Signed {
        Signed {
            of: of.clone(),
            wall_s: self.wall_s.get(),
            mono_s: self.mono_s.get(),
            event,
        }
    }
}

fn kid(name: &str) -> Kid {
    serde_json::from_value(name.into()).unwrap()
}

fn a_use() -> Use {
    Use {
        workload: "payments".into(),
        target: "aws".into(),
        terms: Terms {
            lifetime_s: 600,
            generation: 0,
            kid: kid("one"),
        },
    }
}

async fn turn(shelf: &Shelf<Signed>, of: &Use, clocks: &Clocks) -> Turn<Signed> {
    let now = || Ok::<Moment, ()>(clocks.now());
    shelf.turn(of, now).await.unwrap()
}

/// One request whose signature never fails. Whether it was signed for it.
async fn ask(shelf: &Shelf<Signed>, of: &Use, clocks: &Clocks) -> bool {
    match turn(shelf, of, clocks).await {
        Turn::Kept(_) => false,
        Turn::Mint(ticket) => {
            ticket.fill(clocks.sign(of, 0), clocks.now(), of.terms.lifetime_s);
            true
        }
    }
}

/// Runs with one thread until it is over. What waits for nothing has failed.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let test = async { tokio::time::timeout(Duration::from_secs(20), test).await };
    LocalSet::new().block_on(&runtime, test).expect("it ends")
}

/// Lets every task run as far as it can.
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn there_is_one_signature_for_each_half_life() {
    run(async {
        let (shelf, clocks, of) = (Shelf::default(), Clocks::new(), a_use());
        let mut signed = 0;
        for _second in 0..3_000 {
            signed += u32::from(ask(&shelf, &of, &clocks).await);
            clocks.advance(1);
        }
        assert_eq!(signed, 10);
    });
}

#[test]
fn what_lives_too_short_is_signed_for_each_request() {
    run(async {
        let (shelf, clocks, mut of) = (Shelf::default(), Clocks::new(), a_use());
        of.terms.lifetime_s = LIFETIME_MIN_S - 1;
        assert!(ask(&shelf, &of, &clocks).await);
        assert!(ask(&shelf, &of, &clocks).await);
        of.terms.lifetime_s = LIFETIME_MIN_S;
        assert!(ask(&shelf, &of, &clocks).await);
        assert!(!ask(&shelf, &of, &clocks).await);
    });
}

#[test]
fn whoever_differs_in_anything_gets_one_of_its_own() {
    let others: [fn(&mut Use); 5] = [
        |of| of.workload = "reports".into(),
        |of| of.target = "gcp".into(),
        |of| of.terms.lifetime_s = 601,
        |of| of.terms.generation = 1,
        |of| of.terms.kid = kid("two"),
    ];
    run(async {
        let (shelf, clocks) = (Shelf::default(), Clocks::new());
        assert!(ask(&shelf, &a_use(), &clocks).await);
        for change in others {
            let mut other = a_use();
            change(&mut other);
            assert!(ask(&shelf, &other, &clocks).await, "{other:?}");
            assert!(!ask(&shelf, &other, &clocks).await, "{other:?}");
            assert!(!ask(&shelf, &a_use(), &clocks).await, "{other:?}");
        }
    });
}

#[test]
fn a_clock_that_is_set_back_to_before_it_was_made_ends_it() {
    run(async {
        let (shelf, clocks, of) = (Shelf::default(), Clocks::new(), a_use());
        assert!(ask(&shelf, &of, &clocks).await);
        clocks.wall_s.set(clocks.wall_s.get() - 1);
        assert!(ask(&shelf, &of, &clocks).await);
    });
}

#[test]
fn a_clock_that_stands_still_does_not_keep_it_alive() {
    run(async {
        let (shelf, clocks, of) = (Shelf::default(), Clocks::new(), a_use());
        assert!(ask(&shelf, &of, &clocks).await);
        clocks.mono_s.set(299);
        assert!(!ask(&shelf, &of, &clocks).await);
        clocks.mono_s.set(300);
        assert!(ask(&shelf, &of, &clocks).await);
    });
}

/// As over the sleep of a machine, which CLOCK_MONOTONIC does not count.
#[test]
fn a_clock_that_leaps_ends_it_at_half_of_its_life() {
    run(async {
        let (shelf, clocks, of) = (Shelf::default(), Clocks::new(), a_use());
        let start_s = clocks.wall_s.get();
        assert!(ask(&shelf, &of, &clocks).await);
        clocks.wall_s.set(start_s + 299);
        assert!(!ask(&shelf, &of, &clocks).await);
        clocks.wall_s.set(start_s + 300);
        assert!(ask(&shelf, &of, &clocks).await);
    });
}

#[test]
fn another_configuration_or_a_suspended_key_ends_it() {
    run(async {
        let (shelf, clocks, of) = (Shelf::default(), Clocks::new(), a_use());
        assert!(ask(&shelf, &of, &clocks).await);
        shelf.clear();
        assert!(ask(&shelf, &of, &clocks).await);
        shelf.forget_key(&kid("two"));
        assert!(!ask(&shelf, &of, &clocks).await);
        shelf.forget_key(&kid("one"));
        assert!(ask(&shelf, &of, &clocks).await);
    });
}

/// Keys change between the request's turn and its signature.
#[test]
fn what_another_key_signs_is_not_kept_for_those_who_wait() {
    run(async {
        let (shelf, clocks, of) = (Shelf::default(), Clocks::new(), a_use());
        let ticket = async |kid: &Kid| match turn(&shelf, &of, &clocks).await {
            Turn::Kept(_) => panic!("nothing was kept"),
            Turn::Mint(ticket) => ticket.under(kid),
        };
        let of_another = ticket(&kid("two")).await;
        let of_this = ticket(&kid("one")).await; // the other one holds nobody up
        of_another.fill(clocks.sign(&of, 1), clocks.now(), 600);
        of_this.fill(clocks.sign(&of, 2), clocks.now(), 600);
        let Turn::Kept(kept) = turn(&shelf, &of, &clocks).await else {
            panic!("its own is kept");
        };
        assert_eq!(kept.what.event, 2);
    });
}

#[test]
fn thousands_of_lifetimes_are_not_remembered() {
    run(async {
        let (shelf, clocks, mut of) = (Shelf::default(), Clocks::new(), a_use());
        for lifetime_s in 30..3_600 {
            of.terms.lifetime_s = lifetime_s;
            assert!(ask(&shelf, &of, &clocks).await);
        }
        let kept: usize = shelf.targets().slots.values().map(Vec::len).sum();
        assert_eq!(kept, LIFETIMES_MAX);
    });
}

#[test]
fn targets_whose_assertions_are_over_are_forgotten() {
    run(async {
        let (shelf, clocks, mut of) = (Shelf::default(), Clocks::new(), a_use());
        let (mut known, mut sweeps) = (0, 0);
        for number in 0..20_000 {
            of.target = format!("t{number}");
            assert!(ask(&shelf, &of, &clocks).await);
            clocks.advance(1); // 300 of them at a time are fresh
            let before = known;
            known = shelf.targets().slots.len();
            sweeps += u32::from(known <= before);
            if number >= 200 {
                of.target = format!("t{}", number - 200);
                assert!(!ask(&shelf, &of, &clocks).await, "this one is fresh");
            }
        }
        assert!((20..=100).contains(&sweeps), "{sweeps}"); // one for each 300 and more
        let targets = shelf.targets();
        assert!(targets.slots.len() <= 700, "{}", targets.slots.len());
        assert!(
            targets.slots.capacity() < 4_000,
            "{}",
            targets.slots.capacity()
        );
    });
}

#[test]
fn targets_that_nobody_got_anything_for_are_forgotten_and_those_that_are_waited_for_are_not() {
    run(async {
        let (shelf, clocks, mut of) = (Shelf::default(), Clocks::new(), a_use());
        let waited_for = turn(&shelf, &of, &clocks).await;
        for number in 0..10_000 {
            of.target = format!("t{number}");
            drop(turn(&shelf, &of, &clocks).await); // it fails
        }
        assert!(shelf.targets().slots.len() <= SWEEP_FROM);
        let Turn::Mint(ticket) = waited_for else {
            panic!("the first has a ticket");
        };
        of = a_use();
        ticket.fill(clocks.sign(&of, 0), clocks.now(), of.terms.lifetime_s);
        assert!(!ask(&shelf, &of, &clocks).await, "it is kept");
    });
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Ask {
        of: usize,
    },
    /// The keystore signs for one that has the ticket.
    Sign {
        at: usize,
    },
    /// It does not, or who has the ticket hangs up.
    Fail {
        at: usize,
    },
    /// Who waits hangs up.
    HangUp {
        at: usize,
    },
    Wait {
        seconds: u64,
    },
    SetBack {
        seconds: u64,
    },
    Reload,
    Suspend {
        kid: usize,
    },
}

const KIDS: [&str; 2] = ["one", "two"];

fn event() -> impl Strategy<Value = Event> {
    let at = 0..8_usize;
    prop_oneof![
        8 => (0..USES).prop_map(|of| Event::Ask { of }),
        4 => at.clone().prop_map(|at| Event::Sign { at }),
        1 => at.clone().prop_map(|at| Event::Fail { at }),
        1 => at.prop_map(|at| Event::HangUp { at }),
        2 => (1..20_u64).prop_map(|seconds| Event::Wait { seconds }),
        1 => (1..40_u64).prop_map(|seconds| Event::SetBack { seconds }),
        1 => Just(Event::Reload),
        1 => (0..KIDS.len()).prop_map(|kid| Event::Suspend { kid }),
    ]
}

const USES: usize = 16;

/// The use of this number: two workloads, targets, lifetimes, keys.
fn use_of(number: usize, generation: u64) -> Use {
    let bit = |at: usize| (number >> at) & 1;
    Use {
        workload: ["payments", "reports"][bit(0)].into(),
        target: ["aws", "gcp"][bit(1)].into(),
        terms: Terms {
            lifetime_s: [30, 40][bit(2)],
            generation,
            kid: kid(KIDS[bit(3)]),
        },
    }
}

/// A request under way.
struct Open {
    of: Use,
    /// The how manieth event it began at.
    event: u64,
    task: JoinHandle<()>,
}

/// What the tasks tell.
#[derive(Default)]
struct Told {
    tickets: RefCell<Vec<(Use, Ticket<Signed>)>>,
    handed: RefCell<Vec<Handed>>,
}

/// One that was handed out again: to a request that began at this event, at this time.
struct Handed {
    asked: Use,
    began: u64,
    signed: Signed,
    wall_s: u64,
    mono_s: u64,
}

/// Plays the events, and what must always hold. How many were handed out again.
async fn play(events: Vec<Event>) -> Result<usize, TestCaseError> {
    let (shelf, clocks) = (Rc::new(Shelf::default()), Clocks::new());
    let told = Rc::new(Told::default());
    let mut open: Vec<Open> = Vec::new();
    let (mut generation, mut again) = (0, 0);
    let mut ended: Vec<(Option<Kid>, u64)> = Vec::new(); // from which event on what is over
    for (number, event) in (1..).zip(events) {
        match event {
            Event::Ask { of } => {
                let of = use_of(of, generation);
                let (shelf, clocks, told) = (shelf.clone(), clocks.clone(), told.clone());
                let asked = of.clone();
                let task = tokio::task::spawn_local(async move {
                    match turn(&shelf, &asked, &clocks).await {
                        Turn::Kept(kept) => told.handed.borrow_mut().push(Handed {
                            asked,
                            began: number,
                            signed: kept.what.clone(),
                            wall_s: clocks.wall_s.get(),
                            mono_s: clocks.mono_s.get(),
                        }),
                        Turn::Mint(ticket) => told.tickets.borrow_mut().push((asked, ticket)),
                    }
                });
                open.push(Open {
                    of,
                    event: number,
                    task,
                });
            }
            Event::Sign { at } => {
                if let Some((of, ticket)) = taken(&told, at) {
                    let signed = clocks.sign(&of, number);
                    ticket.fill(signed, clocks.now(), of.terms.lifetime_s);
                }
            }
            Event::Fail { at } => drop(taken(&told, at)),
            Event::HangUp { at } => {
                if let Some(open) = open.get(at) {
                    open.task.abort();
                }
            }
            Event::Wait { seconds } => clocks.advance(seconds),
            Event::SetBack { seconds } => clocks.wall_s.set(clocks.wall_s.get() - seconds),
            Event::Reload => {
                generation += 1;
                shelf.clear();
                ended.push((None, number));
            }
            Event::Suspend { kid: at } => {
                shelf.forget_key(&kid(KIDS[at]));
                ended.push((Some(kid(KIDS[at])), number));
            }
        }
        settle().await;
        open.retain(|open| !open.task.is_finished());
        for handed in told.handed.take() {
            let Handed {
                asked,
                began,
                signed,
                wall_s,
                mono_s,
            } = handed;
            again += 1;
            prop_assert_eq!(&signed.of, &asked);
            let half_s = u64::from(asked.terms.lifetime_s / 2);
            prop_assert!(mono_s - signed.mono_s < half_s);
            prop_assert!((signed.wall_s..signed.wall_s + half_s).contains(&wall_s));
            for (kid, event) in &ended {
                let is_meant = kid.as_ref().is_none_or(|kid| *kid == asked.terms.kid);
                prop_assert!(!is_meant || began < *event || signed.event > *event);
            }
        }
        // Nobody waits for nothing: who waits, waits for one that has the ticket.
        for waiting in &open {
            let tickets = told.tickets.borrow();
            let is_there = tickets.iter().any(|(of, _)| *of == waiting.of);
            prop_assert!(is_there, "event {}: {:?}", waiting.event, waiting.of);
        }
        one_ticket_each(&told, &ended)?;
    }
    Ok(again)
}

fn taken(told: &Told, at: usize) -> Option<(Use, Ticket<Signed>)> {
    let mut tickets = told.tickets.borrow_mut();
    (at < tickets.len()).then(|| tickets.remove(at))
}

/// While nothing was ended, one request at most is signed for at a time.
fn one_ticket_each(told: &Told, ended: &[(Option<Kid>, u64)]) -> Result<(), TestCaseError> {
    if !ended.is_empty() {
        return Ok(());
    }
    let tickets = told.tickets.borrow();
    for (at, (of, _)) in tickets.iter().enumerate() {
        prop_assert!(tickets[..at].iter().all(|(other, _)| other != of));
    }
    Ok(())
}

#[test]
fn no_assertion_reaches_another_use_or_outlives_its_half() {
    let again = Cell::new(0);
    proptest!(
        ProptestConfig::with_cases(500),
        |(events in proptest::collection::vec(event(), 1..80))| {
            again.set(again.get() + run(play(events))?);
        }
    );
    assert!(
        again.get() > 250,
        "only {} were handed out again",
        again.get()
    );
}
