//! Looks at the world that a plan follows from: the configuration, assertd's records, and what
//! every keystore shows. Changes nothing.

use super::args::Args;
use super::failure::{Asker, Exit, Failure, may_administer, not_root};
use super::plan::{Recorded, Shown, Use, World};
use crate::config::Config;
use assertd_client::Client;
use assertd_client::api::{KeyStatus, Status};
use keystore::KeyId;
use keystore::client::Client as KeystoreClient;
use std::path::PathBuf;
use std::time::Duration;

/// How long a keystore may take to list its keys: it reads them from its records.
const LIST_DEADLINE: Duration = Duration::from_secs(10);

/// What was seen, and the connection to assertd it was seen on.
pub struct Sight {
    /// The configuration in the files.
    pub config: Config,
    /// assertd, connected.
    pub client: Client,
    /// What it says about itself.
    pub status: Status,
    /// What a plan follows from.
    pub world: World,
    /// Versions that are on their way.
    pub coming: Vec<KeyId>,
}

/// Looks. Fails if the configuration cannot be loaded, assertd does not answer, or this user may
/// not ask; a keystore that does not answer is part of what is seen.
pub fn look(args: &Args) -> Result<Sight, Failure> {
    let config = args.load_config()?;
    let socket = args.socket.clone().unwrap_or_else(|| config.admin_socket());
    let failed = |error| Failure::from_client(&error, Asker::Administrator);
    let mut client = Client::connect(&socket).map_err(failed)?;
    let status = client.status().map_err(failed)?;
    if !may_administer(&socket) {
        return Err(not_root(&socket)); // keystores would hang up on us one by one
    }
    let keys = client.keys().map_err(failed)?;
    let recorded = keys.keys.iter().map(as_recorded);
    let recorded = recorded.collect::<Result<_, _>>()?;
    let making = keys
        .making
        .iter()
        .map(|key| key.parse().map_err(|_| garbled(key)));
    let making = making.collect::<Result<_, _>>()?;
    let is_coming =
        |key: &&KeyStatus| matches!(key.phase.as_str(), "making" | "made" | "published");
    let coming = keys.keys.iter().filter(is_coming);
    let coming = coming.filter_map(|key| key.key.parse().ok()).collect();
    let keystores = config
        .keystores
        .iter()
        .map(|(name, section)| {
            (
                name.clone(),
                shown(name, config.keystore_socket(name, section)),
            )
        })
        .collect();
    let world = World {
        wanted: config.wanted_keys(),
        keystores,
        recorded,
        making,
    };
    Ok(Sight {
        config,
        client,
        status,
        world,
        coming,
    })
}

fn shown(name: &str, socket: PathBuf) -> Shown {
    let keys = KeystoreClient::connect(&socket, LIST_DEADLINE).and_then(|mut keystore| {
        let answered = &keystore.welcome().keystore;
        if answered != name {
            let text = format!(
                "{}: this is keystore {answered}, not {name}",
                socket.display()
            );
            return Err(keystore::Error::new(keystore::Kind::Protocol, text));
        }
        keystore.keys()
    });
    match keys {
        Ok(keys) => Shown::Keys(keys),
        Err(error) => Shown::Unreachable(error.to_string()),
    }
}

fn garbled(key: &str) -> Failure {
    let text = format!("assertd's key `{key}` has no key's name");
    Failure::new(Exit::Internal, text)
}

fn as_recorded(status: &KeyStatus) -> Result<Recorded, Failure> {
    let suspended = (status.state == "suspended").then(|| {
        status
            .why
            .clone()
            .unwrap_or_else(|| "assertd has suspended it".to_owned())
    });
    Ok(Recorded {
        key: status.key.parse().map_err(|_| garbled(&status.key))?,
        keystore: status.keystore.clone(),
        kid: status.kid.clone(),
        suspended,
        use_of: match status.phase.as_str() {
            "retiring" | "retired" | "revoked" | "destroying" | "destroyed" => Use::Over,
            _ => Use::Signs,
        },
    })
}
