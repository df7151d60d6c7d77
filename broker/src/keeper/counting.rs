//! Has a keystore's counter follow the records ([`crate::keyring`]).

use crate::app::App;
use keystore::protocol::{Counter, Reply, Request};
use keystore::{Error, Kind};
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

/// How often changes are counted that wait for others: a TPM's counter wears (standards §7.4).
const EVERY: Duration = Duration::from_secs(600);

/// How long an operator waits for it: less than an administrator's connection has for all.
const PATIENCE: Duration = Duration::from_secs(3);

/// How soon again if it could not be.
const AGAIN: Duration = Duration::from_secs(20);

/// A request advances it by some steps at most; more in a row than this are not for one to wait for.
const REQUESTS_MAX: usize = 8;

/// When a keystore's changes were last counted.
#[derive(Default)]
pub struct Counting(Option<Instant>);

impl Counting {
    /// Counts what is due, now and then.
    pub async fn now_and_then(&mut self, app: &App, keystore: &str) {
        let failed = app
            .keyring
            .counter(keystore)
            .is_some_and(|known| known.why.is_some());
        let every = if failed { AGAIN } else { EVERY };
        if app.keyring.due(keystore).is_none() || self.0.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        self.0 = Some(Instant::now());
        if let Err(error) = count(app, keystore).await {
            eprintln!("assertd: {error}");
        }
    }
}

/// Has the counter come to where the records say.
///
/// # Errors
/// If it did not: until it does, older records pass for these.
pub async fn count(app: &App, keystore: &str) -> Result<(), Error> {
    for _ in 0..REQUESTS_MAX {
        let Some(to) = app.keyring.due(keystore) else {
            return Ok(());
        };
        advance(app, keystore, to).await.map_err(|error| {
            let text = format!(
                "keyring: keystore {keystore} could not count this change ({error}); until it does, \
                 records from before it would pass for the newest"
            );
            app.keyring.not_advanced(keystore, text.clone());
            Error::new(error.kind(), text)
        })?;
    }
    match app.keyring.due(keystore) {
        None => Ok(()),
        Some(to) => {
            let text = format!("keyring: keystore {keystore} goes on counting to {to}");
            Err(Error::new(Kind::Unavailable, text))
        }
    }
}

/// The same for whoever waits for an answer.
///
/// # Errors
/// As [`count`]; if it takes long.
pub async fn count_soon(app: &App, keystore: &str) -> Result<(), Error> {
    if app.keyring.counter(keystore).is_none() {
        let text = format!(
            "keyring: keystore {keystore} has not answered yet, and so has not counted this change; until it \
             does, records from before it would pass for the newest"
        );
        return Err(Error::new(Kind::Unavailable, text));
    }
    let counted = tokio::time::timeout(PATIENCE, count(app, keystore)).await;
    counted.unwrap_or_else(|_| {
        let text = format!(
            "keystore {keystore} takes long to count this change; until it has, records from before it \
             would pass for the newest"
        );
        app.keyring.not_advanced(keystore, format!("keyring: {text}"));
        Err(Error::new(Kind::Unavailable, format!("keyring: {text}")))
    })
}

async fn advance(app: &App, keystore: &str, to: u64) -> Result<(), Error> {
    let asked = app.keystores.get(keystore);
    let asked = asked.ok_or_else(|| Error::new(Kind::Unavailable, "it is not there"))?;
    let reply = asked.ask(&Request::Advance { to }).await?;
    let Reply::Counter(Counter {
        value: Some(value), ..
    }) = reply
    else {
        return Err(keystore::client::unexpected());
    };
    let (keyring, name) = (app.keyring.clone(), keystore.to_owned());
    let written = spawn_blocking(move || keyring.reached(&name, value)).await;
    written.map_err(|lost| Error::new(Kind::Internal, lost.to_string()))?
}
