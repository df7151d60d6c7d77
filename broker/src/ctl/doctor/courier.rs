//! Whether what is published can be read back: every `verify_url` is fetched by the courier, as assertd
//! has it fetched. Which keys it should show is assertd's to judge; here it has to be a set of keys.

use super::finding::{COURIER, Finding};
use super::site::{Runner, Site};
use crate::courier::readback::{Expected, ReadBack, judge};
use crate::courier::{Client, DEADLINE, Failure, SOCKET, Why};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Asked at a time: as many as the courier fetches, so that none waits for its turn there.
const AT_A_TIME: usize = 4;

/// How long all of them may take.
const ALL_MAX: Duration = Duration::from_secs(40);

/// One issuer's document.
#[derive(Debug)]
pub struct Fetched {
    issuer: String,
    url: String,
    /// None where time was up before.
    found: Option<Result<Vec<u8>, Why>>,
}

/// Fetches all of them. Without a `verify_url` nobody is asked.
pub fn look(site: &Site) -> Vec<Fetched> {
    let issuers = site
        .config
        .iter()
        .flat_map(|config| config.issuers.values());
    let wanted = issuers.filter_map(|it| Some((it.name.clone(), it.verify_url.clone()?)));
    let wanted: Vec<(String, String)> = wanted.collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let client = Client::new(site.runtime_dir.join(SOCKET));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(fetch(client, wanted)),
        Err(error) => {
            let lost = |(issuer, url)| Fetched {
                issuer,
                url,
                found: Some(Err(Why::Lost(error.to_string()))),
            };
            wanted.into_iter().map(lost).collect()
        }
    }
}

async fn fetch(client: Client, wanted: Vec<(String, String)>) -> Vec<Fetched> {
    let (turns, end) = (
        Arc::new(Semaphore::new(AT_A_TIME)),
        tokio::time::Instant::now() + ALL_MAX,
    );
    let start = |(issuer, url): (String, String)| {
        let (client, turns) = (client.clone(), turns.clone());
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        tokio::spawn(async move {
            let asked = async {
                let _turn = turns.acquire().await;
                client.fetch(&issuer, &url, DEADLINE).await
            };
            let found = timeout(left, asked).await.ok();
            Fetched { issuer, url, found }
        })
    };
    let tasks: Vec<_> = wanted.into_iter().map(start).collect();
    let mut fetched = Vec::new();
    for task in tasks {
        fetched.extend(task.await); // a panic would have ended us
    }
    fetched
}

/// Judges. If nobody can be asked, that is said once.
pub fn findings(site: &Site, fetched: &[Fetched]) -> Vec<Finding> {
    let absent = fetched.iter().find_map(|it| match &it.found {
        Some(Err(why @ (Why::Absent(..) | Why::HungUp | Why::Lost(_) | Why::Late(_)))) => Some(why),
        _ => None,
    });
    match absent {
        Some(why) => vec![COURIER.fail(why.to_string(), start(site))],
        None => fetched.iter().map(|it| finding(site, it)).collect(),
    }
}

fn start(site: &Site) -> &'static str {
    match site.runner {
        Runner::Units => {
            "run `systemctl enable --now assertd-courier.socket`; if it listens already, see \
             `journalctl -u assertd-courier`"
        }
        Runner::Somebody(_) => "start assertd, which starts a courier of its own",
    }
}

/// A document that is not there yet is no failure of this host: it may never have been published.
fn finding(site: &Site, fetched: &Fetched) -> Finding {
    let (issuer, url) = (&fetched.issuer, &fetched.url);
    let nothing_expected = Expected::new([], None);
    match &fetched.found {
        None => COURIER.warn(
            format!("{issuer}: {url} was not fetched: others took too long"),
            "mend those, and run `assertctl check` again",
        ),
        Some(Ok(body)) => match judge(body, &nothing_expected) {
            ReadBack::Set(_) => COURIER.ok(format!(
                "{issuer}: {url} is a set of keys ({} bytes)",
                body.len()
            )),
            other => COURIER.warn(
                format!("{issuer}: what is at {url} {other}"),
                publish(issuer),
            ),
        },
        Some(Err(why)) => {
            let remedy = match why {
                Why::Failed(failed) => match failed.kind {
                    Failure::Version => site.restart(),
                    Failure::Configuration | Failure::Issuer => {
                        "run `assertctl config check`, and see the courier's log".to_owned()
                    }
                    Failure::Busy => "run `assertctl check` again".to_owned(),
                    Failure::Dns | Failure::Connect | Failure::Timeout => format!(
                        "let this host reach it, or correct `verify_url` of [issuer.{issuer}]"
                    ),
                    Failure::Tls => format!(
                        "renew the server's certificate, set `ca` in [courier], or correct \
                         `verify_url` of [issuer.{issuer}]"
                    ),
                    _ => publish(issuer),
                },
                _ => format!("run `assertctl{} reload`", site.options()),
            };
            COURIER.warn(format!("{issuer}: {why}"), remedy)
        }
    }
}

fn publish(issuer: &str) -> String {
    format!("publish the issuer's jwks.json there, or correct `verify_url` of [issuer.{issuer}]")
}
