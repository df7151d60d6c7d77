//! `assertd-courier`: arguments, socket, sandbox, serve. It gives up what the other programs give up
//! ([`keystore::hardening::close_off`]), and then all files but the configuration and what looking names
//! up takes; it connects to TCP ports and listens at none.

use crate::desk::{Desk, Successor};
use crate::edition::Edition;
use crate::serve;
use keystore::hardening::sandbox::{AbstractSockets, Network, Sandbox};
use keystore::program::companion::{Command, Companion, Failure, Starter};
use keystore::program::options::{Broker, Listen};
use keystore::program::{broker_uid, die_with_parent, listener};
use keystore::{Error, Kind};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const NAME: &str = "assertd-courier";

/// The configuration, if nothing else is said.
const CONFIG: &str = "/etc/assertd/assertd.toml";

/// Threads that wait for files and names: as many as may be fetching, and one for the configuration. A
/// resolver that hangs keeps them all, and later questions are told that it hangs.
const BLOCKING_THREADS_MAX: usize = serve::UNDER_WAY_MAX + 1;

const USAGE: &str =
    "usage: assertd-courier --listen-stdin | --socket PATH [--config FILE] [--broker-uid UID]
       assertd-courier -h | -V
";

const HELP: &str = "\
assertd-courier fetches for assertd what is published of an issuer's keys, at the `verify_url`
of its section, and asks for access tokens with keys that are tried (`canary`), which it does
not keep; by HTTPS. It answers assertd and root alone, and goes nowhere else.

usage: assertd-courier --listen-stdin | --socket PATH [--config FILE] [--broker-uid UID]
       assertd-courier -h | -V

  --config FILE     assertd.toml (default /etc/assertd/assertd.toml); read again when it is
                    asked, and at SIGHUP
  --socket PATH     listen there (mode 0660; our own socket, left by an earlier run, is
                    replaced, anything else that is there is refused)
  --listen-stdin    standard input is the listening socket (assertd, or systemd's
                    StandardInput=socket, made it)
  --parent PID      with --listen-stdin: end at once if this is not the process that
                    started us, because that one has ended
  --broker-uid UID, --broker-user USER
                    assertd's user, by number or by name; default: our own

It trusts the certificate authorities that the host trusts, or those of `ca` in [courier].
It is started by assertd-courier.socket, or without systemd by assertd.
Exit codes: 0 done, 2 usage, 69 something is unavailable, 70 internal.
";

/// How to serve.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    config: PathBuf,
    listen: Listen,
    parent: Option<i32>,
    broker: Broker,
}

/// Runs the courier.
pub fn main() -> ExitCode {
    broker::sys::keep_little_memory();
    let program = Companion {
        name: NAME,
        usage: USAGE,
        parse,
        run,
        starter: |options| Starter::of(&options.listen, options.parent),
    };
    program.main()
}

fn run(options: &Options) -> Result<(), Failure> {
    if options.listen == Listen::Stdin {
        die_with_parent(options.parent)?;
    }
    let broker_uid = broker_uid(&options.broker)?;
    let listener = listener(&options.listen)?;
    let first = Edition::load(&options.config);
    if let Err(why) = &first {
        eprintln!("courier: {why}"); // whoever asks is told; a file that is mended is read again
    }
    let config = std::path::absolute(&options.config).unwrap_or_else(|_| options.config.clone());
    let ca = first.as_ref().ok().and_then(|edition| edition.ca.clone());
    eprintln!(
        "courier: sandbox: {}",
        sandbox(&config, ca.as_deref()).enter()
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(|error| Error::new(Kind::Internal, "runtime").because(error))?;
    let successor = match options.listen {
        Listen::Stdin => Successor::Comes,
        Listen::Path(_) => Successor::None,
    };
    let desk = Desk::new(config, first, successor);
    Ok(runtime.block_on(serve::run(listener, broker_uid, desk))?)
}

/// What libc reads to look names up (nsswitch.conf(5)) and users, which loading a configuration takes;
/// where distributions keep the authorities they trust; and the configuration. No file can be written.
fn sandbox(config: &Path, ca: Option<&Path>) -> Sandbox {
    const READ: [&str; 13] = [
        "/usr",
        "/lib",
        "/lib32",
        "/lib64",
        "/etc",
        "/nix/store",
        "/proc/sys",
        "/sys/devices/system/cpu",
        "/run/systemd/resolve",
        "/run/systemd/userdb",
        "/run/userdb",
        "/var/lib/sss",
        "/var/lib/extrausers",
    ];
    let mut read = READ.map(PathBuf::from).to_vec();
    read.extend(broker::sandbox::configuration(config));
    // Files are replaced by renaming, and rules are made of inodes. A link leads elsewhere.
    let real = ca.and_then(|ca| ca.canonicalize().ok());
    let files = ca.map(Path::to_owned).into_iter().chain(real);
    let holding = files.filter_map(|file| file.parent().map(Path::to_owned));
    read.extend(holding.filter(|directory| directory.parent().is_some()));
    Sandbox {
        read,
        write: Vec::new(),
        devices: ["/dev/null", "/dev/urandom", "/dev/random"]
            .map(PathBuf::from)
            .to_vec(),
        network: Network::Outbound,
        abstract_sockets: AbstractSockets::None,
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command<Options>, String> {
    read(arguments).map_err(|error| error.to_string())
}

fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Command<Options>, lexopt::Error> {
    use lexopt::prelude::{Long, Short, ValueExt};
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut config, mut listen, mut parent) = (PathBuf::from(CONFIG), None, None);
    let mut broker = Broker::OwnUser;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                let version = env!("CARGO_PKG_VERSION");
                return Ok(Command::Print(format!("{NAME} {version}\n")));
            }
            Short('c') | Long("config") => config = parser.value()?.into(),
            Long("socket") => listen = Some(Listen::Path(parser.value()?.into())),
            Long("listen-stdin") => listen = Some(Listen::Stdin),
            Long("parent") => parent = Some(parser.value()?.parse()?),
            Long("broker-uid") => broker = Broker::Uid(parser.value()?.parse()?),
            Long("broker-user") => broker = Broker::User(parser.value()?.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let listen = listen.ok_or("--socket or --listen-stdin is missing")?;
    if parent.is_some() && listen != Listen::Stdin {
        return Err("--parent is for --listen-stdin alone".into());
    }
    Ok(Command::Run(Options {
        config,
        listen,
        parent,
        broker,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Command::Run(options) => Ok(options),
            Command::Print(text) => Err(text),
        }
    }

    #[test]
    fn arguments_are_what_the_help_says() {
        assert_eq!(
            options("--listen-stdin --parent 7 --broker-user assertd --config a.toml"),
            Ok(Options {
                config: "a.toml".into(),
                listen: Listen::Stdin,
                parent: Some(7),
                broker: Broker::User("assertd".to_owned()),
            })
        );
        assert_eq!(
            options("--socket /run/assertd/courier.sock --broker-uid 990"),
            Ok(Options {
                config: CONFIG.into(),
                listen: Listen::Path("/run/assertd/courier.sock".into()),
                parent: None,
                broker: Broker::Uid(990),
            })
        );
        for (line, part) in [
            ("", "--socket"),
            ("--socket a --parent 1", "--parent"),
            ("--listen-stdin --broker-uid root", "root"),
            ("--listen-stdin --url https://a.example/", "--url"),
            ("--listen-stdin here", "here"),
            ("--socket", "--socket"),
        ] {
            let error = options(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
        assert_eq!(options("--socket a -h"), Err(HELP.to_owned()));
    }
}
