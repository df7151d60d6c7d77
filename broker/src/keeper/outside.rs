//! What is done outside for a key: its keystore makes or destroys a version, the documents are written.
//! Each may be done again: a keystore answers with the version it has made, one that is gone is success,
//! and documents that are as they should be are left alone.

use super::{recorded, write};
use crate::app::App;
use crate::audit::{KeyAction, KeyChange};
use crate::config::Kept;
use crate::keyring::{By, Changed};
use crate::keystores::Keystore;
use crate::lifecycle::{Change, Lineage, Outside};
use crate::publication::{self, Documents, Key, KeySet, Spiffe};
use keystore::certificate::Validity;
use keystore::protocol::{KeyEntry, Request};
use keystore::{CertificateUse, Error, KeyName, Kind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// How long writing all documents may take.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(20);

/// Does it, and writes what came of it.
///
/// # Errors
/// If it did not succeed for certain.
pub async fn carry_out(
    app: &Arc<App>,
    name: &KeyName,
    want: &Kept,
    lineage: &Lineage,
    outside: Outside,
) -> Result<Changed, Error> {
    match outside {
        Outside::Make(version) => {
            let key = name.version(version);
            let holder = keystore_of(app, &want.keystore)?;
            let made = holder.make_next(&key).await;
            let entry = made.map_err(|error| match error.kind() {
                Kind::NotFound => has_lost_it(&want.keystore, name),
                _ => error,
            })?;
            let entry = certified(app, holder, entry, want).await?;
            // Also of one that it was given before a crash.
            if let Some(certified) = KeyChange::certified(&entry) {
                recorded(app, certified).await?;
            }
            let made = KeyChange::new(&key, entry.kid.as_str(), KeyAction::Made);
            recorded(app, made).await?;
            let (keyring, now_s) = (app.keyring.clone(), app.clock.read().unix_s());
            let keystore = want.keystore.clone();
            let record = move || keyring.record(&keystore, &entry, By::Keeper, now_s);
            let written = tokio::task::spawn_blocking(record).await;
            written.map_err(|lost| Error::new(Kind::Internal, lost.to_string()))??;
            Ok(Changed::Meanwhile)
        }
        Outside::Publish => publish(app, name, lineage).await,
        Outside::Destroy(version) => {
            let key = name.version(version);
            if let Some(record) = app.keyring.key_record(&key) {
                let request = Request::Destroy { key };
                match keystore_of(app, &record.keystore)?.ask(&request).await {
                    Ok(_) => {}
                    Err(error) if error.kind() == Kind::NotFound => {} // a crash came before us
                    Err(error) => return Err(error),
                }
            }
            write(app, name, lineage, &[Change::Destroyed(version)]).await
        }
    }
}

fn has_lost_it(keystore: &str, name: &KeyName) -> Error {
    let text = format!(
        "keystore {keystore} knows no version of {name}, and so not what it may say; bring its state \
         directory back, or have `assertctl apply` make this version"
    );
    Error::new(Kind::NotFound, text)
}

/// A version that is to have a certificate has it before anybody hears of the version: what is registered
/// at the other side is the certificate. One that it has stays, whatever crashed in between.
async fn certified(
    app: &App,
    holder: &Keystore,
    entry: KeyEntry,
    want: &Kept,
) -> Result<KeyEntry, Error> {
    let seconds = match (entry.charter.certificate, &entry.certificate) {
        (CertificateUse::Allowed | CertificateUse::Named, None) => want.certificate_s,
        _ => None,
    };
    match seconds {
        None => Ok(entry),
        Some(seconds) => {
            let validity = Validity::from(app.clock.read(), seconds);
            holder.certify(&entry.key, validity).await
        }
    }
}

fn keystore_of<'a>(app: &'a App, name: &str) -> Result<&'a Arc<Keystore>, Error> {
    app.keystores.get(name).ok_or_else(|| {
        let text = format!("keystore {name} is not in the running configuration; put it back");
        Error::new(Kind::Unavailable, text)
    })
}

/// Writes the documents as this lineage has them, and that it is done.
async fn publish(app: &Arc<App>, name: &KeyName, lineage: &Lineage) -> Result<Changed, Error> {
    let turn = turn(app).await?;
    let lineages = app.keyring.lineages();
    if lineages.get(name) != Some(lineage) {
        return Ok(Changed::Meanwhile);
    }
    let (mut failed, _turn) = render(app, lineages, turn).await?;
    match failed.remove(name) {
        Some(error) => Err(error),
        None => write(app, name, lineage, &[Change::Written]).await,
    }
}

/// Writes all documents as they should be: at the start, before anything is signed.
///
/// # Errors
/// What could not be written for certain.
pub async fn publish_all(app: &Arc<App>) -> Result<(), Error> {
    let turn = turn(app).await?;
    let (mut failed, _turn) = render(app, app.keyring.lineages(), turn).await?;
    match failed.pop_first() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// The right to write documents: one writer at a time, so that an older set never overwrites a newer one.
type Turn = OwnedMutexGuard<()>;

async fn turn(app: &App) -> Result<Turn, Error> {
    let lock = app.keeper.publishing.clone().lock_owned();
    timeout(PUBLISH_DEADLINE, lock).await.map_err(too_slow)
}

fn too_slow(_: Elapsed) -> Error {
    let text = format!(
        "publication: writing takes longer than {} s; does its file system hang?",
        PUBLISH_DEADLINE.as_secs()
    );
    Error::new(Kind::Unavailable, text)
}

/// Keys whose documents could not be written, with the reasons, and the turn for what is to follow in it.
async fn render(
    app: &Arc<App>,
    lineages: BTreeMap<KeyName, Lineage>,
    turn: Turn,
) -> Result<(BTreeMap<KeyName, Error>, Turn), Error> {
    let rules = app.rules.now();
    let Some(directory) = rules
        .config
        .publication
        .as_ref()
        .map(|it| it.directory.clone())
    else {
        return Ok((BTreeMap::new(), turn)); // whoever registers keys reads them from `assertctl jwks`
    };
    let app = app.clone();
    let work = move || {
        let (documents, mut failed) = documents(&app, &lineages);
        let outcome = publication::publish(&directory, &documents)?;
        if outcome.change == publication::Change::Changed && failed.is_empty() {
            for path in &outcome.left_over {
                eprintln!(
                    "assertd: publication: {path:?} is published no more, and is left where it is"
                );
            }
        }
        failed.extend(outcome.failed);
        Ok((failed, turn))
    };
    // On a file system that hangs the one thread keeps the turn: no second one comes to hang beside it.
    let done = timeout(PUBLISH_DEADLINE, tokio::task::spawn_blocking(work)).await;
    done.map_err(too_slow)?
        .unwrap_or_else(|lost| Err(Error::new(Kind::Internal, lost.to_string())))
}

/// The documents of all keys that the configuration asks for and that have been listed once.
fn documents(
    app: &App,
    lineages: &BTreeMap<KeyName, Lineage>,
) -> (Documents, BTreeMap<KeyName, Error>) {
    let rules = app.rules.now();
    let (mut all, mut failed) = (Documents::default(), BTreeMap::new());
    let spiffe = Spiffe {
        sequence_min: app.keyring.generation(),
        refresh_hint_s: publication::documents::REFRESH_HINT_S,
    };
    for (name, lineage) in lineages {
        if !app
            .keyring
            .is_certain(name, |keystore| app.keystores.contains_key(keystore))
        {
            failed.insert(name.clone(), not_certain(name)); // what is there stays as it is
            continue;
        }
        let issuer = rules
            .config
            .issuers
            .values()
            .find(|issuer| issuer.key == *name);
        match (set_of(app, name, lineage), issuer) {
            (Ok(None), _) => {}
            (Ok(Some(set)), Some(issuer)) => all.add_issuer(issuer, &set, spiffe),
            (Ok(Some(set)), None) => all.add_client(name, &set),
            (Err(error), _) => drop(failed.insert(name.clone(), error)),
        }
    }
    (all, failed)
}

fn not_certain(name: &KeyName) -> Error {
    let text = format!(
        "key {name}: is published as before until its keystore has answered, which may know that these \
         records are not the newest"
    );
    Error::new(Kind::Unavailable, text)
}

/// The set of a key as it is to be published; none of one that nobody has heard of. An empty set says
/// that everything is revoked: only who has revoked the last key says so.
pub fn set_of(app: &App, name: &KeyName, lineage: &Lineage) -> Result<Option<KeySet>, Error> {
    let key = |version| {
        let id = name.version(version);
        let record = app.keyring.key_record(&id).ok_or_else(|| {
            Error::new(
                Kind::Internal,
                format!("key {id}: listed, and not recorded"),
            )
        })?;
        Key::new(version, record.public_key, record.alg)
    };
    let listed = lineage.listed();
    let Some((first, others)) = listed.split_first() else {
        return Ok(lineage.is_revoked().then(KeySet::all_revoked));
    };
    let others: Result<Vec<Key>, Error> = others.iter().map(|version| key(*version)).collect();
    KeySet::new(key(*first)?, others?).map(Some)
}
