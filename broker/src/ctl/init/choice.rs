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
        let only_chip = |chip| Chosen {
            token: None,
            chip: Some(chip),
            spare: None,
        };
        match (wishes.backends, wishes.consent) {
            (Some(Backends::Tpm), _) => self.chip.map(only_chip).map_err(|why| no_tpm(&why)),
            (Some(Backends::Both), _) => {
                let chip = self.chip.map_err(|why| no_tpm(&why))?;
                let token = token(&self.looked, self.candidates, wishes)?;
                Ok(Chosen {
                    token: Some(token),
                    chip: Some(chip),
                    spare: None,
                })
            }
            (Some(Backends::Pkcs11), _) => Ok(Chosen {
                token: Some(token(&self.looked, self.candidates, wishes)?),
                chip: None,
                spare: self.chip.ok(),
            }),
            (None, Consent::Given) => self.unasked(wishes).map(|(token, chip)| match token {
                Some(token) => Chosen {
                    token: Some(token),
                    chip: None,
                    spare: chip,
                },
                None => Chosen {
                    token: None,
                    chip,
                    spare: None,
                },
            }),
            (None, Consent::Ask) => self.asked(),
        }
    }

    /// The one token that can be used; the TPM where no token was ever initialised. One that cannot
    /// be used now is somebody's, who may have meant that: nothing else is taken in its place.
    fn unasked(self, wishes: &Wishes<'_>) -> Result<(Option<Candidate>, Option<Chip>), Failure> {
        if !self.candidates.is_empty() {
            let token = token(&self.looked, self.candidates, wishes)?;
            return Ok((Some(token), self.chip.ok()));
        }
        let none = tokens::none(&self.looked);
        match self.chip {
            Ok(chip) if !tokens::any_initialised(&self.looked) => Ok((None, Some(chip))),
            Ok(chip) => {
                let why = none.message.lines().next().unwrap_or_default();
                let unusable: String = tokens::not_usable(&self.looked)
                    .iter()
                    .map(|line| format!("\n  {line}"))
                    .collect();
                let text = format!(
                    "{why}, though there is one that was meant for something:{unusable}\nmend it, \
                     or take the TPM instead ({}): assertctl init --yes --backend tpm",
                    chip.about
                );
                Err(Failure::new(Exit::Refused, text))
            }
            Err(why) => Err(Failure::new(
                none.exit,
                format!("{}\nnor a TPM: {why}", none.message),
            )),
        }
    }

    fn asked(self) -> Result<Chosen, Failure> {
        let Found {
            looked,
            mut candidates,
            chip,
        } = self;
        let number = candidates.len() + usize::from(chip.is_ok());
        if let (0, Err(why)) = (number, &chip) {
            let none = tokens::none(&looked);
            let text = format!("{}\nnor a TPM: {why}", none.message);
            return Err(Failure::new(none.exit, text));
        }
        let answer = ask::number("which token?", number)?;
        match (answer < candidates.len(), chip) {
            (false, chip) => Ok(Chosen {
                token: None,
                chip: chip.ok(),
                spare: None,
            }),
            (true, Err(_)) => Ok(Chosen {
                token: Some(candidates.swap_remove(answer)),
                chip: None,
                spare: None,
            }),
            (true, Ok(chip)) => {
                let question = format!("and as a second keystore {}? [y/N] ", chip.about);
                let both = ask::agreed(&question)?;
                Ok(Chosen {
                    token: Some(candidates.swap_remove(answer)),
                    chip: both.then(|| chip.clone()),
                    spare: (!both).then_some(chip),
                })
            }
        }
    }
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
