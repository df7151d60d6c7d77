//! From a grant to a signed assertion: a place among those that wait for the keystore, the key that
//! signs for the target, the keystore's mint, and the look at what came back. Nothing it returns has
//! not been verified under the published key; nothing here decides who may have it.

use crate::app::App;
use crate::audit;
use crate::claims::Claims;
use crate::config::Target;
use crate::keyring::ActiveKey;
use crate::keystores::{Busy, Place};
use crate::policy::Grant;
use crate::queue::{Job, Mint, Share, Work};
use crate::reply::Refusal;
use keystore::jws::{Bad, SigningInput};
use keystore::{Assertion, Kind};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;
use tokio::sync::oneshot;

/// Whose share of a keystore a grant uses: its section's.
pub fn share_of(grant: &Grant) -> Share {
    let section = grant.section();
    Share {
        workload: section.name.clone(),
        weight: section.weight,
    }
}

/// A place among those that wait for a keystore.
pub fn place_for(
    app: &App,
    keystore: &str,
    share: &Share,
    deadline: Instant,
) -> Result<Place, Refusal> {
    let Some(keystore) = app.keystores.get(keystore) else {
        let text = format!("keystore {keystore} is not configured any more");
        return Err(Refusal::unavailable("keystore_unavailable", text));
    };
    keystore.reserve(share, deadline).map_err(refusal)
}

/// A place among them for one that waits for what another request has signed, with the future's end.
/// Behind a keystore that says nothing such a crowd would hold all connections of its user.
pub async fn wait_with<F: Future>(
    app: &App,
    keystore: &str,
    share: &Share,
    something: F,
) -> Result<F::Output, Refusal> {
    let mut something = pin!(something);
    let at_once = poll_fn(|context| Poll::Ready(something.as_mut().poll(context)));
    if let Poll::Ready(done) = at_once.await {
        return Ok(done);
    }
    let Some(keystore) = app.keystores.get(keystore) else {
        return Ok(something.await); // it is not configured any more, and the one who signs is told
    };
    let place = keystore.place(share).map_err(refusal)?;
    place.wait(something).await.map_err(keystore_unavailable)
}

fn refusal(busy: Busy) -> Refusal {
    match busy {
        Busy::Full => Refusal::QueueFull,
        Busy::Late(wait) => Refusal::QueueLong(wait),
        Busy::Down(why) => keystore_unavailable(why),
    }
}

/// The key that signs for this target now, and a place in its keystore, which can serve. Just after
/// the start the keystore may not have answered yet: whether it can sign is not known.
pub async fn key_of(
    app: &App,
    grant: &Grant,
    mut place: Place,
    share: &Share,
    deadline: Instant,
) -> Result<(Place, Arc<ActiveKey>), Refusal> {
    let first_answer = place.wait(place.keystore().answered()).await;
    first_answer.map_err(keystore_unavailable)?;
    let key = app
        .keyring
        .active(&grant.target().key)
        .map_err(|unusable| Refusal::unavailable("key_unavailable", unusable))?;
    let (target, level) = (grant.target(), app.keyring.evidence(&key.id));
    if level < target.evidence_min {
        let text = format!(
            "key {}: its evidence is `{level}`, and target {} of workload {} wants `{}` at least; \
             an administrator makes the key in a keystore that can show more, or asks for less",
            key.id, target.name, target.workload, target.evidence_min
        );
        return Err(Refusal::unavailable("evidence_too_low", text));
    }
    if key.keystore != place.keystore().name() {
        place = place_for(app, &key.keystore, share, deadline)?; // the section has changed since the key was made
    }
    match place.keystore().down() {
        Some(why) => Err(keystore_unavailable(why)),
        None => Ok((place, key)),
    }
}

fn keystore_unavailable(why: impl std::fmt::Display) -> Refusal {
    Refusal::unavailable("keystore_unavailable", why)
}

/// Has the keystore mint, within the deadline.
pub async fn mint(
    key: &ActiveKey,
    target: &Target,
    share: Share,
    claims: Claims,
    deadline: Instant,
    place: Place,
) -> Result<String, Refusal> {
    let (reply, answer) = oneshot::channel();
    let job = Job {
        work: Work::Mint(Mint {
            key: key.id.clone(),
            purpose: target.profile.row.purpose,
            claims,
            reply,
        }),
        share,
        since: Instant::now(),
        deadline,
    };
    place.keystore().enqueue(job);
    match within(deadline, place.wait(answer)).await {
        Some(Ok(Ok(Ok(jws)))) => Ok(jws),
        Some(Ok(Ok(Err(error)))) => Err(match error.kind() {
            Kind::Refused => Refusal::unavailable("charter_refused", error),
            Kind::Unhealthy => Refusal::unavailable("key_unavailable", error),
            _ => keystore_unavailable(error),
        }),
        Some(Ok(Err(_))) => Err(keystore_unavailable("the lane has ended")),
        Some(Err(silent)) => Err(keystore_unavailable(silent)),
        None => Err(Refusal::unavailable(
            "deadline",
            "the keystore did not answer in time",
        )),
    }
}

/// B-SIG-2: what comes back must be what was granted, under a signature that verifies; nothing
/// else is ever released. A wrong signature stops the key: its token computes wrongly. Other
/// content is a charter amended a moment ago, and the keystore is looked at again.
pub fn verify(
    app: &App,
    key: &ActiveKey,
    jws: String,
    expected: &SigningInput,
) -> Result<Assertion, Refusal> {
    let checked = Assertion::check(jws, expected, &key.verifier);
    if checked.is_ok() {
        key.note_use(app.clock.read().unix_s());
    }
    checked.map_err(|bad| match bad {
        Bad::Content => {
            if let Some(keystore) = app.keystores.get(&key.keystore) {
                keystore.look_soon();
            }
            Refusal::unavailable("wrong_content", bad)
        }
        Bad::Signature => {
            suspend(app, key, bad);
            Refusal::unavailable("wrong_signature", bad)
        }
    })
}

fn suspend(app: &App, key: &ActiveKey, bad: Bad) {
    app.keyring.suspend(&key.id);
    app.shelf.forget_key(&key.kid);
    eprintln!(
        "assertd: ALERT: key {} (kid {}) is suspended: {bad}",
        key.id, key.kid
    );
    let change = audit::KeyChange::new(&key.id, key.kid.as_str(), audit::KeyAction::Suspended);
    drop(app.audit.key(change)); // recorded if it can be; the key is stopped all the same
}

/// What a future gives before the deadline.
pub async fn within<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    tokio::time::timeout_at(deadline.into(), future).await.ok()
}
