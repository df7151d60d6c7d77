//! Conformance of keystores: one list of promises ([`promises`]) that every backend keeps, and
//! what is special about PKCS#11 tokens: keys do not leave ([`leaving`]), PINs are tried once and
//! faults of a module are survived ([`faults`]).
//!
//! A PKCS#11 module reads its environment when it is initialised, and is initialised once per
//! process. So each test starts itself again as a process with the environment of its own token.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod faults;
mod leaving;
mod promises;
mod softhsm;

use softhsm::{Token, in_own_process};

/// Runs a promise against SoftHSM; the name is the test's, since that is what is started again.
fn softhsm(test: &str, promise: fn(&dyn Fn() -> Box<dyn keystore::backend::Backend>)) {
    in_own_process(test, Token::environment, |token| {
        promise(&|| Box::new(token.open().unwrap()))
    });
}

/// The same through the shim without rules: what the shim changes by being there is nothing.
fn shim(test: &str, promise: fn(&dyn Fn() -> Box<dyn keystore::backend::Backend>)) {
    in_own_process(test, faults::environment, |token| {
        promise(&|| Box::new(faults::open(token).unwrap()))
    });
}

#[test]
fn softhsm_a_made_key_is_there_and_cannot_be_made_again() {
    softhsm(
        "softhsm_a_made_key_is_there_and_cannot_be_made_again",
        promises::exists_fails,
    );
}

#[test]
fn softhsm_a_thousand_signatures_verify() {
    softhsm(
        "softhsm_a_thousand_signatures_verify",
        promises::signatures_verify,
    );
}

#[test]
fn softhsm_a_public_key_stays_the_same_over_a_restart() {
    softhsm(
        "softhsm_a_public_key_stays_the_same_over_a_restart",
        promises::stable,
    );
}

#[test]
fn softhsm_only_objects_that_look_like_ours_are_strange() {
    softhsm(
        "softhsm_only_objects_that_look_like_ours_are_strange",
        promises::strange,
    );
}

#[test]
fn softhsm_a_destroyed_key_is_gone_and_destroying_it_again_is_success() {
    softhsm(
        "softhsm_a_destroyed_key_is_gone_and_destroying_it_again_is_success",
        promises::destroy,
    );
}

#[test]
fn softhsm_a_key_with_another_public_key_is_not_destroyed_and_does_not_sign() {
    softhsm(
        "softhsm_a_key_with_another_public_key_is_not_destroyed_and_does_not_sign",
        promises::another_public_key,
    );
}

#[test]
fn softhsm_two_keys_are_never_confused_by_concurrent_callers() {
    softhsm(
        "softhsm_two_keys_are_never_confused_by_concurrent_callers",
        promises::not_confused,
    );
}

#[test]
fn softhsm_labels_with_odd_characters_work() {
    softhsm(
        "softhsm_labels_with_odd_characters_work",
        promises::odd_labels,
    );
}

#[test]
fn softhsm_evidence_says_the_key_was_born_here() {
    softhsm(
        "softhsm_evidence_says_the_key_was_born_here",
        promises::born_here,
    );
}

#[test]
fn softhsm_a_key_signs_only_with_its_algorithm() {
    softhsm(
        "softhsm_a_key_signs_only_with_its_algorithm",
        promises::one_algorithm,
    );
}

#[test]
fn shim_a_thousand_signatures_verify() {
    shim(
        "shim_a_thousand_signatures_verify",
        promises::signatures_verify,
    );
}

#[test]
fn shim_two_keys_are_never_confused_by_concurrent_callers() {
    shim(
        "shim_two_keys_are_never_confused_by_concurrent_callers",
        promises::not_confused,
    );
}
