//! How far a version has come, in words: its phase, and what comes next and when.

use super::canary_status;
use crate::app::App;
use crate::config::Kept;
use crate::keeper::canary::NEEDED;
use crate::keyring::{Seen, phase};
use crate::lifecycle::{Age, Cause, Lineage, Phase, Version, Waiting};
use keystore::{KeyId, KeyVersion};

/// What `assertctl keys` shows of a version's life.
pub struct Life {
    /// One word.
    pub phase: &'static str,
    /// Whether it signs no more.
    pub is_over: bool,
    /// What comes next.
    pub next: Option<String>,
    /// When, seconds since 1970.
    pub next_at: Option<u64>,
    /// Since when it is in this phase, seconds since 1970.
    pub since: Option<u64>,
    /// Why its key does not go on: said by the version that signs, or else by the newest.
    pub blocked: Option<String>,
}

impl Life {
    /// Of one version.
    pub fn of(app: &App, lineage: Option<&Lineage>, kept: Option<&Kept>, key: &KeyId) -> Life {
        let none = Lineage::default();
        let lineage = lineage.unwrap_or(&none);
        let Some(version) = lineage.version(key.version) else {
            return Life {
                phase: "recorded",
                is_over: false,
                next: None,
                next_at: None,
                since: None,
                blocked: None,
            };
        };
        let mark = app.keyring.now();
        let coming = kept.and_then(|kept| next(app, kept, lineage, key, version));
        Life {
            phase: phase(lineage, version),
            is_over: !version.is_active() && !version.is_coming(),
            next_at: coming
                .as_ref()
                .and_then(|(_, at)| at.map(|age| mark.wall_of(age))),
            next: coming.map(|(what, _)| what),
            since: version.since().map(|since| mark.wall_of(since)),
            blocked: match lineage.active().or_else(|| lineage.versions().next_back()) {
                Some((number, _)) if number == key.version => app.keeper.blocked(&key.name),
                _ => None,
            },
        }
    }
}

/// What a version waits for.
fn next(
    app: &App,
    kept: &Kept,
    lineage: &Lineage,
    key: &KeyId,
    version: &Version,
) -> Option<(String, Option<Age>)> {
    let name = &key.name;
    match version.phase {
        Phase::Retiring { .. } => {
            let at = lineage.withdrawal(version, &kept.schedule);
            return Some(("leaves the published set".to_owned(), at));
        }
        Phase::Withdrawn { .. } if version.cause == Cause::Compromise => {
            let text = format!("is kept as evidence; assertctl keys destroy {key}");
            return Some((text, None));
        }
        Phase::Withdrawn { .. } => {
            return match lineage.condemnation(key.version, version, &kept.schedule) {
                Some(at) => Some(("is destroyed".to_owned(), Some(at))),
                None => Some(("is destroyed once there is a newer one".to_owned(), None)),
            };
        }
        Phase::Destroying {} | Phase::Destroyed {} | Phase::Withdrawing { .. } => return None,
        _ => {}
    }
    let (waiting, why) = app.keeper.waiting(name)?;
    let because = |text: &str| match &why {
        Some(why) => format!("{text}: {why}"),
        None => text.to_owned(),
    };
    let of = |number: KeyVersion| number == key.version;
    Some(match waiting {
        Waiting::Held => (format!("assertctl keys resume {name}"), None),
        Waiting::Usable(number) if of(number) => ("waits for its keystore".to_owned(), None),
        Waiting::Evidence(number) if of(number) => {
            let text = "its evidence is less than a target demands; another keystore, or a lower `evidence`";
            (text.to_owned(), None)
        }
        Waiting::Seen(number) if of(number) => {
            let waits = "waits to be seen at verify_url";
            let text = match app.keeper.sight(name) {
                Some(said) => format!("{waits}: {said}"),
                None => waits.to_owned(),
            };
            (text, None)
        }
        Waiting::Lead(number, at) if of(number) => ("becomes active".to_owned(), Some(at)),
        Waiting::ByHand(number) if of(number) => {
            let text =
                format!("register it at the other side, then: assertctl keys activate {name}");
            (text, None)
        }
        Waiting::Canary(number) if of(number) => (canary(app, key), None),
        Waiting::Period(at) if version.is_active() => {
            ("the next version is made".to_owned(), Some(at))
        }
        // A version that is not made here comes when its maker makes it.
        Waiting::Rotate if version.is_active() && kept.next.why_none_is_made().is_none() => {
            (format!("assertctl keys rotate {name}"), None)
        }
        Waiting::Healthy(number) if of(number) => {
            let is_known = !matches!(app.keyring.seen(key), Seen::Unknown);
            let text = match is_known {
                true => format!(
                    "none is made while it does not sign in this state of the host; if that is there to \
                     stay: assertctl keys replace-lost {name}"
                ),
                false => "waits for its keystore".to_owned(),
            };
            (text, None)
        }
        Waiting::Again(_) if version.is_coming() => (because("tried again"), None),
        Waiting::Again(_) if version.is_active() => ("tried again".to_owned(), None),
        _ => return None,
    })
}

/// How far its canary has come.
fn canary(app: &App, key: &KeyId) -> String {
    let status = canary_status(app, key);
    let passed = status.as_ref().map_or(0, |status| status.passed);
    let waits = format!("waits for its canary, {passed} of {NEEDED} passed");
    match status.and_then(|status| status.why) {
        Some(why) => format!("{waits}: {why}"),
        None => waits,
    }
}
