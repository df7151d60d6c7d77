//! The command line. Everything else stands in the configuration file. Pure but for reading the
//! arguments.

use keystore::hardening::sandbox::Network;
use keystore::keyid::check_part;
use std::ffi::OsString;
use std::path::PathBuf;

/// Shown by `-h`.
pub const USAGE: &str = "\
usage: assertd-keystore-pkcs11 --config FILE --name NAME (--socket PATH | --listen-stdin)
                               [--parent PID] [--broker-uid UID | --broker-user USER]
                               [--state-dir DIR]
       assertd-keystore-pkcs11 --list-tokens --module FILE [--read PATH]… [--network]
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
                    (the module is loaded; it can write no file, run no program, and use
                    no TCP)
  --module FILE     with --list-tokens: the PKCS#11 module
  --read PATH       with --list-tokens: a directory that the module reads, or a file in one,
                    outside of /usr, /etc and /opt
  --network         with --list-tokens: the module may use TCP
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
    ListTokens(Look),
    /// Serve.
    Serve(Options),
}

/// How to look.
#[derive(Debug, PartialEq, Eq)]
pub struct Look {
    /// The module.
    pub module: PathBuf,
    /// What it may read besides what every keystore may.
    pub read: Vec<PathBuf>,
    /// Whether it may use TCP.
    pub network: Network,
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
    let mut given = Given::default();
    match given.read(lexopt::Parser::from_args(arguments)) {
        Ok(None) => given.command(),
        Ok(Some(command)) => Ok(command),
        Err(error) => Err(error.to_string()),
    }
}

/// The arguments as they came.
#[derive(Default)]
struct Given {
    config: Option<PathBuf>,
    name: Option<String>,
    listen: Option<Listen>,
    parent: Option<i32>,
    broker: Option<Broker>,
    state_dir: Option<PathBuf>,
    list_tokens: bool,
    module: Option<PathBuf>,
    read: Vec<PathBuf>,
    network: bool,
}

impl Given {
    /// Reads them all, unless one of them says by itself what is wanted.
    fn read(&mut self, mut parser: lexopt::Parser) -> Result<Option<Command>, lexopt::Error> {
        use lexopt::prelude::*;
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(Some(Command::Help)),
                Short('V') | Long("version") => return Ok(Some(Command::Version)),
                Long("config") => self.config = Some(parser.value()?.into()),
                Long("name") => self.name = Some(parser.value()?.string()?),
                Long("socket") => self.listen = Some(Listen::Path(parser.value()?.into())),
                Long("listen-stdin") => self.listen = Some(Listen::Stdin),
                Long("parent") => self.parent = Some(parser.value()?.parse()?),
                Long("broker-uid") => self.broker = Some(Broker::Uid(parser.value()?.parse()?)),
                Long("broker-user") => self.broker = Some(Broker::User(parser.value()?.string()?)),
                Long("state-dir") => self.state_dir = Some(parser.value()?.into()),
                Long("list-tokens") => self.list_tokens = true,
                Long("module") => self.module = Some(parser.value()?.into()),
                Long("read") => self.read.push(parser.value()?.into()),
                Long("network") => self.network = true,
                other => return Err(other.unexpected()),
            }
        }
        Ok(None)
    }

    /// What they ask for together.
    fn command(self) -> Result<Command, String> {
        if self.list_tokens {
            return Ok(Command::ListTokens(Look {
                module: self.module.ok_or("--module is missing")?,
                read: self.read,
                network: match self.network {
                    true => Network::Open,
                    false => Network::None,
                },
            }));
        }
        if self.module.is_some() || !self.read.is_empty() || self.network {
            return Err("--module, --read and --network are for --list-tokens alone".to_owned());
        }
        let name = self.name.ok_or("--name is missing")?;
        check_part(&name).map_err(|error| format!("--name: {error}"))?;
        if self.parent.is_some() && self.listen != Some(Listen::Stdin) {
            return Err("--parent is for --listen-stdin alone".to_owned());
        }
        let state_dir = || PathBuf::from(format!("/var/lib/assertd-keystore/{name}"));
        Ok(Command::Serve(Options {
            config: self.config.ok_or("--config is missing")?,
            listen: (self.listen).ok_or("--socket or --listen-stdin is missing")?,
            state_dir: self.state_dir.unwrap_or_else(state_dir),
            parent: self.parent,
            broker: self.broker.unwrap_or(Broker::OwnUser),
            name,
        }))
    }
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
            ("--name a --config b --socket c --read d", "--list-tokens"),
            ("--name a --config b --socket c --network", "--list-tokens"),
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
            Ok(Command::ListTokens(Look {
                module: "/usr/lib/m.so".into(),
                read: Vec::new(),
                network: Network::None,
            }))
        );
        assert_eq!(
            parsed("--list-tokens --network --module /m.so --read /a --read /b"),
            Ok(Command::ListTokens(Look {
                module: "/m.so".into(),
                read: vec!["/a".into(), "/b".into()],
                network: Network::Open,
            }))
        );
    }
}
