//! Structures that were cut off or changed by a bit: each is named by one check, whatever it is in.

use super::fixture::{Authority, KEY, NOW, World, area, bytes, pcr, public, secret};
use super::{Party, failed};
use keystore::evidence::bundle::{
    Bank, Bundle, Bytes, KeystoreEvidence, PcrIndex, PcrValue, PolicyStep, TpmEvidence,
};
use keystore::evidence::eventlog::EventLog;
use keystore::evidence::hash::Hash;
use keystore::evidence::steps::policy_digest;
use std::collections::{BTreeMap, BTreeSet};

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

/// A host that shows all that there can be: a certificate that leads to its root by another, and a key with a policy.
fn host() -> (Party, Bundle) {
    let mut world = World::new();
    let steps = vec![
        PolicyStep::Authorize {
            authority: bytes(&area(&secret(9), KEY, &[], false)),
            reference: bytes(b"assertd"),
        },
        PolicyStep::Pcr {
            selection: BTreeMap::from([(Bank::Sha256, BTreeSet::from([pcr(0), pcr(7)]))]),
            digest: bytes(&[4; 32]),
        },
    ];
    world.keys[1].attributes = KEY & !(1 << 6); // without userWithAuth
    world.keys[1].auth_policy = policy_digest(&steps, Hash::Sha256).expect("it is a policy");
    let issuer = Authority::new(10, "Issuer");
    let (spki, usage) = (public(&world.ek).spki(), [0x67, 0x81, 0x05, 0x08, 0x01]);
    let mut bundle = world.bundle();
    let tpm = tpm_mut(&mut bundle);
    tpm.keys[1].policy = Some(steps);
    tpm.tpm.ek.certificate = Some(bytes(&issuer.ek_certificate(&spki, &usage, NOW)));
    tpm.tpm.ek.chain = vec![bytes(&world.root.certifies(&issuer))];
    (Party::of(&world), bundle)
}

fn steps(bundle: &Bundle) -> (&PolicyStep, &PolicyStep) {
    match tpm(bundle).keys[1].policy.as_deref() {
        Some([first, second]) => (first, second),
        _ => panic!("it has two"),
    }
}

fn steps_mut(bundle: &mut Bundle) -> (&mut PolicyStep, &mut PolicyStep) {
    match tpm_mut(bundle).keys[1].policy.as_deref_mut() {
        Some([first, second]) => (first, second),
        _ => panic!("it has two"),
    }
}

fn read<const MAX: usize>(it: &Bytes<MAX>) -> Vec<u8> {
    it.as_slice().to_vec()
}

const PLACES: [Place; 17] = [
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
    (
        "ak parent",
        |b| read(&tpm(b).tpm.ak.parent),
        |b, it| tpm_mut(b).tpm.ak.parent = bytes(it),
    ),
    (
        "chain",
        |b| read(&tpm(b).tpm.ek.chain[0]),
        |b, it| tpm_mut(b).tpm.ek.chain[0] = bytes(it),
    ),
    (
        "policy authority",
        |b| match steps(b).0 {
            PolicyStep::Authorize { authority, .. } => read(authority),
            other => panic!("{other:?}"),
        },
        |b, it| match steps_mut(b).0 {
            PolicyStep::Authorize { authority, .. } => *authority = bytes(it),
            other => panic!("{other:?}"),
        },
    ),
    (
        "policy reference",
        |b| match steps(b).0 {
            PolicyStep::Authorize { reference, .. } => read(reference),
            other => panic!("{other:?}"),
        },
        |b, it| match steps_mut(b).0 {
            PolicyStep::Authorize { reference, .. } => *reference = bytes(it),
            other => panic!("{other:?}"),
        },
    ),
    (
        "policy pcrs",
        |b| match steps(b).1 {
            PolicyStep::Pcr { digest, .. } => read(digest),
            other => panic!("{other:?}"),
        },
        |b, it| match steps_mut(b).1 {
            PolicyStep::Pcr { digest, .. } => *digest = bytes(it),
            other => panic!("{other:?}"),
        },
    ),
    (
        "pcrs",
        |b| {
            let quote = tpm(b).quote.as_ref().expect("there is one");
            let values = quote.pcrs[&Bank::Sha256].values();
            values.flat_map(|it| it.as_slice().to_vec()).collect()
        },
        |b, it| {
            let values = it.chunks(32).map(PcrValue::new);
            let values = (0..).filter_map(PcrIndex::new).zip(values);
            let quote = tpm_mut(b).quote.as_mut().expect("there is one");
            quote.pcrs = BTreeMap::from([(Bank::Sha256, values.collect())]);
        },
    ),
    (
        "event log",
        |b| read(b.event_log.as_ref().expect("there is one")),
        |b, it| b.event_log = Some(bytes(it)),
    ),
    (
        "ima",
        |b| read(b.ima.as_ref().expect("there is one")),
        |b, it| b.ima = Some(bytes(it)),
    ),
];

/// Where the entries of a list end.
fn entries(list: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    let sized = |at: usize| {
        let length = list[at..at + 4].try_into().expect("there are four");
        4 + u32::from_le_bytes(length) as usize
    };
    while at < list.len() {
        at += 4 + 20;
        at += sized(at);
        at += sized(at);
        ends.push(at);
    }
    ends
}

/// Whether nothing that counts is changed by it. Nobody measures the type and the text of an event, nor digests of a
/// bank that was not quoted; a list may be longer than what was quoted; a certificate is about the key alone.
fn is_nothing(place: &str, whole: &[u8], changed: &[u8]) -> bool {
    let at = || {
        let mut pairs = whole.iter().zip(changed);
        pairs.position(|(a, b)| a != b).unwrap_or(changed.len())
    };
    match place {
        "ek public" => changed.len() == whole.len(),
        "ek certificate" | "chain" => changed.starts_with(whole),
        "event log" => {
            let replayed = |bytes| EventLog::parse(bytes).and_then(|it| it.replay(Bank::Sha256));
            replayed(changed).is_ok() && replayed(changed) == replayed(whole)
        }
        "ima" => {
            let ends = entries(whole);
            let measured = ends[ends.len() - 2];
            let begin = ends.iter().rfind(|it| **it <= at()).copied();
            let is_sha1 = changed.len() == whole.len()
                && (4..24).contains(&(at() - begin.unwrap_or_default()));
            at() >= measured && entries_fit(changed) || is_sha1
        }
        _ => false,
    }
}

/// So that there are about so many of them, at no two of the same place in a byte or a word.
fn step(length: usize, most: usize) -> usize {
    (length / most) | 1
}

fn entries_fit(list: &[u8]) -> bool {
    keystore::evidence::ima::List::parse(list).is_ok()
}

#[test]
fn a_host_that_shows_all_that_there_can_be_passes() {
    let (party, bundle) = host();
    assert_eq!(party.finds(&bundle), BTreeSet::new());
    for (place, read, write) in PLACES {
        let mut same = bundle.clone();
        write(&mut same, &read(&bundle));
        assert_eq!(same, bundle, "{place}");
    }
}

#[test]
fn a_structure_that_was_cut_off_is_named_once() {
    let (party, bundle) = host();
    for (place, read, write) in PLACES {
        let whole = read(&bundle);
        let cuts = (0..whole.len())
            .step_by(step(whole.len(), 40))
            .map(|length| whole[..length].to_vec());
        let longer = [&whole[..], &[0]].concat();
        for changed in cuts.chain([longer]) {
            let mut damaged = bundle.clone();
            write(&mut damaged, &changed);
            let expected = usize::from(!is_nothing(place, &whole, &changed));
            let length = changed.len();
            assert_eq!(party.finds(&damaged).len(), expected, "{place} to {length}");
        }
    }
}

#[test]
fn a_structure_that_was_changed_by_a_bit_is_named_once() {
    let (party, bundle) = host();
    for (place, read, write) in PLACES {
        let whole = read(&bundle);
        for bit in (0..whole.len() * 8).step_by(step(whole.len() * 8, 160)) {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut damaged = bundle.clone();
            write(&mut damaged, &changed);
            let found = party.finds(&damaged);
            let is_nothing = found.is_empty() && is_nothing(place, &whole, &changed);
            assert!(found.len() == 1 || is_nothing, "{place} {bit}: {found:?}");
        }
    }
}

/// Bits of a selection, and whole steps.
#[test]
fn a_policy_of_which_a_part_is_missing_or_another_is_named_once() {
    let (party, bundle) = host();
    for index in 0..24 {
        let mut changed = bundle.clone();
        if let PolicyStep::Pcr { selection, .. } = steps_mut(&mut changed).1 {
            let of = selection.get_mut(&Bank::Sha256).expect("it is there");
            if !of.remove(&pcr(index)) {
                of.insert(pcr(index));
            }
        }
        assert_eq!(
            party.finds(&changed),
            BTreeSet::from(["key-policy"]),
            "{index}"
        );
    }
    let policy = tpm(&bundle).keys[1].policy.clone().expect("it has one");
    for steps in [
        vec![],
        vec![policy[0].clone()],
        vec![policy[1].clone()],
        vec![policy[1].clone(), policy[0].clone()],
        vec![
            policy[0].clone(),
            policy[1].clone(),
            PolicyStep::AuthValue {},
        ],
    ] {
        let mut changed = bundle.clone();
        tpm_mut(&mut changed).keys[1].policy = Some(steps);
        assert_eq!(party.finds(&changed), BTreeSet::from(["key-policy"]));
    }
}

#[test]
fn a_bundle_that_is_none_is_named() {
    let (party, bundle) = host();
    let json = bundle.to_json();
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
