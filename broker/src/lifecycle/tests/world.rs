//! A keyring with everything around it that can go wrong, small enough to be walked through whole:
//! the disk, the documents and who may still have an older copy of them, the token, the clocks, and
//! what was signed and is still valid.

use super::super::*;
use keystore::KeyVersion;
use std::collections::{BTreeMap, BTreeSet};

/// One tick in seconds: as long as a request may be in flight.
pub const TICK_S: u64 = IN_FLIGHT_S;

/// Ages beyond so many ticks are all the same: no number of the schedule is larger.
const OLD: u64 = 12;

/// Lead 2 ticks, lag 2, rollback 3, period 5.
pub fn schedule() -> Schedule {
    Schedule {
        period_s: Some(5 * TICK_S),
        publish_s: TICK_S,
        verifier_cache_s: TICK_S,
        skew_s: 0,
        leeway_s: 0,
        rollback_s: 3 * TICK_S,
        lifetime_max_s: TICK_S,
        activation: Activation::ByTime,
        gate: Gate::Written,
    }
}

/// A fault sown into the machine or into what runs it. None is the real thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    None,
    /// A version signs as soon as it is published (I2, P4).
    NoLead,
    /// A version is withdrawn as soon as it retires (I3).
    NoLag,
    /// Requests in flight are forgotten (I3).
    NoFlight,
    /// A lifetime that grew is not written down before the version retires (I3).
    ShortMemory,
    /// The object is destroyed while the documents name it (I5).
    DestroyPublished,
    /// The one that signed goes on signing beside the new one (P4).
    TwoActive,
    /// The object is made before its intent is written (P6: an orphan).
    MakeFirst,
    /// A version becomes active although its keystore does not show it (I1).
    ActivateBlind,
    /// The time is the wall clock's (P10).
    WallClock,
    /// A version whose token is away is taken for gone (I4: the pointer names nothing).
    GiveUpAway,
    /// The outcome of writing documents is written down before they are (I2).
    OutcomeFirst,
    /// What was begun is begun anew after a crash, under another number (I6).
    ForgetIntent,
    /// A version that does not sign in this state of the host is taken for one that is away.
    AnyState,
    /// A version that waits for its canary becomes active once it is published (I2).
    NoCanary,
    /// A canary is taken for passed whatever the other side says (I2).
    DeafCanary,
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// What the machine wants, done to its end.
    Step,
    /// What it wants outside is done, and the power fails before the outcome is written.
    Crash,
    /// What it wants outside cannot be done now; it does what it wants otherwise.
    Fail,
    Tick,
    /// A request, from its beginning to its end.
    Sign,
    /// A request begins; its key is chosen.
    Begin,
    /// It ends.
    Finish,
    TokenAway,
    TokenBack,
    /// The host is started otherwise, or as it was again.
    Otherwise,
    /// The object of the version that signs is gone for good.
    Lose,
    /// The wall clock goes ten years ahead.
    Ahead,
    /// The machine boots, with a clock that nobody vouches for, or with a right one.
    Reboot(Sync),
    /// The configuration allows what is signed a longer life.
    Lengthen,
    /// And takes that back.
    Shorten,
    /// The published set is looked at from outside.
    Look,
    /// Somebody registers the set at the other side, as it is now.
    Push,
    /// The version that waits for its canary is tried there.
    Try,
    Ask(VerbOf),
}

/// A verb, on the version that it makes sense for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerbOf {
    Rotate,
    Hold,
    Resume,
    RevokeActive,
    AbandonComing,
    BackToRetiring,
    ReplaceActive,
    DestroyOldest,
}

/// What a walk goes through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub disk: Lineage,
    /// The documents as written, newest last, each with the real time it came; as far back as anybody
    /// may keep one.
    documents: Vec<(u64, Vec<u32>)>,
    objects: BTreeSet<u32>,
    /// Objects whose making is not written down: only a crash between the two may leave one.
    away: bool,
    /// In which of two states the host is, and what was made in the second.
    otherwise: bool,
    made_otherwise: BTreeSet<u32>,
    /// Real time, in seconds, and the wall clock's error.
    real_s: u64,
    wall_error_s: u64,
    boot_began_s: u64,
    boots: u64,
    mark: Mark,
    /// Until when something that a version signed is valid, by real time.
    valid_until: BTreeMap<u32, u64>,
    in_flight: Option<(u32, u64, u64)>,
    lifetime_s: u64,
    /// Versions that may sign before their lead: nobody could have known another, or all is lost.
    exempt: BTreeSet<u32>,
    misfortune: bool,
    pub gate_back: bool,
    /// What is registered at the other side, where versions wait for their canary; it fetches nothing.
    pub registered: Option<Vec<u32>>,
}

impl World {
    /// A key that was just asked for.
    pub fn new() -> World {
        let reading = Reading {
            wall_s: 1_000_000,
            boot_s: 0,
            boot: Boot("0".into()),
            sync: Sync::Unknown,
        };
        let intend = Change::Intend {
            lifetime_max_s: TICK_S,
        };
        World {
            disk: Lineage::default().after(intend, Age::default()).unwrap(),
            documents: vec![(0, Vec::new())],
            objects: BTreeSet::new(),
            away: false,
            otherwise: false,
            made_otherwise: BTreeSet::new(),
            real_s: 0,
            wall_error_s: 0,
            boot_began_s: 0,
            boots: 0,
            mark: Mark::first(&reading),
            valid_until: BTreeMap::new(),
            in_flight: None,
            lifetime_s: TICK_S,
            exempt: BTreeSet::new(),
            misfortune: false,
            gate_back: false,
            registered: None,
        }
    }

    /// A key in use at another side that is told, whose next version is about to be made.
    pub fn told() -> World {
        let mut world = World::rotating();
        world.registered = Some(vec![1]);
        world
    }

    /// A key in use whose next version is about to be made.
    pub fn rotating() -> World {
        let mut world = World::new();
        for _ in 0..4 {
            world.go(Move::Step, Defect::None).unwrap();
        }
        assert!(world.disk.active().is_some(), "{world:?}");
        for _ in 0..3 {
            world.go(Move::Tick, Defect::None).unwrap();
        }
        world
    }

    /// The same with the next version published and its lead over.
    pub fn turning() -> World {
        let mut world = World::rotating();
        for _ in 0..4 {
            world.go(Move::Step, Defect::None).unwrap();
        }
        for _ in 0..2 {
            world.go(Move::Tick, Defect::None).unwrap();
        }
        let coming = world.disk.coming().map(|(_, version)| version.phase);
        assert!(
            matches!(coming, Some(Phase::Published { .. })),
            "{coming:?}"
        );
        world
    }

    fn reading(&self) -> Reading {
        Reading {
            wall_s: 1_000_000 + self.real_s + self.wall_error_s,
            boot_s: self.real_s - self.boot_began_s,
            boot: Boot(self.boots.to_string()),
            sync: Sync::Unknown,
        }
    }

    fn now(&self, defect: Defect) -> Age {
        match defect {
            Defect::WallClock => Age::new(self.real_s + self.wall_error_s),
            _ => self.mark.at(&self.reading()).age,
        }
    }

    fn schedule(&self, defect: Defect) -> Schedule {
        let real = Schedule {
            lifetime_max_s: self.lifetime_s,
            gate: if self.gate_back {
                Gate::ReadBack
            } else {
                Gate::Written
            },
            activation: match self.registered {
                Some(_) => Activation::ByCanary,
                None => Activation::ByTime,
            },
            ..schedule()
        };
        match defect {
            Defect::NoLead => Schedule {
                publish_s: 0,
                verifier_cache_s: 0,
                ..real
            },
            Defect::ShortMemory => Schedule {
                lifetime_max_s: TICK_S,
                ..real
            },
            Defect::NoCanary => Schedule {
                activation: Activation::ByTime,
                ..real
            },
            _ => real,
        }
    }

    fn shown(&self, number: KeyVersion) -> Shown {
        match !self.away && self.objects.contains(&number.number()) {
            true if self.is_of_this_state(number.number()) => Shown::Usable,
            true => Shown::Unhealthy,
            false => Shown::Unusable,
        }
    }

    fn is_of_this_state(&self, number: u32) -> bool {
        self.made_otherwise.contains(&number) == self.otherwise
    }

    fn next(&self, deferred: &[Outside], defect: Defect) -> Next {
        let shown = |number| match defect {
            Defect::ActivateBlind => Shown::Usable,
            Defect::AnyState => match self.shown(number) {
                Shown::Unhealthy => Shown::Unusable,
                other => other,
            },
            _ => self.shown(number),
        };
        let facts = Facts {
            now: self.now(defect),
            schedule: &self.schedule(defect),
            jitter_s: 0,
            shown: &shown,
            deferred,
        };
        self.disk.next(&facts)
    }

    fn write(&mut self, change: Change, defect: Defect) -> Result<(), String> {
        let now = self.now(defect);
        let before = self.disk.clone();
        self.mark = self.mark.at(&self.reading());
        self.disk = self
            .disk
            .after(change, now)
            .map_err(|wrong| wrong.to_string())?;
        if let (Defect::TwoActive, Change::Activate(_), Some((old, _))) =
            (defect, change, before.active())
        {
            let again = Phase::Active { since: now };
            self.disk.versions.get_mut(&old.number()).unwrap().phase = again;
        }
        if let Change::Activate(number) = change {
            let alone = before.versions.len() == 1;
            if before.active().is_none() && (alone || self.misfortune) {
                self.exempt.insert(number.number());
            }
            if self.shown(number) != Shown::Usable {
                return Err(format!("I1: {number:?} became active and cannot sign"));
            }
        }
        Ok(())
    }

    fn outside(&mut self, outside: Outside) -> Result<(), String> {
        match outside {
            Outside::Make(number) => {
                // Unless somebody has said that it is lost.
                if let Some((active, _)) = self.disk.active()
                    && self.objects.contains(&active.number())
                    && !self.is_of_this_state(active.number())
                {
                    return Err(format!(
                        "bound: {number:?} is made for a state that {active:?} refuses"
                    ));
                }
                self.objects.insert(number.number());
                match self.otherwise {
                    true => self.made_otherwise.insert(number.number()),
                    false => self.made_otherwise.remove(&number.number()),
                };
            }
            Outside::Destroy(number) => drop(self.objects.remove(&number.number())),
            Outside::Publish => {
                let set: Vec<u32> = self.disk.listed().iter().map(|n| n.number()).collect();
                if self.documents.last().is_some_and(|(_, last)| *last != set) {
                    self.documents.push((self.real_s, set));
                }
            }
        }
        Ok(())
    }

    fn outcome(outside: Outside) -> Change {
        match outside {
            Outside::Make(number) => Change::Made(number),
            Outside::Destroy(number) => Change::Destroyed(number),
            Outside::Publish => Change::Written,
        }
    }

    fn possible(&self, outside: Outside) -> bool {
        match outside {
            Outside::Publish => true,
            Outside::Make(_) | Outside::Destroy(_) => !self.away,
        }
    }

    /// Does a move; an error is an invariant that does not hold. `Ok(false)`: it cannot be done here.
    pub fn go(&mut self, what: Move, defect: Defect) -> Result<bool, String> {
        let was = self.clone();
        match what {
            Move::Step => match self.next(&[], defect) {
                Next::Write(Change::Intend { .. }) if defect == Defect::MakeFirst => {
                    let number = self.disk.newest().map_or(1, |newest| newest.number() + 1);
                    self.objects.insert(number);
                    return self.check().map(|()| true);
                }
                Next::Write(change) => self.write(change, defect)?,
                Next::Do(outside) if self.possible(outside) => {
                    if defect != Defect::OutcomeFirst {
                        self.outside(outside)?;
                    }
                    self.write(World::outcome(outside), defect)?;
                }
                _ => {}
            },
            Move::Crash => match self.next(&[], defect) {
                Next::Do(outside) if self.possible(outside) => {
                    self.outside(outside)?;
                    self.in_flight = None;
                    if defect == Defect::ForgetIntent {
                        self.disk
                            .versions
                            .retain(|_, version| version.phase != Phase::Making {});
                    }
                }
                _ => {}
            },
            Move::Fail => {
                if let Next::Do(first) = self.next(&[], defect)
                    && let Next::Write(change) = self.next(&[first], defect)
                {
                    self.write(change, defect)?;
                }
            }
            Move::Tick => {
                self.real_s += TICK_S;
                self.sow(defect);
                self.in_flight = self
                    .in_flight
                    .filter(|(_, begun_s, _)| self.real_s - begun_s <= IN_FLIGHT_S);
            }
            Move::Sign => {
                for number in self.signers() {
                    self.sign(number, self.lifetime_s)?;
                }
            }
            Move::Begin => {
                if let (None, Some(number)) = (self.in_flight, self.signers().first()) {
                    self.in_flight = Some((*number, self.real_s, self.lifetime_s));
                }
            }
            Move::Finish => {
                if let Some((number, _, lifetime_s)) = self.in_flight.take() {
                    let known = KeyVersion::new(number).unwrap();
                    let revoked = self
                        .disk
                        .version(known)
                        .is_none_or(|version| version.cause == Cause::Compromise);
                    if self.shown(known) == Shown::Usable && !revoked {
                        self.sign(number, lifetime_s)?;
                    }
                }
            }
            Move::TokenAway => {
                self.away = true;
                if defect == Defect::GiveUpAway {
                    let gone = self.disk.active().map(|(number, _)| number.number());
                    self.disk.versions.retain(|number, _| Some(*number) != gone);
                }
            }
            Move::TokenBack => self.away = false,
            Move::Otherwise => self.otherwise = !self.otherwise,
            Move::Lose => {
                if let Some((number, _)) = self.disk.active() {
                    self.objects.remove(&number.number());
                }
            }
            Move::Ahead => self.wall_error_s = 315_576_000,
            Move::Reboot(sync) => {
                self.boots += 1;
                self.real_s += TICK_S;
                self.boot_began_s = self.real_s;
                self.in_flight = None;
                if sync == Sync::Synchronised {
                    self.wall_error_s = 0;
                }
                let reading = Reading {
                    sync,
                    ..self.reading()
                };
                self.mark = self.mark.at(&reading);
            }
            Move::Lengthen => {
                // As a reload does it: written down before anything may live so long.
                for (number, _) in self.disk.clone().versions() {
                    if defect != Defect::ShortMemory {
                        self.write(Change::Lifetime(number, 2 * TICK_S), defect)?;
                    }
                }
                self.lifetime_s = 2 * TICK_S;
            }
            Move::Shorten => self.lifetime_s = TICK_S,
            Move::Look => {
                let public = self
                    .documents
                    .last()
                    .map(|(_, set)| set.clone())
                    .unwrap_or_default();
                if let Some((number, version)) = self.disk.coming() {
                    let shows = public.contains(&number.number());
                    match version.phase {
                        Phase::Published { seen: None, .. } if shows => {
                            self.write(Change::Seen(number), defect)?
                        }
                        Phase::Published { seen: Some(_), .. } if !shows => {
                            self.write(Change::Unseen(number), defect)?
                        }
                        _ => {}
                    }
                }
            }
            Move::Push => {
                if self.registered.is_some() {
                    let set = self.disk.listed();
                    self.registered = Some(set.iter().map(|number| number.number()).collect());
                }
            }
            Move::Try => {
                let schedule = self.schedule(defect);
                let trial = self.disk.trial(&schedule, &|number| self.shown(number));
                if let (Some(trial), Some(registered)) = (trial, &self.registered) {
                    let version = trial.version();
                    if registered.contains(&version.number()) || defect == Defect::DeafCanary {
                        self.write(Change::Seen(version), defect)?;
                    }
                }
            }
            Move::Ask(of) => self.ask(of, defect)?,
        }
        self.forget();
        self.check()?;
        Ok(*self != was)
    }

    fn ask(&mut self, of: VerbOf, defect: Defect) -> Result<(), String> {
        let active = self.disk.active().map(|(number, _)| number);
        let at = |phase: fn(&Phase) -> bool| {
            let mut versions = self.disk.versions();
            versions
                .find(|(_, version)| phase(&version.phase))
                .map(|(number, _)| number)
        };
        let coming = self.disk.coming().map(|(number, _)| number);
        let verb = match of {
            VerbOf::Rotate => Some(Verb::Rotate),
            VerbOf::Hold => Some(Verb::Hold),
            VerbOf::Resume => Some(Verb::Resume),
            VerbOf::RevokeActive => active.map(Verb::Revoke),
            VerbOf::AbandonComing => coming.map(Verb::Abandon),
            VerbOf::BackToRetiring => {
                at(|phase| matches!(phase, Phase::Retiring { .. } | Phase::Withdrawn { .. }))
                    .map(|number| Verb::Activate(number, Haste::None))
            }
            VerbOf::ReplaceActive => active.map(Verb::ReplaceLost),
            VerbOf::DestroyOldest => {
                at(|phase| matches!(phase, Phase::Withdrawn { .. })).map(Verb::Destroy)
            }
        };
        let Some(verb) = verb else { return Ok(()) };
        let schedule = self.schedule(defect);
        let changes = self.disk.ask(
            verb,
            &schedule,
            &|number| self.shown(number),
            self.now(defect),
        );
        let Ok(changes) = changes else { return Ok(()) };
        self.misfortune |= matches!(verb, Verb::Revoke(_) | Verb::ReplaceLost(_));
        if let Verb::Revoke(number) = verb {
            self.valid_until.remove(&number.number()); // nobody is to believe it any more
        }
        for change in changes {
            self.write(change, defect)?;
        }
        Ok(())
    }

    fn sow(&mut self, defect: Defect) {
        let now = self.now(defect);
        for (number, version) in &mut self.disk.versions {
            version.phase = match (defect, version.phase) {
                (Defect::NoLag, Phase::Retiring { since }) => Phase::Withdrawing { since },
                (Defect::NoFlight, Phase::Retiring { since })
                    if now.since(since) + IN_FLIGHT_S >= version.lifetime_max_s + IN_FLIGHT_S =>
                {
                    Phase::Withdrawing { since }
                }
                (Defect::DestroyPublished, Phase::Retiring { .. }) => {
                    self.objects.remove(number);
                    Phase::Destroyed {}
                }
                (_, phase) => phase,
            };
        }
    }

    /// Versions that sign, as the keyring's pointer names them.
    fn signers(&self) -> Vec<u32> {
        if self.disk.hold == Hold::Held {
            return Vec::new();
        }
        let active = self
            .disk
            .versions()
            .filter(|(_, version)| version.is_active());
        let usable = active.filter(|(number, _)| self.shown(*number) == Shown::Usable);
        usable.map(|(number, _)| number.number()).collect()
    }

    /// I2 and P4: everybody who verifies now, with whatever set they may still have, knows the key.
    fn sign(&mut self, number: u32, lifetime_s: u64) -> Result<(), String> {
        let kept_s = schedule().publish_s + schedule().verifier_cache_s;
        let oldest_s = self.real_s.saturating_sub(kept_s);
        if let Some(registered) = &self.registered {
            if !self.exempt.contains(&number) && !registered.contains(&number) {
                return Err(format!(
                    "I2: version {number} signs, and {registered:?} are registered"
                ));
            }
        } else if !self.exempt.contains(&number) {
            let mut until_s = u64::MAX;
            for (since_s, set) in self.documents.iter().rev() {
                // Current within the time that somebody may have kept it.
                if until_s > oldest_s && !set.contains(&number) {
                    return Err(format!(
                        "I2: version {number} signs, and a set of {set:?} may still be kept"
                    ));
                }
                until_s = *since_s;
            }
        }
        let until_s = self.real_s + lifetime_s;
        let valid = self.valid_until.entry(number).or_default();
        *valid = until_s.max(*valid);
        Ok(())
    }

    /// What nobody can have any more is forgotten, so that walks meet again.
    fn forget(&mut self) {
        let kept_s = schedule().publish_s + schedule().verifier_cache_s;
        let oldest_s = self.real_s.saturating_sub(kept_s);
        while self.documents.len() > 1 && self.documents[1].0 <= oldest_s {
            self.documents.remove(0);
        }
        self.valid_until.retain(|_, until_s| *until_s > self.real_s);
    }

    fn check(&self) -> Result<(), String> {
        let current = self
            .documents
            .last()
            .map(|(_, set)| set.as_slice())
            .unwrap_or_default();
        for number in self.valid_until.keys() {
            if !current.contains(number) {
                return Err(format!(
                    "I3: what version {number} signed is valid, and it is not published"
                ));
            }
        }
        if let Some(registered) = &self.registered {
            let mut valid = self.valid_until.keys();
            let known = |number| self.exempt.contains(number) || registered.contains(number);
            if let Some(number) = valid.find(|number| !known(*number)) {
                return Err(format!(
                    "I3: what version {number} signed is valid, and it is not registered"
                ));
            }
        }
        let active: Vec<_> = self
            .disk
            .versions()
            .filter(|(_, version)| version.is_active())
            .collect();
        if active.len() > 1 {
            return Err("P4: two versions are active".into());
        }
        for number in current {
            let version = self.disk.versions.get(number);
            let version =
                version.ok_or(format!("I4: version {number} is published and unknown"))?;
            if matches!(version.phase, Phase::Destroying {} | Phase::Destroyed {}) {
                return Err(format!("I5: version {number} is destroyed and published"));
            }
        }
        for number in &self.objects {
            if !self.disk.versions.contains_key(number) {
                return Err(format!(
                    "P6: object {number} is in the token and in no record"
                ));
            }
            if self.disk.versions[number].phase == (Phase::Destroyed {}) {
                return Err(format!(
                    "P6: object {number} is there and recorded as destroyed"
                ));
            }
        }
        // I1: once there was one that signed, there is one, unless somebody took it away.
        let begun = self
            .disk
            .versions
            .values()
            .any(|version| !version.is_coming() && version.cause == Cause::Succession);
        if begun && active.is_empty() && !self.misfortune {
            return Err("I1: no version is active any more".into());
        }
        Ok(())
    }

    /// I6: whatever was before, with the token back and an operator who does what the state asks for,
    /// there comes a time when a version signs and nothing is half done.
    pub fn ends_well(&self) -> Result<(), String> {
        let mut world = self.clone();
        world.away = false;
        world.in_flight = None;
        for _ in 0..60 {
            for _ in 0..20 {
                world.go(Move::Step, Defect::None)?;
            }
            world.go(Move::Look, Defect::None)?;
            world.go(Move::Push, Defect::None)?;
            world.go(Move::Try, Defect::None)?;
            if world.disk.hold == Hold::Held {
                world.go(Move::Ask(VerbOf::Resume), Defect::None)?;
            }
            let lost = world
                .disk
                .active()
                .is_some_and(|(number, _)| world.shown(number) != Shown::Usable);
            let next = world.next(&[], Defect::None);
            if lost {
                world.go(Move::Ask(VerbOf::ReplaceActive), Defect::None)?;
            } else if let Next::Wait(_, Waiting::Nothing) = next {
                world.go(Move::Ask(VerbOf::Rotate), Defect::None)?;
            } else if let (Next::Wait(_, Waiting::Usable(_)), true) =
                (next, world.disk.coming().is_some())
            {
                world.go(Move::Ask(VerbOf::AbandonComing), Defect::None)?;
            } else if matches!(next, Next::Wait(..)) && !world.signers().is_empty() {
                return world.go(Move::Sign, Defect::None).map(drop);
            }
            world.go(Move::Tick, Defect::None)?;
        }
        Err(format!("I6: it does not come to an end: {:?}", world.disk))
    }

    /// The same world with all times told from now, so that walks meet again.
    pub fn told_from_now(&self) -> World {
        let now = self.now(Defect::None);
        let ago = |age: Age| Age::new((now.since(age) / TICK_S).min(OLD));
        let real_ago = |s: u64| (self.real_s.saturating_sub(s) / TICK_S).min(OLD);
        let mut told = self.clone();
        for version in told.disk.versions.values_mut() {
            version.phase = match version.phase {
                Phase::Made { since } => Phase::Made { since: ago(since) },
                Phase::Published { since, seen } => Phase::Published {
                    since: ago(since),
                    seen: seen.map(ago),
                },
                Phase::Active { since } => Phase::Active { since: ago(since) },
                Phase::Retiring { since } => Phase::Retiring { since: ago(since) },
                Phase::Withdrawing { since } => Phase::Withdrawing { since: ago(since) },
                Phase::Withdrawn { since } => Phase::Withdrawn { since: ago(since) },
                phase @ (Phase::Making {}
                | Phase::Listing {}
                | Phase::Destroying {}
                | Phase::Destroyed {}) => phase,
            };
        }
        for (since_s, _) in &mut told.documents {
            *since_s = real_ago(*since_s);
        }
        for until_s in told.valid_until.values_mut() {
            *until_s -= self.real_s;
        }
        told.in_flight = self
            .in_flight
            .map(|(number, begun_s, life)| (number, real_ago(begun_s), life));
        told.mark = Mark::default();
        told.real_s = 0;
        told.boot_began_s = 0;
        told.boots = 0;
        told
    }
}
