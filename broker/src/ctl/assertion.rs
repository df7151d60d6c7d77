//! `assertctl assertion`: an assertion for a target, in the form that whoever wants it can take: alone
//! on standard output, as the answers that SDKs expect of a program they run ([`exec`]), or as a file
//! that is replaced whole ([`place`]) and kept fresh ([`keep`]).
//!
//! It runs as the workload and in the workload's unit, so that what the kernel says about it is what is
//! true of the workload. It names a target, and nothing more is possible. What it prints or writes is a
//! credential: it never comes into a message.

mod exec;
mod keep;
mod place;

use super::args::{Args, Delivery, Format, Upkeep};
use super::failure::{Asker, Exit, Failure};
use super::out::Out;
use assertd_client::api::AssertionResponse;
use assertd_client::{Client, Error};
use place::Place;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long a file's first assertion may take: a host that boots has keystores that are just starting,
/// and a service that waits a little is better than one that has failed. Below systemd's 90 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// What is asked, and where.
pub struct Question<'a> {
    socket: PathBuf,
    target: &'a str,
    lifetime_s: Option<u32>,
}

/// Asks once, or goes on asking.
pub fn run(
    args: &Args,
    target: &str,
    lifetime_s: Option<u32>,
    delivery: &Delivery,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let question = || {
        args.workload_socket().map(|socket| Question {
            socket,
            target,
            lifetime_s,
        })
    };
    match delivery {
        Delivery::Print => {
            let answer = question()?.ask()?;
            match args.format {
                Format::Json => out.json(&answer)?,
                Format::Text => out.line(&answer.assertion),
            }
            Ok(Exit::Done)
        }
        Delivery::Google => exec::google(question().and_then(|it| it.ask()), out),
        Delivery::Kubernetes => exec::kubernetes(&question()?, out),
        Delivery::File { path, upkeep } => to_file(args, &question()?, path, *upkeep),
    }
}

fn to_file(args: &Args, question: &Question, path: &Path, upkeep: Upkeep) -> Result<Exit, Failure> {
    let place = Place::open(path)?;
    if upkeep != Upkeep::Here {
        place.put(&question.ask_patiently()?.assertion)?;
    }
    match upkeep {
        Upkeep::None => Ok(Exit::Done),
        Upkeep::Beside => keep::start(args, question, path),
        Upkeep::Here => keep::run(question, &place),
    }
}

impl Question<'_> {
    /// Asks on a connection of its own: who asks is seen by the kernel when it is made.
    fn try_ask(&self) -> Result<AssertionResponse, Error> {
        Client::connect(&self.socket)?.assertion(self.target, self.lifetime_s)
    }

    fn ask(&self) -> Result<AssertionResponse, Failure> {
        self.try_ask()
            .map_err(|error| Failure::from_client(&error, Asker::Workload))
    }

    /// Waits for a keystore that is not there yet. A denial is an answer, and so is a missing socket.
    fn ask_patiently(&self) -> Result<AssertionResponse, Failure> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.ask() {
                Err(failure)
                    if failure.exit == Exit::Unavailable
                        && self.socket.exists()
                        && Instant::now() < end =>
                {
                    thread::sleep(PAUSE);
                }
                done => return done,
            }
        }
    }
}
