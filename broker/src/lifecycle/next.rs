//! What is to be done next with a key.

use super::{Activation, Age, Cause, Change, Gate, Hold, Lineage, Phase, Schedule, Version};
use keystore::KeyVersion;

/// What is known now of what is outside.
pub struct Facts<'a> {
    /// The time.
    pub now: Age,
    /// The key's numbers.
    pub schedule: &'a Schedule,
    /// By how much this key begins earlier than it must, so that not all hosts do so at once.
    pub jitter_s: u64,
    /// What its keystore shows of a version.
    pub shown: &'a dyn Fn(KeyVersion) -> Shown,
    /// Things that were tried a moment ago and did not succeed: they wait for their time.
    pub deferred: &'a [Outside],
}

/// What a keystore shows of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It can sign, and its evidence is enough.
    Usable,
    /// It can sign, and its evidence is less than a target demands.
    TooWeak,
    /// It cannot sign now, or is not there.
    Unusable,
    /// It does not sign in the state that its host is in, for which the next one would be made.
    Unhealthy,
    /// Its keystore has shown nothing yet: it may be any of these.
    Unknown,
}

/// Something to be done outside; to do it again is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outside {
    /// Have the keystore make it; then [`Change::Made`].
    Make(KeyVersion),
    /// Write the documents; then [`Change::Written`].
    Publish,
    /// Have the keystore destroy it; then [`Change::Destroyed`].
    Destroy(KeyVersion),
}

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Write this down, and ask again.
    Write(Change),
    /// Do this, write what came of it, and ask again.
    Do(Outside),
    /// Ask again then, or when something outside has changed.
    Wait(Option<Age>, Waiting),
}

/// For what a key waits: the thing that comes next in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// An operator has stopped it.
    Held,
    /// There is no version that signs, and none is coming: an operator has to act.
    Nothing,
    /// The keystore has to show the coming version as usable.
    Usable(KeyVersion),
    /// Its evidence is less than a target demands.
    Evidence(KeyVersion),
    /// The coming version has to be seen at the public URL.
    Seen(KeyVersion),
    /// It has to be published for long enough.
    Lead(KeyVersion, Age),
    /// An operator registers it and says `activate`.
    ByHand(KeyVersion),
    /// Its canary has to pass: the other side does not know it yet, or has not shown so often enough.
    Canary(KeyVersion),
    /// The next version is begun then.
    Period(Age),
    /// The next version is begun when an operator says `rotate`.
    Rotate,
    /// Something outside did not succeed, and is tried again.
    Again(Outside),
    /// None takes this one's place by itself until it is known to sign in the state that its host is in.
    Healthy(KeyVersion),
}

/// The right to one canary: one assertion of a version that is not active, which goes to the other side's
/// token endpoint and nowhere else (I2). Used once; only [`Lineage::trial`] makes one.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Trial {
    version: KeyVersion,
}

impl Trial {
    /// Of which version.
    pub fn version(&self) -> KeyVersion {
        self.version
    }
}

impl Lineage {
    /// What is to be done next. What ends a version goes before what begins one, so that a token that
    /// is full gets its room.
    pub fn next(&self, facts: &Facts<'_>) -> Next {
        let mut again = None;
        if let Some(change) = self.to_write(facts) {
            return Next::Write(change);
        }
        for outside in self.to_do(facts) {
            match facts.deferred.contains(&outside) {
                false => return Next::Do(outside),
                true => again = again.or(Some(outside)),
            }
        }
        if let Some(change) = self.to_begin(facts) {
            return Next::Write(change);
        }
        let waiting = again.map_or_else(|| self.waiting(facts), Waiting::Again);
        Next::Wait(self.soonest(facts, waiting), waiting)
    }

    /// Changes that follow from the time alone, of versions that sign no more.
    fn to_write(&self, facts: &Facts<'_>) -> Option<Change> {
        let (now, schedule) = (facts.now, facts.schedule);
        self.versions().find_map(|(number, version)| {
            let living = schedule.lifetime_max_s;
            match version.phase {
                Phase::Active { .. } if version.lifetime_max_s < living => {
                    Some(Change::Lifetime(number, living))
                }
                Phase::Retiring { .. } if self.withdrawal(version, schedule)? <= now => {
                    Some(Change::Withdraw(number))
                }
                Phase::Withdrawn { .. } if self.condemnation(number, version, schedule)? <= now => {
                    Some(Change::Condemn(number))
                }
                _ => None,
            }
        })
    }

    /// What intents there are. One to make a version waits where none is to be made: it may be of a time when
    /// the host was in another state.
    fn to_do(&self, facts: &Facts<'_>) -> Vec<Outside> {
        let mut all = Vec::new();
        let documents = |version: &Version| {
            matches!(version.phase, Phase::Listing {} | Phase::Withdrawing { .. })
        };
        if self.versions().any(|(_, version)| documents(version)) {
            all.push(Outside::Publish);
        }
        for (number, version) in self.versions() {
            match version.phase {
                Phase::Destroying {} => all.push(Outside::Destroy(number)),
                Phase::Making {} if self.stays(facts).is_none() => {
                    all.push(Outside::Make(number));
                }
                _ => {}
            }
        }
        all
    }

    /// The active version, if no other may take its place unasked. A version is bound to the state that its
    /// host is in when it is made: a host that was started otherwise would sign again after a rotation, with
    /// a key that nobody has looked at. While nothing is known it may have been.
    fn stays(&self, facts: &Facts<'_>) -> Option<KeyVersion> {
        let (number, _) = self.active()?;
        let shown = (facts.shown)(number);
        matches!(shown, Shown::Unhealthy | Shown::Unknown).then_some(number)
    }

    /// Changes that bring a version further, or begin one.
    fn to_begin(&self, facts: &Facts<'_>) -> Option<Change> {
        if self.hold == Hold::Held {
            return None;
        }
        match self.coming() {
            Some((number, version)) => match version.phase {
                Phase::Made { .. } if (facts.shown)(number) == Shown::Usable => {
                    Some(Change::List(number))
                }
                Phase::Published { .. }
                    if (facts.shown)(number) == Shown::Usable
                        && self.activation(number, version, facts.schedule)? <= facts.now =>
                {
                    Some(Change::Activate(number))
                }
                _ => None,
            },
            None if self.stays(facts).is_some() => None,
            None => {
                let begin = self.beginning(facts)?;
                (begin <= facts.now).then_some(Change::Intend {
                    lifetime_max_s: facts.schedule.lifetime_max_s,
                })
            }
        }
    }

    /// When the next version is to be begun: so early that it can become active when the period ends.
    pub fn beginning(&self, facts: &Facts<'_>) -> Option<Age> {
        let (_, active) = self.active()?;
        let Phase::Active { since } = active.phase else {
            return None;
        };
        let schedule = facts.schedule;
        let ahead_s = schedule.lead_s().saturating_add(facts.jitter_s);
        Some(since.plus(schedule.period_s?.saturating_sub(ahead_s)))
    }

    /// When a published version may become active by itself; the beginning of all time if at once.
    pub fn activation(
        &self,
        number: KeyVersion,
        version: &Version,
        schedule: &Schedule,
    ) -> Option<Age> {
        let Phase::Published { since, seen } = version.phase else {
            return None;
        };
        let mut others = self.versions().filter(|(other, _)| *other != number);
        // Nothing signs and nothing could: who verifies has nothing to lose by another key.
        let emergency = self.active().is_none()
            && others.any(|(_, other)| matches!(other.cause, Cause::Compromise | Cause::Loss));
        if emergency {
            return Some(Age::default());
        }
        let visible = match schedule.gate {
            Gate::Written => since,
            Gate::ReadBack => seen?,
        };
        if self.versions.len() == 1 {
            return Some(Age::default()); // nobody can have kept an older set
        }
        match schedule.activation {
            Activation::ByTime => match schedule.lead_s() {
                0 => Some(Age::default()),
                lead_s => Some(visible.plus(lead_s)),
            },
            Activation::ByHand => None,
            // It has shown what time would only make likely.
            Activation::ByCanary => seen.map(|_| Age::default()),
        }
    }

    /// The right to try a published version at the other side before it is active, if that is what it waits
    /// for.
    pub fn trial(&self, schedule: &Schedule, shown: &dyn Fn(KeyVersion) -> Shown) -> Option<Trial> {
        let (version, coming) = self.coming()?;
        let waits = matches!(coming.phase, Phase::Published { .. })
            && self.activation(version, coming, schedule).is_none();
        let may = self.hold == Hold::Free && shown(version) == Shown::Usable;
        let is_tried = schedule.activation == Activation::ByCanary;
        (waits && may && is_tried).then_some(Trial { version })
    }

    /// When a retiring version is withdrawn: nothing that it signed can be valid any more (I3).
    pub fn withdrawal(&self, version: &Version, schedule: &Schedule) -> Option<Age> {
        let Phase::Retiring { since } = version.phase else {
            return None;
        };
        let living_s = version.lifetime_max_s.max(schedule.lifetime_max_s);
        Some(since.plus(schedule.lag_s(living_s)))
    }

    /// When a withdrawn version is to be destroyed, if ever: not before the documents are without it
    /// (I5), not while somebody may want it back, and not one that is evidence.
    pub fn condemnation(
        &self,
        number: KeyVersion,
        version: &Version,
        schedule: &Schedule,
    ) -> Option<Age> {
        let Phase::Withdrawn { since } = version.phase else {
            return None;
        };
        if !self.has_younger(number) {
            return None;
        }
        match version.cause {
            Cause::Compromise => None,
            Cause::Abandonment => Some(since),
            Cause::Succession | Cause::Loss => Some(since.plus(schedule.rollback_s)),
        }
    }

    fn waiting(&self, facts: &Facts<'_>) -> Waiting {
        if self.hold == Hold::Held {
            return Waiting::Held;
        }
        let stays = self.stays(facts);
        let Some((number, version)) = self.coming() else {
            let Some((active, _)) = self.active() else {
                return Waiting::Nothing;
            };
            let is_unhealthy = (facts.shown)(active) == Shown::Unhealthy;
            return match (self.beginning(facts), stays) {
                (_, Some(active)) if is_unhealthy => Waiting::Healthy(active),
                (Some(begin), Some(active)) if begin <= facts.now => Waiting::Healthy(active),
                (Some(begin), _) => Waiting::Period(begin),
                (None, _) => Waiting::Rotate,
            };
        };
        if let (Phase::Making {}, Some(active)) = (version.phase, stays) {
            return Waiting::Healthy(active);
        }
        match (facts.shown)(number) {
            Shown::TooWeak => return Waiting::Evidence(number),
            Shown::Unusable | Shown::Unhealthy | Shown::Unknown => return Waiting::Usable(number),
            Shown::Usable => {}
        }
        match (
            self.activation(number, version, facts.schedule),
            version.phase,
        ) {
            (Some(at), _) => Waiting::Lead(number, at),
            (None, Phase::Published { seen: None, .. })
                if facts.schedule.gate == Gate::ReadBack =>
            {
                Waiting::Seen(number)
            }
            (None, _) if facts.schedule.activation == Activation::ByCanary => {
                Waiting::Canary(number)
            }
            (None, _) => Waiting::ByHand(number),
        }
    }

    /// When something follows from the time alone.
    fn soonest(&self, facts: &Facts<'_>, waiting: Waiting) -> Option<Age> {
        let ends = self.versions().filter_map(|(number, version)| {
            let (withdrawn, condemned) = (
                self.withdrawal(version, facts.schedule),
                self.condemnation(number, version, facts.schedule),
            );
            withdrawn.or(condemned)
        });
        let begins = match waiting {
            Waiting::Lead(_, at) | Waiting::Period(at) => Some(at),
            _ => None,
        };
        ends.chain(begins).min()
    }
}
