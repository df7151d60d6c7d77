//! assertd-keystore-pkcs11: the process that holds one PKCS#11 token. It reads its section of the
//! configuration, opens the token and serves the keystore protocol.
//!
//! Modules read their own configuration from environment variables. Setting a variable in a
//! running process is not safe, so the program starts itself once more with the environment its
//! section asks for; process id and descriptors stay the same.
#![forbid(unsafe_code)]

mod options;
mod pin;

use keystore::config::{Diagnostic, HANG_LIMIT_S, Section, TokenSelector};
use keystore::hardening::{self, reach::Places, sandbox::Enforced};
use keystore::server;
use keystore::statefile::StateDir;
use keystore::{Error, Kind};
use keystore_pkcs11::{Pkcs11Backend, Settings};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use options::{Broker, Command, Listen, Look, Options};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Set for the second start, so that there is no third.
const RESTARTED: &str = "ASSERTD_KEYSTORE_RESTARTED";

fn main() -> ExitCode {
    keystore::crash::on_panic();
    if let Err(error) = hardening::close_off() {
        eprintln!("assertd-keystore-pkcs11: {error}");
        return ExitCode::from(70);
    }
    let options = match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve(options)) => options,
        Ok(Command::ListTokens(look)) => return list_tokens(&look),
        Ok(Command::Help) => {
            print!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Ok(Command::Version) => {
            println!("assertd-keystore-pkcs11 {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(text) => {
            eprintln!("assertd-keystore-pkcs11: {text}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(end) => {
            eprintln!("assertd-keystore-pkcs11: {end}");
            keystore::notify::pause_after_failed_start(&end.to_string());
            end.exit_code()
        }
    }
}

/// Whoever asks sets the variables that the module needs, and a deadline. Often it is root, and the
/// module one that nobody has chosen: it is loaded in a sandbox that is narrower than a keystore's.
fn list_tokens(look: &Look) -> ExitCode {
    let enforced = hardening::reach::of_look(&look.module, &look.read, look.network).enter();
    if enforced != Enforced::Fully {
        eprintln!("sandbox: {enforced}");
    }
    match keystore_pkcs11::inventory::take(&look.module) {
        Ok(inventory) => {
            println!("{}", inventory.to_line());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            End::Failed(error).exit_code()
        }
    }
}

fn serve(options: Options) -> Result<(), End> {
    if options.listen == Listen::Stdin {
        die_with_parent(options.parent)?;
    }
    let section = match keystore::config::load(&options.config, &options.name) {
        Ok(section) => section,
        Err(diagnostic) => return serve_unconfigured(options, diagnostic),
    };
    restart_with_environment(&section)?;
    let name = options.name.clone();
    let credentials = variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let places = Places {
        state_dir: options.state_dir.clone(),
        credentials: credentials.clone(),
        broker: keystore::config::broker_directories(&options.config),
    };
    let server = server_options(options, section.hang_limit_s)?;
    close_in(&name, &section, &places); // the module's code runs below this line
    server::run(server, move || {
        open(&name, &section, credentials.as_deref())
    })?;
    Ok(())
}

/// Gives up what the module has no use for: this thread is the only one yet, so that all will be
/// bound. Says once what came of it.
fn close_in(name: &str, section: &Section, places: &Places) {
    eprintln!("keystore {name}: memory: {}", hardening::memory::lock());
    for missing in section.module_state.iter().filter(|path| !path.exists()) {
        eprintln!(
            "keystore {name}: module_state: {} is not there, or behind a directory that our user \
             cannot enter; make it and start the keystore again",
            missing.display()
        );
    }
    let sandbox = hardening::reach::of_keystore(section, places);
    eprintln!("keystore {name}: sandbox: {}", sandbox.enter());
}

/// Without its section the keystore is `failed`, says why to whoever asks, and looks again now and
/// then: ending instead would be a start for every look of assertd. A file that has been mended
/// needs another process, since `environment` is set at its start; to start that one this one is
/// not closed in, and it loads no module. Who started us by hand, without a socket, is told at once.
fn serve_unconfigured(options: Options, diagnostic: Diagnostic) -> Result<(), End> {
    if options.listen != Listen::Stdin || listener(&Listen::Stdin).is_err() {
        return Err(End::Configuration(diagnostic));
    }
    let (config, name) = (options.config.clone(), options.name.clone());
    let server = server_options(options, None)?;
    server::run(server, move || {
        match keystore::config::load(&config, &name) {
            Ok(_) => Err::<Pkcs11Backend, _>(start_again(&BTreeMap::new(), Round::First)),
            Err(diagnostic) => {
                let text = format!("configuration: {diagnostic}");
                Err(Error::new(Kind::Unavailable, text.trim_end()))
            }
        }
    })?;
    Ok(())
}

fn server_options(options: Options, hang_limit_s: Option<u32>) -> Result<server::Options, Error> {
    let hang_limit_s = hang_limit_s.unwrap_or(HANG_LIMIT_S);
    Ok(server::Options {
        broker_uid: broker_uid(&options.broker)?,
        state: StateDir::lock(&options.state_dir)?,
        listener: listener(&options.listen)?,
        name: options.name,
        hang_limit: Duration::from_secs(hang_limit_s.into()),
    })
}

fn broker_uid(broker: &Broker) -> Result<u32, Error> {
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
fn die_with_parent(parent: Option<i32>) -> Result<(), Error> {
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

fn open(name: &str, section: &Section, credentials: Option<&Path>) -> Result<Pkcs11Backend, Error> {
    let missing = |key: &str| Error::new(Kind::Internal, format!("`{key}` was not checked"));
    let source = section.pin.as_ref().ok_or_else(|| missing("pin"))?;
    let TokenSelector { label, serial } = section.token.clone().unwrap_or_default();
    Pkcs11Backend::open(Settings {
        module: section.module.clone().ok_or_else(|| missing("module"))?,
        label,
        serial,
        pin: pin::read(source, credentials, name)?,
        init_args: section.init_args.clone(),
        signers: section.signers,
    })
}

/// Returns in a process that has the variables the section asks for.
fn restart_with_environment(section: &Section) -> Result<(), Error> {
    let there = |(name, value): (&String, &String)| variable(name).is_some_and(|v| v == **value);
    if section.environment.iter().all(there) {
        return Ok(());
    }
    if variable(RESTARTED).is_some() {
        let text = "`environment`: was set for the second start and is not there";
        return Err(Error::new(Kind::Internal, text));
    }
    Err(start_again(&section.environment, Round::Second))
}

/// Whether the environment has been set for this start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    First,
    Second,
}

/// The same program anew in the same process: id, socket and watchdog stay. Returns only if that
/// failed.
fn start_again(environment: &BTreeMap<String, String>, round: Round) -> Error {
    let mut arguments = std::env::args_os();
    let name = arguments
        .next()
        .unwrap_or_else(|| "assertd-keystore-pkcs11".into());
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

fn listener(listen: &Listen) -> Result<UnixListener, Error> {
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
        Listen::Path(path) => keystore::listen::bind(path, 0o660),
    }
}

/// Why the program ended.
enum End {
    Configuration(Diagnostic),
    Failed(Error),
}

impl End {
    fn exit_code(&self) -> ExitCode {
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
