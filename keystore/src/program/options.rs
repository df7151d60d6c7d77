//! The arguments that all keystore programs have in common. Everything else stands in the
//! configuration file. Pure but for reading the arguments.

use std::ffi::OsString;
use std::path::PathBuf;

/// The part of every program's usage that describes these arguments.
pub const COMMON_USAGE: &str = "  --config FILE     assertd.toml
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
";

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

/// What the arguments ask for.
#[derive(Debug)]
pub enum Asked {
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
    /// Something else; [`Given::check`] if it is to serve.
    Rest(Given),
}

/// Whether an argument of that name is one of the program's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// It was taken, and its value with it.
    Taken,
    /// It is not known.
    Unknown,
}

/// What was given of the common arguments.
#[derive(Debug, Default)]
pub struct Given {
    config: Option<PathBuf>,
    name: Option<String>,
    listen: Option<Listen>,
    parent: Option<i32>,
    broker: Option<Broker>,
    state_dir: Option<PathBuf>,
}

/// Reads the arguments after the program's name. `own` is asked for every long one that is not
/// common to all programs.
///
/// # Errors
/// A sentence for the user; the exit code is 2.
pub fn read(
    arguments: impl IntoIterator<Item = OsString>,
    mut own: impl FnMut(&str, &mut lexopt::Parser) -> Result<Own, lexopt::Error>,
) -> Result<Asked, String> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut given = Given::default();
    let unclear = |error: lexopt::Error| error.to_string();
    while let Some(argument) = parser.next().map_err(unclear)? {
        let name = match argument {
            Short('h') | Long("help") => return Ok(Asked::Help),
            Short('V') | Long("version") => return Ok(Asked::Version),
            Long(name) => name.to_owned(),
            other => return Err(other.unexpected().to_string()),
        };
        if given.take(&name, &mut parser).map_err(unclear)? == Own::Unknown
            && own(&name, &mut parser).map_err(unclear)? == Own::Unknown
        {
            return Err(Long(&name).unexpected().to_string());
        }
    }
    Ok(Asked::Rest(given))
}

impl Given {
    fn take(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<Own, lexopt::Error> {
        use lexopt::prelude::*;
        match name {
            "config" => self.config = Some(parser.value()?.into()),
            "name" => self.name = Some(parser.value()?.string()?),
            "socket" => self.listen = Some(Listen::Path(parser.value()?.into())),
            "listen-stdin" => self.listen = Some(Listen::Stdin),
            "parent" => self.parent = Some(parser.value()?.parse()?),
            "broker-uid" => self.broker = Some(Broker::Uid(parser.value()?.parse()?)),
            "broker-user" => self.broker = Some(Broker::User(parser.value()?.string()?)),
            "state-dir" => self.state_dir = Some(parser.value()?.into()),
            _ => return Ok(Own::Unknown),
        }
        Ok(Own::Taken)
    }

    /// How to serve, if that is what was asked for.
    ///
    /// # Errors
    /// A sentence for the user; the exit code is 2.
    pub fn check(self) -> Result<Options, String> {
        let name = self.name.ok_or("--name is missing")?;
        crate::keyid::check_part(&name).map_err(|error| format!("--name: {error}"))?;
        if self.parent.is_some() && self.listen != Some(Listen::Stdin) {
            return Err("--parent is for --listen-stdin alone".to_owned());
        }
        Ok(Options {
            config: self.config.ok_or("--config is missing")?,
            listen: self.listen.ok_or("--socket or --listen-stdin is missing")?,
            state_dir: self
                .state_dir
                .unwrap_or_else(|| PathBuf::from(format!("/var/lib/assertd-keystore/{name}"))),
            parent: self.parent,
            broker: self.broker.unwrap_or(Broker::OwnUser),
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(line: &str) -> Result<Options, String> {
        let words = line.split_whitespace().map(OsString::from);
        match read(words, |_, _| Ok(Own::Unknown))? {
            Asked::Rest(given) => given.check(),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_defaults_are_our_uid_and_the_directory_of_the_name() {
        assert_eq!(
            served("--config /etc/a.toml --name hsm --listen-stdin"),
            Ok(Options {
                config: "/etc/a.toml".into(),
                name: "hsm".into(),
                listen: Listen::Stdin,
                parent: None,
                broker: Broker::OwnUser,
                state_dir: "/var/lib/assertd-keystore/hsm".into(),
            })
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
            ("-x", "-x"),
            ("here", "here"),
            ("--listen-stdin=yes", "--listen-stdin"),
            (
                "--name a --config b --listen-stdin --broker-uid root",
                "root",
            ),
        ] {
            let error = served(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
        let words = ["-h", "--nonsense"].map(OsString::from);
        let asked = read(words, |_, _| Ok(Own::Unknown));
        assert!(matches!(asked, Ok(Asked::Help)));
    }
}
