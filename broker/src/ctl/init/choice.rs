//! What keys are to be made in: a token, the TPM, or one of each. By options, because there is
//! nothing else, or by whoever is asked. Where nobody is asked a token goes first: somebody has
//! bought and initialised it, while a TPM is in most machines; and a second keystore that nobody
//! asked for would make every target say which of the two it means.

use super::tokens::{self, Candidate, Looked};
use super::tpm::Chip;
use super::{Wishes, ask};
use crate::ctl::args::{Backends, Consent};
use crate::ctl::failure::{Exit, Failure};
use crate::ctl::out::Out;

/// What there is.
pub struct Found {
    /// What modules showed.
    pub looked: Vec<Looked>,
    /// The tokens that can be used.
    pub candidates: Vec<Candidate>,
    /// The TPM, or why it cannot be used.
    pub chip: Result<Chip, String>,
}

/// What is taken.
pub struct Chosen {
    /// A token.
    pub token: Option<Candidate>,
    /// The TPM.
    pub chip: Option<Chip>,
    /// A TPM that could be taken and is not.
    pub spare: Option<Chip>,
}

impl Found {
    /// Shows it: numbered what can be used, then what cannot, and why. If nothing can, or only the
    /// TPM is wanted, [`Found::choose`] says all there is to say.
    pub fn show(&self, wishes: &Wishes<'_>, out: &mut Out) {
        let nothing = self.candidates.is_empty() && self.chip.is_err();
        if nothing || wishes.backends == Some(Backends::Tpm) {
            return;
        }
        let rows = tokens::rows(&self.candidates);
        out.table(&rows);
        if let Ok(chip) = &self.chip {
            out.line(&format!("{:>3}  {}", rows.len() + 1, chip.about));
        }
        for line in tokens::not_usable(&self.looked) {
            out.line(&format!("  -  {line}"));
        }
        if let (Err(why), None) = (&self.chip, wishes.backends) {
            out.line(&format!("  -  TPM: {why}"));
        }
    }

    /// Chooses.
    pub fn choose(self, wishes: &Wishes<'_>) -> Result<Chosen, Failure> {
        let Found {
            looked,
            candidates,
            chip,
        } = self;
        match wishes.backends {
            Some(Backends::Tpm) => Ok(Chosen::tpm(chip.map_err(|why| no_tpm(&why))?)),
            Some(Backends::Both) => {
                let chip = chip.map_err(|why| no_tpm(&why))?;
                Ok(Chosen::both(token(&looked, candidates, wishes)?, chip))
            }
            Some(Backends::Pkcs11) => Ok(Chosen::token(
                token(&looked, candidates, wishes)?,
                chip.ok(),
            )),
            None => match (candidates.is_empty(), chip, wishes.consent) {
                (true, Err(why), _) => Err(nothing(&looked, &why)),
                (_, chip, Consent::Ask) => asked(candidates, chip.ok()),
                (true, Ok(chip), Consent::Given) => in_place_of_none(&looked, chip),
                (false, chip, Consent::Given) => Ok(Chosen::token(
                    token(&looked, candidates, wishes)?,
                    chip.ok(),
                )),
            },
        }
    }
}

impl Chosen {
    fn token(token: Candidate, spare: Option<Chip>) -> Chosen {
        Chosen {
            token: Some(token),
            chip: None,
            spare,
        }
    }

    fn tpm(chip: Chip) -> Chosen {
        Chosen {
            token: None,
            chip: Some(chip),
            spare: None,
        }
    }

    fn both(token: Candidate, chip: Chip) -> Chosen {
        Chosen {
            token: Some(token),
            chip: Some(chip),
            spare: None,
        }
    }
}

/// The TPM, where nobody is asked and no token was ever initialised. One that cannot be used now is
/// somebody's, who may have meant that: nothing else is taken in its place.
fn in_place_of_none(looked: &[Looked], chip: Chip) -> Result<Chosen, Failure> {
    if !tokens::any_initialised(looked) {
        return Ok(Chosen::tpm(chip));
    }
    let unusable: String = tokens::not_usable(looked)
        .iter()
        .map(|line| format!("  {line}\n"))
        .collect();
    let text = format!(
        "no token that could be used, and one that was meant for something:\n{unusable}mend it, or \
         take the TPM instead ({}): assertctl init --yes --backend tpm",
        chip.about
    );
    Err(Failure::new(Exit::Refused, text))
}

/// Somebody at the terminal says which; there is at least one.
fn asked(mut candidates: Vec<Candidate>, chip: Option<Chip>) -> Result<Chosen, Failure> {
    let many = candidates.len() + usize::from(chip.is_some());
    let answer = ask::number("which token?", many)?;
    if answer < candidates.len() {
        let token = candidates.swap_remove(answer);
        let Some(chip) = chip else {
            return Ok(Chosen::token(token, None));
        };
        let question = format!("and as a second keystore {}? [y/N] ", chip.about);
        return Ok(match ask::agreed(&question)? {
            true => Chosen::both(token, chip),
            false => Chosen::token(token, Some(chip)),
        });
    }
    Ok(Chosen {
        token: None,
        chip,
        spare: None,
    })
}

/// Neither.
fn nothing(looked: &[Looked], why: &str) -> Failure {
    let none = tokens::none(looked);
    let text = format!("{}\nnor a TPM: {why}", none.message);
    Failure::new(none.exit, text)
}

fn token(
    looked: &[Looked],
    candidates: Vec<Candidate>,
    wishes: &Wishes<'_>,
) -> Result<Candidate, Failure> {
    if candidates.is_empty() {
        return Err(tokens::none(looked));
    }
    tokens::choose(candidates, wishes.token, wishes.consent)
}

fn no_tpm(why: &str) -> Failure {
    let text = format!("no TPM that could be used: {why}");
    Failure::new(Exit::Unavailable, text)
}

#[cfg(test)]
mod tests;
