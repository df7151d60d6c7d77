//! `assertctl init`: from a token or a TPM to a first configuration. It looks what there is, has one
//! chosen, shows every file it is going to write, asks, and writes them. It never replaces a file,
//! never tries a PIN (the keystore does, once, when it starts), and a second run does what the first
//! one could not.

use super::CONFIG;
use super::args::{Args, Backends, Consent, Format};
use super::failure::{Exit, Failure};
use super::out::Out;
use crate::config::Config;
use keystore::config::{BackendKind, Section, Tcti};
use nix::unistd::geteuid;
use serde::Serialize;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

mod ask;
mod choice;
mod credential;
mod files;
mod host;
mod look;
pub mod modules;
mod needs;
mod next;
mod section;
mod softhsm;
mod text;
mod tokens;
mod tpm;
mod work;

use choice::{Chosen, Found};
use credential::Creds;
use text::{Backend, Keystore, Runs};
use tokens::Environment;
use work::{Sealed, Work};

/// What the command line says already.
pub struct Wishes<'a> {
    /// Whether to ask.
    pub consent: Consent,
    /// Which kinds of keystore.
    pub backends: Option<Backends>,
    /// The module.
    pub module: Option<&'a Path>,
    /// The token's label or serial number.
    pub token: Option<&'a str>,
    /// How the TPM is reached.
    pub tcti: Option<&'a Tcti>,
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
    keystores: Vec<&'a str>,
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

    /// There is no configuration: finds what keys can be made in and writes one.
    fn begin(&self, out: &mut Out) -> Result<Exit, Failure> {
        let wishes = self.wishes;
        let found = self.look()?;
        if self.format == Format::Text {
            found.show(wishes, out);
            out.flush();
        }
        let chosen = found.choose(wishes)?;
        let tpm_name = match (&chosen.token, wishes.name) {
            (None, Some(name)) => name,
            _ => section::TPM,
        };
        let creds = match self.setup {
            Setup::Host => Creds::find(),
            Setup::ByHand => None,
        };
        let (keystores, spare, work) = self.plan(chosen, tpm_name, creds.as_ref())?;
        needs::no_keys_without_secret(&keystores, &self.dir().join("state"))?;
        let kinds: Vec<BackendKind> = keystores.iter().map(Keystore::kind).collect();
        let mut first = Work {
            files: vec![self.configuration(&keystores, spare.as_ref())],
            ..Work::default()
        };
        if self.setup == Setup::Host {
            first.missing = host::missing(&kinds)?;
            let example = work::example(&self.path.with_file_name("conf.d"), &keystores[0].name);
            if example.there() != files::There::Other {
                first.files.push(example); // somebody's own one is better
            }
        }
        let work = first.and(work).only_what_is_missing()?;
        self.carry_out(&work, out)?;
        self.finish(&keystores, &work, out)
    }

    /// Looks for tokens, if one could be chosen, and for the TPM.
    fn look(&self) -> Result<Found, Failure> {
        let wishes = self.wishes;
        let looked = match wishes.backends {
            Some(Backends::Tpm) => Vec::new(), // no module is run that nobody asked for
            Some(Backends::Pkcs11 | Backends::Both) | None => {
                if wishes.consent == Consent::Ask {
                    eprintln!("looking for PKCS#11 modules and their tokens …");
                }
                tokens::look(self.setup, wishes.module, wishes.environment)?
            }
        };
        Ok(Found {
            candidates: tokens::candidates(&looked),
            looked,
            chip: tpm::look(self.setup, wishes.tcti),
        })
    }

    /// The sections for what is chosen, one that is only suggested, and what the sections need.
    fn plan(
        &self,
        chosen: Chosen,
        tpm_name: &str,
        creds: Option<&Creds>,
    ) -> Result<(Vec<Keystore>, Option<Keystore>, Work), Failure> {
        let (mut keystores, mut work) = (Vec::new(), Work::default());
        if let Some(candidate) = chosen.token {
            let home = softhsm::home(&candidate)?;
            let keystore = section::of_token(self, &candidate, creds, home.as_ref());
            if let (Setup::Host, Backend::Pkcs11(written)) = (self.setup, &keystore.backend) {
                let (name, token) = (&keystore.name, &candidate.token);
                work = work.and(needs::of_token(name, written, token, home, creds)?);
            }
            keystores.push(keystore);
        }
        if keystores.iter().any(|keystore| keystore.name == tpm_name) {
            if chosen.chip.is_some() {
                let text =
                    format!("keystore {tpm_name} is the TPM's; give the token another --name");
                return Err(Failure::new(Exit::Refused, text));
            }
            return Ok((keystores, None, work));
        }
        let of_tpm = |chip| section::of_tpm(self, tpm_name, chip, creds);
        // By hand nobody makes its secret.
        let spare = chosen.spare.as_ref().filter(|_| self.setup == Setup::Host);
        let spare = spare.map(of_tpm);
        if let Some(chip) = chosen.chip {
            keystores.push(of_tpm(&chip));
            if self.setup == Setup::Host {
                work = work.and(needs::of_chip(tpm_name, chip, creds)?);
            }
        }
        Ok((keystores, spare, work))
    }

    fn configuration(&self, keystores: &[Keystore], spare: Option<&Keystore>) -> files::Planned {
        let group = match self.setup {
            Setup::Host => Some(host::BROKER_USER),
            Setup::ByHand => None,
        };
        let keystores: Vec<&Keystore> = keystores.iter().collect();
        work::configuration(self.path, &keystores, spare, group)
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
        let meant = section::meant(&config, self)?;
        let mut work = Work::default();
        let has_unit = |section: &Section| self.setup == Setup::Host && section.socket.is_some();
        let with_unit = meant.iter().filter(|(_, section)| has_unit(section));
        for (name, section) in with_unit.clone() {
            work = work.and(needs::of_section(name, section)?);
        }
        let kinds: Vec<BackendKind> = with_unit.map(|(_, section)| section.backend).collect();
        if !kinds.is_empty() {
            work.missing = host::missing(&kinds)?;
        }
        let keystores: Vec<Keystore> = meant
            .iter()
            .map(|(name, section)| section::as_written(name, section))
            .collect();
        needs::no_keys_without_secret(&keystores, &config.server.state_dir)?;
        if work.is_done() && self.format == Format::Text {
            let names: Vec<&str> = keystores.iter().map(|it| it.name.as_str()).collect();
            out.line(&format!(
                "{} is there, and all that keystore {} needs; nothing to write",
                self.path.display(),
                names.join(", ")
            ));
        }
        self.carry_out(&work, out)?;
        self.finish(&keystores, &work, out)
    }

    /// Shows the work, asks for the PIN and for consent, and does it.
    fn carry_out(&self, work: &Work, out: &mut Out) -> Result<(), Failure> {
        if work.is_done() {
            return Ok(());
        }
        let secrets = secrets(work)?;
        if self.format == Format::Text {
            out.line(&work.lines().join("\n"));
            out.flush();
        }
        if self.wishes.consent == Consent::Ask && !ask::agreed("do this? [y/N] ")? {
            return Err(Failure::new(Exit::Refused, "not agreed; nothing was done"));
        }
        work.make(&secrets)
    }

    /// Has the sockets listen, if that is wanted, and says what is next.
    fn finish(&self, keystores: &[Keystore], work: &Work, out: &mut Out) -> Result<Exit, Failure> {
        let has_unit = |keystore: &&Keystore| matches!(keystore.runs, Runs::Unit(_));
        let units: Vec<&Keystore> = keystores.iter().filter(has_unit).collect();
        let (sockets, next) = match self.setup {
            Setup::Host => {
                let stale = stale(&units, work);
                let sockets = sockets(&units, self.wishes.consent)?;
                (sockets, next::on_host(keystores, sockets, &stale))
            }
            Setup::ByHand => (Sockets::Off, next::by_hand(self.path, keystores)),
        };
        if self.format == Format::Json {
            let names: Vec<&str> = keystores.iter().map(|it| it.name.as_str()).collect();
            out.json(&Report {
                format: 1,
                config: self.path,
                keystore: names.first().copied().unwrap_or_default(),
                keystores: names,
                written: &work.paths(),
                sockets,
                next,
            })?;
            return Ok(Exit::Done);
        }
        if self.setup == Setup::ByHand && !work.is_done() {
            out.line(
                "an assertd to be started by hand: no users, units or sockets were made, and no \
                 secret is encrypted",
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

/// A PIN that is asked for, or bytes that are made, for each credential to be.
fn secrets(work: &Work) -> Result<Vec<Zeroizing<Vec<u8>>>, Failure> {
    let is_pin = |it: &&work::Sealing| matches!(it.secret, Sealed::Pin { .. });
    let pins = work.sealings.iter().filter(is_pin);
    let pins: Vec<&str> = pins.map(|it| it.id.as_str()).collect();
    if pins.len() > 1 && !ask::somebody_is_there() {
        let text = format!(
            "{} are missing, and standard input has room for one PIN; run init once for each, with \
             --name",
            pins.join(" and ")
        );
        return Err(Failure::new(Exit::Refused, text));
    }
    let secret = |sealing: &work::Sealing| match &sealing.secret {
        Sealed::Pin { question, lengths } => ask::pin(question, *lengths),
        Sealed::Auth => credential::new_auth(),
    };
    work.sealings.iter().map(secret).collect()
}

/// Our services that run with what was there before, if something was written.
fn stale(keystores: &[&Keystore], work: &Work) -> Vec<String> {
    let own = keystores
        .iter()
        .map(|keystore| keystore.kind().unit(&keystore.name, "service"));
    let all = ["assertd.service".to_owned()].into_iter().chain(own);
    match work.is_done() {
        true => Vec::new(),
        false => all.filter(|unit| host::is_active(unit)).collect(),
    }
}

fn sockets(keystores: &[&Keystore], consent: Consent) -> Result<Sockets, Failure> {
    if !host::systemd_runs() {
        return Ok(Sockets::Off);
    }
    let units: Vec<String> = keystores.iter().map(|it| it.socket()).collect();
    let off = host::sockets_off(&units)?;
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
