//! The table of standards §4.8: each attack on a bundle that is otherwise valid, re-signed as far as the attacker
//! can, and the one check that names it. Every other check has passed or rests on that one ([`Party::finds`]).

mod asserted;
mod chip;
mod enrolment;
mod healthy;
mod keys;
mod measured;
mod relay;
mod state;

use keystore::evidence::bundle::{Bundle, KeystoreEvidence, TpmEvidence};
use std::collections::BTreeSet;

/// Each row, and what tries it. Those of the last column but one are of what stands beside the verifier.
const MATRIX: [(&str, &[&str]); 12] = [
    (
        "nonce replay",
        &[
            "a_replayed_bundle",
            "a_challenge_that_was_answered_before",
            "an_old_bundle",
            "a_nonce_is_answered_once_and_only_where_it_was_made",
        ],
    ),
    (
        "AK substitution (software AK)",
        &[
            "an_attestation_key_in_software",
            "a_second_attestation_key_of_the_same_tpm",
            "an_attestation_key_of_another_hierarchy",
            "an_attestation_key_of_another_hierarchy_is_not_enrolled",
            "a_software_key_is_not_enrolled",
        ],
    ),
    (
        "key swapping (attest K1, register K2)",
        &[
            "another_key_than_was_certified",
            "two_keys_under_each_others_names",
            "a_key_for_another_purpose_or_algorithm",
        ],
    ),
    ("PCR downgrade / bank shopping", &["a_quote_of_other_pcrs"]),
    (
        "restricted-key abuse",
        &[
            "an_attestation_key_that_signs_anything",
            "a_workloads_key_as_attestation_key",
            "a_key_that_is_more_than_a_signing_key",
        ],
    ),
    (
        "workload key signs bytes that look like an attest",
        &[
            "a_workloads_key_that_signs_what_looks_like_a_statement",
            "a_statement_of_another_kind",
        ],
    ),
    (
        "mix-and-match quote+key",
        &["a_clean_hosts_quote_with_a_dirty_hosts_key"],
    ),
    (
        "rollback to old clean quote",
        &[
            "an_old_quote_with_new_statements",
            "counters_that_went_back",
        ],
    ),
    (
        "TPM swap / clear",
        &[
            "another_tpm_than_the_hosts",
            "a_tpm_that_was_cleared",
            "a_copied_identity_is_not_enrolled",
        ],
    ),
    (
        "relay to another genuine TPM",
        &[
            "another_tpm_than_the_hosts",
            "a_relay_under_another_keystores_name",
            "a_genuine_tpm_that_nobody_knows_is_not_enrolled",
        ],
    ),
    (
        "attestation of imported key",
        &[
            "an_imported_key",
            "what_is_only_asserted",
            "a_key_that_nobody_has_signed_in_a_bundle_that_was",
        ],
    ),
    (
        "evidence laundering by verifier downgrade",
        &["a_result_says_by_which_policy_and_names_keys_only_if_all_passed"],
    ),
];

/// Where they are.
const TESTS: [&str; 8] = [
    include_str!("main.rs"),
    include_str!("attacks/asserted.rs"),
    include_str!("attacks/chip.rs"),
    include_str!("attacks/enrolment.rs"),
    include_str!("attacks/keys.rs"),
    include_str!("attacks/relay.rs"),
    include_str!("attacks/state.rs"),
    include_str!("../../../tests/cli/evidence/records.rs"),
];

#[test]
fn every_row_of_the_matrix_is_tried() {
    for (attack, tests) in MATRIX {
        assert!(!tests.is_empty(), "{attack}");
        for test in tests {
            let begins = format!("#[test]\nfn {test}() {{");
            assert!(
                TESTS.iter().any(|text| text.contains(&begins)),
                "{attack}: there is no test {test}"
            );
        }
    }
}

fn only(check: &'static str) -> BTreeSet<&'static str> {
    BTreeSet::from([check])
}

fn tpm_of(bundle: &mut Bundle) -> &mut TpmEvidence {
    match &mut bundle.keystores[0] {
        KeystoreEvidence::Tpm(tpm) => tpm,
        KeystoreEvidence::Pkcs11(_) => panic!("it is a TPM"),
    }
}
