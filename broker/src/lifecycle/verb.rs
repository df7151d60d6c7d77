//! What an operator may ask of a key, and what is done for it: the changes, or why not.

use super::{Activation, Age, Cause, Change, Gate, Hold, Lineage, Phase, Schedule, Shown};
use keystore::KeyVersion;

/// What an operator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Begin the next version now.
    Rotate,
    /// Let a published version sign, or one that retires do so again; or take a withdrawn one back.
    Activate(KeyVersion, Haste),
    /// Stop the key.
    Hold,
    /// Let it go on.
    Resume,
    /// Somebody may have misused this version: nothing of it is believed any more.
    Revoke(KeyVersion),
    /// Give up a version that has not signed.
    Abandon(KeyVersion),
    /// Destroy a withdrawn version before its time.
    Destroy(KeyVersion),
    /// The token of this version is gone: go on with another one.
    ReplaceLost(KeyVersion),
}

/// Whether the time that verifiers need is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// It is.
    None,
    /// It is not: some of them will refuse what is signed for as long as they keep an older set.
    Now,
}

/// Why not. The text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such version.
    NoVersion(KeyVersion),
    /// A version is on its way already.
    Coming(KeyVersion),
    /// It is not where the verb could take it from.
    Phase(KeyVersion, Phase),
    /// It has to be published for longer; until when.
    TooSoon(KeyVersion, Age),
    /// It was not seen at the public URL.
    NotSeen(KeyVersion),
    /// Its canary has not passed.
    NotTried(KeyVersion),
    /// Its keystore does not show it as usable.
    Unusable(KeyVersion),
    /// It does not sign in the state that its host is in: the next one would be made for that state.
    Unhealthy(KeyVersion),
    /// Its keystore shows it: it is not lost.
    NotLost(KeyVersion),
    /// It is the newest: another one has to be made first.
    Newest(KeyVersion),
    /// It was revoked, and stays so.
    Compromised(KeyVersion),
    /// The key is stopped already, or is not.
    Already(Hold),
    /// Something it has signed may still be valid; until when.
    StillNeeded(KeyVersion, Age),
}

impl Lineage {
    /// The changes that a verb takes, to be written in this order.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn ask(
        &self,
        verb: Verb,
        schedule: &Schedule,
        shown: &dyn Fn(KeyVersion) -> Shown,
        now: Age,
    ) -> Result<Vec<Change>, Refused> {
        let intend = Change::Intend {
            lifetime_max_s: schedule.lifetime_max_s,
        };
        let phase = |number| match self.version(number) {
            Some(version) => Ok((version.phase, version.cause)),
            None => Err(Refused::NoVersion(number)),
        };
        match verb {
            Verb::Rotate => match (self.coming(), self.active()) {
                (Some((number, _)), _) => Err(Refused::Coming(number)),
                (None, Some((number, _))) if shown(number) == Shown::Unhealthy => {
                    Err(Refused::Unhealthy(number))
                }
                (None, _) => Ok(vec![intend]),
            },
            Verb::Hold | Verb::Resume => {
                let hold = match verb {
                    Verb::Hold => Hold::Held,
                    _ => Hold::Free,
                };
                match self.hold == hold {
                    true => Err(Refused::Already(hold)),
                    false => Ok(vec![Change::Hold(hold)]),
                }
            }
            Verb::Activate(number, haste) => {
                let (phase, cause) = phase(number)?;
                if cause == Cause::Compromise {
                    return Err(Refused::Compromised(number));
                }
                self.activate(number, phase, haste, schedule, shown, now)
            }
            Verb::Revoke(number) => match phase(number)? {
                (_, Cause::Compromise) => Err(Refused::Compromised(number)),
                (phase @ (Phase::Making {} | Phase::Destroying {} | Phase::Destroyed {}), _) => {
                    Err(Refused::Phase(number, phase))
                }
                _ => Ok(vec![Change::End(number, Cause::Compromise)]),
            },
            Verb::Abandon(number) => match phase(number)?.0 {
                Phase::Made { .. } | Phase::Listing {} | Phase::Published { .. } => {
                    Ok(vec![Change::End(number, Cause::Abandonment)])
                }
                phase => Err(Refused::Phase(number, phase)),
            },
            Verb::Destroy(number) => match phase(number)? {
                (Phase::Withdrawn { .. }, _) if !self.has_younger(number) => {
                    Err(Refused::Newest(number))
                }
                (Phase::Withdrawn { .. }, _) => Ok(vec![Change::Condemn(number)]),
                (phase @ Phase::Retiring { .. }, _) => {
                    let version = self.version(number);
                    match version.and_then(|version| self.withdrawal(version, schedule)) {
                        Some(until) => Err(Refused::StillNeeded(number, until)),
                        None => Err(Refused::Phase(number, phase)),
                    }
                }
                (phase, _) => Err(Refused::Phase(number, phase)),
            },
            Verb::ReplaceLost(number) => {
                let (phase, _) = phase(number)?;
                if matches!(shown(number), Shown::Usable | Shown::TooWeak) {
                    return Err(Refused::NotLost(number));
                }
                match phase {
                    Phase::Active { .. } => {
                        let end = Change::End(number, Cause::Loss);
                        Ok(match self.coming() {
                            Some(_) => vec![end],
                            None => vec![end, intend],
                        })
                    }
                    Phase::Made { .. } | Phase::Listing {} | Phase::Published { .. } => {
                        Ok(vec![Change::End(number, Cause::Abandonment), intend])
                    }
                    phase => Err(Refused::Phase(number, phase)),
                }
            }
        }
    }

    fn activate(
        &self,
        number: KeyVersion,
        phase: Phase,
        haste: Haste,
        schedule: &Schedule,
        shown: &dyn Fn(KeyVersion) -> Shown,
        now: Age,
    ) -> Result<Vec<Change>, Refused> {
        if shown(number) != Shown::Usable {
            return Err(Refused::Unusable(number));
        }
        match phase {
            Phase::Retiring { .. } => Ok(vec![Change::Activate(number)]),
            Phase::Withdrawn { .. } => match self.coming() {
                Some((coming, _)) => Err(Refused::Coming(coming)),
                None => Ok(vec![Change::List(number)]),
            },
            Phase::Published { since, seen } => {
                if (schedule.activation, haste, seen) == (Activation::ByCanary, Haste::None, None) {
                    return Err(Refused::NotTried(number));
                }
                let visible = match (schedule.gate, haste) {
                    (Gate::Written, _) | (_, Haste::Now) => since,
                    (Gate::ReadBack, Haste::None) => seen.ok_or(Refused::NotSeen(number))?,
                };
                let lead_s = match (schedule.activation, haste) {
                    (Activation::ByHand | Activation::ByCanary, _) | (_, Haste::Now) => 0,
                    (Activation::ByTime, Haste::None) => schedule.lead_s(),
                };
                match visible.plus(lead_s) {
                    at if lead_s > 0 && at > now => Err(Refused::TooSoon(number, at)),
                    _ => Ok(vec![Change::Activate(number)]),
                }
            }
            phase => Err(Refused::Phase(number, phase)),
        }
    }
}
