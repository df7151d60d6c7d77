//! What is taken, of a token and a TPM.

use super::super::tokens::Environment;
use super::super::tokens::tests::{looked, token};
use super::*;
use keystore::config::{TCTI, Tcti};
use keystore::inventory::{PinState, Token};

fn chip() -> Result<Chip, String> {
    Ok(Chip {
        tcti: Tcti::parse(TCTI).unwrap(),
        about: "/dev/tpmrm0: a TPM 2.0".into(),
        node: None,
    })
}

fn no_chip() -> Result<Chip, String> {
    Err("/dev/tpmrm0 is not there".into())
}

/// What `--yes` takes: which token, which of both keystores, and whether the TPM is suggested.
fn taken(
    tokens: Vec<Token>,
    chip: Result<Chip, String>,
    backends: Option<Backends>,
) -> Result<String, String> {
    let looked = vec![looked("/m.so", tokens)];
    let found = Found {
        candidates: tokens::candidates(&looked),
        looked,
        chip,
    };
    let wishes = Wishes {
        consent: Consent::Given,
        backends,
        module: None,
        token: None,
        tcti: None,
        name: None,
        environment: &Environment::new(),
    };
    let chosen = found.choose(&wishes).map_err(|failure| failure.message)?;
    let token = chosen.token.map(|it| it.token.label);
    let chip = chosen.chip.map(|_| "tpm".to_owned());
    let spare = chosen.spare.map(|_| "(tpm)".to_owned());
    let all = [token, chip, spare].into_iter().flatten();
    Ok(all.collect::<Vec<String>>().join(" "))
}

#[test]
fn unasked_a_token_goes_before_the_tpm_which_is_suggested() {
    let one = || vec![token("a", "1")];
    assert_eq!(taken(one(), chip(), None).unwrap(), "a (tpm)");
    assert_eq!(taken(one(), no_chip(), None).unwrap(), "a");
    assert_eq!(
        taken(one(), chip(), Some(Backends::Pkcs11)).unwrap(),
        "a (tpm)"
    );
    assert_eq!(taken(one(), chip(), Some(Backends::Tpm)).unwrap(), "tpm");
    assert_eq!(taken(one(), chip(), Some(Backends::Both)).unwrap(), "a tpm");
    let two = vec![token("a", "1"), token("b", "2")];
    let refused = taken(two, chip(), None).unwrap_err();
    assert!(refused.contains("say which by --token"), "{refused}");
}

#[test]
fn without_an_initialised_token_the_tpm_is_taken() {
    let blank = || {
        vec![Token {
            initialized: false,
            ..token("", "")
        }]
    };
    assert_eq!(taken(blank(), chip(), None).unwrap(), "tpm");
    assert_eq!(taken(Vec::new(), chip(), None).unwrap(), "tpm");
    let refused = taken(blank(), no_chip(), None).unwrap_err();
    for part in [
        "softhsm2-util --init-token",
        "nor a TPM: /dev/tpmrm0 is not",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    let refused = taken(blank(), chip(), Some(Backends::Both)).unwrap_err();
    assert!(refused.starts_with("no token that"), "{refused}");
    let refused = taken(blank(), no_chip(), Some(Backends::Tpm)).unwrap_err();
    assert!(
        refused.starts_with("no TPM that could be used: "),
        "{refused}"
    );
}

#[test]
fn the_tpm_is_not_taken_in_the_place_of_a_token_that_is_locked() {
    let locked = Token {
        pin: PinState::Locked,
        ..token("a", "1")
    };
    let refused = taken(vec![locked.clone()], chip(), None).unwrap_err();
    for part in ["is locked", "assertctl init --yes --backend tpm"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert_eq!(
        taken(vec![locked], chip(), Some(Backends::Tpm)).unwrap(),
        "tpm"
    );
}
