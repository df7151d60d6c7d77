//! What every keystore backend promises, whatever holds the keys. [`promises!`] is the list; each
//! is a function below of that name, which panics when the promise is broken.

use crate::subject::{Birth, Named, Neighbours, Subject, ours};
use keystore::backend::{Backend, ObjectId};
use keystore::protocol::{Evidence, EvidenceLevel};
use keystore::{Alg, Kind, PublicKey};
use p256::ecdsa::signature::Verifier as _;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Hands the list to the macro `suite`, behind `arguments`.
macro_rules! promises {
    ($suite:ident! $arguments:tt) => {
        $suite! { $arguments
            a_made_key_is_there_and_cannot_be_made_again
            signatures_verify
            a_public_key_stays_the_same_over_a_restart
            only_what_nobody_knows_is_strange
            a_destroyed_key_is_gone_and_destroying_it_again_is_success
            a_key_with_another_public_key_is_not_destroyed_and_does_not_sign
            two_keys_are_never_confused_by_concurrent_callers
            ten_keys_take_turns
            labels_with_odd_characters_work
            evidence_says_where_the_key_was_born
            a_key_signs_only_with_its_algorithm
            a_trial_signs_beside_our_keys_and_leaves_nothing
            the_next_version_has_the_charter_of_the_newest
            a_version_is_made_once_and_in_its_turn
            there_are_so_many_versions_at_a_time
            the_newest_version_is_out_of_the_brokers_reach
            a_version_whose_making_was_cut_off_is_finished
            a_version_whose_destruction_was_cut_off_is_destroyed
            a_certificate_of_every_algorithm_verifies
            a_certificate_is_kept_and_named_in_assertions
            a_key_is_certified_only_as_its_charter_says
            an_imported_key_signs_and_is_marked_for_ever
            an_import_that_was_cut_off_is_finished_with_the_same_key
            only_a_key_of_the_charters_algorithm_is_imported
            a_key_that_is_there_is_adopted_as_it_is
        }
    };
}
pub(crate) use promises;

pub use crate::certificates::*;
pub use crate::foreign::*;
pub use crate::rotation::*;

/// How many ES256 signatures are checked twice, besides those with a short number in them.
const TWICE: usize = 16;

/// Checks a signature by aws-lc, and some by the p256 crate too: they share no code, and the second
/// is slow without optimisation.
pub fn check(public_key: &PublicKey, alg: Alg, message: &[u8], signature: &[u8]) {
    let verdict = public_key.verifier(alg).unwrap().verify(message, signature);
    assert!(verdict.is_ok(), "{alg}: aws-lc refuses the signature");
    static CHECKED: AtomicUsize = AtomicUsize::new(0);
    let is_short = signature[0] == 0 || signature[32] == 0;
    if let PublicKey::P256 { x, y } = public_key
        && (is_short || CHECKED.fetch_add(1, Ordering::Relaxed) < TWICE)
    {
        let point = [&[4], &x[..], &y[..]].concat();
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
        let signature = p256::ecdsa::Signature::from_slice(signature).unwrap();
        key.verify(message, &signature)
            .expect("p256 refuses the signature");
    }
}

/// Signs and checks.
fn signs(backend: &dyn Backend, object: ObjectId, key: &PublicKey, alg: Alg, message: &[u8]) {
    let signature = backend.sign(object, key, alg, message).unwrap();
    check(key, alg, message, &signature);
}

/// One key for each algorithm.
fn one_of_each(backend: &dyn Backend) -> Vec<(Alg, Named)> {
    let algs = backend.algs();
    assert!(
        algs.contains(&Alg::ES256),
        "every backend has the default algorithm"
    );
    algs.into_iter()
        .map(|alg| (alg, ours(alg.name())))
        .collect()
}

pub fn a_made_key_is_there_and_cannot_be_made_again(subject: &Subject<'_>) {
    let (backend, key) = (subject.open(), ours("1"));
    let missing = backend.inspect(key.object).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound, "{missing}");
    let made = subject.generate(&*backend, &key, Alg::ES256).unwrap();
    assert_eq!(backend.inspect(key.object).unwrap(), made);
    let again = subject.generate(&*backend, &key, Alg::ES256).unwrap_err();
    assert_eq!(again.kind(), Kind::Exists, "{again}");
    assert_eq!(backend.inspect(key.object).unwrap(), made);
}

pub fn signatures_verify(subject: &Subject<'_>) {
    let backend = subject.open();
    for (alg, named) in one_of_each(&*backend) {
        let key = subject.make(&*backend, &named, alg);
        assert!(key.fits(alg));
        let times = match alg {
            Alg::ES256 => subject.signatures,
            _ => subject.signatures.div_ceil(20),
        };
        for time in 0..times {
            signs(&*backend, named.object, &key, alg, &vec![time as u8; time]);
        }
        let signature = backend.sign(named.object, &key, alg, b"this").unwrap();
        let verifier = key.verifier(alg).unwrap();
        assert!(verifier.verify(b"that", &signature).is_err(), "{alg}");
    }
}

pub fn a_public_key_stays_the_same_over_a_restart(subject: &Subject<'_>) {
    let backend = subject.open();
    let keys = one_of_each(&*backend);
    let made: Vec<_> = (keys.iter())
        .map(|(alg, named)| subject.generate(&*backend, named, *alg).unwrap())
        .collect();
    drop(backend);
    let backend = subject.open();
    for ((alg, named), made) in keys.into_iter().zip(made) {
        assert_eq!(backend.inspect(named.object).unwrap(), made);
        signs(&*backend, named.object, &made.public_key, alg, b"after");
    }
}

/// How a label stands in what is strange: alone, or before the name of its file.
fn is_labelled(entry: &str, label: &str) -> bool {
    entry == label || entry.starts_with(&format!("{label} ("))
}

pub fn only_what_nobody_knows_is_strange(subject: &Subject<'_>) {
    let backend = subject.open();
    let strange = |known: &[ObjectId]| -> BTreeSet<String> {
        backend.strange(known).unwrap().into_iter().collect()
    };
    let before = strange(&[]);
    let new = |known: &[ObjectId]| -> Vec<String> {
        strange(known).difference(&before).cloned().collect()
    };
    let (known, unknown) = (ours("known"), ours("unknown"));
    let foreign = Named {
        label: "somebody else's".to_owned(),
        ..ours("")
    };
    for key in [&known, &unknown, &foreign] {
        subject.make(&*backend, key, Alg::ES256);
    }
    let expected = match subject.neighbours {
        Neighbours::Others => vec![&unknown.label],
        Neighbours::Nobody => vec![&unknown.label, &foreign.label],
    };
    let found = new(&[known.object]);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (entry, label) in found.iter().zip(expected) {
        assert!(is_labelled(entry, label), "{entry} {label}");
    }
    let all = [known.object, unknown.object, foreign.object];
    assert_eq!(new(&all), Vec::<String>::new());
}

pub fn a_destroyed_key_is_gone_and_destroying_it_again_is_success(subject: &Subject<'_>) {
    let backend = subject.open();
    let (one, two) = (ours("1"), ours("2"));
    let first = subject.make(&*backend, &one, Alg::ES256);
    let second = subject.make(&*backend, &two, Alg::ES256);
    signs(&*backend, one.object, &first, Alg::ES256, b"before");
    backend.destroy(one.object, &first).unwrap();
    let gone = backend.inspect(one.object).unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
    for _ in 0..=backend.parallelism() {
        let signed = backend.sign(one.object, &first, Alg::ES256, b"after");
        let gone = signed.unwrap_err();
        assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
    }
    backend.destroy(one.object, &first).unwrap();
    signs(&*backend, two.object, &second, Alg::ES256, b"x");
}

pub fn a_key_with_another_public_key_is_not_destroyed_and_does_not_sign(subject: &Subject<'_>) {
    let backend = subject.open();
    let (one, two) = (ours("1"), ours("2"));
    let first = subject.generate(&*backend, &one, Alg::ES256).unwrap();
    let second = subject.make(&*backend, &two, Alg::ES256);
    let refused = backend.destroy(one.object, &second).unwrap_err();
    assert_eq!(refused.kind(), Kind::Mismatch, "{refused}");
    assert_eq!(backend.inspect(one.object).unwrap(), first);
    for _ in 0..=backend.parallelism() {
        let signed = backend.sign(one.object, &second, Alg::ES256, b"x");
        let refused = signed.unwrap_err();
        assert_eq!(refused.kind(), Kind::Mismatch, "{refused}");
    }
    signs(&*backend, one.object, &first.public_key, Alg::ES256, b"x");
}

pub fn two_keys_are_never_confused_by_concurrent_callers(subject: &Subject<'_>) {
    const CALLERS: usize = 8;
    let backend = subject.open();
    let keys = ["1", "2"].map(|name| {
        let named = ours(name);
        let key = subject.make(&*backend, &named, Alg::ES256);
        (named.object, key)
    });
    let times = subject.signatures / 10;
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (backend, keys) = (&backend, &keys);
            scope.spawn(move || {
                for time in 0..times {
                    let (object, key) = &keys[(caller + time) % 2];
                    let message = format!("{caller} {time}");
                    signs(&**backend, *object, key, Alg::ES256, message.as_bytes());
                }
            });
        }
    });
}

/// More than a TPM has slots, in every order of going in and out.
pub fn ten_keys_take_turns(subject: &Subject<'_>) {
    let backend = subject.open();
    let keys: Vec<(ObjectId, PublicKey)> = (0..10)
        .map(|n| {
            let named = ours(&n.to_string());
            let key = subject.make(&*backend, &named, Alg::ES256);
            (named.object, key)
        })
        .collect();
    for (object, key) in keys.iter().chain(keys.iter().rev()) {
        for _ in 0..2 {
            signs(&*backend, *object, key, Alg::ES256, b"x");
        }
    }
}

pub fn labels_with_odd_characters_work(subject: &Subject<'_>) {
    let backend = subject.open();
    let before: BTreeSet<String> = backend.strange(&[]).unwrap().into_iter().collect();
    let mut labels: Vec<String> = ["a/b/1", "äöü/☃/1", "a b\"c'd\\e/%00/1"]
        .map(|name| ours(name).label)
        .to_vec();
    labels.push(ours(&"long".repeat(32)).label); // as long as a label of ours can be
    assert_eq!(labels[3].len(), 148);
    for label in &labels {
        let named = Named {
            label: label.clone(),
            ..ours("")
        };
        let key = subject.make(&*backend, &named, Alg::ES256);
        signs(&*backend, named.object, &key, Alg::ES256, b"x");
    }
    labels.sort();
    let strange: BTreeSet<String> = backend.strange(&[]).unwrap().into_iter().collect();
    let shown: Vec<&String> = strange.difference(&before).collect();
    assert_eq!(shown.len(), labels.len(), "{shown:?}");
    for (entry, label) in shown.into_iter().zip(&labels) {
        assert!(is_labelled(entry, label), "{entry} {label}");
    }
}

pub fn evidence_says_where_the_key_was_born(subject: &Subject<'_>) {
    let backend = subject.open();
    for (alg, named) in one_of_each(&*backend) {
        let made = subject.generate(&*backend, &named, alg).unwrap();
        let born_here = Evidence {
            level: EvidenceLevel::Asserted,
            imported: false,
        };
        let proven = Evidence {
            level: EvidenceLevel::TpmCertified,
            imported: false,
        };
        let anywhere = Evidence {
            level: EvidenceLevel::None,
            imported: true,
        };
        match subject.birth {
            Birth::Told => assert_eq!(made.evidence, born_here, "{alg}"),
            Birth::Proven => assert_eq!(made.evidence, proven, "{alg}"),
            Birth::NotTold => assert_eq!(made.evidence, anywhere, "{alg}"),
            Birth::Shown => {
                println!("{alg}: evidence {:?}", made.evidence);
                assert!([born_here, anywhere].contains(&made.evidence), "{alg}");
            }
        }
    }
}

pub fn a_key_signs_only_with_its_algorithm(subject: &Subject<'_>) {
    let (backend, named) = (subject.open(), ours("1"));
    let key = subject.make(&*backend, &named, Alg::ES256);
    for alg in Alg::ALL.into_iter().filter(|alg| *alg != Alg::ES256) {
        let signed = backend.sign(named.object, &key, alg, b"x");
        let refused = signed.unwrap_err();
        assert_eq!(refused.kind(), Kind::Mismatch, "{alg}: {refused}");
    }
    signs(&*backend, named.object, &key, Alg::ES256, b"x");
}

pub fn a_trial_signs_beside_our_keys_and_leaves_nothing(subject: &Subject<'_>) {
    let (backend, named) = (subject.open(), ours("1"));
    let key = subject.make(&*backend, &named, Alg::ES256);
    let strange = || backend.strange(&[]).unwrap();
    let before = strange();
    for alg in backend.algs() {
        for ends in [true, false] {
            let mut trial = backend.trial(alg).unwrap();
            assert!(trial.public_key().fits(alg));
            for _ in 0..2 {
                let signature = trial.sign(b"trial").unwrap();
                check(trial.public_key(), alg, b"trial", &signature);
                signs(&*backend, named.object, &key, Alg::ES256, b"x");
            }
            assert_eq!(strange(), before, "{alg}");
            match ends {
                true => trial.end().unwrap(),
                false => drop(trial),
            }
        }
    }
    assert_eq!(strange(), before);
    signs(&*backend, named.object, &key, Alg::ES256, b"x");
}
