//! The read-back gate: a version of an issuer with a `verify_url` begins its lead when it was seen
//! there, and not when we think that we have published it (standards §5.2). The courier fetches, the
//! judgement is [`readback`]'s, and what was seen is written down as any other change.

use super::write;
use crate::app::App;
use crate::config::Issuer;
use crate::courier::readback::{Expected, Sight, judge};
use crate::courier::{self, Client};
use crate::lifecycle::{Change, Lineage, Phase};
use keystore::Kid;
use std::sync::Arc;
use std::time::Duration;

/// First and longest wait between two looks while a version is not seen; shipping takes seconds to
/// hours.
const LOOKS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Nobody looks more often, whatever changes: who answers at the URL is not to be flooded.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks for ever.
pub async fn run(app: Arc<App>) {
    let mut changes = app.keyring.changes();
    let mut wait = LOOKS.0;
    loop {
        changes.borrow_and_update();
        let issuers = app.rules.now().config.issuers.clone();
        for issuer in issuers.values() {
            if let Some(url) = &issuer.verify_url {
                look(&app, issuer, url).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(LOOKS.1),
            _ = changes.changed() => wait = LOOKS.0,
        }
    }
}

/// One look for one issuer, if a version of it is to be seen.
async fn look(app: &Arc<App>, issuer: &Issuer, url: &str) {
    let name = &issuer.key;
    let Some(lineage) = app.keyring.lineage(name) else {
        return;
    };
    let Some((version, coming)) = lineage.coming() else {
        return;
    };
    let Phase::Published { seen, .. } = coming.phase else {
        return;
    };
    let Some(record) = app.keyring.key_record(&name.version(version)) else {
        return;
    };
    let kid = record.public_key.kid();
    let client = Client::new(
        app.rules
            .now()
            .config
            .server
            .runtime_dir
            .join(courier::SOCKET),
    );
    let fetched = client.fetch(&issuer.name, url, courier::DEADLINE).await;
    let (sight, said) = match fetched {
        Ok(body) => {
            let read = judge(&body, &expected(app, issuer, &lineage));
            if read.is_alarming() {
                eprintln!(
                    "assertd: ALERT: issuer {}: what is at {url} {read}",
                    issuer.name
                );
            }
            (read.sight(&kid), format!("what is at {url} {read}"))
        }
        // What cannot be fetched now has not gone away: who has it keeps it.
        Err(why) if seen.is_some() => {
            app.keeper.saw(name, why.to_string());
            return;
        }
        Err(why) => (Sight::NotYet, why.to_string()),
    };
    app.keeper.saw(name, said);
    let change = match (sight, seen) {
        (Sight::Seen, None) => Change::Seen(version),
        (Sight::NotYet, Some(_)) => Change::Unseen(version),
        _ => return,
    };
    if let Err(error) = write(app, name, &lineage, &[change]).await {
        eprintln!("assertd: {error}");
    }
}

/// Every version that belongs to the set.
fn expected(app: &App, issuer: &Issuer, lineage: &Lineage) -> Expected {
    let record = |version| app.keyring.key_record(&issuer.key.version(version));
    let active: Option<Kid> = lineage
        .active()
        .and_then(|(version, _)| record(version))
        .map(|record| record.public_key.kid());
    let listed = lineage.listed().into_iter().filter_map(record);
    Expected::new(listed.map(|record| (record.public_key, record.alg)), active)
}
