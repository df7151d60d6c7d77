//! The life of the token in this process: opened, doubted, mended, opened anew, waited for.
//!
//! Owns the ladder above what a backend tries by itself (a new session or context for each request):
//!
//! 1. *Mend*: what holds for all its sessions, the login or the connection, is renewed.
//! 2. *Open anew*: everything is closed, the module finalised, and opened again, with back-off.
//! 3. *End*: a new process starts; it cures what a module keeps in its memory.
//!
//! A token that is not there is waited for, and used when it is back. What a person has to change
//! (a wrong PIN, another token) ends the ladder at once: nothing is tried again, and health says
//! what helps. Nothing here signs for anybody.

use crate::backend::{Backend, ObjectId};
use crate::hang::{HangWatch, Pace, Watched};
use crate::notify::notify;
use crate::protocol::Standing;
use crate::records::Keys;
use crate::statefile::StateDir;
use crate::{Error, Kind};
use sd_notify::NotifyState;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

/// First and longest wait between attempts to open a token. The longest is also how late one that
/// is put back may be noticed, and each attempt is a few calls into the module.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// First and longest time that an open token without keys is left as it is.
const EMPTIED: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Attempts in a row that fail although the token is there and was open before: then the module
/// itself is in doubt, and the process ends.
const TRIES_MAX: u32 = 5;

/// How long those who use the token may take to leave it before it is closed: as long as the broker
/// waits for one signature, twice.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// After a mend that seemed to work, doubts so soon after it mean that it did not.
const MENDED_FOR: Duration = Duration::from_secs(2);

/// How far the token has come.
enum Stage<B> {
    /// It is being opened for the first time.
    Opening,
    Open(Arc<Keys<Watched<B>>>),
    /// It is tried again by itself.
    Away {
        kind: Kind,
        why: String,
    },
    /// A person acts first.
    Failed {
        kind: Kind,
        why: String,
    },
}

impl<B> Stage<B> {
    fn away(error: &Error) -> Stage<B> {
        Stage::Away {
            kind: error.kind(),
            why: error.to_string(),
        }
    }

    fn failed(error: &Error) -> Stage<B> {
        Stage::Failed {
            kind: error.kind(),
            why: error.to_string(),
        }
    }
}

/// A stage, and since when.
struct Now<B> {
    stage: Stage<B>,
    since: Instant,
}

/// The token of one process.
pub struct Life<B> {
    name: String,
    state: StateDir,
    absence_max: Duration,
    hang: Arc<HangWatch>,
    now: RwLock<Now<B>>,
    /// Whether somebody could not sign, since it was last looked at.
    doubted: Mutex<Doubt>,
    news: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    No,
    Yes,
}

/// What came of one attempt to open it.
pub enum Opened {
    /// It signs.
    Usable,
    /// It is to be tried again.
    Away(Kind),
    /// It is not.
    NeedsPerson,
}

/// What came of a doubt.
enum Verdict {
    /// It signs.
    Sound,
    /// It does not, and is to be opened anew.
    Ill(Error),
    /// A person has to act.
    NeedsPerson(Error),
}

impl<B: Backend> Life<B> {
    /// Before anything was tried. A token that is not there is waited for `absence_max` by one
    /// process: a module that has lost sight of it, or a sandbox that is older than its device, is
    /// cured by a new one.
    pub fn new(
        name: &str,
        state: StateDir,
        absence_max: Duration,
        hang: Arc<HangWatch>,
    ) -> Life<B> {
        Life {
            name: name.to_owned(),
            state,
            absence_max,
            hang,
            now: RwLock::new(Now {
                stage: Stage::Opening,
                since: Instant::now(),
            }),
            doubted: Mutex::new(Doubt::No),
            news: Condvar::new(),
        }
    }

    /// The keys, while the token is open.
    ///
    /// # Errors
    /// Why it is not.
    pub fn keys(&self) -> Result<Arc<Keys<Watched<B>>>, Error> {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        match &now.stage {
            Stage::Open(keys) => Ok(keys.clone()),
            Stage::Opening => Err(Error::new(Kind::Unavailable, "token: not opened yet")),
            Stage::Away { kind, why } | Stage::Failed { kind, why } => {
                Err(Error::new(*kind, why.clone()))
            }
        }
    }

    /// How it is, and for how long in seconds. Makes no call into the token: a busy one
    /// must not be taken for a dead one.
    pub fn standing(&self) -> (Standing, u64) {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        let standing = match &now.stage {
            Stage::Open(_) => Standing::Usable {},
            Stage::Opening => Standing::Degraded {
                kind: Kind::Unavailable,
                why: "token: not opened yet".to_owned(),
            },
            Stage::Away { kind, why } => Standing::Degraded {
                kind: *kind,
                why: why.clone(),
            },
            Stage::Failed { kind, why } => Standing::Failed {
                kind: *kind,
                why: why.clone(),
            },
        };
        (standing, now.since.elapsed().as_secs())
    }

    /// Somebody could not sign, because the token did not let them.
    pub fn doubt(&self) {
        *self.doubts() = Doubt::Yes;
        self.news.notify_one();
    }

    /// Opens it for the first time.
    pub fn begin(&self, open: &impl Fn() -> Result<B, Error>) -> Opened {
        self.open(open)
    }

    /// Goes on from there until a person has to act; then the stage says why, for as long as the
    /// process goes on.
    pub fn go_on(&self, begun: Opened, open: &impl Fn() -> Result<B, Error>) {
        let mut row = Row::new(Past::NeverOpen, self.absence_max);
        let mut emptied = Emptied::new();
        let mut opened = begun;
        loop {
            match opened {
                Opened::Usable => {
                    row = Row::new(Past::WasOpen, self.absence_max);
                    match self.attend(&mut emptied) {
                        Verdict::Ill(error) => self.close(Stage::away(&error)),
                        Verdict::NeedsPerson(error) => {
                            self.close(Stage::failed(&error));
                            return;
                        }
                        Verdict::Sound => {}
                    }
                }
                Opened::NeedsPerson => return,
                Opened::Away(kind) => {
                    row.note(kind);
                    if let Some(why) = row.is_over() {
                        eprintln!(
                            "keystore {}: the token: {why}; this process ends so that a new one \
                             opens it",
                            self.name
                        );
                        std::process::exit(69);
                    }
                    thread::sleep(row.wait());
                }
            }
            opened = self.open(open);
        }
    }

    fn open(&self, open: &impl Fn() -> Result<B, Error>) -> Opened {
        let backend = {
            let _call = self.hang.enter("opening the token", Pace::Making);
            open()
        };
        let opened = backend
            .and_then(|backend| Keys::open(Watched::new(backend, self.hang.clone()), &self.state))
            .and_then(|keys| match keys.some_are_there() {
                // Open, and it lets nobody look at a key: it is not.
                Err(error) if error.kind() != Kind::NotFound => Err(error),
                _ => Ok(keys),
            });
        *self.doubts() = Doubt::No;
        match opened {
            Ok(keys) => {
                self.set(Stage::Open(Arc::new(keys)));
                Opened::Usable
            }
            Err(error) => self.set_from(&error),
        }
    }

    /// Waits for doubts, and returns when one was right.
    fn attend(&self, emptied: &mut Emptied) -> Verdict {
        let opened = Instant::now();
        let mut mended: Option<Instant> = None;
        loop {
            let doubted = self.doubts();
            let doubted = self.news.wait_while(doubted, |doubt| *doubt == Doubt::No);
            *doubted.unwrap_or_else(PoisonError::into_inner) = Doubt::No;
            let Ok(keys) = self.keys() else {
                return Verdict::Sound;
            };
            let rung = match mended {
                Some(at) if at.elapsed() < MENDED_FOR => Rung::OpenAnew,
                _ => Rung::Mend,
            };
            match examine(&keys, rung) {
                Verdict::Sound => {
                    mended = Some(Instant::now());
                    *emptied = Emptied::new();
                }
                Verdict::Ill(error) if error.kind() == Kind::NotFound => {
                    if emptied.is_due(opened) {
                        return Verdict::Ill(error);
                    }
                }
                other => return other,
            }
        }
    }

    /// Takes the token away from everybody, waits until they have left, and closes it.
    fn close(&self, next: Stage<B>) {
        let Ok(mut keys) = self.keys() else {
            return;
        };
        self.set(next);
        let patience = Instant::now();
        let _call = self.hang.enter("closing the token", Pace::Look);
        loop {
            match Arc::try_unwrap(keys) {
                Ok(alone) => return drop(alone),
                Err(shared) => keys = shared,
            }
            if patience.elapsed() > LEAVE_MAX {
                eprintln!(
                    "keystore {}: a call into the module does not return, so that it cannot be \
                     closed; this process ends so that a new one opens the token",
                    self.name
                );
                std::process::exit(69);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Closes the token for good; nobody asks any more. The module may finish what it does at its end
    /// while no thread is in it.
    pub fn end(&self) {
        let Ok(mut keys) = self.keys() else {
            return;
        };
        let stage = Stage::Away {
            kind: Kind::Unavailable,
            why: "this process ends".to_owned(),
        };
        self.now
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .stage = stage;
        while let Err(shared) = Arc::try_unwrap(keys).map(drop) {
            keys = shared;
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn set_from(&self, error: &Error) -> Opened {
        match error.kind() {
            kind @ (Kind::Unavailable | Kind::Absent) => {
                self.set(Stage::away(error));
                Opened::Away(kind)
            }
            // A PIN is tried once; a wrong token does not get right by waiting.
            _ => {
                self.set(Stage::failed(error));
                Opened::NeedsPerson
            }
        }
    }

    /// Sets the stage; a change is one line in the log.
    fn set(&self, stage: Stage<B>) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let (text, is_new) = match (&stage, &now.stage) {
            (Stage::Opening, _) => ("opening".to_owned(), false),
            (Stage::Open(keys), _) => (format!("usable: {}", keys.backend().describe()), true),
            (Stage::Away { why, .. }, Stage::Away { .. }) => (format!("degraded: {why}"), false),
            (Stage::Away { why, .. }, _) => (format!("degraded: {why}"), true),
            (Stage::Failed { why, .. }, _) => (format!("failed: {why}"), true),
        };
        if is_new {
            eprintln!("keystore {}: {text}", self.name);
            if let Err(error) = notify(&[NotifyState::Status(&text)]) {
                eprintln!("keystore {}: {error}", self.name);
            }
            now.since = Instant::now();
        }
        now.stage = stage;
    }

    fn doubts(&self) -> MutexGuard<'_, Doubt> {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far up the ladder.
#[derive(PartialEq, Eq)]
enum Rung {
    Mend,
    OpenAnew,
}

/// Whether the token signs, after what can be mended was.
fn examine<B: Backend>(keys: &Keys<B>, rung: Rung) -> Verdict {
    if keys.try_some().is_ok() {
        return Verdict::Sound;
    }
    let tried = match rung {
        Rung::Mend => keys.backend().mend().and_then(|()| keys.try_some()),
        Rung::OpenAnew => keys.try_some(),
    };
    match tried {
        Ok(()) => Verdict::Sound,
        Err(error) => match error.kind() {
            Kind::BadPin | Kind::Locked | Kind::Corrupt => Verdict::NeedsPerson(error),
            _ => Verdict::Ill(error),
        },
    }
}

/// A token that is open and shows no key of ours. Either they were deleted, and opening it anew finds
/// nothing; or the module has lost sight of them, and it may. So that is done more and more rarely.
struct Emptied {
    wait: Duration,
}

impl Emptied {
    fn new() -> Emptied {
        Emptied { wait: EMPTIED.0 }
    }

    /// Whether to open it anew, having been `opened` then.
    fn is_due(&mut self, opened: Instant) -> bool {
        let is_due = opened.elapsed() >= self.wait;
        if is_due {
            self.wait = (self.wait * 2).min(EMPTIED.1);
        }
        is_due
    }
}

/// Whether this process has had the token open: what never worked is no better in a new process.
#[derive(PartialEq, Eq)]
enum Past {
    NeverOpen,
    WasOpen,
}

/// Attempts in a row.
struct Row {
    past: Past,
    absence_max: Duration,
    /// When the first of them failed.
    since: Option<Instant>,
    ill: u32,
    wait: Duration,
}

impl Row {
    fn new(past: Past, absence_max: Duration) -> Row {
        Row {
            past,
            absence_max,
            since: None,
            ill: 0,
            wait: WAIT.0,
        }
    }

    fn note(&mut self, kind: Kind) {
        self.since.get_or_insert_with(Instant::now);
        match kind {
            Kind::Absent => self.ill = 0,
            _ => self.ill += 1,
        }
    }

    /// Why this process should not go on trying.
    fn is_over(&self) -> Option<String> {
        if self.ill >= TRIES_MAX && self.past == Past::WasOpen {
            return Some(format!("could not be opened {} times in a row", self.ill));
        }
        let waited = self.since?.elapsed();
        (waited > self.absence_max).then(|| format!("not there for {} s", waited.as_secs()))
    }

    /// How long to wait before the next one: twice as long each time, and by a quarter more or
    /// less, so that many hosts do not come back to one network HSM at the same moment.
    fn wait(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(WAIT.1);
        let byte = ObjectId::random().map_or(128, |random| random.0[0]);
        wait.mul_f64(0.75 + f64::from(byte) / 255.0 / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENCE_MAX: Duration = Duration::from_secs(60);

    #[test]
    fn waits_grow_to_their_longest_and_differ() {
        let mut row = Row::new(Past::NeverOpen, ABSENCE_MAX);
        let waits: Vec<Duration> = (0..64).map(|_| row.wait()).collect();
        assert!(waits[0] >= WAIT.0.mul_f64(0.75) && waits[0] <= WAIT.0.mul_f64(1.25));
        assert!(waits.iter().all(|wait| *wait <= WAIT.1.mul_f64(1.25)));
        assert!(waits[8..].iter().all(|wait| *wait >= WAIT.1.mul_f64(0.75)));
        assert!(waits[8..].windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn an_absent_token_is_waited_for_and_an_ill_one_gets_a_new_process() {
        let mut row = Row::new(Past::WasOpen, ABSENCE_MAX);
        for _ in 0..TRIES_MAX * 2 {
            row.note(Kind::Absent);
        }
        assert_eq!(row.is_over(), None);
        for _ in 0..TRIES_MAX {
            assert_eq!(row.is_over(), None);
            row.note(Kind::Unavailable);
        }
        assert!(row.is_over().is_some());
        let mut never = Row::new(Past::NeverOpen, ABSENCE_MAX);
        (0..TRIES_MAX * 2).for_each(|_| never.note(Kind::Unavailable));
        assert_eq!(never.is_over(), None);
    }
}
