//! `assertctl init`: from a token to a first configuration. It looks for tokens, has one chosen,
//! shows every file it is going to write, asks, and writes them. It never replaces a file, never
//! tries a PIN (the keystore does, once, when it starts), and a second run does what the first one
//! could not.

use super::CONFIG;
use super::args::{Args, Consent, Format};
use super::failure::{Exit, Failure};
use super::out::{Out, clean};
use crate::config::Config;
use keystore::config::{PinSource, Section, TokenSelector};
use keystore::inventory::Token;
use nix::unistd::geteuid;
use serde::Serialize;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

mod ask;
mod child;
mod credential;
mod files;
mod host;
mod modules;
mod softhsm;
mod text;
mod tokens;
mod work;

use credential::Creds;
use host::{Account, BROKER_USER, KEYSTORE_USER};
use modules::Reach;
use text::{Keystore, Pin, Runs};
use tokens::{Candidate, Environment, Label};
use work::{Sealing, Visible, Work};

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
    if path.exists() {
        complete(args, wishes, setup, &path, out)
    } else {
        begin(args, wishes, setup, &path, out)
    }
}

/// There is no configuration: finds a token and writes one.
fn begin(
    args: &Args,
    wishes: &Wishes<'_>,
    setup: Setup,
    path: &Path,
    out: &mut Out,
) -> Result<Exit, Failure> {
    if wishes.consent == Consent::Ask {
        eprintln!("looking for PKCS#11 modules and their tokens …");
    }
    let looked = tokens::look(wishes.module, wishes.environment)?;
    let candidates = tokens::candidates(&looked);
    if candidates.is_empty() {
        return Err(tokens::none(&looked));
    }
    if args.format == Format::Text {
        tokens::show(&looked, &candidates, out);
        out.flush();
    }
    let candidate = tokens::choose(candidates, wishes.token, wishes.consent)?;
    let creds = match setup {
        Setup::Host => Creds::find(),
        Setup::ByHand => None,
    };
    let home = softhsm::home(&candidate)?;
    let keystore = keystore(
        wishes,
        setup,
        path,
        &candidate,
        creds.is_some(),
        home.as_ref(),
    );
    let mut work = Work {
        files: vec![work::configuration(path, &keystore, None)],
        ..Work::default()
    };
    if setup == Setup::Host {
        work = for_host(path, &keystore, &candidate.token, home, creds)?;
    }
    let work = work.only_what_is_missing()?;
    do_it(&work, args, wishes, out)?;
    finish(args, wishes, setup, path, &keystore, &work, out)
}

/// The section for a token.
fn keystore(
    wishes: &Wishes<'_>,
    setup: Setup,
    path: &Path,
    candidate: &Candidate,
    encrypted: bool,
    home: Option<&softhsm::Home>,
) -> Keystore {
    let name = wishes.name.unwrap_or(NAME).to_owned();
    let dir = path.parent().unwrap_or(Path::new("/"));
    let token = &candidate.token;
    let algs: Vec<&str> = token.algs.iter().map(|alg| alg.name()).collect();
    // Nobody but the keystore has a need to write in its state directory.
    let state = Path::new("/var/lib/assertd-keystore").join(&name);
    let tokens = home.map(|home| home.tokens.clone());
    Keystore {
        module: candidate.module.clone(),
        token: selector(candidate),
        about: format!("{} offers {}.", token.model, algs.join(" ")),
        pin: match encrypted {
            true => Pin::Credential(credential::id(&name), credential::path(&name)),
            false => Pin::File(dir.join(credential::id(&name))),
        },
        runs: match setup {
            Setup::Host => Runs::Unit(format!("/run/assertd/keystore-{name}.sock").into()),
            Setup::ByHand => Runs::Child(dir.to_owned()),
        },
        environment: candidate.environment.clone(),
        module_state: tokens
            .filter(|dir| !dir.starts_with(state))
            .into_iter()
            .collect(),
        reach: modules::reach(&candidate.module),
        name,
    }
}

/// A label says more to people; the serial number decides where it is not enough.
fn selector(candidate: &Candidate) -> TokenSelector {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    TokenSelector {
        label: text(&candidate.token.label),
        serial: match candidate.label {
            Label::Unique => None,
            Label::Ambiguous => text(&candidate.token.serial),
        },
    }
}

/// All that the host's own assertd needs.
fn for_host(
    path: &Path,
    keystore: &Keystore,
    token: &Token,
    home: Option<softhsm::Home>,
    creds: Option<Creds>,
) -> Result<Work, Failure> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut files = vec![work::configuration(path, keystore, Some(BROKER_USER))];
    let example = work::example(&dir.join("conf.d"), &keystore.name);
    if example.there() != files::There::Other {
        files.push(example); // somebody's own one is better
    }
    let groups = home
        .as_ref()
        .map(|home| home.groups.clone())
        .unwrap_or_default();
    if !keystore.module_state.is_empty() || !groups.is_empty() {
        files.push(work::drop_in(
            &keystore.name,
            &keystore.module_state,
            &groups,
        ));
    }
    let own = home.and_then(|home| home.token);
    Ok(Work {
        missing: host::missing()?,
        give: own.filter(|token| softhsm::owner(token) == softhsm::Owner::Root),
        files,
        credential: creds.map(|creds| Sealing {
            creds,
            keystore: keystore.name.clone(),
            question: format!(
                "user PIN of token \"{}\" (not shown, not tried now): ",
                token.label
            ),
            lengths: (token.pin_len_min, token.pin_len_max),
        }),
        visible: Some(Visible {
            keystore: keystore.clone(),
            token: token.clone(),
            groups,
        }),
    })
}

/// There is a configuration: writes what it needs and is not there.
fn complete(
    args: &Args,
    wishes: &Wishes<'_>,
    setup: Setup,
    path: &Path,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let config = Config::load(path).map_err(|diagnostic| {
        let text = format!(
            "{diagnostic}\n{} is there already, and init replaces no file; correct it, or move it \
             away and run init again",
            path.display()
        );
        Failure::new(Exit::Configuration, text)
    })?;
    let (name, section) = the_keystore(&config, path, wishes)?;
    let keystore = as_written(name, section);
    let mut work = Work::default();
    if setup == Setup::Host && section.socket.is_some() {
        let account = Account::of(KEYSTORE_USER)?;
        let dirs = &section.module_state;
        let groups = dirs
            .iter()
            .flat_map(|dir| account.groups_needed(dir))
            .collect();
        let drop_in = work::drop_in(name, dirs, &groups);
        if !dirs.is_empty() && drop_in.there() == files::There::Nothing {
            work.files.push(drop_in);
        }
        let own_credential = section.pin == Some(PinSource::Credential(credential::id(name)));
        if own_credential && !credential::path(name).exists() {
            let without = "systemd-creds is missing (systemd 250 and newer have it); write pin = \
                           { file = \"…\" } into the configuration instead";
            let creds = Creds::find().ok_or_else(|| Failure::new(Exit::Unavailable, without))?;
            work.credential = Some(Sealing {
                creds,
                keystore: name.clone(),
                question: format!("user PIN of the token of keystore {name} (not shown): "),
                lengths: (0, 0),
            });
        }
    }
    if work.is_done() && args.format == Format::Text {
        let path = path.display();
        out.line(&format!(
            "{path} is there, and all that keystore {name} needs; nothing to write"
        ));
    }
    do_it(&work, args, wishes, out)?;
    finish(args, wishes, setup, path, &keystore, &work, out)
}

/// The keystore that is meant, if the configuration has it.
fn the_keystore<'a>(
    config: &'a Config,
    path: &Path,
    wishes: &Wishes<'_>,
) -> Result<(&'a String, &'a Section), Failure> {
    let only = || {
        config
            .keystores
            .iter()
            .next()
            .filter(|_| config.keystores.len() == 1)
    };
    let named = config.keystores.get_key_value(wishes.name.unwrap_or(NAME));
    let found = match wishes.name {
        Some(_) => named,
        None => named.or_else(only),
    };
    let refused = |why: String| {
        let path = path.display();
        let text = format!("{path} is there already, and init changes no file; {why}");
        Failure::new(Exit::Refused, text)
    };
    let Some((name, section)) = found else {
        let name = wishes.name.unwrap_or(NAME);
        return Err(refused(format!(
            "it has no [keystore.{name}]: add it by hand, see assertd.toml(5)"
        )));
    };
    let selector = section.token.clone().unwrap_or_default();
    let is_its = |wanted: &str| {
        let both = [&selector.label, &selector.serial];
        both.into_iter().any(|text| text.as_deref() == Some(wanted))
    };
    match wishes.token.filter(|wanted| !is_its(wanted)) {
        None => Ok((name, section)),
        Some(wanted) => Err(refused(format!(
            "its [keystore.{name}] is for another token than `{wanted}`: write a section of \
             another name by hand, see assertd.toml(5)"
        ))),
    }
}

/// What is said at the end about a keystore that somebody has configured.
fn as_written(name: &str, section: &Section) -> Keystore {
    let module = section.module.clone().unwrap_or_default();
    Keystore {
        name: name.to_owned(),
        token: section.token.clone().unwrap_or_default(),
        about: String::new(),
        pin: match &section.pin {
            Some(PinSource::File(path)) if !path.exists() => Pin::File(path.clone()),
            _ => Pin::Credential(credential::id(name), credential::path(name)),
        },
        runs: match &section.socket {
            Some(socket) => Runs::Unit(socket.clone()),
            None => Runs::Child(PathBuf::new()),
        },
        environment: section.environment.clone(),
        module_state: section.module_state.clone(),
        reach: modules::reach(&module),
        module,
    }
}

/// Shows the work, asks for the PIN and for consent, and does it.
fn do_it(work: &Work, args: &Args, wishes: &Wishes<'_>, out: &mut Out) -> Result<(), Failure> {
    if work.is_done() {
        return Ok(());
    }
    let pin = match &work.credential {
        Some(sealing) => ask::pin(&sealing.question, sealing.lengths)?,
        None => Zeroizing::default(),
    };
    if args.format == Format::Text {
        out.line(&work.lines().join("\n"));
        out.flush();
    }
    if wishes.consent == Consent::Ask && !ask::agreed("do this? [y/N] ")? {
        return Err(Failure::new(Exit::Refused, "not agreed; nothing was done"));
    }
    work.make(&pin)
}

/// Has the sockets listen, if that is wanted, and says what is next.
fn finish(
    args: &Args,
    wishes: &Wishes<'_>,
    setup: Setup,
    path: &Path,
    keystore: &Keystore,
    work: &Work,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let sockets = match setup {
        Setup::Host => sockets(&keystore.name, wishes.consent)?,
        Setup::ByHand => Sockets::Off,
    };
    let next = match setup {
        Setup::Host => next_on_host(keystore, sockets),
        Setup::ByHand => next_by_hand(path, keystore),
    };
    if args.format == Format::Json {
        out.json(&Report {
            format: 1,
            config: path,
            keystore: &keystore.name,
            written: &work.paths(),
            sockets,
            next,
        })?;
        return Ok(Exit::Done);
    }
    if setup == Setup::ByHand && !work.is_done() {
        out.line(
            "an assertd to be started by hand: no users, units or sockets were made, and the PIN \
             is not encrypted",
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

fn next_on_host(keystore: &Keystore, sockets: Sockets) -> Vec<String> {
    let name = &keystore.name;
    let mut next = Vec::new();
    if let Some(line) = work::how_to_give_the_pin(&keystore.pin, KEYSTORE_USER) {
        next.push(line);
    }
    if keystore.reach == Reach::Network {
        next.push(format!(
            "install -D -m 0644 -t /etc/systemd/system/assertd-keystore-pkcs11@{name}.service.d \
             /usr/share/assertd/drop-ins/network-hsm.conf"
        ));
        next.push(
            "    and write the HSM's address into it: its module may talk to no other".to_owned(),
        );
    }
    if sockets == Sockets::Off {
        next.push(format!(
            "systemctl enable --now {}",
            host::sockets(name).join(" ")
        ));
    }
    next.push("assertctl check                    is everything as it must be?".to_owned());
    next.push(
        "/etc/assertd/conf.d/TEAM.toml      say who may ask for what; an example is there"
            .to_owned(),
    );
    next.push("assertctl reload && assertctl config diff".to_owned());
    next.push("assertctl apply                    makes the keys".to_owned());
    next
}

fn next_by_hand(path: &Path, keystore: &Keystore) -> Vec<String> {
    let path = path.display();
    let mut next = Vec::new();
    if let Some(line) = work::how_to_give_the_pin(&keystore.pin, "root") {
        next.push(line);
    }
    next.push(format!("a [workload.NAME] in {path}; see assertd.toml(5)"));
    next.push(format!("assertd -c {path}"));
    next.push(format!("assertctl -c {path} apply"));
    next.iter().map(|line| clean(line)).collect()
}
