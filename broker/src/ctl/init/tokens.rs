//! The tokens of this host: what each module shows of its own, which of them can be used, and the
//! one that is chosen.

use super::modules::{self, Reach};
use super::{Setup, ask, look};
use crate::ctl::args::Consent;
use crate::ctl::failure::{Exit, Failure};
use crate::ctl::out::clean;
use keystore::inventory::{Inventory, PinState, Token};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[cfg(test)]
pub mod tests;

/// The variables a module is started with.
pub type Environment = BTreeMap<String, String>;

/// What one module showed.
pub struct Looked {
    /// Its path, as it stands in the configuration.
    pub module: PathBuf,
    /// Its variables.
    pub environment: Environment,
    /// Its tokens, or why there are none to be seen.
    pub inventory: Result<Inventory, String>,
}

/// A token that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The module's path.
    pub module: PathBuf,
    /// The module's variables.
    pub environment: Environment,
    /// What the token shows.
    pub token: Token,
    /// Whether another token of the module has its label too.
    pub label: Label,
}

/// Whether a label says which token is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// It does.
    Unique,
    /// It does not, or there is none.
    Ambiguous,
}

/// Looks through one module, or all that are installed.
pub fn look(
    setup: Setup,
    module: Option<&Path>,
    environment: &Environment,
) -> Result<Vec<Looked>, Failure> {
    let found = match module {
        Some(module) => vec![module.to_owned()],
        None => modules::installed(),
    };
    let mut looked = Vec::new();
    for module in found {
        for environment in environments(&module, environment) {
            let asker = look::asker(setup, &module, &environment)?;
            looked.push(Looked {
                inventory: look::ask(&asker, &module, &environment),
                module: module.clone(),
                environment,
            });
        }
    }
    Ok(looked)
}

/// With the module's own configuration, and with each that lies where it is known to lie.
fn environments(module: &Path, given: &Environment) -> Vec<Environment> {
    if !given.is_empty() {
        return vec![given.clone()];
    }
    let also = modules::configurations(module).into_iter();
    let one = |(name, value): (&str, &str)| Environment::from([(name.into(), value.into())]);
    [Environment::new()]
        .into_iter()
        .chain(also.map(one))
        .collect()
}

/// The tokens that can be used, in the order they were found.
pub fn candidates(looked: &[Looked]) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for (module, inventory) in inventories(looked) {
        for token in &inventory.tokens {
            // One token through two modules or two configurations is one token.
            let same = |c: &&Candidate| c.token.serial == token.serial && !token.serial.is_empty();
            let again = candidates.iter().find(same);
            if obstacle(token).is_some() || again.is_some_and(|c| c.token.label == token.label) {
                continue;
            }
            let namesakes = |other: &&Token| other.initialized && other.label == token.label;
            let unique = inventory.tokens.iter().filter(namesakes).count() == 1;
            candidates.push(Candidate {
                module: module.module.clone(),
                environment: module.environment.clone(),
                token: token.clone(),
                label: match unique && !token.label.is_empty() {
                    true => Label::Unique,
                    false => Label::Ambiguous,
                },
            });
        }
    }
    candidates
}

fn inventories(looked: &[Looked]) -> impl Iterator<Item = (&Looked, &Inventory)> {
    looked
        .iter()
        .filter_map(|one| Some((one, one.inventory.as_ref().ok()?)))
}

/// Why a token cannot be used, and what helps.
fn obstacle(token: &Token) -> Option<&'static str> {
    if !token.initialized {
        return Some("is not initialised; give it a label and PINs by its vendor's tool");
    }
    if token.login_required {
        match token.pin {
            PinState::Ready | PinState::CountLow => {}
            PinState::FinalTry => {
                return Some(
                    "the user PIN has one try left, which is not spent here; log in once with \
                     the right PIN by the vendor's tool",
                );
            }
            PinState::Locked => {
                return Some("the user PIN is locked; unlock it with the SO PIN");
            }
            PinState::NotSet => {
                return Some("the user PIN was never set; set it with the SO PIN");
            }
            PinState::ToBeChanged => {
                return Some("the user PIN must be changed; set another by the vendor's tool");
            }
        }
    }
    if token.write_protected {
        Some("is write-protected, so no key can be made in it")
    } else if token.login_required && token.pin_pad {
        Some("wants its PIN at its own keys, which no service can press")
    } else if token.algs.is_empty() {
        Some("can make no key that assertd could use (ES256 ES384 RS256 PS256 EdDSA)")
    } else {
        None
    }
}

/// For each token that can be used a row, numbered.
pub fn rows(candidates: &[Candidate]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let token = &candidate.token;
        let algs: Vec<&str> = token.algs.iter().map(|alg| alg.name()).collect();
        let warning = match token.pin {
            PinState::CountLow => "; somebody gave a wrong PIN lately",
            _ => "",
        };
        rows.push(vec![
            format!("{:>3}", index + 1),
            quoted(&token.label),
            format!("serial {}", token.serial),
            token.model.clone(),
            candidate.module.display().to_string(),
            format!("{}{warning}", algs.join(" ")),
        ]);
    }
    rows
}

/// Whether somebody has ever initialised a token here.
pub fn any_initialised(looked: &[Looked]) -> bool {
    inventories(looked).any(|(_, inventory)| inventory.tokens.iter().any(|it| it.initialized))
}

/// One line for each token or module that cannot be used. Slots without a token that was ever
/// initialised are no news: SoftHSM always shows one.
pub fn not_usable(looked: &[Looked]) -> Vec<String> {
    let mut lines = Vec::new();
    for (one, inventory) in inventories(looked) {
        for token in inventory.tokens.iter().filter(|token| token.initialized) {
            if let Some(why) = obstacle(token) {
                let (label, serial) = (quoted(&token.label), &token.serial);
                lines.push(format!("token {label} (serial {serial}) {why}"));
            }
        }
        let module = one.module.display();
        lines.extend(
            inventory
                .unreadable
                .iter()
                .map(|u| format!("{module}: {u}")),
        );
    }
    for one in looked {
        if let Err(why) = &one.inventory {
            lines.push(format!("{}: {why}", one.module.display()));
        }
    }
    lines
}

fn quoted(label: &str) -> String {
    format!("\"{}\"", clean(label))
}

/// The one that is meant: by `--token`, because there is no other, or by its number.
pub fn choose(
    mut candidates: Vec<Candidate>,
    wanted: Option<&str>,
    consent: Consent,
) -> Result<Candidate, Failure> {
    if let Some(wanted) = wanted {
        candidates.retain(|c| c.token.label == wanted || c.token.serial == wanted);
    }
    match (candidates.len(), wanted) {
        (0, Some(wanted)) => {
            let text = format!(
                "no usable token has the label or the serial number `{wanted}`; those above can \
                 be used"
            );
            return Err(Failure::new(Exit::Refused, text));
        }
        (1, _) if wanted.is_some() || consent == Consent::Given => {
            return Ok(candidates.swap_remove(0));
        }
        (number, _) if consent == Consent::Given => {
            let serials: Vec<&str> = candidates.iter().map(|c| &*c.token.serial).collect();
            let text = format!(
                "{number} tokens could be used; say which by --token and its label, or its serial \
                 number if two have one label: {}",
                serials.join(", ")
            );
            return Err(Failure::new(Exit::Refused, text));
        }
        _ => {}
    }
    let number = ask::number("which token?", candidates.len())?;
    Ok(candidates.swap_remove(number))
}

/// Nothing can be used: what was looked at, and a token for a try-out.
pub fn none(looked: &[Looked]) -> Failure {
    let mut text = String::from("no token that could be used\n");
    let mut line = |line: String| text += &format!("  {line}\n");
    for one in looked {
        let shown = match &one.inventory {
            Ok(inventory) => match inventory.tokens.iter().filter(|t| t.initialized).count() {
                0 => "no initialised token".to_owned(),
                _ => continue,
            },
            Err(why) => why.clone(),
        };
        let environment = shown_environment(&one.environment);
        line(format!("{}{environment}: {shown}", one.module.display()));
    }
    if looked.is_empty() {
        line("no PKCS#11 module is installed where modules are known to be".to_owned());
    }
    for unusable in not_usable(looked)
        .into_iter()
        .filter(|l| l.starts_with("token"))
    {
        line(unusable);
    }
    let unknown = |one: &Looked| modules::reach(&one.module) == Reach::Unknown;
    if looked.iter().any(unknown) {
        text += "a module that is not known here was kept from the network while it was asked; for \
                 one that\nneeds it write the section by hand, with network = true: \
                 assertd.toml(5)\n";
    }
    text += "a module elsewhere: assertctl init --module FILE (and --environment NAME=VALUE)\n\
             a token in software, for a try-out (it asks for two PINs; the user PIN is the one \
             for init):\n  \
             apt-get install softhsm2\n  \
             softhsm2-util --init-token --free --label try\n  \
             assertctl init --token try";
    Failure::new(Exit::Unavailable, text)
}

fn shown_environment(environment: &Environment) -> String {
    environment
        .iter()
        .map(|(name, value)| format!(" with {name}={value}"))
        .collect()
}
