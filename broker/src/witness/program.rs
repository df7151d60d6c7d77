//! `assertd-witness`: arguments, socket, serve. It gives up what the other programs give up
//! ([`keystore::hardening::close_off`]) but enters no Landlock domain: from inside one no other
//! process's executable can be opened, which is all it is for (docs/decisions/0012).

use super::serve;
use keystore::program::companion::{Command, Companion, Failure, Starter};
use keystore::program::options::{Broker, Listen};
use keystore::program::{broker_uid, die_with_parent, listener};
use std::ffi::OsString;
use std::process::ExitCode;

const NAME: &str = "assertd-witness";

const USAGE: &str = "usage: assertd-witness --listen-stdin | --socket PATH [--broker-uid UID]
       assertd-witness -h | -V
";

const HELP: &str = "\
assertd-witness tells assertd which executable a process runs: its path and its SHA-256. It
answers assertd alone, and only about processes of which assertd holds a pidfd.

usage: assertd-witness --listen-stdin | --socket PATH [--broker-uid UID]
       assertd-witness -h | -V

  --socket PATH     listen there (mode 0660; our own socket, left by an earlier run, is
                    replaced, anything else that is there is refused)
  --listen-stdin    standard input is the listening socket (assertd, or systemd's
                    StandardInput=socket, made it)
  --parent PID      with --listen-stdin: end at once if this is not the process that
                    started us, because that one has ended
  --broker-uid UID, --broker-user USER
                    assertd's user, by number or by name; default: our own

Processes of other users take CAP_SYS_PTRACE, which the unit gives it. It is started by
assertd-witness.socket, or without systemd by assertd; there is nothing to configure.
Exit codes: 0 done, 2 usage, 69 something is unavailable, 70 internal.
";

/// How to serve.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    listen: Listen,
    parent: Option<i32>,
    broker: Broker,
}

/// Runs the witness.
pub fn main() -> ExitCode {
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
    Ok(serve::run(&listener(&options.listen)?, broker_uid)?)
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command<Options>, String> {
    read(arguments).map_err(|error| error.to_string())
}

fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Command<Options>, lexopt::Error> {
    use lexopt::prelude::{Long, Short, ValueExt};
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut listen, mut parent, mut broker) = (None, None, Broker::OwnUser);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                let version = env!("CARGO_PKG_VERSION");
                return Ok(Command::Print(format!("{NAME} {version}\n")));
            }
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
            options("--listen-stdin --parent 7 --broker-user assertd"),
            Ok(Options {
                listen: Listen::Stdin,
                parent: Some(7),
                broker: Broker::User("assertd".to_owned()),
            })
        );
        assert_eq!(
            options("--socket /run/assertd/witness.sock --broker-uid 990"),
            Ok(Options {
                listen: Listen::Path("/run/assertd/witness.sock".into()),
                parent: None,
                broker: Broker::Uid(990),
            })
        );
        for (line, part) in [
            ("", "--socket"),
            ("--socket a --parent 1", "--parent"),
            ("--listen-stdin --broker-uid root", "root"),
            ("--listen-stdin --config a", "--config"),
            ("--listen-stdin here", "here"),
            ("--socket", "--socket"),
        ] {
            let error = options(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
        assert_eq!(options("--socket a -h"), Err(HELP.to_owned()));
    }
}
