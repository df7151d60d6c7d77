//! Processes that the broker runs itself, where no unit does (quickstart, tests): started when they
//! are wanted, started again when they end, ended with us. Owns that; what is started is a
//! [`Recipe`]'s. The broker makes a child's listening socket once and hands it to every one: while a
//! child is being replaced, connections wait in the socket's backlog instead of failing.

use crate::id;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pauses::{Life, Pauses, QUICK_MAX, Said};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

mod pauses;

/// A child to be kept running, and the thread that does it: it alone starts and ends the child,
/// because it was started before the sandbox was entered, in which neither can be done.
pub struct Supervised {
    stopping: Arc<AtomicBool>,
    order: Sender<Box<dyn Recipe>>,
    /// Its end shows the same to one who waits for something else.
    stop: PipeWriter,
    thread: JoinHandle<()>,
}

/// What it takes to start one: everything that can go wrong has been tried.
pub trait Recipe: Send {
    /// What the log calls it.
    fn subject(&self) -> &str;

    /// Its program.
    fn program(&self) -> &Path;

    /// Where it is asked.
    fn listener(&self) -> &UnixListener;

    /// Its arguments, but for those that all children have.
    fn arguments(&self, command: &mut Command);

    /// Returns once it is to be started, or `stopping` has ended.
    fn wanted(&self, stopping: &PipeReader);

    /// How often it was of use.
    fn uses(&self) -> u64;

    /// Notes that its process has ended.
    fn has_ended(&self);

    /// Notes that there is none for a while, and why.
    fn is_absent(&self, why: String);
}

impl Supervised {
    /// Starts the thread, which waits for its recipe.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn new(name: String) -> Result<Supervised, String> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (order, orders) = mpsc::channel::<Box<dyn Recipe>>();
        let failed = |error| format!("thread: {error}");
        let (stopped, stop) = std::io::pipe().map_err(failed)?;
        let told = stopping.clone();
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || {
                if let Ok(recipe) = orders.recv() {
                    keep_running(&*recipe, &told, &stopped, &orders);
                } // else the start has failed
            })
            .map_err(failed)?;
        Ok(Supervised {
            stopping,
            order,
            stop,
            thread,
        })
    }

    /// Starts the child, now or when it is wanted, and whenever it ends.
    pub fn run(&self, recipe: Box<dyn Recipe>) {
        let _ = self.order.send(recipe); // the thread waits for it
    }

    /// Ends the children for good, all at the same time.
    pub fn stop_all(children: impl IntoIterator<Item = Supervised>) {
        let told = |child: Supervised| {
            child.stopping.store(true, Ordering::SeqCst);
            drop(child.stop);
            child.thread // the end of orders ends a pause
        };
        let threads: Vec<JoinHandle<()>> = children.into_iter().map(told).collect();
        for thread in threads {
            let _ = thread.join(); // a panic would have ended us
        }
    }
}

/// Children are asked for their end every so often; their connections show it at once.
const POLL: Duration = Duration::from_millis(10);

/// How long a child may take to close its token when we end; nothing is under way then. Else it is
/// killed: its state is safe at any point, but a TPM without a resource manager keeps what was loaded.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// There is no second order, but the end of orders ends a pause.
fn keep_running(
    recipe: &dyn Recipe,
    stopping: &AtomicBool,
    stopped: &PipeReader,
    orders: &Receiver<Box<dyn Recipe>>,
) {
    let (mut pauses, mut said) = (Pauses::new(), Said::default());
    let subject = recipe.subject();
    loop {
        recipe.wanted(stopped);
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let (started, uses) = (Instant::now(), recipe.uses());
        let spawned = spawn(recipe);
        let was_started = spawned.is_ok();
        let ended = match spawned {
            Err(error) => format!("cannot be started: {}: {error}", recipe.program().display()),
            Ok(child) => match wait_for_end(child, stopping) {
                Some(ended) => ended,
                None => return,
            },
        };
        let life = Life::of(started.elapsed(), recipe.uses() - uses);
        let pause = pauses.after(life, random_byte());
        if was_started {
            said = Said::default();
            recipe.has_ended();
            let again = again(pauses.short, pause);
            eprintln!("assertd: {subject}: its process {ended}; {again}");
        } else if said.is_news(&ended, Instant::now()) {
            eprintln!("assertd: {subject}: its process {ended}; it is tried again by itself");
        }
        if pause > QUICK_MAX {
            // Connections wait in the socket meanwhile, where nobody would learn why.
            recipe.is_absent(absent(&ended, pauses.short));
        }
        match orders.recv_timeout(pause) {
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn random_byte() -> u8 {
    id::random::<1>().map_or(0, |[byte]| byte) // without, the pause is the whole one
}

/// What comes next, in the line of one that ended.
fn again(short: u32, pause: Duration) -> String {
    if pause <= QUICK_MAX {
        return "starting it again".to_owned();
    }
    let seconds = pause.as_secs_f64();
    format!("{short} times in a row, soon after its start; starting it again in {seconds:.1} s")
}

/// Why there is no process, as long as the next one is waited for.
fn absent(ended: &str, short: u32) -> String {
    format!(
        "its process {ended} ({short} times in a row); it is started again by itself every few \
         seconds, and assertd's log says more"
    )
}

/// How the child ended; `None` if it was ended because we stop.
fn wait_for_end(mut child: Child, stopping: &AtomicBool) -> Option<String> {
    loop {
        if stopping.load(Ordering::SeqCst) {
            end(child);
            return None;
        }
        match child.try_wait() {
            Ok(None) => thread::sleep(POLL),
            Ok(Some(status)) => return Some(format!("ended ({status})")),
            Err(error) => return Some(format!("is lost: {error}")),
        }
    }
}

/// Has it close its token and end; waits for that, but not for long.
fn end(mut child: Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM); // ours until it is waited for
    }
    let told = Instant::now();
    while told.elapsed() < CLOSING_MAX && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(POLL);
    }
    let _ = child.kill(); // it may have ended already
    let _ = child.wait();
}

fn spawn(recipe: &dyn Recipe) -> std::io::Result<Child> {
    let socket: OwnedFd = recipe.listener().try_clone()?.into();
    let mut command = Command::new(recipe.program());
    for variable in keystore::notify::VARIABLES {
        command.env_remove(variable); // the service manager's word to us alone
    }
    recipe.arguments(&mut command);
    command
        .args(["--listen-stdin", "--broker-uid"])
        .arg(nix::unistd::geteuid().to_string())
        .args(["--parent", &std::process::id().to_string()])
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .spawn()
}

/// All programs are installed beside assertd and assertctl; no name from a file becomes a
/// path.
///
/// # Errors
/// A sentence that names the program and where it should be.
pub fn beside_us(program: &str) -> Result<PathBuf, String> {
    let here = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
    let path = here.with_file_name(program);
    if path.is_file() {
        return Ok(path);
    }
    let us = here.file_name().unwrap_or_default();
    Err(format!(
        "{} is missing; install it beside {}",
        path.display(),
        us.display()
    ))
}
