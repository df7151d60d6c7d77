//! Every input that a fuzz target was given or failed over, once more, on the compiler that
//! everything else is built with: `corpus` is what covers the code, `regressions` what was found.
//! The targets are those of tests/fuzz, and so are their promises.

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// What is read here is committed: a directory with more, or a longer file, was not minimised.
const FILES_MAX: usize = 250;
const FILE_LEN_MAX: usize = 8 * 1024;

/// Everything that there is for one target, its corpus not empty.
fn replay(target: &str, check: fn(&[u8])) {
    let corpus = inputs("corpus", target);
    assert!(
        !corpus.is_empty(),
        "no input for {target}: was its corpus moved?"
    );
    assert!(
        corpus.len() <= FILES_MAX,
        "{} inputs for {target}",
        corpus.len()
    );
    let mut failed = Vec::new();
    for path in corpus.into_iter().chain(inputs("regressions", target)) {
        let input = fs::read(&path).expect("it was listed a moment ago");
        assert!(
            input.len() <= FILE_LEN_MAX,
            "{} is not small",
            path.display()
        );
        if catch_unwind(|| check(&input)).is_err() {
            failed.push(path);
        }
    }
    assert!(failed.is_empty(), "{target} fails over {failed:#?}");
}

/// The files of one directory, in order. A target for which nothing was ever found has no
/// regressions.
fn inputs(kind: &str, target: &str) -> Vec<PathBuf> {
    let dir = fuzz().join(kind).join(target);
    let Ok(entries) = fs::read_dir(&dir) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it is readable").path())
        .collect();
    files.sort();
    files
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn messages_of_the_keystores_protocol_come_back_and_break_nothing() {
    replay("protocol", targets::protocol::check);
}

#[test]
fn a_charter_permits_what_a_second_check_permits() {
    replay("claims", targets::claims::check);
}

#[test]
fn public_keys_are_read_as_p256_reads_them() {
    replay("ecpoint", targets::ecpoint::check);
}

#[test]
fn signatures_are_right_or_refused() {
    replay("signature", targets::signature::check);
}

#[test]
fn what_a_tpm_gives_is_read_in_one_way() {
    replay("tpm_structures", targets::tpm_structures::check);
}

#[test]
fn a_tpm_that_lies_changes_nothing_and_is_used_again_when_it_does_not() {
    replay("tpm_response", targets::tpm_response::check);
}

#[test]
fn a_damaged_state_file_is_refused_and_left_alone() {
    replay("state_file", targets::state_file::check);
}

#[test]
fn a_published_key_is_seen_only_where_it_stands() {
    replay("readback", targets::readback::check);
}

#[test]
fn what_a_tpm_states_is_read_in_one_way() {
    replay("evidence_structures", targets::evidence_structures::check);
}

#[test]
fn an_event_log_is_read_to_its_end_or_refused() {
    replay("event_log", targets::event_log::check);
}

#[test]
fn a_list_of_measurements_leads_to_the_values_that_its_entries_give() {
    replay("ima_list", targets::ima_list::check);
}

#[test]
fn no_bundle_proves_a_key_that_the_tpm_has_not_certified() {
    replay("bundle", targets::bundle::check);
}

#[test]
fn no_certificate_is_believed_that_its_maker_has_not_signed() {
    replay("ekcert", targets::ekcert::check);
}

#[test]
fn nobody_is_enrolled_by_a_strange_file() {
    replay("enrolment", targets::enrolment::check);
}

#[test]
fn a_policy_is_enforced_or_refused() {
    replay("policy", targets::policy::check);
}

/// A target that is not replayed would be forgotten, and so would its regressions.
#[test]
fn every_target_is_replayed() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let programs = manifest["bin"].as_array().unwrap();
    assert!(programs.len() >= 7);
    let here = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/main.rs"));
    let here = here.unwrap();
    let known = |name: &str| here.contains(&format!("replay(\"{name}\", targets::{name}::check)"));
    for program in programs {
        let name = program["name"].as_str().unwrap();
        assert!(known(name), "{name} is not replayed");
        assert!(!inputs("corpus", name).is_empty(), "{name} has no corpus");
    }
    for kind in ["corpus", "regressions"] {
        for entry in fs::read_dir(fuzz().join(kind)).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(known(&name), "{kind}/{name} belongs to no target");
        }
    }
}
