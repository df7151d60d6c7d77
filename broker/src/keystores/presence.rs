//! A keystore's *presence*: which requests wait for it, and when it was last heard of. A keystore
//! that lets requests wait and says nothing is silent. It may be busy (a TPM that makes an RSA key),
//! hang, be started again or not be there at all; nobody can tell until it speaks, and what its
//! requests hold of a user's connections is bounded all the same.
//!
//! A [`Place`] is one request that waits: from before the keystore is known to have started until its
//! answer. Must never hold its lock across an await.

use super::Keystore;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a keystore that was asked may say nothing before it counts as silent: longer than any
/// signature and any restart take, shorter than callers notice.
pub const SILENCE: Duration = Duration::from_secs(1);

/// Most requests that wait for one keystore: as many as there are connections. One workload never has
/// more of these places than it leaves free, so that another always finds one.
const WAITING_MAX: usize = 1024;

/// Most requests that wait for a silent keystore: a quarter of the connections that one user may
/// have, so that a user's requests for other keystores find one. More than a TPM with ten signatures
/// a second could still answer in time.
pub const WAITING_SILENT_MAX: usize = 64;

/// Who waits for a keystore, and when it was last heard of.
pub struct Presence {
    state: Mutex<State>,
}

struct State {
    /// Numbered in the order of their arrival.
    waiting: BTreeMap<u64, Arc<str>>,
    /// How many of each workload wait.
    of: HashMap<Arc<str>, usize>,
    next: u64,
    /// When it last answered, or was asked after a rest.
    heard: Instant,
    /// Whether somebody gave it up while it was silent: that nobody waits any more is no rest then.
    given_up: bool,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// Too many wait.
    Full,
    /// It has been silent for so long, and enough wait for it already.
    Silent(Duration),
}

/// What one that waits shall do.
#[derive(Debug, PartialEq, Eq)]
enum Prospect {
    /// Look again then.
    Open(Instant),
    /// Wait on: it is silent, but this is one of those that came first.
    Kept,
    /// Give it up: it has been silent for so long, and enough wait for it already.
    OneTooMany(Duration),
}

impl Presence {
    /// Nobody waits.
    pub fn new() -> Presence {
        let state = Mutex::new(State {
            waiting: BTreeMap::new(),
            of: HashMap::new(),
            next: 0,
            heard: Instant::now(),
            given_up: false,
        });
        Presence { state }
    }

    /// Notes that it has answered.
    pub fn heard(&self) {
        let mut state = self.lock();
        state.heard = Instant::now();
        state.given_up = false;
    }

    /// Notes that it says that it can serve. While requests wait that breaks no silence: a keystore
    /// that ends with every request says it again and again.
    pub fn greeted(&self) {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            state.given_up = false;
        }
    }

    fn arrive(&self, workload: &Arc<str>) -> Result<u64, NoPlace> {
        let mut state = self.lock();
        if state.waiting.is_empty() && !state.given_up {
            state.heard = Instant::now();
        }
        match (state.silence(), state.waiting.len()) {
            (Some(silence), WAITING_SILENT_MAX..) => return Err(NoPlace::Silent(silence)),
            _ if state.has_enough(workload) => return Err(NoPlace::Full),
            _ => {}
        }
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, workload.clone());
        *state.of.entry(workload.clone()).or_default() += 1;
        Ok(number)
    }

    fn leave(&self, number: u64) {
        let mut state = self.lock();
        state.given_up |= state.silence().is_some();
        let Some(workload) = state.waiting.remove(&number) else {
            return;
        };
        if let Some(count) = state.of.get_mut(&workload) {
            *count -= 1;
            if *count == 0 {
                state.of.remove(&workload);
            }
        }
    }

    fn prospect(&self, number: u64) -> Prospect {
        let state = self.lock();
        let Some(silence) = state.silence() else {
            return Prospect::Open(state.heard + SILENCE);
        };
        match state.waiting.range(..number).count() {
            ..WAITING_SILENT_MAX => Prospect::Kept,
            _ => Prospect::OneTooMany(silence),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a workload has as many places as are free (dynamic thresholds, Choudhury and Hahne
    /// 1998): alone it may have half of them, and the more want some the fewer each may have.
    fn has_enough(&self, workload: &Arc<str>) -> bool {
        let free = WAITING_MAX - self.waiting.len();
        self.of.get(workload).copied().unwrap_or(0) >= free
    }

    /// How long it has been silent, if that is too long. Asked of one for which somebody waits, or
    /// that was given up.
    fn silence(&self) -> Option<Duration> {
        let silence = self.heard.elapsed();
        (silence >= SILENCE).then_some(silence)
    }
}

/// One request that waits for a keystore; it does no more when dropped.
pub struct Place {
    keystore: Arc<Keystore>,
    number: u64,
}

impl Place {
    /// Takes one.
    pub(super) fn take(keystore: &Arc<Keystore>, workload: &Arc<str>) -> Result<Place, NoPlace> {
        let number = keystore.presence.arrive(workload)?;
        let keystore = keystore.clone();
        Ok(Place { keystore, number })
    }

    /// Whose it is.
    pub fn keystore(&self) -> &Arc<Keystore> {
        &self.keystore
    }

    /// Waits for something that the keystore does.
    ///
    /// # Errors
    /// A sentence for administrators if the keystore falls silent, and this place is one too many.
    pub async fn wait<F: Future>(&self, something: F) -> Result<F::Output, String> {
        tokio::select! {
            biased;
            done = something => Ok(done),
            silence = self.one_too_many() => Err(self.keystore.silent(silence)),
        }
    }

    async fn one_too_many(&self) -> Duration {
        loop {
            match self.keystore.presence.prospect(self.number) {
                Prospect::Open(until) => tokio::time::sleep_until(until.into()).await,
                Prospect::Kept => {
                    self.keystore.look_soon(); // what stands still says nothing to the watch either
                    std::future::pending().await // the later ones go first
                }
                Prospect::OneTooMany(silence) => return silence,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.keystore.presence.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long_ago(presence: &Presence) {
        let ago = Instant::now().checked_sub(SILENCE * 2);
        presence.lock().heard = ago.expect("this machine has run for longer");
    }

    fn name(workload: usize) -> Arc<str> {
        format!("w{workload}").into()
    }

    fn arrive(presence: &Presence) -> Result<u64, NoPlace> {
        presence.arrive(&name(0))
    }

    /// Each of another workload.
    fn fill(presence: &Presence, count: usize) -> Vec<u64> {
        let arrive = |workload| presence.arrive(&name(1 + workload)).unwrap();
        (0..count).map(arrive).collect()
    }

    #[test]
    fn one_workload_leaves_half_of_the_places_and_others_always_find_one() {
        let presence = Presence::new();
        let mut places: Vec<u64> = std::iter::from_fn(|| arrive(&presence).ok()).collect();
        assert_eq!(places.len(), WAITING_MAX / 2);
        for workload in 1..=6 {
            let mine = std::iter::from_fn(|| presence.arrive(&name(workload)).ok());
            let mine: Vec<u64> = mine.collect();
            assert!(!mine.is_empty(), "{workload}");
            places.extend(mine);
        }
        assert_eq!(arrive(&presence), Err(NoPlace::Full));
        places.into_iter().for_each(|place| presence.leave(place));
        assert!(presence.lock().of.is_empty());
    }

    #[test]
    fn the_places_end_at_their_limit_and_come_back() {
        let presence = Presence::new();
        let places = fill(&presence, WAITING_MAX);
        assert_eq!(arrive(&presence), Err(NoPlace::Full));
        presence.leave(places[7]);
        assert!(arrive(&presence).is_ok());
    }

    #[test]
    fn the_latest_of_too_many_give_a_silent_keystore_up() {
        let presence = Presence::new();
        let places = fill(&presence, 100);
        for place in &places {
            assert!(matches!(presence.prospect(*place), Prospect::Open(_)));
        }
        long_ago(&presence);
        let (kept, late) = places.split_at(WAITING_SILENT_MAX);
        for place in late {
            let prospect = presence.prospect(*place);
            assert!(matches!(prospect, Prospect::OneTooMany(_)), "{prospect:?}");
            presence.leave(*place);
        }
        for place in kept {
            assert_eq!(presence.prospect(*place), Prospect::Kept);
        }
        assert!(matches!(arrive(&presence), Err(NoPlace::Silent(_))));
        presence.heard();
        assert!(arrive(&presence).is_ok(), "an answer breaks the silence");
    }

    #[test]
    fn a_keystore_at_rest_is_not_silent() {
        let presence = Presence::new();
        presence.leave(arrive(&presence).unwrap());
        long_ago(&presence);
        let places = fill(&presence, WAITING_MAX);
        assert!(matches!(presence.prospect(places[255]), Prospect::Open(_)));
    }

    #[test]
    fn a_keystore_that_was_given_up_is_silent_until_it_speaks() {
        let greet: [fn(&Presence); 2] = [Presence::heard, Presence::greeted];
        for greet in greet {
            let presence = Presence::new();
            let place = arrive(&presence).unwrap();
            long_ago(&presence);
            presence.leave(place);
            let places = fill(&presence, WAITING_SILENT_MAX);
            let refused = arrive(&presence);
            assert!(matches!(refused, Err(NoPlace::Silent(_))), "{refused:?}");
            presence.greeted();
            let refused = arrive(&presence);
            assert!(
                matches!(refused, Err(NoPlace::Silent(_))),
                "while they wait"
            );
            places.into_iter().for_each(|place| presence.leave(place));
            greet(&presence);
            fill(&presence, WAITING_MAX);
        }
    }
}
