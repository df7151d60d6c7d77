//! `assertd-publish`: arguments, configuration, listener, sandbox, serve. The listener comes from
//! outside or is on loopback: this program opens no door of its own.

use super::answer::Site;
use super::routes::Routes;
use super::serve;
use crate::config::{self, Published};
use keystore::hardening::sandbox::{AbstractSockets, Network, Sandbox};
use keystore::program::companion::{Command, Companion, Failure, Starter};
use nix::sys::socket::{getsockopt, sockopt};
use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

const NAME: &str = "assertd-publish";

const USAGE: &str = "usage: assertd-publish [-c FILE] --listen-stdin | --listen ADDRESS:PORT
       assertd-publish -h | -V
";

const HELP: &str = "\
assertd-publish shows by HTTP what assertd publishes of its keys: each issuer's discovery document,
JWK set and SPIFFE bundle at the path of its URL, and client keys' sets at
/client/WORKLOAD/TARGET/jwks.json. It knows no other path, no key and no secret. A reverse proxy
in front of it speaks TLS.

usage: assertd-publish [-c FILE] --listen-stdin | --listen ADDRESS:PORT

  -c, --config FILE       the configuration, of which [publication] and the issuers' URLs are
                          read (default /etc/assertd/assertd.toml)
  --listen-stdin          standard input is the listening TCP socket (systemd's
                          StandardInput=socket; assertd-publish.socket says at which address)
  --listen ADDRESS:PORT   listen there, on loopback alone; port 0 takes a free one

Exit codes: 0 done, 2 usage, 69 something is unavailable, 70 internal, 78 configuration.
";

/// Where connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listen {
    Stdin,
    At(SocketAddr),
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    config: PathBuf,
    listen: Listen,
}

/// Runs it.
pub fn main() -> ExitCode {
    let program = Companion {
        name: NAME,
        usage: USAGE,
        parse: |arguments| parse(arguments).map_err(|error| error.to_string()),
        run,
        starter,
    };
    program.main()
}

fn starter(options: &Options) -> Starter {
    match options.listen {
        Listen::Stdin => Starter::Again, // systemd
        Listen::At(_) => Starter::Patient,
    }
}

fn failure(code: u8, text: impl Into<String>) -> Failure {
    let text = text.into();
    Failure { code, text }
}

fn run(options: &Options) -> Result<(), Failure> {
    let site = site(options)?;
    let listener = listener(options.listen)?;
    let address = listener.local_addr().map_err(unavailable)?;
    let sandbox = Sandbox {
        read: vec![site.directory.clone()],
        network: Network::None, // what is open already stays: connections can be accepted
        abstract_sockets: AbstractSockets::None,
        ..Sandbox::default()
    };
    eprintln!("{NAME}: sandbox: {}", sandbox.enter()); // there is one thread yet
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(|error| failure(70, format!("runtime: {error}")))?;
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut told = signal(SignalKind::terminate())?;
        eprintln!("{NAME}: {} at {address}", site.directory.display());
        let stop = async move {
            told.recv().await;
        };
        serve::serve(Arc::new(site), listener, stop).await;
        Ok(())
    });
    served.map_err(|error: std::io::Error| failure(70, error.to_string()))
}

fn site(options: &Options) -> Result<Site, Failure> {
    let wrong = |text: String| failure(78, text);
    let published = config::published(&options.config).map_err(|error| wrong(error.to_string()))?;
    let routes = Routes::of(&published).map_err(wrong)?;
    let Published { directory, .. } = published;
    let directory = directory.ok_or_else(|| {
        wrong(format!(
            "{}: has no `directory` in [publication], so that nothing is published",
            options.config.display()
        ))
    })?;
    if !directory.is_dir() {
        let text = format!(
            "{}: is not there; assertd makes it when it starts with [publication]",
            directory.display()
        );
        return Err(failure(69, text)); // and the sandbox needs something to hold on to
    }
    Ok(Site { directory, routes })
}

fn listener(listen: Listen) -> Result<TcpListener, Failure> {
    let listener = match listen {
        Listen::At(address) => TcpListener::bind(address)
            .map_err(|error| failure(69, format!("{address}: cannot be listened at: {error}")))?,
        Listen::Stdin => {
            let stdin = std::io::stdin();
            TcpListener::from(stdin.as_fd().try_clone_to_owned().map_err(unavailable)?)
        }
    };
    let listens =
        listener.local_addr().is_ok() && getsockopt(&listener, sockopt::AcceptConn) == Ok(true);
    if !listens {
        let text = "standard input is no TCP socket that listens; start assertd-publish.socket, with \
                    ListenStream= and a port, or use --listen";
        return Err(failure(69, text.to_owned()));
    }
    listener.set_nonblocking(true).map_err(unavailable)?;
    Ok(listener)
}

fn unavailable(error: std::io::Error) -> Failure {
    failure(69, error.to_string())
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command<Options>, lexopt::Error> {
    use lexopt::prelude::{Long, Short, ValueExt};
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut config, mut listen) = (None, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                let version = env!("CARGO_PKG_VERSION");
                return Ok(Command::Print(format!("{NAME} {version}\n")));
            }
            Short('c') | Long("config") => config = Some(parser.value()?.into()),
            Long("listen-stdin") => listen = Some(Listen::Stdin),
            Long("listen") => listen = Some(Listen::At(parser.value()?.parse()?)),
            other => return Err(other.unexpected()),
        }
    }
    let listen = listen.ok_or("--listen-stdin or --listen is missing")?;
    if let Listen::At(address) = listen
        && !address.ip().is_loopback()
    {
        let text = "--listen is for loopback; for another address make a drop-in for \
                    assertd-publish.socket";
        return Err(text.into());
    }
    Ok(Command::Run(Options {
        config: config.unwrap_or_else(|| "/etc/assertd/assertd.toml".into()),
        listen,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Command::Run(options)) => Ok(options),
            Ok(Command::Print(text)) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn arguments_are_what_the_help_says() {
        assert_eq!(
            options("--listen-stdin"),
            Ok(Options {
                config: "/etc/assertd/assertd.toml".into(),
                listen: Listen::Stdin,
            })
        );
        assert_eq!(
            options("-c a --listen [::1]:0"),
            Ok(Options {
                config: "a".into(),
                listen: Listen::At("[::1]:0".parse().unwrap()),
            })
        );
        for (line, part) in [
            ("", "--listen"),
            ("--listen 8080", "8080"),
            ("--listen 0.0.0.0:80", "loopback"),
            ("--listen-stdin here", "here"),
            ("--directory a", "--directory"),
        ] {
            let error = options(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
        assert_eq!(options("-h"), Err(HELP.to_owned()));
    }
}
