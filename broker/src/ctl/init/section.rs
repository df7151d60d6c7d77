//! The `[keystore.NAME]` that init is about: made from a token, or found in a configuration that is
//! there.

use super::credential::{self, Creds};
use super::modules;
use super::softhsm;
use super::text::{self, Backend, Keystore, Runs, Secret, Token};
use super::tokens::{Candidate, Label};
use super::tpm::Chip;
use super::{Run, Setup};
use crate::config::Config;
use crate::ctl::args::Backends;
use crate::ctl::failure::{Exit, Failure};
use keystore::config::{BackendKind, PinSource, Section, TCTI, Tcti, TokenSelector};
use std::path::{Path, PathBuf};

/// A token's keystore, if `--name` says no other.
pub const HSM: &str = "hsm";

/// A TPM's.
pub const TPM: &str = "tpm";

/// The section for a token.
pub fn of_token(
    run: &Run<'_>,
    candidate: &Candidate,
    creds: Option<&Creds>,
    home: Option<&softhsm::Home>,
) -> Keystore {
    let name = run.wishes.name.unwrap_or(HSM).to_owned();
    let token = &candidate.token;
    let algs: Vec<&str> = token.algs.iter().map(|alg| alg.name()).collect();
    // Nobody but the keystore has a need to write in its state directory.
    let state = Path::new("/var/lib/assertd-keystore").join(&name);
    let tokens = home.map(|home| home.tokens.clone());
    Keystore {
        about: format!("{} offers {}.", token.model, algs.join(" ")),
        secret: secret(run, BackendKind::Pkcs11, &name, creds),
        runs: runs(run, &name),
        backend: Backend::Pkcs11(Token {
            module: candidate.module.clone(),
            selector: selector(candidate),
            environment: candidate.environment.clone(),
            module_state: tokens
                .filter(|dir| !dir.starts_with(state))
                .into_iter()
                .collect(),
            reach: modules::reach(&candidate.module),
        }),
        name,
    }
}

/// The section for a TPM.
pub fn of_tpm(run: &Run<'_>, name: &str, chip: &Chip, creds: Option<&Creds>) -> Keystore {
    Keystore {
        name: name.to_owned(),
        about: format!("{}.", chip.about),
        secret: secret(run, BackendKind::Tpm, name, creds),
        runs: runs(run, name),
        backend: Backend::Tpm(chip.tcti.clone()),
    }
}

fn secret(run: &Run<'_>, kind: BackendKind, name: &str, creds: Option<&Creds>) -> Secret {
    let id = credential::id(kind, name);
    match creds {
        Some(_) => Secret::Credential(id.clone(), credential::path(&id)),
        None => Secret::File(run.dir().join(id)),
    }
}

fn runs(run: &Run<'_>, name: &str) -> Runs {
    match run.setup {
        Setup::Host => Runs::Unit(format!("/run/assertd/keystore-{name}.sock").into()),
        Setup::ByHand => Runs::Child(run.dir().to_owned()),
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

/// The keystores that are meant, of a configuration that is there: the named one, or all that the
/// other wishes fit.
pub fn meant<'a>(
    config: &'a Config,
    run: &Run<'_>,
) -> Result<Vec<(&'a String, &'a Section)>, Failure> {
    let wishes = run.wishes;
    let refused = |why: String| {
        let path = run.path.display();
        let text = format!("{path} is there already, and init changes no file; {why}");
        Failure::new(Exit::Refused, text)
    };
    let named = |name: &String| wishes.name.is_none_or(|wanted| wanted == name);
    let all: Vec<(&String, &Section)> = config
        .keystores
        .iter()
        .filter(|(name, _)| named(name))
        .collect();
    let fitting: Vec<(&String, &Section)> = all
        .iter()
        .filter(|(_, section)| unlike(run, section).is_none())
        .copied()
        .collect();
    if !fitting.is_empty() {
        return Ok(fitting);
    }
    let lines = match wishes.backends {
        Some(Backends::Tpm) => Some(tpm_lines(run)),
        _ => None,
    };
    Err(refused(match (all.first(), lines) {
        (_, Some(lines)) => {
            let name = wishes.name.unwrap_or(TPM);
            format!(
                "it has no such keystore with a TPM: add these lines to it, then run `assertctl \
                 init --name {name}`:\n\n{lines}"
            )
        }
        (Some((name, section)), None) => {
            let other = unlike(run, section).unwrap_or_default();
            format!(
                "its [keystore.{name}] is for {other}: write a section of another name by hand, \
                 see assertd.toml(5)"
            )
        }
        (None, None) => {
            let name = wishes.name.unwrap_or(HSM);
            format!("it has no [keystore.{name}]: add it by hand, see assertd.toml(5)")
        }
    }))
}

/// What a section is for instead of what is wished.
fn unlike(run: &Run<'_>, section: &Section) -> Option<String> {
    let wishes = run.wishes;
    let is_tpm = section.backend == BackendKind::Tpm;
    match wishes.backends {
        Some(Backends::Tpm) if !is_tpm => return Some("a token, not a TPM".to_owned()),
        Some(Backends::Pkcs11) if is_tpm => return Some("a TPM, not a token".to_owned()),
        _ => {}
    }
    if is_tpm {
        let has = section.tcti.as_deref().unwrap_or(TCTI);
        let other = wishes.tcti.filter(|wanted| wanted.to_string() != has);
        return other.map(|wanted| format!("another TPM than {wanted}"));
    }
    let selector = section.token.clone().unwrap_or_default();
    let both = [&selector.label, &selector.serial];
    let is_its = |wanted: &str| both.iter().any(|text| text.as_deref() == Some(wanted));
    let module = wishes
        .module
        .filter(|module| section.module.as_deref() != Some(module));
    match (wishes.token.filter(|wanted| !is_its(wanted)), module) {
        (Some(token), _) => Some(format!("another token than `{token}`")),
        (None, Some(module)) => Some(format!("another module than {}", module.display())),
        (None, None) => None,
    }
}

/// The section that would be written for the TPM.
fn tpm_lines(run: &Run<'_>) -> String {
    let name = run.wishes.name.unwrap_or(TPM);
    let id = credential::id(BackendKind::Tpm, name);
    let standard = Tcti::Device("/dev/tpmrm0".into());
    text::section(&Keystore {
        name: name.to_owned(),
        about: String::new(),
        secret: match run.setup {
            Setup::Host => Secret::Credential(id.clone(), credential::path(&id)),
            Setup::ByHand => Secret::File(run.dir().join(id)),
        },
        runs: runs(run, name),
        backend: Backend::Tpm(run.wishes.tcti.cloned().unwrap_or(standard)),
    })
}

/// What is said at the end about a keystore that somebody has configured.
pub fn as_written(name: &str, section: &Section) -> Keystore {
    let source = match section.backend {
        BackendKind::Pkcs11 => &section.pin,
        BackendKind::Tpm => &section.auth,
    };
    let id = credential::id(section.backend, name);
    Keystore {
        name: name.to_owned(),
        about: String::new(),
        secret: match source {
            Some(PinSource::File(path)) => Secret::File(path.clone()),
            _ => Secret::Credential(id.clone(), credential::path(&id)),
        },
        runs: match &section.socket {
            Some(socket) => Runs::Unit(socket.clone()),
            None => Runs::Child(PathBuf::new()),
        },
        backend: match (section.backend, tcti(section)) {
            (BackendKind::Tpm, Some(tcti)) => Backend::Tpm(tcti),
            _ => Backend::Pkcs11(token(section)),
        },
    }
}

/// How a section's TPM is reached.
pub fn tcti(section: &Section) -> Option<Tcti> {
    Tcti::parse(section.tcti.as_deref().unwrap_or(TCTI)).ok()
}

fn token(section: &Section) -> Token {
    let module = section.module.clone().unwrap_or_default();
    Token {
        selector: section.token.clone().unwrap_or_default(),
        environment: section.environment.clone(),
        module_state: section.module_state.clone(),
        reach: modules::reach(&module),
        module,
    }
}
