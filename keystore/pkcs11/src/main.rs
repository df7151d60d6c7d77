//! assertd-keystore-pkcs11: the process that holds one PKCS#11 token. It reads its section of the
//! configuration, opens the token and serves the keystore protocol ([`keystore::program`]).
#![forbid(unsafe_code)]

mod options;
mod pin;

use keystore::config::TokenSelector;
use keystore::program::{End, Opening, Program, close_off};
use keystore::{Error, Kind};
use keystore_pkcs11::{Pkcs11Backend, Settings};
use options::Command;
use std::path::Path;
use std::process::ExitCode;

const NAME: &str = "assertd-keystore-pkcs11";

fn main() -> ExitCode {
    if let Err(code) = close_off(NAME) {
        return code;
    }
    let program = Program {
        name: NAME,
        defaults: &[],
        lock_memory: keystore::hardening::memory::lock,
        open,
    };
    match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve(options)) => program.run(options),
        Ok(Command::ListTokens(module)) => list_tokens(&module),
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

/// Whoever asks sets the variables that the module needs, and a deadline.
fn list_tokens(module: &Path) -> ExitCode {
    match keystore_pkcs11::inventory::take(module) {
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
    let missing = |key: &str| Error::new(Kind::Internal, format!("`{key}` was not checked"));
    let section = &opening.section;
    let source = section.pin.as_ref().ok_or_else(|| missing("pin"))?;
    let TokenSelector { label, serial } = section.token.clone().unwrap_or_default();
    Pkcs11Backend::open(Settings {
        module: section.module.clone().ok_or_else(|| missing("module"))?,
        label,
        serial,
        pin: pin::read(source, opening.credentials.as_deref(), &opening.name)?,
        init_args: section.init_args.clone(),
        signers: section.signers,
    })
}
