//! `assertctl init`: from a token to a first configuration. It looks for tokens, has one chosen,
//! shows every file it is going to write, asks, and writes them. It never replaces a file, never
//! tries a PIN (the keystore does, once, when it starts), and a second run does what the first one
//! could not.

use super::CONFIG;
use super::args::{Args, Consent, Format};
use super::failure::{Exit, Failure};
use super::out::Out;
use crate::config::Config;
use nix::unistd::geteuid;
use serde::Serialize;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

mod ask;
mod credential;
mod files;
mod host;
mod look;
mod modules;
mod needs;
mod next;
mod section;
mod softhsm;
mod text;
mod tokens;
mod work;

use credential::Creds;
use text::Keystore;
use tokens::Environment;
use work::Work;

/// The keystore's name if `--name` says no other.
const NAME: &str = "hsm";

/// What the command line says already.
pub struct Wishes<'a> {
    /// Whether to ask.
    pub consent: Consent,
    /// The module.
    pub module: Option<&'a Path>,
    /// The token's label or serial number.
    pub token: Option<&'a str>,
    /// The keystore's name.
    pub name: Option<&'a str>,
    /// Variables of the module.
    pub environment: &'a Environment,
}

/// Which assertd is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    /// The host's: units, users, an encrypted PIN.
    Host,
    /// One that somebody starts by hand, by `-c`.
    ByHand,
}

/// One run.
struct Run<'a> {
    format: Format,
    wishes: &'a Wishes<'a>,
    setup: Setup,
    /// The configuration.
    path: &'a Path,
}

/// `init --json`
#[derive(Serialize)]
struct Report<'a> {
    format: u32,
    config: &'a Path,
    keystore: &'a str,
    written: &'a [PathBuf],
    sockets: Sockets,
    next: Vec<String>,
}

/// Whether assertd's sockets listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Sockets {
    Listening,
    Off,
}

/// Writes a first configuration, or what is missing of one.
pub fn run(args: &Args, wishes: &Wishes<'_>, out: &mut Out) -> Result<Exit, Failure> {
    if !geteuid().is_root() {
        let text = format!(
            "init is for root, not for uid {}; run it by sudo",
            geteuid()
        );
        return Err(Failure::new(Exit::NotPermitted, text));
    }
    if wishes.consent == Consent::Ask && !ask::somebody_is_there() {
        let text = "init asks questions, and standard input is no terminal; say --yes, and give \
                    the PIN on standard input";
        return Err(Failure::new(Exit::Refused, text));
    }
    if wishes.consent == Consent::Ask && args.format == Format::Json {
        return Err(Failure::new(
            Exit::Usage,
            "init asks questions; say --yes with --json",
        ));
    }
    let given = args.config.as_deref().unwrap_or(Path::new(CONFIG));
    let path = std::path::absolute(given).map_err(|error| {
        let text = format!("{}: is no path: {error}", given.display());
        Failure::new(Exit::Usage, text)
    })?;
    let setup = match path == Path::new(CONFIG) {
        true => Setup::Host,
        false => Setup::ByHand,
    };
    let run = Run {
        format: args.format,
        wishes,
        setup,
        path: &path,
    };
    match path.exists() {
        true => run.complete(out),
        false => run.begin(out),
    }
}

impl Run<'_> {
    /// Where the configuration is.
    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// There is no configuration: finds a token and writes one.
    fn begin(&self, out: &mut Out) -> Result<Exit, Failure> {
        let wishes = self.wishes;
        if wishes.consent == Consent::Ask {
            eprintln!("looking for PKCS#11 modules and their tokens …");
        }
        let looked = tokens::look(self.setup, wishes.module, wishes.environment)?;
        let candidates = tokens::candidates(&looked);
        if candidates.is_empty() {
            return Err(tokens::none(&looked));
        }
        if self.format == Format::Text {
            tokens::show(&looked, &candidates, out);
            out.flush();
        }
        let candidate = tokens::choose(candidates, wishes.token, wishes.consent)?;
        let home = softhsm::home(&candidate)?;
        let (keystore, work) = match self.setup {
            Setup::Host => {
                let creds = Creds::find();
                let keystore = section::of_token(self, &candidate, creds.as_ref(), home.as_ref());
                let work = needs::of_token(self.path, &keystore, &candidate.token, home, creds)?;
                (keystore, work)
            }
            Setup::ByHand => {
                let keystore = section::of_token(self, &candidate, None, home.as_ref());
                let files = vec![work::configuration(self.path, &keystore, None)];
                let work = Work {
                    files,
                    ..Work::default()
                };
                (keystore, work)
            }
        };
        let work = work.only_what_is_missing()?;
        self.carry_out(&work, out)?;
        self.finish(&keystore, &work, out)
    }

    /// There is a configuration: writes what it needs and is not there.
    fn complete(&self, out: &mut Out) -> Result<Exit, Failure> {
        let config = Config::load(self.path).map_err(|diagnostic| {
            let path = self.path.display();
            let text = format!(
                "{diagnostic}\n{path} is there already, and init replaces no file; correct it, \
                 or move it away and run init again"
            );
            Failure::new(Exit::Configuration, text)
        })?;
        let (name, section) = section::meant(&config, self)?;
        let work = match (self.setup, &section.socket) {
            (Setup::Host, Some(_)) => needs::of_section(name, section)?,
            (Setup::Host, None) | (Setup::ByHand, _) => Work::default(),
        };
        if work.is_done() && self.format == Format::Text {
            let path = self.path.display();
            out.line(&format!(
                "{path} is there, and all that keystore {name} needs; nothing to write"
            ));
        }
        self.carry_out(&work, out)?;
        self.finish(&section::as_written(name, section), &work, out)
    }

    /// Shows the work, asks for the PIN and for consent, and does it.
    fn carry_out(&self, work: &Work, out: &mut Out) -> Result<(), Failure> {
        if work.is_done() {
            return Ok(());
        }
        let pin = match &work.credential {
            Some(sealing) => ask::pin(&sealing.question, sealing.lengths)?,
            None => Zeroizing::default(),
        };
        if self.format == Format::Text {
            out.line(&work.lines().join("\n"));
            out.flush();
        }
        if self.wishes.consent == Consent::Ask && !ask::agreed("do this? [y/N] ")? {
            return Err(Failure::new(Exit::Refused, "not agreed; nothing was done"));
        }
        work.make(&pin)
    }

    /// Has the sockets listen, if that is wanted, and says what is next.
    fn finish(&self, keystore: &Keystore, work: &Work, out: &mut Out) -> Result<Exit, Failure> {
        let sockets = match self.setup {
            Setup::Host => sockets(&keystore.name, self.wishes.consent)?,
            Setup::ByHand => Sockets::Off,
        };
        let next = match self.setup {
            Setup::Host => next::on_host(keystore, sockets),
            Setup::ByHand => next::by_hand(self.path, keystore),
        };
        if self.format == Format::Json {
            out.json(&Report {
                format: 1,
                config: self.path,
                keystore: &keystore.name,
                written: &work.paths(),
                sockets,
                next,
            })?;
            return Ok(Exit::Done);
        }
        if self.setup == Setup::ByHand && !work.is_done() {
            out.line(
                "an assertd to be started by hand: no users, units or sockets were made, and the \
                 PIN is not encrypted",
            );
        }
        if sockets == Sockets::Listening {
            out.line("assertd's sockets listen; it starts with the first request");
        }
        out.line("next:");
        for line in next {
            out.line(&format!("  {line}"));
        }
        Ok(Exit::Done)
    }
}

fn sockets(keystore: &str, consent: Consent) -> Result<Sockets, Failure> {
    if !host::systemd_runs() {
        return Ok(Sockets::Off);
    }
    let off = host::sockets_off(keystore)?;
    if off.is_empty() {
        return Ok(Sockets::Listening);
    }
    let question = format!("enable and start {}? [y/N] ", off.join(" "));
    if consent == Consent::Ask && !ask::agreed(&question)? {
        return Ok(Sockets::Off);
    }
    host::start_sockets(&off)?;
    Ok(Sockets::Listening)
}
