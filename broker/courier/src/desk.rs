//! From a question to an errand and back: which URL an issuer's name stands for, and whether it may be
//! fetched now. Owns the rates and the turns, by which nobody can be flooded, and the configuration as it
//! was last read.

use crate::edition::{Edition, Errand};
use crate::fetch::fetch;
use crate::serve::UNDER_WAY_MAX;
use broker::courier::{Answer, Document, Failed, Failure, Question, TURN_MAX, VERSION};
use broker::rate::{Limiter, Verdict};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

/// How old the configuration may be when a question comes. Within it a file that was replaced a moment
/// ago is not seen; reading a large one takes a tenth of it.
const READ_AGE_MAX: Duration = Duration::from_secs(1);

/// How long reading it may take: it looks users up, by a name service that may hang.
const READ_MAX: Duration = Duration::from_secs(5);

/// Fetches of one issuer a second, and at once: whoever waits for a key to appear asks once in some
/// seconds, and a person now and then in between.
const RATE_OF_ISSUER_PER_S: u32 = 1;
const BURST_OF_ISSUER: u32 = 10;

/// Fetches of all issuers, likewise.
const RATE_PER_S: u32 = 10;
const BURST: u32 = 20;

/// What answers questions.
pub struct Desk {
    config: PathBuf,
    /// The `ca` that the sandbox was made for.
    reachable: Option<PathBuf>,
    successor: Successor,
    read: Mutex<Read>,
    issuers: Limiter<String>,
    all: Limiter<()>,
    /// One fetch of an issuer at a time.
    turns: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    under_way: Semaphore,
}

/// Whether another courier is started when this one ends and somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Successor {
    /// systemd or assertd holds the socket.
    Comes,
    /// Somebody has started this one by hand.
    None,
}

/// What was last read.
struct Read {
    at: Instant,
    /// The last that could be read stays in force.
    edition: Option<Arc<Edition>>,
    /// Why the files could not be read when they were last looked at.
    fault: Option<String>,
}

impl Desk {
    /// Takes questions from here on.
    pub fn new(config: PathBuf, first: Result<Edition, String>, successor: Successor) -> Desk {
        let (edition, fault) = match first {
            Ok(edition) => (Some(Arc::new(edition)), None),
            Err(fault) => (None, Some(fault)),
        };
        Desk {
            config,
            reachable: edition.as_ref().and_then(|edition| edition.ca.clone()),
            successor,
            read: Mutex::new(Read {
                at: Instant::now(),
                edition,
                fault,
            }),
            issuers: Limiter::new(),
            all: Limiter::new(),
            turns: Mutex::default(),
            under_way: Semaphore::new(UNDER_WAY_MAX),
        }
    }

    /// Does what is asked, within [`broker::courier::DEADLINE`].
    pub async fn answer(&self, question: &Question) -> Answer {
        match self.errand(question).await {
            Ok(document) => Answer::Document(document),
            Err(failed) => Answer::Failed(failed),
        }
    }

    async fn errand(&self, question: &Question) -> Result<Document, Failed> {
        if question.version != VERSION {
            let text = "assertd and assertd-courier are of different versions; restart both";
            return Err(Failed::new(Failure::Version, text));
        }
        let (errand, tls) = self.look_up(&question.issuer).await?;
        let busy = || {
            let text = format!("{}: is asked for too often; ask again later", errand.url);
            Failed::new(Failure::Busy, &text)
        };
        let now = Instant::now();
        let (name, rate) = (question.issuer.clone(), RATE_OF_ISSUER_PER_S);
        let of_issuer = self.issuers.check(name, rate, BURST_OF_ISSUER, now);
        if of_issuer != Verdict::Go || self.all.check((), RATE_PER_S, BURST, now) != Verdict::Go {
            return Err(busy());
        }
        let turn = self.turn(&question.issuer);
        let places = async { (turn.acquire().await, self.under_way.acquire().await) };
        let (_turn, _place) = timeout(TURN_MAX, places).await.map_err(|_| busy())?;
        let body = fetch(&errand, tls).await?;
        Ok(Document {
            url: errand.url,
            body,
        })
    }

    /// The issuer's URL by the configuration as it is now.
    async fn look_up(&self, issuer: &str) -> Result<(Errand, Arc<ClientConfig>), Failed> {
        let age = self.lock().at.elapsed();
        if age > READ_AGE_MAX {
            self.read_again().await;
        }
        let (edition, fault) = {
            let read = self.lock();
            (read.edition.clone(), read.fault.clone())
        };
        let Some(edition) = edition else {
            let text = format!(
                "the courier cannot read the configuration; run `assertctl config check`. It says: {}",
                fault.unwrap_or_default()
            );
            return Err(Failed::new(Failure::Configuration, &text));
        };
        let Some(errand) = edition.issuers.get(issuer) else {
            let text = "the courier's configuration has no `verify_url` for this issuer; does it read the \
                        same file as assertd?";
            return Err(Failed::new(Failure::Issuer, text));
        };
        match &edition.tls {
            Ok(tls) => Ok((errand.clone(), tls.clone())),
            Err(why) => Err(Failed::new(Failure::Configuration, why)),
        }
    }

    /// Reads the configuration. An authority's file that this process's sandbox may not let it read ends it,
    /// where another one is started: asking again is the asker's. What cannot be read changes nothing, and is said once.
    pub async fn read_again(&self) {
        let path = self.config.clone();
        let reading = tokio::task::spawn_blocking(move || Edition::load(&path));
        let loaded = match timeout(READ_MAX, reading).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => Err(error.to_string()), // a panic would have ended us
            Err(_) => Err("reading the configuration takes too long".to_owned()),
        };
        if let Ok(Edition {
            tls: Err(why), ca, ..
        }) = &loaded
            && ca.is_some()
            && *ca != self.reachable
            && self.successor == Successor::Comes
        {
            // The next one looks for it before it closes itself in, and so does not end for the same.
            eprintln!("courier: ending, to be started again for another `ca`: {why}");
            std::process::exit(0);
        }
        let mut read = self.lock();
        read.at = Instant::now();
        match loaded {
            Ok(edition) => {
                if read.fault.take().is_some() {
                    eprintln!("courier: the configuration can be read again");
                }
                let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
                turns.retain(|name, _| edition.issuers.contains_key(name));
                read.edition = Some(Arc::new(edition));
            }
            Err(fault) => {
                if read.fault.as_ref() != Some(&fault) {
                    eprintln!("courier: {fault}");
                }
                read.fault = Some(fault);
            }
        }
    }

    fn turn(&self, issuer: &str) -> Arc<Semaphore> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry(issuer.to_owned());
        turn.or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
