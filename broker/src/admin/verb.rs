//! `POST /v1/keys/verb`: what an operator does with one key: rotate, activate, hold, resume, revoke,
//! abandon, destroy, replace what is lost. What it takes is decided by [`crate::lifecycle`].

use super::body;
use super::keys::{making, status_in};
use crate::app::App;
use crate::config::Kept;
use crate::http::object;
use crate::keeper;
use crate::keyring::{Changed, Seen};
use crate::lifecycle::{Age, Change, Haste, Hold, Lineage, Mark, Phase, Refused, Verb};
use crate::reply::{self, Answer, Refusal};
use assertd_client::api::{KeyVerb, KeyVerbRequest, Keys};
use hyper::Request;
use hyper::body::Incoming;
use keystore::protocol::Condition;
use keystore::{KeyId, KeyName, KeyVersion};
use std::sync::Arc;

/// Somebody else may change a key between the look and the write so often; then something is wrong.
const TRIES: usize = 10;

/// Answers with all versions of the key.
pub async fn ask(app: &Arc<App>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let asked: KeyVerbRequest = object(&body(request).await?)?;
    let (name, number) = of(&asked.key)?;
    let kept = app.rules.now().config.kept_keys().remove(&name);
    let Some(kept) = kept else {
        let text = format!("key {name}: the running configuration does not ask for it");
        return Err(Refusal::KeyRefused(text));
    };
    for _ in 0..TRIES {
        let Some(lineage) = app.keyring.lineage(&name) else {
            let text = format!("key {name}: not made yet; run `assertctl apply` as root");
            return Err(Refusal::KeyRefused(text));
        };
        let verb = verb(&asked, &name, number, &lineage)?;
        if let (Verb::Rotate | Verb::ReplaceLost(_), Some(why)) =
            (verb, kept.next.why_none_is_made())
        {
            return Err(Refusal::KeyRefused(format!("key {name}: {why}")));
        }
        let changes = match changes(app, &kept, &name, &lineage, verb) {
            Ok(changes) => changes,
            Err(refused) => {
                if matches!(verb, Verb::Hold | Verb::Revoke(_)) {
                    handed_over(app, &name).await; // "is stopped already" is said when it is true
                }
                return Err(refused);
            }
        };
        let written = keeper::write(app, &name, &lineage, &changes).await;
        let mut warnings = Vec::new();
        if changes.iter().any(Change::stops) {
            warnings = stopped(app, &name).await; // whatever became of the write
        }
        let written = written.map_err(|error| Refusal::unavailable("state_unavailable", error))?;
        if let Changed::Yes(_) = written {
            let mut keys = versions(app, &kept, &name);
            keys.warnings = warnings;
            return Ok(reply::ok(&keys));
        }
    }
    let text = format!("key {name}: it goes on changing; do this again");
    Err(Refusal::unavailable("state_unavailable", text))
}

/// What a key signed before it was stopped is with its caller, or goes nowhere; and the change is counted.
/// What could not be counted.
async fn stopped(app: &Arc<App>, name: &KeyName) -> Vec<String> {
    let count = async {
        let mut warnings = Vec::new();
        for keystore in app.keyring.keystores_of(name) {
            if let Err(error) = keeper::counting::count_soon(app, &keystore).await {
                eprintln!("assertd: {error}");
                warnings.push(error.to_string());
            }
        }
        warnings
    };
    let ((), warnings) = tokio::join!(handed_over(app, name), count);
    warnings
}

/// Waits until nothing that a stopped key has signed can leave us any more.
async fn handed_over(app: &App, name: &KeyName) {
    tokio::join!(app.handovers.over(), app.keeper.canary_is_over(name));
}

fn changes(
    app: &App,
    kept: &Kept,
    name: &KeyName,
    lineage: &Lineage,
    verb: Verb,
) -> Result<Vec<Change>, Refusal> {
    let shown = |version| keeper::shown(app, kept, &name.version(version));
    let mark = app.keyring.now();
    let asked = lineage.ask(verb, &kept.schedule, &shown, mark.age);
    asked.map_err(|refused| {
        let mut text = sentence(name, &refused, &mark);
        if let Refused::Unhealthy(number) = refused
            && let Seen::Shown {
                condition: Condition::Failed { why, .. },
                ..
            } = app.keyring.seen(&name.version(number))
        {
            text = format!("{text}: {why}");
        }
        Refusal::KeyRefused(text)
    })
}

/// `payments/bank`, or `payments/bank.2`.
fn of(text: &str) -> Result<(KeyName, Option<KeyVersion>), Refusal> {
    if let Ok(key) = text.parse::<KeyId>() {
        return Ok((key.name, Some(key.version)));
    }
    let name = text.parse::<KeyName>();
    let name =
        name.map_err(|_| Refusal::invalid("`key` is no key's name, nor a version of one"))?;
    Ok((name, None))
}

/// The verb, on the version that is named or that it is natural for.
fn verb(
    asked: &KeyVerbRequest,
    name: &KeyName,
    number: Option<KeyVersion>,
    lineage: &Lineage,
) -> Result<Verb, Refusal> {
    let or = |natural: Option<KeyVersion>, what: &str| {
        number.or(natural).ok_or_else(|| {
            let text = format!("key {name}: {what}; name a version, such as {name}.1");
            Refusal::KeyRefused(text)
        })
    };
    let active = lineage.active().map(|(number, _)| number);
    let coming = lineage.coming().map(|(number, _)| number);
    let haste = match asked.now {
        true => Haste::Now,
        false => Haste::None,
    };
    Ok(match asked.verb {
        KeyVerb::Rotate => Verb::Rotate,
        KeyVerb::Hold => Verb::Hold,
        KeyVerb::Resume => Verb::Resume,
        KeyVerb::Activate => Verb::Activate(or(coming, "no version is on its way")?, haste),
        KeyVerb::Revoke => Verb::Revoke(or(active, "no version is active")?),
        KeyVerb::Abandon => Verb::Abandon(or(coming, "no version is on its way")?),
        KeyVerb::Destroy => Verb::Destroy(or(None, "a version is destroyed by its number")?),
        KeyVerb::ReplaceLost => {
            Verb::ReplaceLost(or(active.or(coming), "no version could be lost")?)
        }
    })
}

fn versions(app: &App, kept: &Kept, name: &KeyName) -> Keys {
    let (records, lineages) = app.keyring.all();
    let of_key = records.iter().filter(|(key, _)| key.name == *name);
    Keys {
        keys: of_key
            .map(|(key, record)| status_in(app, lineages.get(name), Some(kept), key, record))
            .collect(),
        making: lineages
            .get_key_value(name)
            .and_then(making)
            .into_iter()
            .collect(),
        warnings: Vec::new(),
    }
}

fn sentence(name: &KeyName, refused: &Refused, mark: &Mark) -> String {
    let when = |age: &Age| crate::ctl::out::rfc3339(mark.wall_of(*age));
    let id = |number: &KeyVersion| name.version(*number);
    match refused {
        Refused::NoVersion(number) => format!("key {}: there is no such version", id(number)),
        Refused::Coming(number) => format!(
            "key {}: is on its way already; `assertctl keys` says what it waits for, and `assertctl keys \
             abandon {name}` gives it up",
            id(number)
        ),
        Refused::Phase(number, phase) => format!("key {}: {}", id(number), unfit(phase)),
        Refused::TooSoon(number, at) => format!(
            "key {}: whoever verifies may not know it before {}; with --now some of them refuse what it \
             signs until then",
            id(number),
            when(at)
        ),
        Refused::NotSeen(number) => format!(
            "key {}: was not seen at verify_url; with --now it signs all the same",
            id(number)
        ),
        Refused::NotTried(number) => format!(
            "key {}: its canary has not passed, and `assertctl keys` says why; with --now it signs all the \
             same",
            id(number)
        ),
        Refused::Unusable(number) => format!(
            "key {}: its keystore does not show it as usable; `assertctl keys` says why",
            id(number)
        ),
        Refused::Unhealthy(number) => format!(
            "key {}: does not sign in the state that the host is in, and the next version would be made \
             for that state; if it is there to stay, `assertctl keys replace-lost {name}`; this is why",
            id(number)
        ),
        Refused::NotLost(number) => {
            format!("key {}: is not lost: its keystore shows it", id(number))
        }
        Refused::Newest(number) => format!(
            "key {}: is the newest version; `assertctl keys rotate {name}` makes another first",
            id(number)
        ),
        Refused::Compromised(number) => {
            format!("key {}: was revoked, and stays so", id(number))
        }
        Refused::Already(Hold::Held) => format!("key {name}: is stopped already"),
        Refused::Already(Hold::Free) => format!("key {name}: is not stopped"),
        Refused::StillNeeded(number, at) => format!(
            "key {}: what it signed may be valid until {}; `assertctl keys revoke` takes it out at once",
            id(number),
            when(at)
        ),
    }
}

fn unfit(phase: &Phase) -> &'static str {
    match phase {
        Phase::Making {} => "is being made",
        Phase::Made { .. } | Phase::Listing {} => "is not published yet",
        Phase::Published { .. } => "is published, and not active yet",
        Phase::Active { .. } => "is active; hold it, or rotate the key",
        Phase::Retiring { .. } => "retires",
        Phase::Withdrawing { .. } => {
            "is being taken out of the published set; do this again in a moment"
        }
        Phase::Withdrawn { .. } => "is out of the published set",
        Phase::Destroying {} => "is being destroyed",
        Phase::Destroyed {} => "is destroyed",
    }
}
