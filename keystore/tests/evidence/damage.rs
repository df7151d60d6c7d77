//! Structures that were cut off or changed by a bit: each is named by one check, whatever it is in.

use super::fixture::{World, bytes};
use super::{Party, failed};
use keystore::evidence::bundle::{Bundle, Bytes, KeystoreEvidence, TpmEvidence};

/// A place in a bundle where bytes stand, each with whatever limit it has.
type Place = (&'static str, fn(&Bundle) -> Vec<u8>, fn(&mut Bundle, &[u8]));

fn tpm(bundle: &Bundle) -> &TpmEvidence {
    match &bundle.keystores[0] {
        KeystoreEvidence::Tpm(tpm) => tpm,
        KeystoreEvidence::Pkcs11(_) => panic!("it is a TPM"),
    }
}

fn tpm_mut(bundle: &mut Bundle) -> &mut TpmEvidence {
    match &mut bundle.keystores[0] {
        KeystoreEvidence::Tpm(tpm) => tpm,
        KeystoreEvidence::Pkcs11(_) => panic!("it is a TPM"),
    }
}

fn read<const MAX: usize>(it: &Bytes<MAX>) -> Vec<u8> {
    it.as_slice().to_vec()
}

const PLACES: [Place; 9] = [
    (
        "ak public",
        |b| read(&tpm(b).tpm.ak.public),
        |b, it| tpm_mut(b).tpm.ak.public = bytes(it),
    ),
    (
        "ak name",
        |b| read(&tpm(b).tpm.ak.qualified_name),
        |b, it| {
            tpm_mut(b).tpm.ak.qualified_name = bytes(it);
        },
    ),
    (
        "ek public",
        |b| read(&tpm(b).tpm.ek.public),
        |b, it| tpm_mut(b).tpm.ek.public = bytes(it),
    ),
    (
        "ek certificate",
        |b| read(tpm(b).tpm.ek.certificate.as_ref().expect("there is one")),
        |b, it| {
            tpm_mut(b).tpm.ek.certificate = Some(bytes(it));
        },
    ),
    (
        "key public",
        |b| read(&tpm(b).keys[0].public),
        |b, it| tpm_mut(b).keys[0].public = bytes(it),
    ),
    (
        "certify",
        |b| read(&tpm(b).keys[0].attest),
        |b, it| tpm_mut(b).keys[0].attest = bytes(it),
    ),
    (
        "its signature",
        |b| read(&tpm(b).keys[0].signature),
        |b, it| {
            tpm_mut(b).keys[0].signature = bytes(it);
        },
    ),
    (
        "quote",
        |b| read(&tpm(b).quote.as_ref().expect("there is one").attest),
        |b, it| {
            tpm_mut(b).quote.as_mut().expect("there is one").attest = bytes(it);
        },
    ),
    (
        "its signature",
        |b| read(&tpm(b).quote.as_ref().expect("there is one").signature),
        |b, it| {
            tpm_mut(b).quote.as_mut().expect("there is one").signature = bytes(it);
        },
    ),
];

#[test]
fn a_structure_that_was_cut_off_is_named_once() {
    let world = World::new();
    let (party, bundle) = (Party::of(&world), world.bundle());
    for (place, read, write) in PLACES {
        let whole = read(&bundle);
        for length in (0..whole.len()).step_by(7) {
            let mut cut = bundle.clone();
            write(&mut cut, &whole[..length]);
            assert_eq!(party.finds(&cut).len(), 1, "{place} to {length}");
        }
        let mut longer = bundle.clone();
        write(&mut longer, &[&whole[..], &[0]].concat());
        // What is behind a certificate is nobody's.
        let expected = usize::from(place != "ek certificate");
        assert_eq!(
            party.finds(&longer).len(),
            expected,
            "{place} and a byte more"
        );
    }
}

#[test]
fn a_structure_that_was_changed_by_a_bit_is_named_once() {
    let world = World::new();
    let (party, bundle) = (Party::of(&world), world.bundle());
    for (place, read, write) in PLACES {
        let whole = read(&bundle);
        for bit in (0..whole.len() * 8).step_by(3) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut changed = bundle.clone();
            write(&mut changed, &flipped);
            let found = party.finds(&changed);
            let ek_area = place == "ek public"; // of it, only the key is what the certificate is about
            assert!(
                found.len() == 1 || ek_area && found.is_empty(),
                "{place} {bit}: {found:?}"
            );
        }
    }
}

#[test]
fn a_bundle_that_is_none_is_named() {
    let world = World::new();
    let (party, json) = (Party::of(&world), world.bundle().to_json());
    let mut names = Vec::new();
    for length in (0..json.len()).step_by(97) {
        names.extend(failed(&party.asks(&json.as_bytes()[..length])));
    }
    names.dedup();
    assert_eq!(names, ["bundle"]);
    let other = json.replace("\"version\":1", "\"version\":2");
    assert_eq!(
        failed(&party.asks(other.as_bytes())).first(),
        Some(&"bundle")
    );
}
