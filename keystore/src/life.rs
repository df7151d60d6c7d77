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

mod ladder;

use crate::backend::Backend;
use crate::hang::{HangWatch, Pace, Watched};
use crate::notify::notify;
use crate::protocol::Standing;
use crate::records::{Keys, Tried};
use crate::statefile::StateDir;
use crate::stop;
use crate::{Clock, Error, Kind};
use ladder::{Emptied, Past, Row};
use sd_notify::NotifyState;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

/// How long one call of those who use the token may take before it is closed: as long as the broker
/// waits for one signature, twice.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// After a mend that seemed to work, doubts so soon after it mean that it did not.
const MENDED_FOR: Duration = Duration::from_secs(2);

/// Shortest and longest pause after a look at the token that found it sound; between them it is as
/// long as the look took. Whoever doubts all the time gets no more than half of a slow token.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Without a doubt nobody looks; any time that is long.
const NO_NEWS: Duration = Duration::from_secs(3600);

/// How long nothing is said of a token that is being opened. For so long who connects at the start
/// waits in the backlog, so that over a restart nobody is refused.
pub const OPENING_QUIET: Duration = Duration::from_secs(3);

/// How often who waits for it looks.
const LOOKS_OPEN: Duration = Duration::from_millis(5);

/// What is said of it from then on.
const OPENING: &str = "token: is being opened; it is slow, or its module waits for something";

/// How far the token has come.
enum Stage<B> {
    /// It is being opened, for the first time or again.
    Opening {
        since: Instant,
    },
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
    fn opening() -> Stage<B> {
        Stage::Opening {
            since: Instant::now(),
        }
    }

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

/// A stage, since when, and what the log says of it.
struct Now<B> {
    stage: Stage<B>,
    since: Instant,
    said: String,
}

/// The token of one process.
pub struct Life<B> {
    name: String,
    state: StateDir,
    absence_max: Duration,
    hang: Arc<HangWatch>,
    clock: Arc<Clock>,
    now: RwLock<Now<B>>,
    /// Whether somebody could not sign, since it was last looked at.
    doubted: Mutex<Doubt>,
    news: Condvar,
    /// Held while this looks after the token, which is not once the process is to end.
    work: Mutex<Work>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    No,
    Yes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    GoesOn,
    IsOver,
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
    /// It signs, and nothing was done.
    Sound,
    /// It signs again.
    Mended,
    /// It does not, and is to be opened anew.
    Ill(Error),
    /// It is open, and none of its keys is there.
    Emptied,
    /// A person has to act.
    NeedsPerson(Error),
}

/// Whether the log is told that the token is closed.
#[derive(PartialEq, Eq)]
enum Manner {
    Said,
    /// It is about to be open again, as it was.
    Quiet,
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
        clock: Arc<Clock>,
    ) -> Life<B> {
        Life {
            name: name.to_owned(),
            state,
            absence_max,
            hang,
            clock,
            now: RwLock::new(Now {
                stage: Stage::opening(),
                since: Instant::now(),
                said: String::new(),
            }),
            doubted: Mutex::new(Doubt::No),
            news: Condvar::new(),
            work: Mutex::new(Work::GoesOn),
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
            Stage::Opening { .. } => Err(Error::new(Kind::Unavailable, OPENING)),
            Stage::Away { kind, why } | Stage::Failed { kind, why } => {
                Err(Error::new(*kind, why.clone()))
            }
        }
    }

    /// The keys, for who asks for something: a token that is opened again in a moment is waited for.
    ///
    /// # Errors
    /// As [`Life::keys`].
    pub fn keys_soon(&self) -> Result<Arc<Keys<Watched<B>>>, Error> {
        while self.is_opening_still() {
            thread::sleep(LOOKS_OPEN);
        }
        self.keys()
    }

    fn is_opening_still(&self) -> bool {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        matches!(&now.stage, Stage::Opening { since } if since.elapsed() < OPENING_QUIET)
    }

    /// How it is, and for how long in seconds. Makes no call into the token: a busy one
    /// must not be taken for a dead one.
    pub fn standing(&self) -> (Standing, u64) {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        let standing = match &now.stage {
            Stage::Open(_) => Standing::Usable {}, // keys that are missing are shown one by one
            // As it was: who opens it again in a moment has lost nothing.
            Stage::Opening { since } if since.elapsed() < OPENING_QUIET => Standing::Usable {},
            Stage::Opening { .. } => Standing::Degraded {
                kind: Kind::Unavailable,
                why: OPENING.to_owned(),
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
        self.open(open, Past::NeverOpen)
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
                    let since = Instant::now();
                    let next = self.attend(&mut emptied);
                    if let Next::Person = next {
                        return;
                    }
                    match (next, row.past()) {
                        // Ill again at once: it was not cured.
                        (Next::Ill(kind), Past::WasOpen) if since.elapsed() < MENDED_FOR => {
                            self.after_failure(&mut row, kind);
                        }
                        _ => row = Row::new(Past::WasOpen, self.absence_max),
                    }
                }
                Opened::NeedsPerson => return,
                Opened::Away(kind) => self.after_failure(&mut row, kind),
            }
            opened = self.open(open, row.past());
        }
    }

    /// Waits for the next attempt, or ends the process.
    fn after_failure(&self, row: &mut Row, kind: Kind) {
        row.note(kind);
        if let Some(why) = row.is_over() {
            let _at_work = self.at_work(); // or it is ending already, with 0
            eprintln!(
                "keystore {}: the token: {why}; this process ends so that a new one opens it",
                self.name
            );
            stop::exit(69);
        }
        thread::sleep(row.wait());
    }

    fn open(&self, open: &impl Fn() -> Result<B, Error>, past: Past) -> Opened {
        let _at_work = self.at_work();
        let backend = {
            let _call = self.hang.enter("opening the token", Pace::Making);
            open()
        };
        let opened = backend
            .and_then(|backend| {
                let backend = Watched::new(backend, self.hang.clone());
                Keys::open(backend, &self.state, self.clock.clone())
            })
            .and_then(|keys| match keys.signs() {
                // Open, and it lets nobody look at a key: it is not.
                Err(error) if error.kind() == Kind::Internal => {
                    Err(Error::new(Kind::Unavailable, error.to_string()))
                }
                Err(error) if error.kind() != Kind::NotFound => Err(error),
                _ => Ok(keys),
            });
        *self.doubts() = Doubt::No;
        match opened {
            Ok(keys) => {
                self.set(Stage::Open(Arc::new(keys)));
                Opened::Usable
            }
            Err(error) => self.set_from(&error, past),
        }
    }

    /// Looks at the token when somebody doubts, until it has to be opened anew; then it is closed.
    fn attend(&self, emptied: &mut Emptied) -> Next {
        let opened = Instant::now();
        let mut mended: Option<Instant> = None;
        loop {
            self.wait_for_news(emptied.left(opened));
            let began = Instant::now();
            let at_work = self.at_work();
            let Ok(keys) = self.keys() else {
                return Next::Opening;
            };
            if keys.signs().is_ok() {
                *emptied = Emptied::new(); // they came back meanwhile
            }
            let rung = match mended {
                Some(at) if at.elapsed() < MENDED_FOR => Rung::OpenAnew,
                _ => Rung::Mend,
            };
            match examine(&keys, rung) {
                Verdict::Sound => *emptied = Emptied::new(),
                Verdict::Mended => {
                    *emptied = Emptied::new();
                    mended = Some(Instant::now());
                }
                Verdict::Emptied if emptied.left(opened).is_zero() => {
                    emptied.note();
                    self.close(keys, Stage::opening(), &Manner::Quiet);
                    return Next::Opening;
                }
                Verdict::Emptied => {}
                Verdict::Ill(error) => {
                    self.close(keys, Stage::away(&error), &Manner::Said);
                    return Next::Ill(error.kind());
                }
                Verdict::NeedsPerson(error) => {
                    self.close(keys, Stage::failed(&error), &Manner::Said);
                    return Next::Person;
                }
            }
            drop((keys, at_work));
            thread::sleep(began.elapsed().clamp(PAUSE.0, PAUSE.1));
        }
    }

    /// Returns when somebody doubts; or, if no key is there, when it is time to look for them.
    fn wait_for_news(&self, emptied: Duration) {
        let is_emptied = self.keys().is_ok_and(|keys| keys.signs().is_err());
        let most = if is_emptied { emptied } else { NO_NEWS };
        let no_doubt = |doubt: &mut Doubt| *doubt == Doubt::No;
        let waited = self
            .news
            .wait_timeout_while(self.doubts(), most, no_doubt)
            .unwrap_or_else(PoisonError::into_inner);
        let (mut doubt, _) = waited;
        *doubt = Doubt::No;
    }

    /// Takes the token away from everybody, waits until they have left, and closes it.
    fn close(&self, mut keys: Arc<Keys<Watched<B>>>, next: Stage<B>, manner: &Manner) {
        match manner {
            Manner::Said => self.set(next),
            Manner::Quiet => self.write_now().stage = next,
        }
        loop {
            match Arc::try_unwrap(keys) {
                Ok(alone) => return drop(alone),
                Err(shared) => keys = shared,
            }
            // Who looks at everything makes many calls, and comes to an end.
            if self.hang.is_stuck(LEAVE_MAX) {
                eprintln!(
                    "keystore {}: a call into the module does not return, so that it cannot be \
                     closed; this process ends so that a new one opens the token",
                    self.name
                );
                // What the module does at exit(3) may wait for that call.
                std::process::abort();
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Closes the token for good; nobody asks any more. When this returns no thread is in the module
    /// but one that it does not let out: it may finish what it does at its end.
    pub fn end(&self) {
        *self.work() = Work::IsOver; // waits for what is being done
        let Ok(mut keys) = self.keys() else {
            return;
        };
        self.write_now().stage = Stage::Away {
            kind: Kind::Unavailable,
            why: "this process ends".to_owned(),
        };
        while let Err(shared) = Arc::try_unwrap(keys).map(drop) {
            keys = shared;
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The right to look after the token. Once the process is to end nobody gets it any more.
    fn at_work(&self) -> MutexGuard<'_, Work> {
        let work = self.work();
        if *work == Work::GoesOn {
            return work;
        }
        drop(work);
        stop::wait_for_it()
    }

    fn set_from(&self, error: &Error, past: Past) -> Opened {
        match (error.kind(), past) {
            (kind @ (Kind::Unavailable | Kind::Absent), _) => {
                self.set(Stage::away(error));
                Opened::Away(kind)
            }
            // It could before, and is not itself: a new process may do better.
            (Kind::Internal | Kind::Unsupported, Past::WasOpen) => {
                self.set(Stage::away(error));
                Opened::Away(Kind::Unavailable)
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
        let mut now = self.write_now();
        let text = match &stage {
            Stage::Opening { .. } => "opening the token".to_owned(),
            Stage::Open(keys) => format!("usable: {}", keys.backend().describe()),
            Stage::Away { why, .. } => format!("degraded: {why}"),
            Stage::Failed { why, .. } => format!("failed: {why}"),
        };
        // While it is away its reason may change often; health has the last one.
        let stages = (&stage, &now.stage);
        let is_still_away = matches!(stages, (Stage::Away { .. }, Stage::Away { .. }));
        if text != now.said && !is_still_away {
            eprintln!("keystore {}: {text}", self.name);
            if let Err(error) = notify(&[NotifyState::Status(&text)]) {
                eprintln!("keystore {}: {error}", self.name);
            }
            now.since = Instant::now();
            now.said = text;
        }
        now.stage = stage;
    }

    fn write_now(&self) -> std::sync::RwLockWriteGuard<'_, Now<B>> {
        self.now.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubts(&self) -> MutexGuard<'_, Doubt> {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows when a token was closed.
enum Next {
    /// It is opened anew.
    Opening,
    /// The same, because it was ill.
    Ill(Kind),
    /// A person acts.
    Person,
}

/// How far up the ladder.
#[derive(PartialEq, Eq)]
enum Rung {
    Mend,
    OpenAnew,
}

/// Whether the token signs, after what can be mended was.
fn examine<B: Backend>(keys: &Keys<B>, rung: Rung) -> Verdict {
    let tried = keys.try_some();
    if let Ok(Tried::Signs) = tried {
        return Verdict::Sound;
    }
    if rung == Rung::Mend
        && let Err(error) = keys.backend().mend()
    {
        return match error.kind() {
            Kind::BadPin | Kind::Locked | Kind::Corrupt | Kind::Mismatch => {
                Verdict::NeedsPerson(error)
            }
            _ => Verdict::Ill(error),
        };
    }
    // Of one key's answer nothing follows for the token but that it is to be opened anew.
    match keys.try_some() {
        // Whether it is well nobody can tell without a key; doubted again at once, it is not.
        Ok(Tried::NoKey) if rung == Rung::OpenAnew => {
            let text = "the token: does not do what it is asked, and has no key to be tried with";
            Verdict::Ill(Error::new(Kind::Unavailable, text))
        }
        Ok(_) => Verdict::Mended,
        Err(error) if error.kind() == Kind::NotFound => Verdict::Emptied,
        Err(error) => Verdict::Ill(error),
    }
}
