//! The watch of one keystore: asks who it is, how it is and which keys it shows; again whenever a
//! lane has lost its connection, and every few seconds anyway. It also sees to it that there are
//! lanes for what the token can do.

use super::connection::Connection;
use super::lane;
use super::{Keystore, Stage};
use crate::keyring::counters;
use keystore::client::{self, KeyPages};
use keystore::protocol::{CounterPlace, KeyEntry, Reply, Request};
use keystore::{Error, KeyId, Kind};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How often to look when nothing happens: a token pulled out of an idle host shows this fast.
const EVERY: Duration = Duration::from_secs(5);

/// How often to look while it is not usable.
const EVERY_WHILE_DOWN: Duration = Duration::from_millis(100);

/// How long one look may take: a few calls into the token.
const LOOK_DEADLINE: Duration = Duration::from_secs(20);

/// How long the making of a key may take: an RSA key takes a chip up to a minute, and the keystore ends
/// itself when a call takes longer than its `hang_limit`.
pub const MAKING_DEADLINE: Duration = Duration::from_secs(75);

/// Most lanes, whatever a keystore says of itself: its own limit of connections is 64.
const LANES_MAX: usize = 32;

/// Watches for ever.
pub async fn run(keystore: Arc<Keystore>) {
    let mut lanes = 0;
    loop {
        let looked = match timeout(LOOK_DEADLINE, look(&keystore)).await {
            Ok(looked) => looked,
            Err(_) => Err(no_answer()),
        };
        if let Err(error) = looked {
            keystore.unreachable(&error);
        }
        let (usable, signers) = {
            let state = keystore
                .state
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let signers = state
                .welcome
                .as_ref()
                .map_or(0, |welcome| welcome.parallelism);
            (state.stage == Stage::Usable, signers)
        };
        if usable {
            let wanted = signers.min(LANES_MAX);
            for _ in lanes..wanted {
                tokio::spawn(lane::run(keystore.clone()));
            }
            lanes = lanes.max(wanted);
        }
        let every = if usable { EVERY } else { EVERY_WHILE_DOWN };
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = keystore.lost.notified() => {}
        }
    }
}

/// One look: hello, health, keys.
async fn look(keystore: &Keystore) -> Result<(), Error> {
    let mut connection = Connection::open(&keystore.socket).await?;
    let Reply::Health(health) = connection.call(&Request::Health {}).await? else {
        return Err(client::unexpected());
    };
    let usable = matches!(health.standing, keystore::protocol::Standing::Usable {});
    if usable {
        weigh(keystore, &mut connection).await?; // before anything is signed by what is recorded
        let recorded = keystore.keyring.records(); // before the keystore is asked
        let shown = keys(&mut connection).await?;
        keystore.keyring.compare(&keystore.name, &recorded, &shown);
    }
    keystore.set_from(connection.welcome, health);
    Ok(())
}

/// Compares the records with the keystore's counter, once after the start: from then on they are ours.
async fn weigh(keystore: &Keystore, connection: &mut Connection) -> Result<(), Error> {
    let keyring = &keystore.keyring;
    if let Some(known) = keyring.counter(&keystore.name) {
        return match (known.is_older(), known.place) {
            (true, CounterPlace::Tpm) => pending().await,
            _ => Ok(()),
        };
    }
    let counter = match connection.call(&Request::Counter {}).await? {
        Reply::Counter(counter) => counter,
        _ => return Err(client::unexpected()),
    };
    let (keyring, name) = (keyring.clone(), keystore.name.clone());
    let weighed = spawn_blocking(move || keyring.weigh(&name, &counter)).await;
    let known = weighed.map_err(|lost| Error::new(Kind::Internal, lost.to_string()))??;
    let Some(why) = counters::older(&keystore.name, &known) else {
        return Ok(());
    };
    match known.place {
        CounterPlace::File => {
            eprintln!("assertd: {why}");
            Ok(())
        }
        CounterPlace::Tpm => pending().await, // assertd ends now, and never says that it is ready
    }
}

/// One key, within the deadline of a look.
pub async fn entry(keystore: &Keystore, key: &KeyId) -> Result<Option<KeyEntry>, Error> {
    let ask = async {
        let mut connection = Connection::open(&keystore.socket).await?;
        let keys = keys(&mut connection).await?;
        Ok(keys.into_iter().find(|entry| entry.key == *key))
    };
    timeout(LOOK_DEADLINE, ask)
        .await
        .unwrap_or_else(|_| Err(no_answer()))
}

/// One thing that takes a key's making or less.
pub async fn ask(keystore: &Keystore, request: &Request) -> Result<Reply, Error> {
    let ask = async {
        let mut connection = Connection::open(&keystore.socket).await?;
        connection.call(request).await
    };
    let slow = || {
        let text = format!("no answer within {} s", MAKING_DEADLINE.as_secs());
        Err(Error::new(keystore::Kind::Unavailable, text))
    };
    timeout(MAKING_DEADLINE, ask)
        .await
        .unwrap_or_else(|_| slow())
}

fn no_answer() -> Error {
    let text = format!("no answer within {} s", LOOK_DEADLINE.as_secs());
    Error::new(keystore::Kind::Unavailable, text)
}

async fn keys(connection: &mut Connection) -> Result<Vec<KeyEntry>, Error> {
    let mut pages = KeyPages::default();
    while let Some(request) = pages.next_request() {
        pages.take(connection.call(&request).await?)?;
    }
    Ok(pages.into_keys())
}
