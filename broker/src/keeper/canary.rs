//! The canary: a version of a key that another side is told of signs once that side has shown that it knows it, by
//! access tokens for assertions of that version (standards §5.2, §5.4 step 5). Nobody gets these tokens. While it is
//! refused the version before goes on signing, and status says why.
//!
//! The assertion is made as for a request, but by a [`Trial`] in place of a grant; its record is durable
//! before it is signed, and it goes to the courier and to nobody else. What came of it is counted here, in
//! memory: after a restart it begins anew.

use super::{Keeper, TOGETHER, recorded, shown, write};
use crate::app::App;
use crate::audit::{KeyChange, Sha256};
use crate::claims::{Claims, JTI_BYTES};
use crate::config::{Canary, Kept, Section, Target};
use crate::courier::{self, Client, Failure, Why};
use crate::handover::Handovers;
use crate::http::REQUEST_DEADLINE;
use crate::id::random;
use crate::keyring::ActiveKey;
use crate::lifecycle::{Change, Lineage, Trial};
use crate::minting::{mint, place_for, verify};
use crate::queue::Share;
use crate::reply::Refusal;
use keystore::jws::SigningInput;
use keystore::{KeyName, Kid};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

mod count;

pub use count::{Count, NEEDED, Standing};

/// How often it is looked if nothing happens.
const EVERY: Duration = Duration::from_secs(30);

/// How often it is looked at least whether a key was stopped while its canary is under way.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Under way at a time: no more than the courier does at a time, with a place left for the gate.
const AT_ONCE: usize = 3;

/// A version that is to be tried now.
struct Candidate {
    section: Arc<Section>,
    target: Arc<Target>,
    canary: Canary,
    lineage: Lineage,
    trial: Trial,
    /// Of the configuration that says so.
    generation: u64,
}

/// Tries for ever.
pub async fn run(app: Arc<App>) {
    let mut changes = app.keyring.changes();
    let mut generation = app.rules.now().generation;
    loop {
        changes.borrow_and_update();
        let current = app.rules.now().generation;
        if std::mem::replace(&mut generation, current) != current {
            app.keeper.keep_canaries(&BTreeMap::new()); // what was wrong may be right now
        }
        let mut trials = JoinSet::new();
        for candidate in due(&app) {
            if trials.len() >= AT_ONCE {
                trials.join_next().await;
            }
            let app = app.clone();
            trials.spawn(async move { try_one(&app, candidate).await });
        }
        while trials.join_next().await.is_some() {}
        let wait = app.keeper.until_next_canary().min(EVERY);
        tokio::select! {
            () = sleep(wait.max(TOGETHER)) => {}
            _ = changes.changed() => sleep(TOGETHER).await,
        }
    }
}

/// Those whose time it is. Of what waits for its canary no more nothing is remembered.
fn due(app: &App) -> Vec<Candidate> {
    let rules = app.rules.now();
    if rules.config.canaries().next().is_none() {
        app.keeper.keep_canaries(&BTreeMap::new());
        return Vec::new();
    }
    let kept = rules.config.kept_keys();
    let waiting: Vec<Candidate> = rules
        .config
        .canaries()
        .filter_map(|(section, target, canary)| {
            let (lineage, trial) = trial(app, kept.get(&target.key)?, &target.key)?;
            Some(Candidate {
                section: section.clone(),
                target: target.clone(),
                canary: canary.clone(),
                lineage,
                trial,
                generation: rules.generation,
            })
        })
        .collect();
    let versions = waiting
        .iter()
        .map(|it| (it.target.key.clone(), it.trial.version()));
    app.keeper.keep_canaries(&versions.collect());
    let is_due = |it: &Candidate| app.keeper.canary_is_due(&it.target.key);
    waiting.into_iter().filter(is_due).collect()
}

/// The right to try a version of this key. By records of which nobody has said yet that they are the
/// newest nothing is tried either.
fn trial(app: &App, kept: &Kept, name: &KeyName) -> Option<(Lineage, Trial)> {
    let _certain = app.keyring.counter(&kept.keystore)?;
    let lineage = app.keyring.lineage(name)?;
    let shown = |version| shown(app, kept, &name.version(version));
    let trial = lineage.trial(&kept.schedule, &shown)?;
    Some((lineage, trial))
}

/// Tries one, and notes what came of it.
async fn try_one(app: &Arc<App>, candidate: Candidate) {
    let Candidate {
        section,
        target,
        canary,
        lineage,
        trial,
        generation,
    } = candidate;
    let (name, version) = (&target.key, trial.version());
    let is_in_force = || app.rules.now().generation == generation;
    // It may have waited for others.
    if !is_in_force() || app.keyring.lineage(name).as_ref() != Some(&lineage) {
        return;
    }
    let span = Duration::from_secs(canary.span_s);
    let begun = Instant::now();
    let outcome = redeem(app, &section, &target, &canary, trial).await;
    if !is_in_force() {
        return; // another endpoint may be meant now, and the count begins anew
    }
    let standing = app.keeper.note_canary(name, |count| match &outcome {
        Ok(()) => count.pass(begun, Instant::now(), span),
        Err(why) => {
            if count.fail(Instant::now(), span, why.clone()) {
                eprintln!("assertd: key {}: its canary: {why}", name.version(version));
            }
            Standing::More
        }
    });
    if standing == Standing::Enough {
        // Where somebody has changed the key meanwhile it is looked at anew, and the next one is enough again.
        if let Err(error) = write(app, name, &lineage, &[Change::Seen(version)]).await {
            eprintln!("assertd: {error}");
        }
    }
}

/// Has one assertion signed and redeemed.
async fn redeem(
    app: &App,
    section: &Section,
    target: &Target,
    canary: &Canary,
    trial: Trial,
) -> Result<(), String> {
    let id = target.key.version(trial.version());
    let deadline = Instant::now() + REQUEST_DEADLINE;
    let share = Share {
        workload: section.name.clone(),
        weight: section.weight,
    };
    let key = app.keyring.on_trial(&id).ok_or("it cannot sign now")?;
    let place = place_for(app, &key.keystore, &share, deadline).map_err(said)?;
    let now = app.clock.trusted().map_err(said_of)?;
    let jti = random::<JTI_BYTES>().map_err(said_of)?;
    let claims = Claims::for_trial(trial, target, &key.public_key, now, jti);
    let expected = SigningInput::new(&key.header, claims.wire());
    let digest = Sha256::of(claims.wire().to_json().as_bytes());
    let record = KeyChange::canary(&id, key.kid.as_str(), digest);
    recorded(app, record).await.map_err(said_of)?;
    let jws = mint(&key, target, share, claims, deadline, place).await;
    let assertion = verify(app, &key, jws.map_err(said)?, &expected).map_err(said)?;
    let question = courier::Canary {
        workload: target.workload.to_string(),
        target: target.name.clone(),
        assertion: assertion.as_str().to_owned().try_into()?,
    };
    let handovers = app.keeper.with_courier(&target.key);
    let stopped = until_stopped(app, &key);
    let runtime_dir = app.rules.now().config.server.runtime_dir.clone();
    let client = Client::new(runtime_dir.join(courier::SOCKET));
    let redeemed = async {
        let handover = handovers.begin(); // before the look
        app.keyring.may_release(&id).map_err(said_of)?;
        let redeemed = client.redeem(question, &canary.token_endpoint, courier::DEADLINE);
        let redeemed = redeemed.await.map_err(|why| sentence(&why, &key.kid));
        drop(handover);
        redeemed
    };
    tokio::select! {
        redeemed = redeemed => redeemed,
        why = stopped => Err(why), // the courier is hung up on, and ends its visit
    }
}

/// Waits until a key is stopped: whoever stops it is not to wait for a token endpoint.
async fn until_stopped(app: &App, key: &ActiveKey) -> String {
    let mut changes = app.keyring.changes();
    loop {
        if let Err(why) = app.keyring.may_release(&key.id) {
            return why.to_string();
        }
        // Of a change that could not be written nobody is told, and it stops a key all the same.
        let _ = timeout(LOOK_AGAIN, changes.changed()).await;
    }
}

/// Why there was no access token, with what is to be done.
fn sentence(why: &Why, kid: &Kid) -> String {
    let Why::Failed(failed) = why else {
        return why.to_string();
    };
    let word = failed.error.as_ref().map(courier::ErrorCode::as_str);
    match (failed.kind, word) {
        (Failure::Refused(_), Some("invalid_client")) => {
            format!("{failed}: register kid {kid} there")
        }
        (Failure::Refused(_), Some("invalid_scope" | "invalid_target" | "invalid_request")) => {
            format!("{failed}: correct `scope` or `audience` of its canary")
        }
        (Failure::Refused(_), Some("unauthorized_client" | "unsupported_grant_type")) => {
            format!("{failed}: let the client use client_credentials there")
        }
        _ => failed.to_string(),
    }
}

fn said(refusal: Refusal) -> String {
    match refusal {
        Refusal::Unavailable { detail, .. } => detail,
        other => other.code().to_owned(),
    }
}

fn said_of(error: impl Display) -> String {
    error.to_string()
}

impl Keeper {
    /// How far the canary of a key has come.
    pub fn canary(&self, name: &KeyName) -> Option<Count> {
        self.lock().canaries.get(name).cloned()
    }

    /// Remembers those of these versions, and no others.
    fn keep_canaries(&self, versions: &BTreeMap<KeyName, keystore::KeyVersion>) {
        let mut state = self.lock();
        let is_kept = |name: &KeyName, count: &Count| versions.get(name) == Some(&count.version());
        state.canaries.retain(|name, count| is_kept(name, count));
        state
            .with_courier
            .retain(|name, _| versions.contains_key(name)); // none is under way now
        for (name, version) in versions {
            let count = state.canaries.entry(name.clone());
            count.or_insert_with(|| Count::of(*version));
        }
    }

    /// Those of a key that are with the courier.
    fn with_courier(&self, name: &KeyName) -> Arc<Handovers> {
        let mut state = self.lock();
        state.with_courier.entry(name.clone()).or_default().clone()
    }

    /// Waits until no canary of a key that was stopped is with the courier: it is broken off at once.
    pub async fn canary_is_over(&self, name: &KeyName) {
        let handovers = self.lock().with_courier.get(name).cloned();
        if let Some(handovers) = handovers {
            handovers.over().await;
        }
    }

    fn canary_is_due(&self, name: &KeyName) -> bool {
        let state = self.lock();
        let count = state.canaries.get(name);
        count.is_some_and(|count| count.wait(Instant::now()).is_zero())
    }

    /// Notes what came of one; of a version that is not remembered any more nothing follows.
    fn note_canary(&self, name: &KeyName, note: impl FnOnce(&mut Count) -> Standing) -> Standing {
        match self.lock().canaries.get_mut(name) {
            Some(count) => note(count),
            None => Standing::More,
        }
    }

    fn until_next_canary(&self) -> Duration {
        let (state, now) = (self.lock(), Instant::now());
        let waits = state.canaries.values().map(|count| count.wait(now));
        waits.min().unwrap_or(Duration::MAX)
    }
}
