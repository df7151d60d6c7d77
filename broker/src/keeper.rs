//! Keeps keys going: asks each key's lineage what is next and does it, step after step, for as long as
//! assertd runs. What is to be done is decided in [`crate::lifecycle`]; here it is done, each change
//! recorded in the audit log before it is written, and written before anything follows from it.
//!
//! One keeper for each keystore: one that hangs keeps no other's keys waiting.

use crate::app::App;
use crate::audit::{self, KeyChange};
use crate::config::Kept;
use crate::handover::Handovers;
use crate::keyring::{Changed, Seen};
use crate::lifecycle::{Age, Cause, Change, Facts, Hold, Lineage, Next, Outside, Shown, Waiting};
use keystore::protocol::Condition;
use keystore::{Error, KeyId, KeyName, KeyVersion, Kind};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub mod canary;
pub mod counting;
mod early;
pub mod gate;
mod outside;

use counting::Counting;
pub use outside::publish_all;

/// How often it is looked if nothing happens: a time of a key is kept to so much.
const EVERY: Duration = Duration::from_secs(30);

/// So long several changes are taken together, so that thousands of them are not as many looks at all.
const TOGETHER: Duration = Duration::from_millis(50);

/// First and longest wait before something outside is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often the age is written down when no key changes.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// So many steps one key may take in a row; a turn of a whole rotation is ten. More is a fault of ours,
/// and must not keep the others from their turn.
const STEPS_MAX: usize = 50;

/// What keepers know of all keys.
#[derive(Default)]
pub struct Keeper {
    state: Mutex<State>,
    /// One writes documents at a time.
    publishing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<KeyName, (Waiting, Option<String>)>,
    deferred: HashMap<(KeyName, Outside), Deferral>,
    /// What was last found at an issuer's `verify_url`.
    sights: BTreeMap<KeyName, String>,
    /// How far canaries have come.
    canaries: BTreeMap<KeyName, canary::Count>,
    /// Those that are with the courier, by key: a token endpoint may keep one for long, and whoever stops
    /// another key is not to wait for it.
    with_courier: BTreeMap<KeyName, Arc<Handovers>>,
    /// Keys whose last change could not be recorded or written.
    unwritten: HashMap<KeyName, Deferral>,
    /// Keys of which another version signs than the one that comes first in their documents.
    behind: BTreeSet<KeyName>,
}

struct Deferral {
    until: Instant,
    wait: Duration,
    why: String,
}

/// The keys that the configuration in force asks for.
type WantedKeys = Arc<BTreeMap<KeyName, Kept>>;

impl Keeper {
    /// For what a key waits, and why something outside did not succeed.
    pub fn waiting(&self, name: &KeyName) -> Option<(Waiting, Option<String>)> {
        self.lock().waiting.get(name).cloned()
    }

    fn deferred(&self, name: &KeyName) -> (Vec<Outside>, Option<Instant>) {
        let now = Instant::now();
        let state = self.lock();
        let of_key = state.deferred.iter().filter(|((key, _), _)| key == name);
        let waits = of_key.filter(|(_, deferral)| deferral.until > now);
        let mut soonest: Option<Instant> = None;
        let outside = waits.map(|((_, outside), deferral)| {
            soonest = Some(soonest.map_or(deferral.until, |it| it.min(deferral.until)));
            *outside
        });
        let outside: Vec<Outside> = outside.collect();
        (outside, soonest)
    }

    /// It did not succeed: later again, and later still. Said once for each reason.
    fn defer(&self, name: &KeyName, outside: Outside, error: &Error) {
        let why = error.to_string();
        let mut state = self.lock();
        let key = (name.clone(), outside);
        let before = state.deferred.get(&key);
        if before.is_none_or(|before| before.why != why) {
            eprintln!("assertd: key {name}: {why}; tried again");
        }
        let wait = before.map_or(AGAIN.0, |before| (before.wait * 2).min(AGAIN.1));
        let until = Instant::now() + wait;
        state.deferred.insert(key, Deferral { until, wait, why });
    }

    fn succeeded(&self, name: &KeyName, outside: Outside) {
        self.lock().deferred.remove(&(name.clone(), outside));
    }

    fn wait(&self, name: &KeyName, waiting: Waiting) {
        let mut state = self.lock();
        let why = match waiting {
            Waiting::Again(outside) => {
                let deferral = state.deferred.get(&(name.clone(), outside));
                deferral.map(|deferral| deferral.why.clone())
            }
            _ => None,
        };
        state.waiting.insert(name.clone(), (waiting, why));
    }

    fn saw(&self, name: &KeyName, said: String) {
        self.lock().sights.insert(name.clone(), said);
    }

    /// Why a key does not go on, if something could not be done or written down. It is tried again.
    pub fn blocked(&self, name: &KeyName) -> Option<String> {
        let state = self.lock();
        let unwritten = state.unwritten.get(name).map(|it| it.why.clone());
        let undone = || {
            let of_key = state.deferred.iter().find(|((key, _), _)| key == name);
            of_key.map(|(_, deferral)| deferral.why.clone())
        };
        unwritten.or_else(undone)
    }

    /// How long to wait until the next change of a key is tried.
    fn unwritten(&self, name: &KeyName) -> Option<Duration> {
        let state = self.lock();
        let left = state.unwritten.get(name)?.until;
        let left = left.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// It could not be recorded or written: later again, and later still, since every attempt leaves a
    /// record in the audit log. Said once for each reason.
    fn defer_write(&self, name: &KeyName, error: &Error) -> Duration {
        let why = error.to_string();
        let mut state = self.lock();
        let before = state.unwritten.get(name);
        if before.is_none_or(|before| before.why != why) {
            eprintln!("assertd: key {name}: {why}; tried again");
        }
        let wait = before.map_or(AGAIN.0, |before| (before.wait * 2).min(AGAIN.1));
        let until = Instant::now() + wait;
        let deferral = Deferral { until, wait, why };
        state.unwritten.insert(name.clone(), deferral);
        wait
    }

    fn was_written(&self, name: &KeyName) {
        self.lock().unwritten.remove(name);
    }

    fn fall_behind(&self, name: &KeyName) {
        self.lock().behind.insert(name.clone());
    }

    fn catch_up(&self, name: &KeyName) {
        self.lock().behind.remove(name);
    }

    fn is_behind(&self, name: &KeyName) -> bool {
        self.lock().behind.contains(name)
    }

    /// What was last found at an issuer's `verify_url`.
    pub fn sight(&self, name: &KeyName) -> Option<String> {
        self.lock().sights.get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the keys of one keystore, for ever.
pub async fn run(app: Arc<App>, keystore: String) {
    let mut changes = app.keyring.changes();
    let mut wanted = wanted_keys(&app);
    let mut remembered = Instant::now();
    let mut counting = Counting::default();
    loop {
        changes.borrow_and_update();
        if wanted.0 != app.rules.now().generation {
            wanted = wanted_keys(&app);
        }
        let mut wait = EVERY;
        // Nothing is done by records of which nobody has said yet that they are the newest.
        let is_certain = app.keyring.counter(&keystore).is_some();
        for (name, want) in wanted
            .1
            .iter()
            .filter(|(_, want)| is_certain && want.keystore == keystore)
        {
            wait = wait.min(settle(&app, name, want).await);
        }
        for (key, kid) in app.keyring.take_restored(&keystore) {
            let restored = KeyChange::new(&key, kid.as_str(), audit::KeyAction::Restored);
            let told = recorded(&app, restored).await;
            if let Err(error) = told {
                eprintln!("assertd: {error}");
            }
        }
        counting.now_and_then(&app, &keystore).await;
        if remembered.elapsed() >= REMEMBERED {
            remembered = Instant::now();
            if let Err(error) = app.keyring.remember_time() {
                eprintln!("assertd: {error}");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = changes.changed() => tokio::time::sleep(TOGETHER).await,
        }
    }
}

fn wanted_keys(app: &App) -> (u64, WantedKeys) {
    let rules = app.rules.now();
    (rules.generation, Arc::new(rules.config.kept_keys()))
}

/// What a key is found to be, and what is next for it.
struct Look {
    lineage: Lineage,
    now: Age,
    next: Next,
    /// When something outside may be tried again.
    again: Option<Instant>,
}

fn look(app: &App, name: &KeyName, want: &Kept) -> Option<Look> {
    let lineage = app.keyring.lineage(name)?;
    let (deferred, again) = app.keeper.deferred(name);
    let now = app.keyring.now().age;
    let next = lineage.next(&Facts {
        now,
        schedule: &want.schedule,
        jitter_s: early::early_s(app, name, want, &lineage),
        shown: &|version| shown(app, want, &name.version(version)),
        deferred: &deferred,
    });
    Some(Look {
        lineage,
        now,
        next,
        again,
    })
}

/// Does with one key all that can be done now. Answers when to look again.
pub async fn settle(app: &Arc<App>, name: &KeyName, want: &Kept) -> Duration {
    for _ in 0..STEPS_MAX {
        let Some(look) = look(app, name, want) else {
            return EVERY; // `assertctl apply` makes the first version
        };
        let done = match look.next {
            Next::Wait(until, waiting) => {
                app.keeper.wait(name, waiting);
                if app.keeper.is_behind(name) && look.again.is_none() {
                    reorder(app, name).await;
                    continue;
                }
                return pause(look.now, until, look.again);
            }
            Next::Write(change) => match app.keeper.unwritten(name) {
                Some(left) => return left,
                None => write(app, name, &look.lineage, &[change]).await,
            },
            Next::Do(outside) => {
                match outside::carry_out(app, name, want, &look.lineage, outside).await {
                    Ok(done) => {
                        app.keeper.succeeded(name, outside);
                        Ok(done)
                    }
                    Err(error) => {
                        app.keeper.defer(name, outside, &error);
                        continue;
                    }
                }
            }
        };
        match done {
            Ok(_) => app.keeper.was_written(name),
            Err(error) => return app.keeper.defer_write(name, &error),
        }
    }
    eprintln!("assertd: key {name}: does not come to rest; looked at again later");
    EVERY
}

/// Another version signs than before: it comes first in the documents, for verifiers that take the first.
/// Nothing waits for it, since the set is the same.
async fn reorder(app: &Arc<App>, name: &KeyName) {
    match outside::publish_all(app).await {
        Ok(()) => {
            app.keeper.catch_up(name);
            app.keeper.succeeded(name, Outside::Publish);
        }
        Err(error) => app.keeper.defer(name, Outside::Publish, &error),
    }
}

/// Until when nothing can be done, by what is known now.
fn pause(now: Age, until: Option<Age>, again: Option<Instant>) -> Duration {
    let due = until.map_or(EVERY, |until| Duration::from_secs(until.since(now).max(1)));
    let again = again.map_or(EVERY, |at| at.saturating_duration_since(Instant::now()));
    due.min(again).min(EVERY).max(Duration::from_millis(10))
}

/// What a version's keystore shows of it now.
pub fn shown(app: &App, want: &Kept, key: &KeyId) -> Shown {
    let record = app.keyring.key_record(key);
    let keystore = record.and_then(|record| app.keystores.get(&record.keystore));
    let has_keystore = keystore.is_some(); // of one that the configuration has no more nothing will be known
    let is_up = keystore.is_some_and(|keystore| keystore.down().is_none());
    match app.keyring.seen(key) {
        Seen::Shown {
            condition: Condition::Usable {},
            evidence,
            ..
        } if is_up && !app.keyring.is_suspended(key) => {
            // The first one is used by nobody who demands more, which a request is told in so many words.
            let is_weak = evidence.level < want.evidence_min;
            let has_active = || {
                app.keyring
                    .active(&key.name)
                    .is_ok_and(|active| active.id != *key)
            };
            match is_weak && has_active() {
                true => Shown::TooWeak,
                false => Shown::Usable,
            }
        }
        // Also while its keystore is away: it is not to be taken for another reason then.
        Seen::Shown {
            condition:
                Condition::Failed {
                    kind: Kind::Unhealthy,
                    ..
                },
            ..
        } => Shown::Unhealthy,
        Seen::Unknown if has_keystore => Shown::Unknown,
        _ => Shown::Unusable,
    }
}

/// Records changes, writes them, and does what follows from them here.
///
/// # Errors
/// If they could not be recorded or written for certain. What stops a key has stopped it all the same.
pub async fn write(
    app: &Arc<App>,
    name: &KeyName,
    looked_at: &Lineage,
    changes: &[Change],
) -> Result<Changed, Error> {
    for change in changes {
        let recorded = record(app, name, looked_at, *change).await;
        match (recorded, change.stops()) {
            (Ok(()), _) => {}
            // Nothing keeps a key from being stopped.
            (Err(error), true) => eprintln!("assertd: key {name}: {error}"),
            (Err(error), false) => return Err(error),
        }
    }
    let (keyring, name, looked_at) = (app.keyring.clone(), name.clone(), looked_at.clone());
    let changes = changes.to_vec();
    let before = looked_at.clone();
    let written = {
        let (name, changes) = (name.clone(), changes.clone());
        tokio::task::spawn_blocking(move || keyring.change(&name, &looked_at, &changes)).await
    };
    for change in changes.iter().filter(|change| change.stops()) {
        forget(app, &name, &before, *change);
    }
    let activates = |change: &Change| matches!(change, Change::Activate(_));
    if changes.iter().any(activates) && matches!(written, Ok(Ok(Changed::Yes(_)))) {
        app.keeper.fall_behind(&name);
    }
    written.unwrap_or_else(|lost| Err(Error::new(Kind::Internal, lost.to_string())))
}

/// What was signed by what is stopped is not handed out again.
fn forget(app: &App, name: &KeyName, lineage: &Lineage, change: Change) {
    for (version, _) in lineage.versions() {
        let is_meant = match change {
            Change::End(ended, _) => ended == version,
            _ => true,
        };
        if is_meant && let Some(record) = app.keyring.key_record(&name.version(version)) {
            app.shelf.forget_key(&record.public_key.kid());
        }
    }
}

/// The audit record of a change is durable before the change is.
async fn record(app: &App, name: &KeyName, lineage: &Lineage, change: Change) -> Result<(), Error> {
    use audit::KeyAction;
    let of_active = || lineage.active().map(|(version, _)| version);
    let newest = || of_active().or_else(|| lineage.newest());
    let (version, action): (Option<KeyVersion>, KeyAction) = match change {
        Change::List(version) => (Some(version), KeyAction::Published),
        Change::Activate(version) => (Some(version), KeyAction::Activated),
        Change::Withdraw(version) => (Some(version), KeyAction::Withdrawn),
        Change::Condemn(version) => (Some(version), KeyAction::Condemned),
        Change::Destroyed(version) => (Some(version), KeyAction::Destroyed),
        Change::End(version, Cause::Compromise) => (Some(version), KeyAction::Revoked),
        Change::End(version, Cause::Loss) => (Some(version), KeyAction::Lost),
        Change::End(version, _) => (Some(version), KeyAction::Abandoned),
        Change::Hold(Hold::Held) => (newest(), KeyAction::Held),
        Change::Hold(Hold::Free) => (newest(), KeyAction::Resumed),
        Change::Intend { .. }
        | Change::Made(_)
        | Change::Written
        | Change::Seen(_)
        | Change::Unseen(_)
        | Change::Lifetime(..) => return Ok(()),
    };
    let Some(version) = version else {
        return Ok(());
    };
    let key = name.version(version);
    let kid = app
        .keyring
        .key_record(&key)
        .map(|record| record.public_key.kid());
    let kid = kid.as_ref().map_or("", |kid| kid.as_str());
    recorded(app, KeyChange::new(&key, kid, action)).await
}

/// Has something about a key recorded, durably.
///
/// # Errors
/// `Unavailable` if the audit log takes nothing.
pub async fn recorded(app: &App, change: KeyChange) -> Result<(), Error> {
    let key = change.key.as_str().to_owned();
    let no_audit = |why: String| Error::new(Kind::Unavailable, format!("key {key}: audit: {why}"));
    let durable = app.audit.key(change);
    let durable = durable.map_err(|error| no_audit(error.to_string()))?;
    let written = durable.await;
    written.map_err(|_lost| no_audit("the record was not written for certain".to_owned()))
}
