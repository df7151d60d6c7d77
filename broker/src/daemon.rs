//! assertd's main: arguments, configuration, state, audit, sockets, keystores, serve, drain.
//! Only this module, `listen` and `notify` look at the environment systemd gives us.

use crate::app::App;
use crate::attestation;
use crate::audit::{self, Audit, AuditConfig, Stamp};
use crate::children::Children;
use crate::complaints::Complaints;
use crate::config::Config;
use crate::denylist::{self, DenyLists};
use crate::keeper::Keeper;
use crate::keyring::{Clocks, Keyring};
use crate::keystores::Keystore;
use crate::lifecycle::{Boot, Reading, Sync};
use crate::listen::{self, Access, Listeners};
use crate::publication;
use crate::rules::{self, InForce, Rules};
use crate::sandbox;
use crate::service;
use crate::sys;
use crate::witness;
use keystore::statefile::StateDir;
use keystore::{Clock, Kind};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: assertd [-c FILE] [--check]\n       assertd -h | -V\n";

const HELP: &str = "\
assertd gives every workload on this host an identity that cannot be copied.

usage: assertd [-c FILE] [--check]
       assertd -h | -V

  -c, --config FILE   the configuration (default /etc/assertd/assertd.toml);
                      conf.d/*.toml beside it are read too
      --check         read the configuration, say what is wrong, and exit
  -h, --help          this text
  -V, --version       the version

Everything else is in the file. Control it with assertctl.
Exit codes: 0 done, 2 usage, 69 something is unavailable, 70 internal, 78 configuration or state.
";

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How long tasks that block may go on once everything is served and drained.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(1);

/// How long a witness that is needed may take until it answers: at boot everything starts at once.
const WITNESS_WAIT: Duration = Duration::from_secs(5);

/// Why assertd does not run, with its exit code (sysexits).
struct Failure {
    code: u8,
    text: String,
    moment: Moment,
}

/// When it happened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Start,
    Later,
}

/// Runs assertd.
pub fn main() -> ExitCode {
    sys::keep_little_memory();
    keystore::crash::on_panic();
    if let Err(error) = keystore::hardening::close_off() {
        eprintln!("assertd: {error}");
        return ExitCode::from(70);
    }
    match parse_args().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("assertd: {failure}");
            if failure.moment == Moment::Start {
                keystore::notify::pause_after_failed_start(&failure.to_string());
            }
            ExitCode::from(failure.code)
        }
    }
}

enum Command {
    Run { config: PathBuf },
    Check { config: PathBuf },
    Print(String),
}

fn parse_args() -> Result<Command, Failure> {
    use lexopt::prelude::{Long, Short};
    let usage = |error: lexopt::Error| Failure::new(2, format!("{error}\n{USAGE}"));
    let (mut config, mut check) = (PathBuf::from("/etc/assertd/assertd.toml"), false);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next().map_err(usage)? {
        match arg {
            Short('c') | Long("config") => config = args.value().map_err(usage)?.into(),
            Long("check") => check = true,
            Short('h') | Long("help") => return Ok(Command::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Command::Print(format!(
                    "assertd {}\n",
                    env!("CARGO_PKG_VERSION")
                )));
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    Ok(if check {
        Command::Check { config }
    } else {
        Command::Run { config }
    })
}

fn run(command: Command) -> Result<(), Failure> {
    let path = match command {
        Command::Print(text) => {
            print!("{text}");
            return Ok(());
        }
        Command::Check { config } => return load(&config).map(drop),
        Command::Run { config } => config,
    };
    let (config, denylist::Reading { lists, sight }) = load(&path)?; // a bad file ends here, with line and column
    raise_descriptors();
    make_dir(&config.server.runtime_dir, 0o755)?;
    let state = StateDir::lock(&config.server.state_dir)?; // one daemon per state directory
    let keyring = Arc::new(Keyring::open(&state, clocks())?);
    keyring.will_live(&config.lifetimes())?;
    let mut keystores = BTreeMap::new();
    for (name, section) in &config.keystores {
        let socket = config.keystore_socket(name, section);
        keystores.insert(name.clone(), Keystore::new(name, socket, keyring.clone()));
    }
    let unavailable = |text| Failure::new(69, text);
    let children = Children::of(&config).map_err(unavailable)?;
    if let Some(publication) = &config.publication {
        // Made before the sandbox, whose rules need something to hold on to. Without it keys serve all
        // the same, and every publication says again what is wrong.
        if let Err(error) = publication::tree::Dir::open_own(&publication.directory) {
            eprintln!("assertd: publication: {error}");
        }
    }
    // From here on no file but ours, no program, no TCP; only the children's threads are outside.
    eprintln!("assertd: sandbox: {}", sandbox::enter(&config));
    let audit = open_audit(&config)?; // verifies the tail of the chain
    let listeners = listeners(&config)?;
    children.start(&config, &keystores).map_err(unavailable)?;
    record_configuration(&audit, &config, &lists);
    let denied = denylist::Watched::default();
    denied.saw(sight);
    let witness = witness::Client::new(config.server.runtime_dir.join(witness::SOCKET));
    let app = Arc::new(App {
        rules: InForce::new(Rules::new(config, lists)),
        denied,
        keyring,
        keeper: Keeper::default(),
        host: sys::hostname(),
        keystores,
        shelf: crate::reuse::Shelf::default(),
        handovers: crate::handover::Handovers::default(),
        clock: Clock::after(audit.last_iat()),
        audit: audit.clone(),
        workload_rate: crate::rate::Limiter::new(),
        target_rate: crate::rate::Limiter::new(),
        recent: crate::recent::Recent::default(),
        denial_rate: crate::rate::Limiter::new(),
        counts: crate::reply::Counts::default(),
        connections: std::sync::atomic::AtomicUsize::new(0),
        started: Instant::now(),
        workshop: crate::evidence::Workshop::default(),
        witness,
        unwitnessed: Complaints::default(),
        ready: std::sync::atomic::AtomicBool::new(false),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()
        .map_err(|error| Failure::new(70, format!("runtime: {error}")))?;
    let served = runtime.block_on(async {
        let enforceable = {
            let rules = app.rules.now(); // let go before serving: it would outlive every reload
            attestation::enforceable(&app.witness, &rules, WITNESS_WAIT).await
        };
        enforceable.map_err(|why| {
            let code = match &why {
                attestation::Unenforceable::NoWitness(_) => 78,
                attestation::Unenforceable::NotNow(_) => 69, // systemd starts us again
            };
            Failure::new(code, why.to_string())
        })?;
        let served = service::serve(app, listeners).await;
        served.map_err(|ended| match ended {
            service::Ended::NoListener(error) => Failure::new(70, error.to_string()).after_start(),
            service::Ended::OldRecords(why) => Failure::new(78, why),
        })
    });
    // A name service that hangs may hold one thread; it keeps nobody from stopping.
    runtime.shutdown_timeout(SHUTDOWN_WAIT);
    children.stop();
    let closed = audit
        .close()
        .map_err(|error| Failure::new(error.exit_code(), error.to_string()).after_start());
    drop(state);
    served.and(closed)
}

/// Half the cores, for the token's process works as much as we do; on two cores one thread wakes
/// half as often for a request as two do (docs/performance.md).
fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).clamp(1, 4)
}

fn load(path: &Path) -> Result<(Config, denylist::Reading), Failure> {
    let config = Config::load(path);
    let both =
        config.and_then(|config| denylist::Reading::of(&config.deny).map(|lists| (config, lists)));
    both.map_err(|error| Failure::new(78, error.to_string()))
}

/// Each connection takes three descriptors (socket, pidfd, /proc directory), and the usual soft
/// limit is 1,024, meant for programs that use select(2). We do not, so we take what we may have.
fn raise_descriptors() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard); // less is a lower limit, not a fault
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Failure> {
    let before = umask(Mode::from_bits_truncate(0o022));
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path);
    umask(before);
    made.map_err(|error| Failure::new(69, format!("directory {}: {error}", path.display())))
}

fn of_proc(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

/// What the life of keys goes by.
fn clocks() -> Clocks {
    let (clock, boot) = (Clock::new(), Boot(of_proc(BOOT_ID)));
    Box::new(move || Reading {
        wall_s: clock.read().unix_s(),
        boot_s: sys::boot_ms() / 1000,
        boot: boot.clone(),
        sync: match sys::clock_is_synchronised() {
            true => Sync::Synchronised,
            false => Sync::Unknown,
        },
    })
}

fn open_audit(config: &Config) -> Result<Audit, Failure> {
    let clock = Clock::new();
    let now = move || Stamp {
        wall_ms: clock.read().unix_ms(),
        boot_ms: sys::boot_ms(),
    };
    let audit_config = AuditConfig {
        dir: config.audit.dir.clone(),
        segment_bytes: config.audit.segment_bytes.unwrap_or(audit::SEGMENT_BYTES),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: of_proc(BOOT_ID),
        host: sys::hostname(),
    };
    Audit::open(audit_config, now).map_err(|e| Failure::new(e.exit_code(), e.to_string()))
}

fn record_configuration(audit: &Audit, config: &Config, denied: &DenyLists) {
    match audit.configured(rules::record(config, denied)) {
        Ok(_durable_with_the_next_group) => {}
        // A full disk is no reason not to start: status answers, and service returns with space.
        Err(error) => eprintln!("assertd: audit: {error}"),
    }
}

/// systemd's listening sockets, by their names `workload` and `admin`, or our own.
fn listeners(config: &Config) -> Result<Listeners, Failure> {
    let unavailable = |text: String| Failure::new(69, text);
    let (mut workload, mut admin) = (None, None);
    let passed = listen::passed().map_err(|text| Failure::new(78, text))?;
    for (name, listener) in passed {
        match name.as_str() {
            "workload" => workload = Some(listener),
            "admin" => admin = Some(listener),
            other => {
                let text = format!(
                    "a socket named `{other}` was passed; FileDescriptorName= is `workload` or \
                         `admin`"
                );
                return Err(Failure::new(78, text));
            }
        }
    }
    let bind = |path: PathBuf, access| listen::bind(&path, access).map_err(unavailable);
    Ok(Listeners {
        workload: match workload {
            Some(listener) => listener,
            None => bind(config.socket(), Access::Everybody)?,
        },
        admin: match admin {
            Some(listener) => listener,
            None => bind(config.admin_socket(), Access::Owner)?,
        },
    })
}

impl Failure {
    fn new(code: u8, text: String) -> Failure {
        let moment = Moment::Start;
        Failure { code, text, moment }
    }

    fn after_start(self) -> Failure {
        let moment = Moment::Later;
        Failure { moment, ..self }
    }
}

impl From<keystore::Error> for Failure {
    fn from(error: keystore::Error) -> Failure {
        let code = if error.kind() == Kind::Corrupt {
            78
        } else {
            69
        };
        Failure::new(code, error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}
