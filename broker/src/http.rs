//! The workloads' requests. [`assertion`] is the main job, one step a line; the rest of the file
//! is what the lines say. Every refusal of policy is the same answer; why stands in the audit log.

use crate::app::App;
use crate::attestation::{self, Unknown};
use crate::audit::{self, Outcome};
use crate::claims::{Claims, JTI_BYTES};
use crate::id::{NoRandom, RequestId, random};
use crate::keyring::ActiveKey;
use crate::minting::{key_of, mint, place_for, share_of, verify, wait_with, within};
use crate::peer::{Life, Peer};
use crate::policy::{Decision, Grant};
use crate::rate::Verdict;
use crate::recent::Denied;
use crate::reply::{self, Answer, Content, Envelope, Refusal};
use crate::reuse::{Moment, Reuse, Terms, Ticket, Turn, Use};
use crate::rules::Rules;
use crate::workload::Workload;
use assertd_client::api::{
    ASSERTION_PATH, AssertionRequest, BODY_LEN_MAX, TARGETS_PATH, TargetInfo, Targets, WHOAMI_PATH,
    Whoami,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request};
use keystore::jws::SigningInput;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a request may take from its last byte to its answer.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// How long a body may take from the head's end.
pub const BODY_DEADLINE: Duration = Duration::from_secs(2);

/// Denials per second and at once for one uid, before it is told to slow down. A misconfigured
/// service retries a few times a second; nobody needs more.
const DENIALS: (u32, u32) = (20, 100);

/// How long the 429 of a uid that is denied too often is held back. With all of its connections
/// open such a uid gets 512 answers a second, which costs a core a few per cent.
const DENIAL_PAUSE: Duration = Duration::from_millis(500);

/// Answers one request of a peer.
pub async fn answer(app: Arc<App>, peer: Arc<Peer>, request: Request<Incoming>) -> Answer {
    let id = app.request_id();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let result = match (&method, path.as_str()) {
        (&Method::POST, ASSERTION_PATH) => {
            let result = match parse(request).await {
                Ok(asked) => assertion(&app, &peer, id, asked).await,
                Err(refusal) => Err(refusal),
            };
            app.counts.note(&result);
            if let Err(Refusal::DeniedTooOften) = &result {
                tokio::time::sleep(DENIAL_PAUSE).await; // a flood takes its connections' time, not ours
            }
            result
        }
        (&Method::GET, WHOAMI_PATH) => whoami(&app, &peer, id).await,
        (&Method::GET, TARGETS_PATH) => targets(&app, &peer, id).await,
        (_, ASSERTION_PATH | WHOAMI_PATH | TARGETS_PATH) => Err(Refusal::Method),
        _ => Err(Refusal::Path),
    };
    result.unwrap_or_else(|refusal| reply::problem(&refusal, id.as_str()))
}

/// Answers one who could be another: nothing is read, nothing is decided.
pub fn connect_again(app: &App) -> Answer {
    app.counts.note(&Err(Refusal::ConnectAgain));
    reply::problem(&Refusal::ConnectAgain, app.request_id().as_str())
}

/// Answers one whom the kernel does not let us know, whatever it asks. Why is in the log alone.
pub fn nobody_known(app: &App) -> Answer {
    let detail = "assertd cannot tell who is calling; its log says why";
    let refusal = || Refusal::unavailable("peer_unknown", detail);
    app.counts.note(&Err(refusal()));
    reply::problem(&refusal(), app.request_id().as_str())
}

/// An assertion, and what was recorded of it.
pub struct Signed {
    envelope: Envelope,
    content: Content,
    key: Arc<ActiveKey>,
    /// The request that it was signed for.
    id: RequestId,
}

/// A request that somebody may have an answer to, by when.
struct Asking<'a> {
    app: &'a App,
    peer: &'a Peer,
    id: RequestId,
    workload: &'a Workload,
    deadline: Instant,
}

/// The main job.
async fn assertion(
    app: &App,
    peer: &Peer,
    id: RequestId,
    asked: AssertionRequest,
) -> Result<Answer, Refusal> {
    let deadline = Instant::now() + REQUEST_DEADLINE;
    let rules = app.rules.now(); // one look: a reload meanwhile is the next request's
    let workload = attest(app, &rules, peer, id, Some(&asked.target)).await?;
    let grant = decide(app, &rules, &workload, id, &asked)?;
    let asking = Asking {
        app,
        peer,
        id,
        workload: &workload,
        deadline,
    };
    match turn(app, &rules, &grant, deadline).await? {
        Turn::Kept(kept) => again(&asking, grant, &kept.what).await,
        Turn::Mint(ticket) => afresh(&asking, grant, ticket).await,
    }
}

/// An assertion of its own for this request.
async fn afresh(
    asking: &Asking<'_>,
    grant: Grant,
    ticket: Ticket<Arc<Signed>>,
) -> Result<Answer, Refusal> {
    let Asking { app, deadline, .. } = *asking;
    let share = share_of(&grant);
    let place = place_for(app, &grant.target().keystore, &share, deadline)?;
    let (place, key) = key_of(app, &grant, place, &share, deadline).await?;
    let ticket = ticket.under(&key.kid); // another version may have become active meanwhile

    let now = trusted_time(app)?;
    let granted = reply::Granted::of(&grant);
    let (target, lifetime_s) = (grant.target().clone(), grant.lifetime_s());
    let jti = random::<JTI_BYTES>().map_err(no_random)?;
    let claims = Claims::from_grant(grant, &key.public_key, now.wall, jti);
    let expected = SigningInput::new(&key.header, claims.wire());

    let content = Content::of(claims.wire());
    let evidence = app.keyring.evidence(&key.id);
    let record = reply::decision_record(
        asking.id,
        asking.workload,
        &granted,
        &key,
        evidence,
        &content,
    );
    let mut durable = app.audit.decision(record).map_err(no_audit)?;
    let minted = async {
        let jws = mint(&key, &target, share, claims, deadline, place).await?;
        verify(app, &key, jws, &expected) // while the record is on its way to the disk
    };
    let (recorded, minted) = tokio::join!(within(deadline, &mut durable), minted);

    let signed = match (recorded, minted) {
        (Some(Ok(())), Ok(assertion)) => Ok(Signed {
            envelope: Envelope::new(&assertion, content.exp(), key.kid.as_str(), &target.name),
            content,
            key,
            id: asking.id,
        }),
        (_, Err(refusal)) => Err(refusal),
        (_, Ok(_never_released)) => Err(Refusal::AUDIT_NOT_DURABLE),
    };
    let released = signed.map(Arc::new).and_then(|signed| {
        ticket.fill(signed.clone(), now, lifetime_s); // whoever waits may have it, whatever became of us
        release(asking, &signed)
    });
    durable.outcome(outcome(&released));
    released
}

/// The assertion that was signed for an earlier request, or for one at the same time, under a record
/// of its own.
async fn again(asking: &Asking<'_>, grant: Grant, signed: &Signed) -> Result<Answer, Refusal> {
    let Asking { app, deadline, .. } = *asking;
    let granted = reply::Granted::of(&grant);
    let (key, content) = (&signed.key, &signed.content);
    let evidence = app.keyring.evidence(&key.id);
    let mut record =
        reply::decision_record(asking.id, asking.workload, &granted, key, evidence, content);
    record.reuse = Some(audit::Reuse {
        of: signed.id.as_str().into(),
        at: trusted_time(app)?.wall.unix_s(),
    });
    let mut durable = app.audit.decision(record).map_err(no_audit)?;
    let released = match within(deadline, &mut durable).await {
        Some(Ok(())) => release(asking, signed),
        _ => Err(Refusal::AUDIT_NOT_DURABLE),
    };
    durable.outcome(outcome(&released));
    app.counts.reused(&released);
    released
}

/// Whether there is one to hand out again, or it is this request's turn to have one signed.
async fn turn(
    app: &App,
    rules: &Rules,
    grant: &Grant,
    deadline: Instant,
) -> Result<Turn<Arc<Signed>>, Refusal> {
    let (section, target) = (grant.section(), grant.target());
    let mut key = match target.reuse {
        Reuse::Never => return Ok(Turn::Mint(Ticket::alone())),
        Reuse::UntilHalf => app.keyring.active(&target.key),
    };
    if key.is_err()
        && let Some(keystore) = app.keystores.get(&target.keystore)
    {
        // Just after the start it is not known yet, and a crowd that comes then is one as well.
        let first_answer = within(deadline, keystore.answered());
        wait_with(app, &target.keystore, &share_of(grant), first_answer).await?;
        key = app.keyring.active(&target.key);
    }
    let Ok(key) = key else {
        return Ok(Turn::Mint(Ticket::alone())); // on the way to a signature it is said why not
    };
    let of = Use {
        workload: section.name.clone(),
        target: target.name.clone(),
        terms: Terms {
            lifetime_s: grant.lifetime_s(),
            generation: rules.generation,
            kid: key.kid.clone(),
        },
    };
    let turn = within(deadline, app.shelf.turn(&of, || trusted_time(app)));
    let turn = wait_with(app, &key.keystore, &share_of(grant), turn).await?;
    turn.unwrap_or_else(|| {
        let detail = "others asked for the same, and the keystore did not answer them in time";
        Err(Refusal::unavailable("deadline", detail))
    })
}

/// Reads and parses the body: one JSON object with the members we know, within limit and time.
async fn parse(request: Request<Incoming>) -> Result<AssertionRequest, Refusal> {
    if request.uri().query().is_some() {
        return Err(Refusal::invalid("there is no query here"));
    }
    let body = Limited::new(request.into_body(), BODY_LEN_MAX).collect();
    let bytes = match tokio::time::timeout(BODY_DEADLINE, body).await {
        Err(_) => return Err(Refusal::BodyTimeout),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Refusal::BodyTooLong),
        Ok(Err(_)) => return Err(Refusal::invalid("the body broke off")),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    let asked: AssertionRequest = object(&bytes)?;
    if keystore::keyid::check_part(&asked.target).is_err() {
        return Err(Refusal::invalid("`target` is not a target's name"));
    }
    if asked.lifetime == Some(0) {
        return Err(Refusal::invalid("`lifetime` is at least 1 second"));
    }
    Ok(asked)
}

/// One JSON object: for a struct, serde would take an array of its members' values too.
pub fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::invalid("the body is not a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| Refusal::invalid(&error.to_string()))
}

/// Who is calling. A peer that cannot be attested is denied like any other.
async fn attest(
    app: &App,
    rules: &Rules,
    peer: &Peer,
    id: RequestId,
    target: Option<&str>,
) -> Result<Workload, Refusal> {
    let unattested = match attestation::attest(app, rules, peer, target).await {
        Ok(workload) => return Ok(workload),
        Err(Unknown::NoWitness(why)) => {
            app.unwitnessed.say(&why); // not to the caller: it would learn that a section asks
            let detail = "assertd cannot find out who is calling now; its log says why";
            return Err(Refusal::unavailable("witness_unavailable", detail));
        }
        Err(Unknown::Unattested(unattested)) => unattested,
    };
    app.audit.denied(audit::Denial {
        id: id.as_str(),
        uid: peer.uid(),
        gid: peer.gid(),
        pid: peer.pid(),
        unit: None,
        target: target.filter(|target| rules.policy.knows_target(target)),
        reason: unattested.reason(),
    });
    Err(Refusal::Denied)
}

/// What it may have, and whether it asks too often.
fn decide(
    app: &App,
    rules: &Rules,
    workload: &Workload,
    id: RequestId,
    asked: &AssertionRequest,
) -> Result<Grant, Refusal> {
    let now = app.clock.read();
    let decision = rules
        .policy
        .decide(workload, &asked.target, asked.lifetime, now);
    match (decision, rules.denied.hit(workload)) {
        (Decision::Allow(_not_used), Some(hit)) => {
            Err(deny(app, rules, workload, id, &asked.target, hit.reason()))
        }
        (Decision::Allow(grant), None) => {
            let section = grant.section();
            let verdict = app.workload_rate.check(
                section.name.clone(),
                section.rate_per_s,
                section.burst,
                Instant::now(),
            );
            if let Verdict::Wait(wait) = verdict {
                return Err(Refusal::TooFast(wait));
            }
            match target_rate(app, &grant) {
                Verdict::Go => Ok(grant),
                Verdict::Wait(wait) => Err(Refusal::TooFast(wait)),
            }
        }
        (Decision::Deny(denial), _) => Err(deny(
            app,
            rules,
            workload,
            id,
            &asked.target,
            denial.reason(),
        )),
    }
}

/// Records and remembers a denial; the caller learns its id and nothing else.
fn deny(
    app: &App,
    rules: &Rules,
    workload: &Workload,
    id: RequestId,
    target: &str,
    reason: &'static str,
) -> Refusal {
    let is_known = rules.policy.knows_target(target);
    app.audit.denied(audit::Denial {
        id: id.as_str(),
        uid: workload.uid(),
        gid: workload.gid(),
        pid: workload.pid(),
        unit: workload.unit().map(|unit| unit.path()),
        target: is_known.then_some(target),
        reason,
    });
    let (rate, burst) = DENIALS;
    let often = app
        .denial_rate
        .check(workload.uid(), rate, burst, Instant::now());
    match often {
        Verdict::Go => {
            app.recent.note(Denied {
                id: id.to_string(),
                at: app.clock.read(),
                workload: workload.with_groups(|group| rules.policy.names_group(group)),
                target: target.to_owned(),
                reason,
            });
            Refusal::Denied
        }
        Verdict::Wait(_) => Refusal::DeniedTooOften,
    }
}

/// Whether a target with a rate of its own is asked for too often.
fn target_rate(app: &App, grant: &Grant) -> Verdict {
    let target = grant.target();
    let Some((rate, burst)) = target.rate else {
        return Verdict::Go;
    };
    let name = (target.workload.clone(), target.name.clone());
    app.target_rate.check(name, rate, burst, Instant::now())
}

/// The last look before release: a credential goes to a living peer or to nobody, and no more once its
/// key is stopped or its life is over, as after a host has slept.
fn release(asking: &Asking<'_>, signed: &Signed) -> Result<Answer, Refusal> {
    let handover = asking.app.handovers.begin(); // before the look
    if let Err(why) = asking.app.keyring.may_release(&signed.key.id) {
        return Err(Refusal::unavailable("key_unavailable", why));
    }
    if asking.app.clock.read().unix_s() >= signed.content.exp() {
        let why = "it expired while it was made; ask again, for a longer life if the token is slow";
        return Err(Refusal::unavailable("expired", why));
    }
    match asking.peer.life() {
        Life::Running => {
            let mut answer = signed.envelope.addressed(asking.id);
            answer.extensions_mut().insert(handover); // until the kernel has the answer
            Ok(answer)
        }
        Life::Over => Err(Refusal::PeerGone),
    }
}

/// The time to mint by.
fn trusted_time(app: &App) -> Result<Moment, Refusal> {
    let wall = app.clock.trusted();
    wall.map(Moment::at)
        .map_err(|error| Refusal::unavailable("clock_untrusted", error))
}

fn no_audit(error: impl std::fmt::Display) -> Refusal {
    Refusal::unavailable("audit_unavailable", error)
}

fn outcome(released: &Result<Answer, Refusal>) -> Outcome {
    match released {
        Ok(_) => Outcome::Released,
        Err(Refusal::PeerGone) => Outcome::PeerGone,
        Err(refusal) => Outcome::Failed {
            reason: refusal.code(),
        },
    }
}

fn no_random(error: NoRandom) -> Refusal {
    Refusal::unavailable("no_random", error)
}

async fn whoami(app: &App, peer: &Peer, id: RequestId) -> Result<Answer, Refusal> {
    let rules = app.rules.now();
    let workload = attest(app, &rules, peer, id, None).await?;
    let unit = workload.unit();
    Ok(reply::ok(&Whoami {
        uid: workload.uid(),
        gid: workload.gid(),
        pid: workload.pid(),
        unit: unit.map(|unit| unit.path().to_owned()),
        invocation: unit.and_then(|unit| unit.invocation()).map(str::to_owned),
        nested: unit.is_some_and(|unit| unit.nested()),
        container: workload.container(),
        peer_proof: workload.proof().as_str().to_owned(),
        workloads: rules
            .policy
            .sections_of(&workload)
            .map(|s| s.name.to_string())
            .collect(),
    }))
}

async fn targets(app: &App, peer: &Peer, id: RequestId) -> Result<Answer, Refusal> {
    let rules = app.rules.now();
    let workload = attest(app, &rules, peer, id, None).await?;
    if rules.denied.hit(&workload).is_some() {
        return Ok(reply::ok(&Targets::default())); // it has none, like one that is nobody's workload
    }
    let mut targets: Vec<TargetInfo> = rules
        .policy
        .granting(&workload, app.clock.read())
        .flat_map(|section| section.targets.values())
        .map(|target| TargetInfo {
            target: target.name.clone(),
            profile: target.profile.name.clone(),
            audience: target.aud.clone(),
            subject: target.sub.clone(),
            lifetime: target.lifetime_s,
        })
        .collect();
    targets.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(reply::ok(&Targets { targets }))
}
