//! The usual way of a key, step by step, and what it waits for.

use super::super::*;
use super::world::{TICK_S, schedule};
use keystore::KeyVersion;

fn v(number: u32) -> KeyVersion {
    KeyVersion::new(number).unwrap()
}

struct Key {
    lineage: Lineage,
    schedule: Schedule,
    now: Age,
    shown: Shown,
}

impl Key {
    fn new() -> Key {
        let intend = Change::Intend {
            lifetime_max_s: TICK_S,
        };
        Key {
            lineage: Lineage::default().after(intend, Age::default()).unwrap(),
            schedule: schedule(),
            now: Age::default(),
            shown: Shown::Usable,
        }
    }

    fn next(&self) -> Next {
        let shown = |_| self.shown;
        self.lineage.next(&Facts {
            now: self.now,
            schedule: &self.schedule,
            jitter_s: 0,
            shown: &shown,
            deferred: &[],
        })
    }

    fn write(&mut self, change: Change) {
        self.lineage = self.lineage.after(change, self.now).unwrap();
    }

    /// Does everything until it waits; says what was done.
    fn settle(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..20 {
            match self.next() {
                Next::Write(change) => self.write(change),
                Next::Do(Outside::Make(number)) => self.write(Change::Made(number)),
                Next::Do(Outside::Publish) => self.write(Change::Written),
                Next::Do(Outside::Destroy(number)) => self.write(Change::Destroyed(number)),
                Next::Wait(..) => return done,
            }
            done.push(format!(
                "{:?}",
                self.lineage
                    .listed()
                    .iter()
                    .map(|n| n.number())
                    .collect::<Vec<_>>()
            ));
        }
        panic!("it never rests: {done:?}");
    }

    fn waits(&self) -> Waiting {
        match self.next() {
            Next::Wait(_, waiting) => waiting,
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, ticks: u64) -> &mut Key {
        self.now = self.now.plus(ticks * TICK_S);
        self
    }
}

#[test]
fn a_first_key_waits_for_its_documents_alone() {
    let mut key = Key::new();
    key.settle();
    assert_eq!(key.lineage.active().unwrap().0, v(1));
    assert_eq!(key.waits(), Waiting::Period(Age::new(3 * TICK_S)));
}

#[test]
fn what_waits_for_nobody_does_not_wait_for_the_end_of_a_second_either() {
    let mut key = Key::new();
    key.write(Change::Made(v(1)));
    key.write(Change::List(v(1)));
    key.lineage = key.lineage.after(Change::Written, key.now.over()).unwrap();
    assert_eq!(key.next(), Next::Write(Change::Activate(v(1))));
    key.settle();
    key.schedule.activation = Activation::ByHand;
    key.pass(3).settle();
    let coming = key.lineage.coming().unwrap().0;
    assert_eq!(coming, v(2));
    let asked = key.lineage.ask(
        Verb::Activate(coming, Haste::None),
        &key.schedule,
        &|_| Shown::Usable,
        Age::default(),
    );
    assert_eq!(asked, Ok(vec![Change::Activate(coming)]));
    let lead = Verb::Activate(coming, Haste::None);
    key.schedule.activation = Activation::ByTime;
    let asked = key
        .lineage
        .ask(lead, &key.schedule, &|_| Shown::Usable, key.now);
    assert!(matches!(asked, Err(Refused::TooSoon(..))), "{asked:?}");
    (key.schedule.publish_s, key.schedule.verifier_cache_s) = (0, 0);
    key.now = Age::default();
    assert_eq!(key.next(), Next::Write(Change::Activate(coming)));
}

#[test]
fn a_rotation_goes_its_way() {
    let mut key = Key::new();
    key.settle();
    key.pass(3).settle();
    assert_eq!(key.lineage.listed(), [v(1), v(2)], "the active one first");
    assert_eq!(key.waits(), Waiting::Lead(v(2), Age::new(5 * TICK_S)));
    key.pass(2).settle();
    assert_eq!(key.lineage.listed(), [v(2), v(1)]);
    key.pass(1).settle();
    assert_eq!(
        key.lineage.listed(),
        [v(2), v(1)],
        "one tick of life, one in flight"
    );
    key.pass(1).settle();
    assert_eq!(key.lineage.listed(), [v(2)]);
    assert!(key.lineage.version(v(1)).unwrap().is_kept());
    key.pass(1).settle();
    assert_eq!(
        key.lineage.version(v(1)).unwrap().phase,
        Phase::Destroyed {}
    );
    assert_eq!(key.lineage.newest(), Some(v(3)), "the next one has begun");
}

#[test]
fn without_a_period_it_waits_for_a_word() {
    let mut key = Key::new();
    key.schedule.period_s = None;
    key.settle();
    key.pass(1000).settle();
    assert_eq!(key.waits(), Waiting::Rotate);
    assert_eq!(key.lineage.listed(), [v(1)]);
}

#[test]
fn what_the_other_side_is_told_by_hand_becomes_active_by_hand() {
    let mut key = Key::new();
    key.schedule.activation = Activation::ByHand;
    key.settle();
    key.pass(3).settle();
    key.pass(100).settle();
    assert_eq!(key.waits(), Waiting::ByHand(v(2)));
    let asked = key.lineage.ask(
        Verb::Activate(v(2), Haste::None),
        &key.schedule,
        &|_| Shown::Usable,
        key.now,
    );
    asked
        .unwrap()
        .into_iter()
        .for_each(|change| key.write(change));
    assert_eq!(key.lineage.active().unwrap().0, v(2));
}

#[test]
fn what_the_other_side_is_told_is_tried_there_and_becomes_active_when_it_has_passed() {
    let mut key = Key::new();
    key.schedule.activation = Activation::ByCanary;
    let trial = |key: &Key| {
        let trial = key.lineage.trial(&key.schedule, &|_| key.shown);
        trial.map(|trial| trial.version())
    };
    key.settle();
    assert_eq!(
        key.lineage.active().unwrap().0,
        v(1),
        "nobody has signed before it"
    );
    assert_eq!(trial(&key), None);
    key.pass(3).settle();
    key.pass(100).settle();
    assert_eq!(key.waits(), Waiting::Canary(v(2)), "no time is trusted");
    assert_eq!(trial(&key), Some(v(2)));
    let ask = |key: &Key, haste| {
        let verb = Verb::Activate(v(2), haste);
        key.lineage
            .ask(verb, &key.schedule, &|_| Shown::Usable, key.now)
    };
    assert_eq!(ask(&key, Haste::None), Err(Refused::NotTried(v(2))));
    assert_eq!(ask(&key, Haste::Now), Ok(vec![Change::Activate(v(2))]));
    // What cannot sign, or must not, is not tried.
    key.shown = Shown::Unusable;
    assert_eq!(trial(&key), None);
    key.shown = Shown::Usable;
    key.write(Change::Hold(Hold::Held));
    assert_eq!(trial(&key), None);
    key.write(Change::Hold(Hold::Free));
    key.write(Change::Seen(v(2)));
    assert_eq!(trial(&key), None);
    key.settle();
    assert_eq!(key.lineage.listed(), [v(2), v(1)]);
}

#[test]
fn who_has_no_key_any_more_waits_for_no_canary() {
    let mut key = Key::new();
    key.schedule.activation = Activation::ByCanary;
    key.settle();
    key.write(Change::End(v(1), Cause::Compromise));
    key.write(Change::Intend {
        lifetime_max_s: TICK_S,
    });
    key.settle();
    assert_eq!(key.lineage.active().unwrap().0, v(2));

    // Nor does one that was waiting for it when the one before was stolen.
    key.pass(3).settle();
    key.pass(100).settle();
    assert_eq!(key.waits(), Waiting::Canary(v(3)));
    key.write(Change::End(v(2), Cause::Compromise));
    key.settle();
    assert_eq!(key.lineage.active().unwrap().0, v(3));
}

#[test]
fn a_version_that_is_weaker_than_demanded_is_never_published() {
    let mut key = Key::new();
    key.settle();
    key.shown = Shown::TooWeak;
    key.pass(50).settle();
    assert_eq!(key.waits(), Waiting::Evidence(v(2)));
    assert_eq!(key.lineage.listed(), [v(1)]);
}

#[test]
fn nothing_takes_the_place_of_a_version_unasked_in_a_state_that_it_refuses() {
    let mut key = Key::new();
    key.settle();
    let ask = |key: &Key, verb| {
        key.lineage
            .ask(verb, &key.schedule, &|_| key.shown, key.now)
    };
    key.shown = Shown::Unknown;
    assert_eq!(key.waits(), Waiting::Period(Age::new(3 * TICK_S)));
    key.pass(50);
    for shown in [Shown::Unhealthy, Shown::Unknown] {
        key.shown = shown;
        assert_eq!(key.settle(), [""; 0], "{shown:?}");
        assert_eq!(key.waits(), Waiting::Healthy(v(1)), "{shown:?}");
    }
    key.shown = Shown::Unhealthy;
    assert_eq!(ask(&key, Verb::Rotate), Err(Refused::Unhealthy(v(1))));
    // One that was begun before is not made either.
    key.shown = Shown::Usable;
    let Next::Write(change @ Change::Intend { .. }) = key.next() else {
        panic!("{:?}", key.next());
    };
    key.write(change);
    for shown in [Shown::Unhealthy, Shown::Unknown] {
        key.shown = shown;
        assert_eq!(key.waits(), Waiting::Healthy(v(1)), "{shown:?}");
    }
    // Somebody has said that this state is the one from now on.
    key.shown = Shown::Unhealthy;
    let changes = ask(&key, Verb::ReplaceLost(v(1))).unwrap();
    changes.into_iter().for_each(|change| key.write(change));
    assert_eq!(key.next(), Next::Do(Outside::Make(v(2))));
    key.shown = Shown::Usable; // in which it was made
    key.settle();
    assert_eq!(key.lineage.active().unwrap().0, v(2));
}

#[test]
fn with_the_gate_the_lead_counts_from_when_it_was_seen() {
    let mut key = Key::new();
    key.schedule.gate = Gate::ReadBack;
    key.settle();
    assert_eq!(key.waits(), Waiting::Seen(v(1)));
    key.write(Change::Seen(v(1)));
    key.settle();
    key.pass(3).settle();
    key.pass(50).settle();
    assert_eq!(key.waits(), Waiting::Seen(v(2)));
    key.write(Change::Seen(v(2)));
    assert_eq!(key.waits(), Waiting::Lead(v(2), key.now.plus(2 * TICK_S)));
    key.pass(1).settle();
    key.write(Change::Unseen(v(2)));
    assert_eq!(
        key.waits(),
        Waiting::Seen(v(2)),
        "an older set was served again"
    );
}

#[test]
fn a_revoked_version_is_out_of_the_set_at_once_and_never_comes_back() {
    let mut key = Key::new();
    key.settle();
    let ask = |key: &Key, verb| {
        key.lineage
            .ask(verb, &key.schedule, &|_| Shown::Usable, key.now)
    };
    let changes = ask(&key, Verb::Revoke(v(1))).unwrap();
    changes.into_iter().for_each(|change| key.write(change));
    assert_eq!(key.lineage.active(), None);
    key.settle();
    assert_eq!(key.lineage.listed(), []);
    assert_eq!(key.waits(), Waiting::Nothing);
    for verb in [
        Verb::Activate(v(1), Haste::Now),
        Verb::Activate(v(1), Haste::None),
        Verb::Revoke(v(1)),
    ] {
        assert_eq!(ask(&key, verb), Err(Refused::Compromised(v(1))), "{verb:?}");
    }
    let changes = ask(&key, Verb::Rotate).unwrap();
    changes.into_iter().for_each(|change| key.write(change));
    key.settle();
    assert_eq!(
        key.lineage.listed(),
        [v(2)],
        "at once: nobody has anything to lose"
    );
    assert_eq!(key.lineage.active().unwrap().0, v(2));
    key.pass(1000);
    assert!(
        key.lineage.version(v(1)).unwrap().is_kept(),
        "it is evidence"
    );
    let changes = ask(&key, Verb::Destroy(v(1))).unwrap();
    changes.into_iter().for_each(|change| key.write(change));
    key.settle();
    assert_eq!(
        key.lineage.version(v(1)).unwrap().phase,
        Phase::Destroyed {}
    );
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut key = Key::new();
    key.settle();
    key.pass(3).settle();
    let before = key.lineage.clone();
    for change in [
        Change::Intend { lifetime_max_s: 1 },
        Change::Made(v(1)),
        Change::Activate(v(3)),
        Change::Withdraw(v(1)),
        Change::Condemn(v(1)),
        Change::Destroyed(v(1)),
        Change::End(v(2), Cause::Loss),
        Change::End(v(1), Cause::Succession),
        Change::Seen(v(1)),
    ] {
        assert!(key.lineage.after(change, key.now).is_err(), "{change:?}");
    }
    let ask = |verb| {
        key.lineage
            .ask(verb, &key.schedule, &|_| Shown::Usable, key.now)
    };
    for (verb, refused) in [
        (Verb::Rotate, Refused::Coming(v(2))),
        (
            Verb::Activate(v(2), Haste::None),
            Refused::TooSoon(v(2), Age::new(5 * TICK_S)),
        ),
        (Verb::Activate(v(9), Haste::None), Refused::NoVersion(v(9))),
        (Verb::Resume, Refused::Already(Hold::Free)),
        (Verb::ReplaceLost(v(1)), Refused::NotLost(v(1))),
        (
            Verb::Destroy(v(1)),
            Refused::Phase(
                v(1),
                Phase::Active {
                    since: Age::default(),
                },
            ),
        ),
    ] {
        assert_eq!(ask(verb), Err(refused), "{verb:?}");
    }
    assert_eq!(key.lineage, before);
}
