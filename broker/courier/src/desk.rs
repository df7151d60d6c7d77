//! From a question to an errand and back: which URL the name of an issuer or a target stands for, and whether
//! it may be gone to now. Owns the rates and the turns, by which nobody can be flooded, and the configuration as it
//! was last read.

use crate::edition::{Edition, Errand, TokenErrand};
use crate::fetch::fetch;
use crate::serve::UNDER_WAY_MAX;
use crate::token::redeem;
use broker::courier::{
    Accepted, Answer, Canary, Document, Failed, Failure, Question, Subject, TURN_MAX, VERSION,
};
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

/// Visits of one place a second, and at once: whoever waits for a key to appear asks once in some
/// seconds, and a person now and then in between.
const RATE_OF_PLACE_PER_S: u32 = 1;
const BURST_OF_PLACE: u32 = 10;

/// Visits of all places, likewise.
const RATE_PER_S: u32 = 10;
const BURST: u32 = 20;

/// What answers questions.
pub struct Desk {
    config: PathBuf,
    /// The `ca` that the sandbox was made for.
    reachable: Option<PathBuf>,
    successor: Successor,
    read: Mutex<Read>,
    places: Limiter<Place>,
    all: Limiter<()>,
    /// One visit of a place at a time.
    turns: Mutex<BTreeMap<Place, Arc<Semaphore>>>,
    under_way: Semaphore,
}

/// Whose server it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    /// Of an issuer's documents.
    Issuer(String),
    /// Of a workload's target.
    Target(String, String),
}

impl Place {
    fn is_in(&self, edition: &Edition) -> bool {
        match self {
            Place::Issuer(name) => edition.issuers.contains_key(name),
            Place::Target(workload, target) => {
                let name = (workload.clone(), target.clone());
                edition.targets.contains_key(&name)
            }
        }
    }
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
            places: Limiter::new(),
            all: Limiter::new(),
            turns: Mutex::default(),
            under_way: Semaphore::new(UNDER_WAY_MAX),
        }
    }

    /// Does what is asked, within [`broker::courier::DEADLINE`].
    pub async fn answer(&self, question: &Question) -> Answer {
        if question.version != VERSION {
            let text = "assertd and assertd-courier are of different versions; restart both";
            return Answer::Failed(Failed::new(Failure::Version, text));
        }
        let answer = match &question.subject {
            Subject::Issuer(name) => self.document(name).await,
            Subject::Canary(canary) => self.token(canary).await,
        };
        answer.unwrap_or_else(Answer::Failed)
    }

    async fn document(&self, issuer: &str) -> Result<Answer, Failed> {
        let (errand, tls) = self.look_up(|edition| issuer_in(edition, issuer)).await?;
        let place = Place::Issuer(issuer.to_owned());
        let visit = self.in_turn(place, &errand.url, fetch(&errand, tls));
        let body = visit.await?;
        Ok(Answer::Document(Document {
            url: errand.url,
            body,
        }))
    }

    async fn token(&self, canary: &Canary) -> Result<Answer, Failed> {
        let (token, tls) = self.look_up(|edition| target_in(edition, canary)).await?;
        // What was signed for one server goes to no other, whatever a broker that was taken over asks.
        let claims = canary.assertion.claims();
        if claims.is_none_or(|it| (it.iss, it.sub, it.aud) != token.says) {
            let text = "the assertion is not of this target by the courier's configuration; run `assertctl reload`";
            return Err(Failed::new(Failure::Target, text));
        }
        let place = Place::Target(canary.workload.clone(), canary.target.clone());
        let visit = redeem(&token, &canary.assertion, tls);
        self.in_turn(place, &token.errand.url, visit).await?;
        Ok(Answer::Accepted(Accepted {
            url: token.errand.url,
        }))
    }

    /// Goes to a place if nobody is there too often, when it is its turn.
    async fn in_turn<T>(
        &self,
        place: Place,
        url: &str,
        visit: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        let busy = || {
            let text = format!("{url}: is asked for too often; ask again later");
            Failed::new(Failure::Busy, &text)
        };
        let now = Instant::now();
        let (name, rate) = (place.clone(), RATE_OF_PLACE_PER_S);
        let of_place = self.places.check(name, rate, BURST_OF_PLACE, now);
        if of_place != Verdict::Go || self.all.check((), RATE_PER_S, BURST, now) != Verdict::Go {
            return Err(busy());
        }
        let turn = self.turn(place);
        let places = async { (turn.acquire().await, self.under_way.acquire().await) };
        let (_turn, _place) = timeout(TURN_MAX, places).await.map_err(|_| busy())?;
        visit.await
    }

    /// What a name stands for by the configuration as it is now.
    async fn look_up<T>(
        &self,
        find: impl FnOnce(&Edition) -> Result<T, Failed>,
    ) -> Result<(T, Arc<ClientConfig>), Failed> {
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
        let found = find(&edition)?;
        match &edition.tls {
            Ok(tls) => Ok((found, tls.clone())),
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
                turns.retain(|place, _| place.is_in(&edition));
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

    fn turn(&self, place: Place) -> Arc<Semaphore> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry(place);
        turn.or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn issuer_in(edition: &Edition, issuer: &str) -> Result<Errand, Failed> {
    edition.issuers.get(issuer).cloned().ok_or_else(|| {
        let text = "the courier's configuration has no `verify_url` for this issuer; does it read the \
                    same file as assertd?";
        Failed::new(Failure::Issuer, text)
    })
}

fn target_in(edition: &Edition, canary: &Canary) -> Result<TokenErrand, Failed> {
    let name = (canary.workload.clone(), canary.target.clone());
    edition.targets.get(&name).cloned().ok_or_else(|| {
        let text = "the courier's configuration has no canary for this target; does it read the same files as \
                    assertd?";
        Failed::new(Failure::Target, text)
    })
}
