//! assertd-keystore-pkcs11: the process that holds one PKCS#11 token. It reads its section of the
//! configuration, opens the token and serves the keystore protocol ([`keystore::program`]).
#![forbid(unsafe_code)]

mod options;

use keystore::Error;
use keystore::hardening::{reach::of_look, sandbox::Enforced};
use keystore::program::{End, Opening, Program, close_off};
use keystore_pkcs11::{Pkcs11Backend, Settings};
use options::{Command, Look};
use std::process::ExitCode;
use std::time::Duration;

const NAME: &str = "assertd-keystore-pkcs11";

/// How long one process waits for a token that is not there. What its sandbox lets it see was fixed
/// when it started (Landlock knows files and not names), and a module may have lost sight of a token
/// for good; a new process has neither.
const TOKEN_WAIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if let Err(code) = close_off(NAME) {
        return code;
    }
    let program = Program {
        name: NAME,
        defaults: &[],
        lock_memory: keystore::hardening::memory::lock,
        step_back: keystore_pkcs11::step_back,
        open,
        absence_max: |_| TOKEN_WAIT,
    };
    match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve(options)) => program.run(options),
        Ok(Command::ListTokens(look)) => list_tokens(&look),
        Ok(Command::Help) => {
            print!("{}", options::usage());
            ExitCode::SUCCESS
        }
        Ok(Command::Version) => {
            println!("{NAME} {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{NAME}: {text}\n\n{}", options::usage());
            ExitCode::from(2)
        }
    }
}

/// Whoever asks sets the variables that the module needs, and a deadline. Often it is root, and the
/// module one that nobody has chosen: it is loaded in a sandbox that is narrower than a keystore's.
fn list_tokens(look: &Look) -> ExitCode {
    let enforced = of_look(&look.module, &look.read, look.network).enter();
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

fn open(opening: &Opening) -> Result<Pkcs11Backend, Error> {
    let Opening {
        name,
        section,
        credentials,
        state,
    } = opening;
    Pkcs11Backend::open(Settings::read(
        section,
        name,
        credentials.as_deref(),
        state.clone(),
    )?)
}
