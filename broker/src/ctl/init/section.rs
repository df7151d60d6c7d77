//! The `[keystore.NAME]` that init is about: made from a token, or found in a configuration that is
//! there.

use super::credential::{self, Creds};
use super::modules;
use super::softhsm;
use super::text::{Keystore, Pin, Runs};
use super::tokens::{Candidate, Label};
use super::{NAME, Run, Setup};
use crate::config::Config;
use crate::ctl::failure::{Exit, Failure};
use keystore::config::{PinSource, Section, TokenSelector};
use std::path::{Path, PathBuf};

/// The section for a token.
pub fn of_token(
    run: &Run<'_>,
    candidate: &Candidate,
    creds: Option<&Creds>,
    home: Option<&softhsm::Home>,
) -> Keystore {
    let name = run.wishes.name.unwrap_or(NAME).to_owned();
    let dir = run.dir();
    let token = &candidate.token;
    let algs: Vec<&str> = token.algs.iter().map(|alg| alg.name()).collect();
    // Nobody but the keystore has a need to write in its state directory.
    let state = Path::new("/var/lib/assertd-keystore").join(&name);
    let tokens = home.map(|home| home.tokens.clone());
    Keystore {
        module: candidate.module.clone(),
        token: selector(candidate),
        about: format!("{} offers {}.", token.model, algs.join(" ")),
        pin: match creds {
            Some(_) => Pin::Credential(credential::id(&name), credential::path(&name)),
            None => Pin::File(dir.join(credential::id(&name))),
        },
        runs: match run.setup {
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

/// The keystore that is meant, if the configuration has it.
pub fn meant<'a>(config: &'a Config, run: &Run<'_>) -> Result<(&'a String, &'a Section), Failure> {
    let wishes = run.wishes;
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
        let path = run.path.display();
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
    let module = wishes
        .module
        .filter(|m| section.module.as_deref() != Some(m));
    let other = match (wishes.token.filter(|wanted| !is_its(wanted)), module) {
        (Some(token), _) => format!("another token than `{token}`"),
        (None, Some(module)) => format!("another module than {}", module.display()),
        (None, None) => return Ok((name, section)),
    };
    Err(refused(format!(
        "its [keystore.{name}] is for {other}: write a section of another name by hand, see \
         assertd.toml(5)"
    )))
}

/// What is said at the end about a keystore that somebody has configured.
pub fn as_written(name: &str, section: &Section) -> Keystore {
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
