//! The command line: what all keystore programs have, and a look at a module's tokens.

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
       assertd-keystore-pkcs11 --list-tokens --module FILE
       assertd-keystore-pkcs11 -h | -V

Holds the private keys of one PKCS#11 token and mints assertions for assertd.

{COMMON_USAGE}  --list-tokens     print what the module shows of its tokens without a login, as JSON
  --module FILE     with --list-tokens: the PKCS#11 module
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
    ListTokens(PathBuf),
    /// Serve.
    Serve(Options),
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// A sentence for the user; the exit code is 2.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let (mut list_tokens, mut module) = (false, None);
    let asked = read(arguments, |name, parser| {
        match name {
            "list-tokens" => list_tokens = true,
            "module" => module = Some(PathBuf::from(parser.value()?)),
            _ => return Ok(Own::Unknown),
        }
        Ok(Own::Taken)
    })?;
    let given = match asked {
        Asked::Help => return Ok(Command::Help),
        Asked::Version => return Ok(Command::Version),
        Asked::Rest(given) => given,
    };
    match (list_tokens, module) {
        (false, None) => given.check().map(Command::Serve),
        (true, Some(module)) => Ok(Command::ListTokens(module)),
        (true, None) => Err("--module is missing".to_owned()),
        (false, Some(_)) => Err("--module is for --list-tokens alone".to_owned()),
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
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
        assert_eq!(parsed("-h --nonsense"), Ok(Command::Help));
        assert_eq!(
            parsed("--list-tokens --module /usr/lib/m.so"),
            Ok(Command::ListTokens("/usr/lib/m.so".into()))
        );
    }

    #[test]
    fn the_usage_names_every_argument_once() {
        let usage = usage();
        for argument in [
            "--config FILE ",
            "--state-dir DIR ",
            "--list-tokens ",
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
