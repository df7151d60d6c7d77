//! A keystore process that the broker runs itself, where no unit does (quickstart, tests). The
//! broker makes the listening socket once and hands it to every child: while a child is being
//! replaced, connections wait in the socket's backlog instead of failing.

use super::Keystore;
use crate::config::Config;
use crate::listen;
use keystore::config::Section;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A child that lived this long did not fail at start.
const STEADY: Duration = Duration::from_secs(2);

/// First and longest wait before the next child. Short, because a module that crashes is back in
/// 10 ms and clients wait; not zero, so that a broken one does not eat a core.
const WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// A child to be kept running.
pub struct Supervised {
    stopping: Arc<AtomicBool>,
    child: Arc<Mutex<Option<Child>>>,
}

/// What it takes to start one: everything that can go wrong has been tried.
pub struct Recipe {
    program: PathBuf,
    config: PathBuf,
    name: String,
    state_dir: PathBuf,
    listener: UnixListener,
}

impl Recipe {
    /// Finds the program and binds the socket. All sockets are bound before any child is started:
    /// binding sets the umask for a moment, and a child would inherit it.
    ///
    /// # Errors
    /// If the socket cannot be made or the program is not beside ours.
    pub fn prepare(
        config: &Config,
        name: &str,
        section: &Section,
        socket: &Path,
    ) -> Result<Recipe, String> {
        Ok(Recipe {
            program: beside_us(section.program())?,
            config: config.path.clone(),
            name: name.to_owned(),
            state_dir: config.server.state_dir.join("keystore").join(name),
            listener: listen::bind(socket, listen::Access::Owner)?,
        })
    }
}

impl Supervised {
    /// Starts the child, now and whenever it ends.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(recipe: Recipe, keystore: &Arc<Keystore>) -> Result<Supervised, String> {
        let supervised = Supervised {
            stopping: Arc::default(),
            child: Arc::default(),
        };
        let (stopping, slot) = (supervised.stopping.clone(), supervised.child.clone());
        let keystore = keystore.clone();
        thread::Builder::new()
            .name(format!("keystore-{}", recipe.name))
            .spawn(move || keep_running(&recipe, &keystore, &stopping, &slot))
            .map_err(|error| format!("thread: {error}"))?;
        Ok(supervised)
    }

    /// Ends the child for good.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(child) = self
            .child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            let _ = child.kill(); // its state is safe at any point; it may have ended already
            let _ = child.wait();
        }
    }
}

/// Children are asked for their end every so often; their connections show it at once.
const POLL: Duration = Duration::from_millis(10);

fn keep_running(
    recipe: &Recipe,
    keystore: &Keystore,
    stopping: &AtomicBool,
    slot: &Mutex<Option<Child>>,
) {
    let (mut wait, longest) = WAIT;
    while !stopping.load(Ordering::SeqCst) {
        let started = Instant::now();
        let spawned = {
            // Held over both, or a child could be started after it was told to stop.
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if stopping.load(Ordering::SeqCst) {
                return;
            }
            recipe.spawn().map(|child| *slot = Some(child))
        };
        let ended = match spawned {
            Err(error) => format!("cannot be started: {error}"),
            Ok(()) => wait_for_end(slot),
        };
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        eprintln!(
            "assertd: keystore {}: its process {ended}; starting it again",
            recipe.name
        );
        keystore.note_restart();
        if started.elapsed() >= STEADY {
            wait = WAIT.0;
        }
        thread::sleep(wait);
        wait = (wait * 2).min(longest);
    }
}

fn wait_for_end(slot: &Mutex<Option<Child>>) -> String {
    loop {
        match slot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .map(Child::try_wait)
        {
            Some(Ok(None)) => {}
            Some(Ok(Some(status))) => return format!("ended ({status})"),
            Some(Err(error)) => return format!("is lost: {error}"),
            None => return "was stopped".to_owned(),
        }
        thread::sleep(POLL);
    }
}

impl Recipe {
    fn spawn(&self) -> std::io::Result<Child> {
        let socket: OwnedFd = self.listener.try_clone()?.into();
        let mut command = Command::new(&self.program);
        for variable in keystore::notify::VARIABLES {
            command.env_remove(variable); // the service manager's word to us alone
        }
        command
            .arg("--config")
            .arg(&self.config)
            .args(["--name", &self.name, "--listen-stdin", "--broker-uid"])
            .arg(nix::unistd::geteuid().to_string())
            .arg("--state-dir")
            .arg(&self.state_dir)
            .args(["--parent", &std::process::id().to_string()])
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .spawn()
    }
}

/// The keystore programs are installed beside assertd; no name from a file becomes a path.
fn beside_us(program: &str) -> Result<PathBuf, String> {
    let here = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
    let path = here.with_file_name(program);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "{} is missing; install it beside assertd",
        path.display()
    ))
}
