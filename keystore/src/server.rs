//! The loop every keystore process runs: who asks, may they, do it, answer.
//!
//! One blocking thread per connection; the broker opens as many connections as the token signs at
//! a time and sends on each one request after the other. The kernel says which uid a peer has;
//! the broker's may mint, root's may make and amend keys, everyone else is hung up on.
//! A call into the token that outlives `hang_limit` ends the process ([`crate::hang`]).

use crate::backend::Backend;
use crate::check;
use crate::hang::{HangWatch, Watched};
use crate::incoming::{FRAME_DEADLINE, next_request};
use crate::notify::notify;
use crate::protocol::{self, Condition, Health, Reply, Request, VERSION, Welcome};
use crate::records::Keys;
use crate::role::{Role, allowed, role};
use crate::statefile::StateDir;
use crate::survey::{Line, Subject, fit};
use crate::{Error, Kind};
use sd_notify::NotifyState;
use std::io::BufReader;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

/// Most connections at a time: the broker's lanes (twice the signers of any token we know) and a
/// few of an administrator.
pub const CONNECTIONS_MAX: usize = 64;

/// How long an administrator's connection may be silent.
pub const ROOT_IDLE: Duration = Duration::from_secs(60);

/// How often the token is looked through for objects nobody knows.
const CENSUS: Duration = Duration::from_secs(60);

/// First and longest wait between attempts to open a token that is not there.
const REOPEN_WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// After so long without one good signature, while some were asked for and the token did not
/// answer, the process ends: a new one logs in again and finds its keys again, which is the last
/// rung of the ladder and cures a lost login. A token that is gone then is waited for at start.
const BARREN: Duration = Duration::from_secs(5);

/// What a keystore process is told.
pub struct Options {
    /// Name of the keystore in the configuration.
    pub name: String,
    /// The listening socket.
    pub listener: UnixListener,
    /// The broker's uid.
    pub broker_uid: u32,
    /// Its state directory, locked.
    pub state: StateDir,
    /// How long one call into the token may take.
    pub hang_limit: Duration,
}

/// How far the token has come.
enum Stage<B> {
    Failed { kind: Kind, why: String },
    Open(Arc<Keys<Watched<B>>>),
}

struct Server<B> {
    name: String,
    broker_uid: u32,
    state: StateDir,
    stage: RwLock<Stage<B>>,
    hang: Arc<HangWatch>,
    /// Objects that look like ours and have no record, at the last census.
    strange: Mutex<Vec<String>>,
    connections: AtomicUsize,
    minted: AtomicU64,
    failed: AtomicU64,
    /// When the first of an unbroken row of failed signatures was, if the last one failed.
    barren_since: Mutex<Option<Instant>>,
    /// Held over a check: two at a time would measure each other.
    checking: Mutex<()>,
}

/// Serves until the process is ended. `open` opens the token; what can be cured by waiting is
/// tried again with back-off, what cannot (wrong PIN, ambiguous token) is tried once and shown.
///
/// # Errors
/// Only if no thread can be started or the listener breaks.
pub fn run<B: Backend>(
    options: Options,
    open: impl Fn() -> Result<B, Error> + Send + Sync + 'static,
) -> Result<(), Error> {
    let Options {
        name,
        listener,
        broker_uid,
        state,
        hang_limit,
    } = options;
    let first = Stage::Failed {
        kind: Kind::Unavailable,
        why: "token: not opened yet".into(),
    };
    let server = Arc::new(Server {
        name,
        broker_uid,
        state,
        stage: RwLock::new(first),
        hang: Arc::new(HangWatch::new(hang_limit)),
        strange: Mutex::default(),
        connections: AtomicUsize::new(0),
        minted: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        barren_since: Mutex::new(None),
        checking: Mutex::default(),
    });
    server
        .clone()
        .start("hang-watch", |server| server.hang.watch())?;
    server
        .clone()
        .start("census", |server| server.count_strange())?;
    // Before the token is opened: a slow one is no failed start, and health says how far it is.
    server.tell(&[NotifyState::Ready, NotifyState::Status("opening the token")]);
    if server.try_open(&open) == Opened::Later {
        server
            .clone()
            .start("reopen", move |server| server.reopen(&open))?;
    }
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => server.clone().accept(stream),
            Err(error) => {
                eprintln!("keystore {}: accept: {error}", server.name);
                thread::sleep(Duration::from_millis(50)); // out of descriptors: do not spin
            }
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Opened {
    Final,
    Later,
}

impl<B: Backend> Server<B> {
    fn start(
        self: Arc<Self>,
        name: &str,
        body: impl FnOnce(&Self) + Send + 'static,
    ) -> Result<(), Error> {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || body(&self))
            .map(drop)
            .map_err(|e| Error::new(Kind::Unavailable, format!("thread {name}")).because(e))
    }

    /// Opens the token once and sets the stage to what came of it.
    fn try_open(&self, open: &impl Fn() -> Result<B, Error>) -> Opened {
        let backend = {
            let _call = self.hang.enter("opening the token");
            open()
        };
        let opened = backend
            .and_then(|backend| Keys::open(Watched::new(backend, self.hang.clone()), &self.state));
        let (stage, verdict) = match opened {
            Ok(keys) => {
                let token = keys.backend().describe();
                eprintln!("keystore {}: usable: {token}", self.name);
                self.tell(&[NotifyState::Status(&format!("usable: {token}"))]);
                (Stage::Open(Arc::new(keys)), Opened::Final)
            }
            Err(error) => {
                eprintln!("keystore {}: failed: {error}", self.name);
                self.tell(&[NotifyState::Status(&format!("failed: {error}"))]);
                let verdict = match error.kind() {
                    Kind::Unavailable => Opened::Later,
                    _ => Opened::Final, // a PIN is tried once; a wrong token does not get right
                };
                (
                    Stage::Failed {
                        kind: error.kind(),
                        why: error.to_string(),
                    },
                    verdict,
                )
            }
        };
        *self.stage.write().unwrap_or_else(PoisonError::into_inner) = stage;
        verdict
    }

    /// Tells the service manager; a failure is a line in the log.
    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = notify(states) {
            eprintln!("keystore {}: {error}", self.name);
        }
    }

    fn reopen(&self, open: &impl Fn() -> Result<B, Error>) {
        let (mut wait, longest) = REOPEN_WAIT;
        loop {
            thread::sleep(wait);
            if self.try_open(open) == Opened::Final {
                return;
            }
            wait = (wait * 2).min(longest);
        }
    }

    fn accept(self: Arc<Self>, stream: UnixStream) {
        let Some(role) = role(&stream, self.broker_uid) else {
            return;
        };
        if self.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let served = self.clone().start("connection", move |server| {
            if let Err(error) = server.serve(stream, role)
                && error.kind() == Kind::Protocol
            {
                eprintln!(
                    "keystore {}: a peer ({role:?}) was hung up on: {error}",
                    server.name
                );
            }
            server.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if served.is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn serve(&self, stream: UnixStream, role: Role) -> Result<(), Error> {
        let lost = |e| Error::new(Kind::Unavailable, "connection").because(e);
        stream
            .set_write_timeout(Some(FRAME_DEADLINE))
            .map_err(lost)?;
        let idle = if role == Role::Root {
            Some(ROOT_IDLE)
        } else {
            None
        };
        stream.set_read_timeout(idle).map_err(lost)?;
        let mut writer = stream.try_clone().map_err(lost)?;
        let mut reader = BufReader::with_capacity(16 * 1024, stream);
        let mut greeted = false;
        while let Some(request) = next_request(&mut reader, idle)? {
            let reply = match (&request, greeted) {
                (Request::Hello { version }, false) if *version == VERSION => {
                    greeted = true;
                    Ok(Reply::Welcome(self.welcome()))
                }
                (Request::Hello { version }, false) => Err(Error::new(
                    Kind::Protocol,
                    format!(
                        "this keystore speaks protocol {VERSION}, not {version}; finish the \
                             upgrade and restart both"
                    ),
                )),
                (_, false) => Err(Error::new(Kind::Protocol, "the first request is hello")),
                (_, true) => self.answer(&request, role),
            };
            let ends = matches!(&reply, Err(error) if error.kind() == Kind::Protocol);
            protocol::write(&mut writer, &reply.unwrap_or_else(Reply::from))?;
            if ends {
                return Ok(());
            }
        }
        Ok(())
    }

    fn welcome(&self) -> Welcome {
        let parallelism = match self.open_keys() {
            Ok(keys) => keys.backend().parallelism(),
            Err(_) => 1,
        };
        Welcome {
            version: VERSION,
            keystore: self.name.clone(),
            parallelism,
            pid: std::process::id(),
        }
    }

    fn answer(&self, request: &Request, role: Role) -> Result<Reply, Error> {
        allowed(role, request)?;
        match request {
            Request::Hello { .. } => Err(Error::new(Kind::Protocol, "hello was said already")),
            Request::Health {} => Ok(Reply::Health(self.health())),
            Request::Check {} => self.check().map(|lines| Reply::Checked { lines }),
            Request::Mint {
                key,
                purpose,
                claims,
            } => {
                let keys = self.open_keys()?;
                let minted = keys.mint(key, *purpose, claims);
                self.note(&minted);
                minted.map(|jws| Reply::Minted { jws })
            }
            Request::List { after } => {
                let (keys, more) = self.open_keys()?.list(after.as_ref());
                Ok(Reply::Keys { keys, more })
            }
            Request::Make { key, charter } => {
                let (key, created) = self.open_keys()?.make(key, charter)?;
                Ok(Reply::Made { key, created })
            }
            Request::Amend { name, charter } => self
                .open_keys()?
                .amend(name, charter)
                .map(|()| Reply::Done {}),
            Request::Destroy { key } => self.open_keys()?.destroy(key).map(|()| Reply::Done {}),
        }
    }

    /// Counts a mint, and ends the process when the token has answered none for too long.
    fn note(&self, minted: &Result<String, Error>) {
        let counter = if minted.is_ok() {
            &self.minted
        } else {
            &self.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut since = self
            .barren_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match minted {
            Ok(_) => *since = None,
            Err(error) if error.kind() == Kind::Unavailable => {
                since.get_or_insert_with(Instant::now);
            }
            Err(_) => return, // refused: says nothing about the token
        }
        if since.is_some_and(|since| since.elapsed() > BARREN) {
            eprintln!(
                "keystore {}: no signature for {} s; this process ends so that a new one opens \
                 the token anew",
                self.name,
                BARREN.as_secs()
            );
            std::process::exit(69);
        }
    }

    fn open_keys(&self) -> Result<Arc<Keys<Watched<B>>>, Error> {
        match &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            Stage::Open(keys) => Ok(keys.clone()),
            Stage::Failed { kind, why } => Err(Error::new(*kind, why.clone())),
        }
    }

    /// How the keystore is, without a call into the token: a busy or a slow one must not be taken
    /// for a dead one.
    fn health(&self) -> Health {
        let (condition, token, algs) = match self.open_keys() {
            Ok(keys) => {
                let token = keys.backend();
                (Condition::Usable {}, token.describe(), token.algs())
            }
            Err(error) => {
                let (kind, why) = (error.kind(), error.to_string());
                (
                    Condition::Failed { kind, why },
                    "not open".to_owned(),
                    Vec::new(),
                )
            }
        };
        Health {
            condition,
            token,
            algs,
            strange: self.lock_strange().clone(),
            minted: self.minted.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// A look at everything, for people.
    fn check(&self) -> Result<Vec<Line>, Error> {
        let keys = self.open_keys()?;
        let Ok(_alone) = self.checking.try_lock() else {
            let text = format!(
                "keystore {}: is being looked at already; look again when that is done",
                self.name
            );
            return Err(Error::new(Kind::Unavailable, text));
        };
        let text = format!(
            "{}: usable; {} assertions minted since its start, {} failed",
            self.name,
            self.minted.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed)
        );
        let mut lines = vec![Line::ok(Subject::Keystore, text)];
        lines.extend(check::look(&keys));
        Ok(fit(lines))
    }

    /// Looks through the token now and then for objects that look like ours and have no record
    /// (P6). Linear in all its objects, so it is nobody's request.
    fn count_strange(&self) {
        loop {
            let pause = match self.open_keys().and_then(|keys| keys.strange()) {
                Ok(strange) => {
                    *self.lock_strange() = strange;
                    CENSUS
                }
                Err(_) => REOPEN_WAIT.0, // not open yet, or gone: health says so, not the census
            };
            thread::sleep(pause);
        }
    }

    fn lock_strange(&self) -> MutexGuard<'_, Vec<String>> {
        self.strange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
