//! The command line: what all keystore programs have, and a look at a module's tokens.

use keystore::hardening::sandbox::Network;
use keystore::program::options::{Asked, COMMON_USAGE, Options, Own, read};
use std::ffi::OsString;
use std::path::PathBuf;

/// Shown by `-h`.
pub fn usage() -> String {
    format!(
        "\
usage: assertd-keystore-pkcs11 --config FILE --name NAME (--socket PATH | --listen-stdin)
                               [--parent PID] [--broker-uid UID | --broker-user USER]
                               [--state-dir DIR]
       assertd-keystore-pkcs11 --list-tokens --module FILE [--read PATH]… [--network]
       assertd-keystore-pkcs11 -h | -V

Holds the private keys of one PKCS#11 token and mints assertions for assertd.

{COMMON_USAGE}  --list-tokens     print what the module shows of its tokens without a login, as JSON
                    (the module is loaded; it can write no file, run no program, and use
                    no TCP)
  --module FILE     with --list-tokens: the PKCS#11 module
  --read PATH       with --list-tokens: a directory that the module reads, or a file in one,
                    outside of /usr, /etc and /opt
  --network         with --list-tokens: the module may use TCP
  -h, --help        this text
  -V, --version     the version
"
    )
}

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print [`usage`].
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

/// Reads the arguments after the program's name.
///
/// # Errors
/// A sentence for the user; the exit code is 2.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut look = Wanted::default();
    match read(arguments, |name, parser| look.take(name, parser))? {
        Asked::Help => Ok(Command::Help),
        Asked::Version => Ok(Command::Version),
        Asked::Rest(_) if look.list_tokens => look.check().map(Command::ListTokens),
        Asked::Rest(_) if look != Wanted::default() => {
            Err("--module, --read and --network are for --list-tokens alone".to_owned())
        }
        Asked::Rest(given) => given.check().map(Command::Serve),
    }
}

/// The arguments of a look, as they came.
#[derive(Default, PartialEq, Eq)]
struct Wanted {
    list_tokens: bool,
    module: Option<PathBuf>,
    read: Vec<PathBuf>,
    network: bool,
}

impl Wanted {
    fn take(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<Own, lexopt::Error> {
        match name {
            "list-tokens" => self.list_tokens = true,
            "module" => self.module = Some(parser.value()?.into()),
            "read" => self.read.push(parser.value()?.into()),
            "network" => self.network = true,
            _ => return Ok(Own::Unknown),
        }
        Ok(Own::Taken)
    }

    fn check(self) -> Result<Look, String> {
        Ok(Look {
            module: self.module.ok_or("--module is missing")?,
            read: self.read,
            network: match self.network {
                true => Network::Open,
                false => Network::None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        for (line, part) in [
            ("--config a", "--name"),
            ("--pin 1234", "--pin"),
            ("--list-tokens", "--module"),
            ("--name a --config b --socket c --module d", "--list-tokens"),
            ("--name a --config b --socket c --read d", "--list-tokens"),
            ("--name a --config b --socket c --network", "--list-tokens"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
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

    #[test]
    fn the_usage_names_every_argument_once() {
        let usage = usage();
        for argument in [
            "--config FILE ",
            "--state-dir DIR ",
            "--list-tokens ",
            "--read PATH ",
            "--network ",
            "-V, ",
        ] {
            assert_eq!(
                usage.matches(&format!("\n  {argument}")).count(),
                1,
                "{argument}"
            );
        }
    }
}
