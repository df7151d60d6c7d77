//! What every keystore program does between its arguments and the server loop: end with the broker
//! that started it, read its section, set the environment its library reads, lock its memory, enter
//! its sandbox, open its token. What differs between programs is a [`Program`].
//!
//! Libraries read environment variables. Setting one in a running process is not safe, so the
//! program starts itself once more with those it needs; process id and descriptors stay the same.

pub mod companion;
pub mod options;

use crate::backend::Backend;
use crate::config::{Diagnostic, HANG_LIMIT_S, Loaded, Section};
use crate::hardening::{self, memory::Locked, reach::Places};
use crate::server::{self, Limits};
use crate::statefile::StateDir;
use crate::{Error, Kind};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use options::{Broker, Listen, Options};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Set for the second start, so that there is no third.
const RESTARTED: &str = "ASSERTD_KEYSTORE_RESTARTED";

/// What is each program's own.
pub struct Program<B> {
    /// Its name, as in `/usr/bin`.
    pub name: &'static str,
    /// Variables it needs that nobody else has set.
    pub defaults: &'static [(&'static str, &'static str)],
    /// Keeps memory out of swap, as far as the limits allow.
    pub lock_memory: fn() -> Locked,
    /// Has the calling thread displace no other when it wakes up, as far as the system lets it.
    pub step_back: fn(),
    /// Opens the token.
    pub open: fn(&Opening) -> Result<B, Error>,
    /// How long one process waits for a token that is not there.
    pub absence_max: fn(&Section) -> Duration,
}

/// What a token is opened with.
pub struct Opening {
    /// The keystore's name.
    pub name: String,
    /// Its section of the configuration.
    pub section: Section,
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
    /// Its state directory, locked.
    pub state: StateDir,
}

/// First of all in main: gives up what no keystore needs.
///
/// # Errors
/// The exit code, after the reason was said.
pub fn close_off(program: &str) -> Result<(), ExitCode> {
    crate::crash::on_panic();
    hardening::close_off().map_err(|error| {
        eprintln!("{program}: {error}");
        ExitCode::from(70)
    })
}

impl<B: Backend> Program<B> {
    /// Serves until the process is ended; returns with the exit code of a failed start.
    pub fn run(self, options: Options) -> ExitCode {
        match self.serve(options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(end) => {
                eprintln!("{}: {end}", self.name);
                crate::notify::pause_after_failed_start(&end.to_string());
                end.exit_code()
            }
        }
    }

    fn serve(&self, options: Options) -> Result<(), End> {
        crate::stop::hold_back()?;
        if options.listen == Listen::Stdin {
            die_with_parent(options.parent)?;
        }
        let Loaded {
            section,
            broker_directories,
        } = match load(&options.config, &options.name, self.name) {
            Ok(loaded) => loaded,
            Err(diagnostic) => return self.serve_unconfigured(options, diagnostic),
        };
        self.restart_with_environment(&section)?;
        let name = options.name.clone();
        let credentials = variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let places = Places {
            state_dir: options.state_dir.clone(),
            credentials: credentials.clone(),
            broker: broker_directories,
        };
        let limits = Limits {
            call: section.hang_limit(),
            absence: (self.absence_max)(&section),
        };
        let server = server_options(options, limits, self.step_back)?;
        self.close_in(&name, &section, &places); // the library's code runs below this line
        let opening = Opening {
            name,
            section,
            credentials,
            state: server.state.clone(),
        };
        let open = self.open;
        server::run(server, move || open(&opening))?;
        Ok(())
    }

    /// Gives up what the library has no use for: this thread is the only one yet, so that all
    /// will be bound. Says once what came of it.
    fn close_in(&self, name: &str, section: &Section, places: &Places) {
        eprintln!("keystore {name}: memory: {}", (self.lock_memory)());
        for missing in section.module_state.iter().filter(|path| !path.exists()) {
            eprintln!(
                "keystore {name}: module_state: {} is not there, or behind a directory that our \
                 user cannot enter; make it and start the keystore again",
                missing.display()
            );
        }
        let sandbox = hardening::reach::of_keystore(section, places);
        eprintln!("keystore {name}: sandbox: {}", sandbox.enter());
    }

    /// Without its section the keystore is `failed`, says why to whoever asks, and looks again now
    /// and then: ending instead would be a start for every look of assertd. A file that has been
    /// mended needs another process, since `environment` is set at its start; to start that one
    /// this one is not closed in, and it loads no library. Who started us by hand, without a
    /// socket, is told at once.
    fn serve_unconfigured(&self, options: Options, diagnostic: Diagnostic) -> Result<(), End> {
        if options.listen != Listen::Stdin || listener(&Listen::Stdin).is_err() {
            return Err(End::Configuration(diagnostic));
        }
        let (config, name) = (options.config.clone(), options.name.clone());
        let program = self.name;
        let limits = Limits {
            call: Duration::from_secs(HANG_LIMIT_S.into()),
            absence: Duration::MAX, // of the section: it is looked for here until it is there
        };
        let server = server_options(options, limits, self.step_back)?;
        server::run(server, move || match crate::config::load(&config, &name) {
            Ok(_) => Err::<B, _>(start_again(program, &BTreeMap::new(), Round::First)),
            Err(diagnostic) => {
                let text = format!("configuration: {diagnostic}");
                Err(Error::new(Kind::Unavailable, text.trim_end()))
            }
        })?;
        Ok(())
    }

    /// Returns in a process that has the variables the section and the program ask for.
    fn restart_with_environment(&self, section: &Section) -> Result<(), Error> {
        let mut wanted = section.environment.clone();
        for (name, value) in self.defaults {
            if variable(name).is_none() && !wanted.contains_key(*name) {
                wanted.insert((*name).to_owned(), (*value).to_owned());
            }
        }
        let there =
            |(name, value): (&String, &String)| variable(name).is_some_and(|v| v == **value);
        if wanted.iter().all(there) {
            return Ok(());
        }
        if variable(RESTARTED).is_some() {
            let text = "`environment`: was set for the second start and is not there";
            return Err(Error::new(Kind::Internal, text));
        }
        Err(start_again(self.name, &wanted, Round::Second))
    }
}

/// The section, if it is one for this program: a unit of the wrong kind may have been enabled, or
/// `backend` changed.
fn load(config: &Path, name: &str, program: &str) -> Result<Loaded, Diagnostic> {
    let loaded = crate::config::load(config, name)?;
    match loaded.section.program() {
        right if right == program => Ok(loaded),
        other => {
            let text = format!(
                "keystore `{name}` is for {other}, and this is {program}; disable \
                 {program}@{name}.socket and enable {other}@{name}.socket"
            );
            Err(Diagnostic::file(config, text))
        }
    }
}

fn server_options(
    options: Options,
    limits: Limits,
    step_back: fn(),
) -> Result<server::Options, Error> {
    Ok(server::Options {
        broker_uid: broker_uid(&options.broker)?,
        state: StateDir::lock(&options.state_dir)?,
        listener: listener(&options.listen)?,
        name: options.name,
        limits,
        step_back,
    })
}

/// The uid of assertd's user.
///
/// # Errors
/// `Unavailable` if there is no user of that name.
pub fn broker_uid(broker: &Broker) -> Result<u32, Error> {
    let name = match broker {
        Broker::OwnUser => return Ok(nix::unistd::geteuid().as_raw()),
        Broker::Uid(uid) => return Ok(*uid),
        Broker::User(name) => name,
    };
    let unknown = |text: &str| {
        let text = format!("--broker-user {name}: {text}");
        Error::new(Kind::Unavailable, text)
    };
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(unknown("there is no such user; run systemd-sysusers")),
        Err(errno) => Err(unknown("cannot be looked up").because(errno)),
    }
}

/// The broker runs us itself: when it dies, however it dies, a keystore that nobody supervises
/// would hold state and token against the next one. The signal comes only for a death after it
/// was asked for; a parent that is another by then died before (PR_SET_PDEATHSIG(2const)).
///
/// # Errors
/// `Unavailable` if the parent is not `parent` any more.
pub fn die_with_parent(parent: Option<i32>) -> Result<(), Error> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|e| Error::new(Kind::Internal, "PR_SET_PDEATHSIG cannot be set").because(e))?;
    match parent {
        Some(pid) if getppid().as_raw() != pid => {
            let text = format!("--parent {pid}: is not our parent any more; it has ended");
            Err(Error::new(Kind::Unavailable, text))
        }
        _ => Ok(()),
    }
}

/// Whether the environment has been set for this start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    First,
    Second,
}

/// The same program anew in the same process: id, socket and watchdog stay. Returns only if that
/// failed.
fn start_again(program: &str, environment: &BTreeMap<String, String>, round: Round) -> Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| program.into());
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0(name).args(arguments).envs(environment);
    match round {
        Round::First => command.env_remove(RESTARTED),
        Round::Second => command.env(RESTARTED, "1"),
    };
    Error::new(Kind::Internal, "the second start failed").because(command.exec())
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the program; nothing below it asks"
)]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

/// The listening socket.
///
/// # Errors
/// If standard input is none, or the path cannot be bound.
pub fn listener(listen: &Listen) -> Result<UnixListener, Error> {
    match listen {
        Listen::Stdin => {
            let fd = std::io::stdin().as_fd().try_clone_to_owned();
            let failed = "standard input is not a listening Unix socket";
            let listener =
                UnixListener::from(fd.map_err(|e| Error::new(Kind::Internal, failed).because(e))?);
            match nix::sys::socket::getsockopt(&listener, nix::sys::socket::sockopt::AcceptConn) {
                Ok(true) => Ok(listener),
                _ => Err(Error::new(Kind::Internal, failed)),
            }
        }
        // Peers are told apart by their uid; the mode keeps all but owner and group out.
        Listen::Path(path) => crate::listen::bind(path, 0o660),
    }
}

/// Why the program ended.
pub enum End {
    /// The configuration has an error.
    Configuration(Diagnostic),
    /// Something else failed.
    Failed(Error),
}

impl End {
    /// As the manual lists them.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            End::Configuration(_) => 78,
            End::Failed(error) => match error.kind() {
                Kind::Unavailable => 69,
                Kind::Corrupt | Kind::Refused | Kind::BadPin | Kind::Locked | Kind::Mismatch => 78,
                _ => 70,
            },
        })
    }
}

impl From<Diagnostic> for End {
    fn from(diagnostic: Diagnostic) -> End {
        End::Configuration(diagnostic)
    }
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Failed(error)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Configuration(diagnostic) => diagnostic.fmt(f),
            End::Failed(error) => error.fmt(f),
        }
    }
}
