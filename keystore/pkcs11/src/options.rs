//! The command line. Everything else stands in the configuration file. Pure but for reading the
//! arguments.

use std::ffi::OsString;
use std::path::PathBuf;

/// Shown by `-h`.
pub const USAGE: &str = "\
usage: assertd-keystore-pkcs11 --config FILE --name NAME (--socket PATH | --listen-stdin)
                               [--parent PID] [--broker-uid UID | --broker-user USER]
                               [--state-dir DIR]
       assertd-keystore-pkcs11 --list-tokens --module FILE
       assertd-keystore-pkcs11 -h | -V

Holds the private keys of one PKCS#11 token and mints assertions for assertd.

  --config FILE     assertd.toml
  --name NAME       which [keystore.NAME] of it
  --socket PATH     listen there (mode 0660; our own socket, left by an earlier run, is
                    replaced, anything else that is there is refused)
  --listen-stdin    standard input is the listening socket (assertd, or systemd's
                    StandardInput=socket, made it)
  --parent PID      with --listen-stdin: end at once if this is not the process that
                    started us, because that one has ended
  --broker-uid UID, --broker-user USER
                    assertd's user, by number or by name; default: our own
  --state-dir DIR   default: /var/lib/assertd-keystore/NAME
  --list-tokens     print what the module shows of its tokens without a login, as JSON
  --module FILE     with --list-tokens: the PKCS#11 module
  -h, --help        this text
  -V, --version     the version
";

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print [`USAGE`].
    Help,
    /// Print the version.
    Version,
    /// Look at the tokens of this module.
    ListTokens(PathBuf),
    /// Serve.
    Serve(Options),
}

/// How to serve.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// assertd.toml
    pub config: PathBuf,
    /// Section `[keystore.NAME]`.
    pub name: String,
    /// Where requests come from.
    pub listen: Listen,
    /// The process that started us, if it said so; it may have ended since.
    pub parent: Option<i32>,
    /// assertd's user.
    pub broker: Broker,
    /// Where records are kept.
    pub state_dir: PathBuf,
}

/// Who may have assertions minted.
#[derive(Debug, PartialEq, Eq)]
pub enum Broker {
    /// Our own user.
    OwnUser,
    /// By number.
    Uid(u32),
    /// By name, as the unit says it.
    User(String),
}

/// The listening socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Listen {
    /// Inherited as standard input.
    Stdin,
    /// Made by us.
    Path(PathBuf),
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// A sentence for the user; the exit code is 2.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut config, mut name, mut listen, mut parent, mut state_dir) =
        (None, None, None, None, None);
    let mut broker = Broker::OwnUser;
    let (mut list_tokens, mut module) = (false, None);
    let unclear = |error: lexopt::Error| error.to_string();
    while let Some(argument) = parser.next().map_err(unclear)? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Long("config") => config = Some(PathBuf::from(parser.value().map_err(unclear)?)),
            Long("name") => {
                name = Some(
                    parser
                        .value()
                        .and_then(|value| value.string())
                        .map_err(unclear)?,
                );
            }
            Long("socket") => {
                listen = Some(Listen::Path(PathBuf::from(
                    parser.value().map_err(unclear)?,
                )));
            }
            Long("listen-stdin") => listen = Some(Listen::Stdin),
            Long("parent") => {
                parent = Some(
                    parser
                        .value()
                        .and_then(|value| value.parse())
                        .map_err(unclear)?,
                );
            }
            Long("broker-uid") => {
                let uid = parser.value().and_then(|value| value.parse());
                broker = Broker::Uid(uid.map_err(unclear)?);
            }
            Long("broker-user") => {
                let user = parser.value().and_then(|value| value.string());
                broker = Broker::User(user.map_err(unclear)?);
            }
            Long("state-dir") => {
                state_dir = Some(PathBuf::from(parser.value().map_err(unclear)?));
            }
            Long("list-tokens") => list_tokens = true,
            Long("module") => module = Some(PathBuf::from(parser.value().map_err(unclear)?)),
            other => return Err(other.unexpected().to_string()),
        }
    }
    match (list_tokens, module) {
        (false, None) => {}
        (true, Some(module)) => return Ok(Command::ListTokens(module)),
        (true, None) => return Err("--module is missing".to_owned()),
        (false, Some(_)) => return Err("--module is for --list-tokens alone".to_owned()),
    }
    let name = name.ok_or("--name is missing")?;
    keystore::keyid::check_part(&name).map_err(|error| format!("--name: {error}"))?;
    if parent.is_some() && listen != Some(Listen::Stdin) {
        return Err("--parent is for --listen-stdin alone".to_owned());
    }
    Ok(Command::Serve(Options {
        config: config.ok_or("--config is missing")?,
        listen: listen.ok_or("--socket or --listen-stdin is missing")?,
        state_dir: state_dir
            .unwrap_or_else(|| PathBuf::from(format!("/var/lib/assertd-keystore/{name}"))),
        parent,
        broker,
        name,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_defaults_are_our_uid_and_the_directory_of_the_name() {
        assert_eq!(
            parsed("--config /etc/a.toml --name hsm --listen-stdin"),
            Ok(Command::Serve(Options {
                config: "/etc/a.toml".into(),
                name: "hsm".into(),
                listen: Listen::Stdin,
                parent: None,
                broker: Broker::OwnUser,
                state_dir: "/var/lib/assertd-keystore/hsm".into(),
            }))
        );
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        for (line, part) in [
            ("--config a", "--name"),
            ("--name a", "--config"),
            ("--name a --config b", "--socket"),
            ("--name ../a --config b --listen-stdin", "--name"),
            ("--name a --config b --socket c --parent 1", "--parent"),
            ("--name a --config b --listen-stdin --parent x", "x"),
            ("--pin 1234", "--pin"),
            ("--list-tokens", "--module"),
            ("--name a --config b --socket c --module d", "--list-tokens"),
            (
                "--name a --config b --listen-stdin --broker-uid root",
                "root",
            ),
        ] {
            assert!(
                parsed(line).unwrap_err().contains(part),
                "{line}: {:?}",
                parsed(line)
            );
        }
        assert_eq!(parsed("-h --nonsense"), Ok(Command::Help));
        assert_eq!(
            parsed("--list-tokens --module /usr/lib/m.so"),
            Ok(Command::ListTokens("/usr/lib/m.so".into()))
        );
    }
}
