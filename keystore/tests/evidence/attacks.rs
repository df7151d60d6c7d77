//! The table of standards §4.8: each attack on a bundle that is otherwise valid, re-signed as far as the attacker
//! can, and the one check that names it.

mod chip;
mod healthy;
mod keys;
mod state;

use keystore::evidence::bundle::{Bundle, KeystoreEvidence, TpmEvidence};
use std::collections::BTreeSet;

fn only(check: &'static str) -> BTreeSet<&'static str> {
    BTreeSet::from([check])
}

fn tpm_of(bundle: &mut Bundle) -> &mut TpmEvidence {
    match &mut bundle.keystores[0] {
        KeystoreEvidence::Tpm(tpm) => tpm,
        KeystoreEvidence::Pkcs11(_) => panic!("it is a TPM"),
    }
}
