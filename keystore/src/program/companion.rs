//! What the main of every program that is no keystore does around its work: give up what none needs,
//! read its arguments, say why it ends.

use super::close_off;
use super::options::Listen;
use crate::notify::FAILED_START_PAUSE;
use crate::{Error, Kind};
use std::env::ArgsOs;
use std::iter::Skip;
use std::process::ExitCode;

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<O> {
    /// To serve.
    Run(O),
    /// Help, or the version.
    Print(String),
}

/// Who started us, where a start fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    /// Starts us again at once while somebody waits at its socket, so that a pause is taken before.
    Again,
    /// A person, or a program that takes its own pauses.
    Patient,
}

impl Starter {
    /// Whether who made our socket starts us again at once while somebody waits there. There is no message
    /// to a service manager to tell it by: that takes a socket, which a unit may not let us make.
    pub fn of(listen: &Listen, parent: Option<i32>) -> Starter {
        match *listen == Listen::Stdin && parent.is_none() {
            true => Starter::Again,
            false => Starter::Patient,
        }
    }
}

/// Why it does not serve.
#[derive(Debug)]
pub struct Failure {
    /// As in sysexits.h.
    pub code: u8,
    /// The sentence people read.
    pub text: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = match error.kind() {
            Kind::Unavailable | Kind::Refused => 69,
            _ => 70,
        };
        let text = error.to_string();
        Failure { code, text }
    }
}

/// What is each program's own.
pub struct Companion<O> {
    /// Its name, as in `/usr/bin`.
    pub name: &'static str,
    /// After what is wrong with the arguments.
    pub usage: &'static str,
    /// Reads the arguments.
    pub parse: fn(Skip<ArgsOs>) -> Result<Command<O>, String>,
    /// Serves until it is told to end.
    pub run: fn(&O) -> Result<(), Failure>,
    /// Who started us.
    pub starter: fn(&O) -> Starter,
}

impl<O> Companion<O> {
    /// The program.
    pub fn main(&self) -> ExitCode {
        if let Err(code) = close_off(self.name) {
            return code;
        }
        let options = match (self.parse)(std::env::args_os().skip(1)) {
            Ok(Command::Run(options)) => options,
            Ok(Command::Print(text)) => {
                print!("{text}");
                return ExitCode::SUCCESS;
            }
            Err(text) => {
                eprint!("{}: {text}\n{}", self.name, self.usage);
                return ExitCode::from(2);
            }
        };
        let Err(Failure { code, text }) = (self.run)(&options) else {
            return ExitCode::SUCCESS;
        };
        eprintln!("{}: {text}", self.name);
        if (self.starter)(&options) == Starter::Again {
            std::thread::sleep(FAILED_START_PAUSE);
        }
        ExitCode::from(code)
    }
}
