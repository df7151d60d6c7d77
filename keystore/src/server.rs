//! The loop every keystore process runs: who asks, may they, do it, answer.
//!
//! One blocking thread per connection, and behind a slow token a second that mints what the first
//! prepares (`conversation`); the broker opens as many connections as the token signs at
//! a time and sends on each one request after the other. The kernel says which uid a peer has;
//! the broker's may mint and rotate, root's may make and amend keys, everyone else is hung up on.
//! A call into the token that outlives `hang_limit` ends the process ([`crate::hang`]).

use crate::backend::Backend;
use crate::check;
use crate::conversation::{Conversation, Done, Left};
use crate::counter::CounterFile;
use crate::evidence::bundle::Bytes;
use crate::hand::Hand;
use crate::hang::{HangWatch, Watched};
use crate::life::{Life, OPENING_QUIET};
use crate::mint::Mint;
use crate::notify::notify;
use crate::protocol::{CertificateForm, Counter, Health, Reply, Request, VERSION, Welcome};
use crate::records::{Keys, Linked, Unminted};
use crate::role::{Role, allowed, reach, role};
use crate::statefile::StateDir;
use crate::stop::{self, Gate};
use crate::survey::{Line, Subject, fit};
use crate::{Clock, Error, Kind};
use sd_notify::NotifyState;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Most connections at a time: the broker's lanes (twice the signers of any token we know) and a
/// few of an administrator.
pub const CONNECTIONS_MAX: usize = 64;

/// How long an administrator's connection may be silent.
pub const ROOT_IDLE: Duration = Duration::from_secs(60);

/// How often the token is looked through for objects nobody knows.
const CENSUS: Duration = Duration::from_secs(60);

/// How often keys that were not there are looked for: a key that a passing fault has stopped serves
/// again so soon.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_WHILE_DOWN: Duration = Duration::from_millis(500);

/// Of the time, looking for them takes at most one part in so many: thousands may be missing.
const LOOK_SHARE: u32 = 10;

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
    /// How long it may take.
    pub limits: Limits,
    /// [`crate::program::Program::step_back`]
    pub step_back: fn(),
}

/// What one process waits for, and how long.
#[derive(Clone, Copy)]
pub struct Limits {
    /// For one call into the token.
    pub call: Duration,
    /// For a token that is not there.
    pub absence: Duration,
}

struct Server<B> {
    name: String,
    broker_uid: u32,
    life: Life<B>,
    clock: Arc<Clock>,
    hang: Arc<HangWatch>,
    /// Objects that look like ours and have no record, at the last census.
    strange: Mutex<Vec<String>>,
    connections: AtomicUsize,
    minted: AtomicU64,
    failed: AtomicU64,
    /// Where the token has none of its own.
    counter: Mutex<CounterFile>,
    /// Held over a check: two at a time would measure each other.
    checking: Mutex<()>,
    gate: Arc<Gate>,
    step_back: fn(),
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
        limits,
        step_back,
    } = options;
    let hang = Arc::new(HangWatch::new(&name, limits.call));
    let clock = Arc::new(Clock::new());
    let server = Arc::new(Server {
        counter: Mutex::new(CounterFile::new(state.clone())),
        life: Life::new(&name, state, limits.absence, hang.clone(), clock.clone()),
        clock,
        name,
        broker_uid,
        hang,
        strange: Mutex::default(),
        connections: AtomicUsize::new(0),
        minted: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        checking: Mutex::default(),
        gate: Arc::default(),
        step_back,
    });
    let ending = server.clone();
    server
        .clone()
        .start("stop", move |_| ending.end_when_told())?;
    server
        .clone()
        .start("hang-watch", |server| server.hang.watch())?;
    server.clone().start("census", |server| server.census())?;
    // Before the token is opened: a slow one is no failed start, and health says how far it is.
    server.tell(&[NotifyState::Ready, NotifyState::Status("opening the token")]);
    let (begun, has_begun) = mpsc::channel::<()>();
    server.clone().start("token", move |server| {
        let first = server.life.begin(&open);
        drop(begun);
        server.life.go_on(first, &open);
    })?;
    let _ = has_begun.recv_timeout(OPENING_QUIET);
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

impl<B: Backend> Server<B> {
    fn start(
        self: Arc<Self>,
        name: &str,
        body: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) -> Result<(), Error> {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || body(&self))
            .map(drop)
            .map_err(|e| Error::new(Kind::Unavailable, format!("thread {name}")).because(e))
    }

    /// Tells the service manager; a failure is a line in the log.
    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = notify(states) {
            eprintln!("keystore {}: {error}", self.name);
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

    fn serve(self: &Arc<Self>, stream: UnixStream, role: Role) -> Result<(), Error> {
        let idle = (role == Role::Root).then_some(ROOT_IDLE);
        let mut conversation = Conversation::on(stream, idle)?;
        let (mut greeted, mut linked) = (false, Linked::default());
        while let Some(request) = conversation.next()? {
            let Some(pass) = self.gate.enter() else {
                conversation.catch_up()?;
                stop::wait_for_it();
            };
            let (began, is_mint) = (Instant::now(), matches!(request, Request::Mint { .. }));
            let reply = match (request, greeted) {
                (Request::Hello { version }, false) if version == VERSION => {
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
                (request, true) => match (allowed(role, &request), request) {
                    (Err(refusal), _) => Err(refusal),
                    (
                        Ok(()),
                        Request::Mint {
                            key,
                            purpose,
                            claims,
                        },
                    ) if conversation.leaves(|| self.hand()) => {
                        let mint = self.drafted(Mint::new(key, purpose, claims));
                        conversation.leave(Left { mint, pass });
                        continue;
                    }
                    (Ok(()), request) => self.answer(role, request, &mut linked),
                },
            };
            if is_mint {
                conversation.note(began.elapsed());
            }
            let ends = matches!(&reply, Err(error) if error.kind() == Kind::Protocol);
            conversation.answer(&reply.unwrap_or_else(Reply::from))?;
            if ends {
                return Ok(());
            }
        }
        conversation.catch_up()
    }

    /// A thread that mints what is left to it. The one that asks for it steps back: an answer that it is
    /// woken for is written while the token signs the next, and not before that one has begun.
    fn hand(self: &Arc<Self>) -> Result<Hand<Left, Done>, Error> {
        let server = self.clone();
        let hand = Hand::new("mints", move |Left { mint, pass }| {
            let began = Instant::now();
            let reply = server.mint(&mint).unwrap_or_else(Reply::from);
            let took = began.elapsed();
            Done { reply, took, pass }
        })?;
        (self.step_back)(); // not before: a thread begins as the one that made it is
        Ok(hand)
    }

    /// A mint with its text written, if the token is open; if not, that is said when its turn comes.
    fn drafted(&self, mut mint: Mint) -> Mint {
        if let Ok(keys) = self.life.keys() {
            keys.draft(&mut mint);
        }
        mint
    }

    /// Ends the process, with 0 also where something hangs: its state is safe at any point.
    fn end_when_told(self: &Arc<Self>) {
        stop::told();
        self.hang.end();
        let late = |_: &Arc<Self>| {
            thread::sleep(stop::DRAIN);
            std::process::exit(0);
        };
        let _ = self.clone().start("stop-late", late); // without it we only may be late
        stop::kill_after(stop::DRAIN + stop::EXIT);
        self.gate.close();
        self.life.end();
        std::process::exit(0);
    }

    fn welcome(&self) -> Welcome {
        let parallelism = match self.life.keys() {
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

    fn answer(&self, role: Role, request: Request, linked: &mut Linked) -> Result<Reply, Error> {
        match request {
            Request::Hello { .. } => Err(Error::new(Kind::Protocol, "hello was said already")),
            Request::Health {} => Ok(Reply::Health(self.health())),
            Request::Check {} => self.check().map(|lines| Reply::Checked { lines }),
            Request::Mint {
                key,
                purpose,
                claims,
            } => self.mint(&Mint::new(key, purpose, claims)),
            Request::List { after } => {
                let (keys, more) = self.life.keys_soon()?.list(after.as_ref());
                Ok(Reply::Keys { keys, more })
            }
            Request::Make { key, charter } => {
                let made = self.life.keys_soon()?.make(&key, &charter);
                let (key, created) = self.noted(made)?;
                Ok(Reply::Made { key, created })
            }
            Request::Import {
                key,
                charter,
                private_key,
            } => {
                let private_key = private_key.private_key()?;
                let made = self.life.keys_soon()?.import(&key, &charter, &private_key);
                let (key, created) = self.noted(made)?;
                Ok(Reply::Made { key, created })
            }
            Request::Adopt {
                key,
                charter,
                object,
            } => {
                let made = self.life.keys_soon()?.adopt(&key, &charter, &object);
                let (key, created) = self.noted(made)?;
                Ok(Reply::Made { key, created })
            }
            Request::Next { key } => {
                let made = self.life.keys_soon()?.next(&key);
                let (key, created) = self.noted(made)?;
                Ok(Reply::Made { key, created })
            }
            Request::Certify { key, form } => {
                let keys = self.life.keys_soon()?;
                match form {
                    CertificateForm::SelfSigned(validity) => {
                        let key = self.noted(keys.certify(&key, validity))?;
                        Ok(Reply::Certified { key })
                    }
                    CertificateForm::Request {} => {
                        let der = self.noted(keys.request_certificate(&key))?;
                        Ok(Reply::CertificateRequest { der })
                    }
                }
            }
            Request::Amend { name, charter } => self
                .life
                .keys_soon()?
                .amend(&name, &charter)
                .map(|()| Reply::Done {}),
            Request::Counter {} => self.counter().map(Reply::Counter),
            Request::Advance { to } => {
                let keys = self.life.keys_soon()?;
                let advanced = self.lock_counter().advance(keys.backend(), to);
                self.noted(advanced).map(Reply::Counter)
            }
            Request::Attest { nonce, host, key } => {
                let attested = (self.life.keys_soon()?).attest(&key, nonce, &host, linked);
                let attested = self.noted(attested)?;
                Ok(Reply::Attested(Box::new(attested)))
            }
            Request::Quote {
                nonce,
                host,
                selection,
            } => {
                let quote = (self.life.keys_soon()?).quote(nonce, &host, &selection, linked);
                Ok(Reply::Quoted(Box::new(self.noted(quote)?)))
            }
            Request::Identity {} => {
                let identity = self.noted(self.life.keys_soon()?.identity())?;
                Ok(Reply::Identity(Box::new(identity)))
            }
            Request::State {} => {
                let state = self.life.keys_soon()?.backend().state();
                self.noted(state).map(Reply::State)
            }
            Request::Activate { credential } => {
                let keys = self.life.keys_soon()?;
                let secret = self.noted(keys.backend().activate(&credential))?;
                let secret = Bytes::new(secret.to_vec()).ok_or_else(|| {
                    Error::new(
                        Kind::Mismatch,
                        "what the TPM opened is longer than a secret",
                    )
                })?;
                Ok(Reply::Activated { secret })
            }
            Request::Destroy { key } => {
                let destroyed = self.life.keys_soon()?.destroy(&key, reach(role));
                self.noted(destroyed).map(|()| Reply::Done {})
            }
        }
    }

    fn counter(&self) -> Result<Counter, Error> {
        let keys = self.life.keys_soon()?;
        let read = self.lock_counter().read(keys.backend());
        self.noted(read)
    }

    fn lock_counter(&self) -> MutexGuard<'_, CounterFile> {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mint(&self, mint: &Mint) -> Result<Reply, Error> {
        let minted = self.life.keys_soon()?.mint(mint);
        self.note(&minted);
        let jws = minted.map_err(Error::from)?;
        Ok(Reply::Minted { jws })
    }

    /// Has the token looked at if it was not there for what was to be done.
    fn noted<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        done.inspect_err(|error| {
            if matches!(error.kind(), Kind::Unavailable | Kind::Absent) {
                self.life.doubt();
            }
        })
    }

    /// Counts a mint, and has the token looked at if it was its fault.
    fn note(&self, minted: &Result<String, Unminted>) {
        let counter = if minted.is_ok() {
            &self.minted
        } else {
            &self.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Err(Unminted::Token(_)) = minted {
            self.life.doubt();
        }
    }

    /// How the keystore is, without a call into the token: a busy or a slow one must not be taken
    /// for a dead one.
    fn health(&self) -> Health {
        let (standing, for_s) = self.life.standing();
        let (token, algs) = match self.life.keys() {
            Ok(keys) => (keys.backend().describe(), keys.backend().algs()),
            Err(_) => ("not open".to_owned(), Vec::new()),
        };
        Health {
            standing,
            for_s,
            token,
            algs,
            strange: self.lock_strange().clone(),
            minted: self.minted.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// A look at everything, for people.
    fn check(&self) -> Result<Vec<Line>, Error> {
        let keys = self.life.keys_soon()?;
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

    /// Looks through the token now and then: for keys that were not there, and for objects that look
    /// like ours and have no record (P6). The latter is linear in all its objects, so it is nobody's
    /// request. Also looks at the clock, which has to be seen to be remembered.
    fn census(&self) {
        let mut counted: Option<Instant> = None;
        loop {
            let _said_by_mints = self.clock.doubt();
            let began = Instant::now();
            let pause = match self.life.keys() {
                Ok(keys) => {
                    keys.look_again();
                    let pause = LOOK.max(began.elapsed() * LOOK_SHARE).min(CENSUS);
                    if counted.is_none_or(|at| at.elapsed() >= CENSUS) {
                        counted = Some(began);
                        self.count_strange(&keys);
                    }
                    pause
                }
                Err(_) => {
                    counted = None;
                    LOOK_WHILE_DOWN // health says why, not the census
                }
            };
            thread::sleep(pause);
        }
    }

    fn count_strange(&self, keys: &Keys<Watched<B>>) {
        match keys.strange() {
            Ok(strange) => *self.lock_strange() = strange,
            Err(_) => self.life.doubt(),
        }
    }

    fn lock_strange(&self) -> MutexGuard<'_, Vec<String>> {
        self.strange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
