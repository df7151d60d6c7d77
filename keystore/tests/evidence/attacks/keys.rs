//! What a key is made to look like: another one, one that was made elsewhere, one that does more.

use super::{only, tpm_of};
use crate::Party;
use crate::fixture::{KEY, World, area, bytes, pcr, public, secret, sign};
use keystore::charter::PurposeKind;
use keystore::evidence::bundle::{Bank, PolicyStep};
use keystore::evidence::context;
use keystore::evidence::hash::Hash;
use keystore::evidence::steps::policy_digest;
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn a_workloads_key_that_signs_what_looks_like_a_statement() {
    let world = World::new();
    let mut bundle = world.bundle();
    let forged = {
        let key = &tpm_of(&mut bundle).keys[0];
        sign(&world.keys[1].secret, key.attest.as_slice())
    };
    tpm_of(&mut bundle).keys[0].signature = bytes(&forged);
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-signature"));
}

#[test]
fn another_key_than_was_certified() {
    let world = World::new();
    let other = world.keys[1].secret.clone();
    // Its public area, and all that goes with it.
    let mut bundle = world.bundle();
    let key = &mut tpm_of(&mut bundle).keys[0];
    (key.jwk, key.kid) = (public(&other), public(&other).kid());
    key.public = bytes(&area(&other, KEY, &[], false));
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-name"));
    // The key that is registered alone.
    let mut bundle = world.bundle();
    let key = &mut tpm_of(&mut bundle).keys[0];
    (key.jwk, key.kid) = (public(&secret(67)), public(&secret(67)).kid());
    assert_eq!(Party::of(&world).finds(&bundle), only("key-jwk"));
    // Its name alone.
    let mut bundle = world.bundle();
    tpm_of(&mut bundle).keys[0].kid = public(&other).kid();
    assert_eq!(Party::of(&world).finds(&bundle), only("key-jwk"));
}

#[test]
fn two_keys_under_each_others_names() {
    let world = World::new();
    let mut bundle = world.bundle();
    let keys = &mut tpm_of(&mut bundle).keys;
    let first = keys[0].key.clone();
    keys[0].key = std::mem::replace(&mut keys[1].key, first);
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-context"));
}

#[test]
fn an_rsa_key_that_can_be_computed() {
    let world = World::new();
    let with = |n: &[u8], e: u32, jwk: keystore::PublicKey| {
        let mut bundle = world.bundle();
        let head = b"\x00\x01\x00\x0b\x00\x04\x04\x72\0\0\x00\x10\x00\x14\x00\x0b\x08\0";
        let area = [&head[..], &e.to_be_bytes(), &crate::fixture::sized(n)].concat();
        let tpm = tpm_of(&mut bundle);
        let key = &mut tpm.keys[0];
        (key.alg, key.kid, key.public) = (keystore::Alg::RS256, jwk.kid(), bytes(&area));
        let (nonce, host, spki) = (&world.nonce, &world.host, jwk.spki());
        let extra = context::certify(nonce, host, &key.key, key.purpose, &spki);
        key.jwk = jwk;
        world.restate(key, &world.certify(&area, &extra));
        tpm.quote = Some(world.quoted(&tpm.keys));
        bundle
    };
    let jwk = |n: &[u8], e: &[u8]| keystore::PublicKey::from_rsa(n, e).unwrap();
    let (good, roca) = (super::chip::odd(), super::chip::roca());
    let party = Party::of(&world);
    let whole = with(&good, 0, jwk(&good, &[1, 0, 1]));
    assert!(party.finds(&whole).is_empty());
    let computed = with(&roca, 0, jwk(&roca, &[1, 0, 1]));
    assert_eq!(party.finds(&computed), only("key-scheme"));
    for e in [3, 17, 0x1_0003] {
        let small = with(&good, e, jwk(&good, &e.to_be_bytes()));
        assert_eq!(party.finds(&small), only("key-scheme"), "{e}");
    }
}

#[test]
fn a_key_for_another_purpose_or_algorithm() {
    let world = World::new();
    let mut bundle = world.bundle();
    tpm_of(&mut bundle).keys[0].purpose = PurposeKind::Federation;
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-context"));
    let mut bundle = world.bundle();
    tpm_of(&mut bundle).keys[0].alg = keystore::Alg::ES384;
    assert_eq!(Party::of(&world).finds(&bundle), only("key-scheme"));
}

#[test]
fn a_statement_of_another_kind() {
    let world = World::new();
    let mut bundle = world.bundle();
    let spki = public(&world.keys[0].secret).spki();
    let purpose = PurposeKind::ClientAuthentication;
    let extra = context::certify(
        &world.nonce,
        &world.host,
        &"ours/bank.1".parse().unwrap(),
        purpose,
        &spki,
    );
    let quote = world.quote(&extra, &world.pcrs);
    let tpm = tpm_of(&mut bundle);
    world.restate(&mut tpm.keys[0], &quote);
    tpm.quote = Some(world.quoted(&tpm.keys));
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-statement"));
    // What no TPM has made, were it to sign that.
    for change in [0, 1] {
        let mut bundle = world.bundle();
        let tpm = tpm_of(&mut bundle);
        let mut statement = world.certify(tpm.keys[0].public.as_slice(), &extra);
        match change {
            0 => statement.magic ^= 1,
            _ => statement.kind = 0x801a,
        }
        world.restate(&mut tpm.keys[0], &statement);
        tpm.quote = Some(world.quoted(&tpm.keys));
        assert_eq!(Party::of(&world).finds(&bundle), only("certify-statement"));
    }
}

#[test]
fn a_second_attestation_key_of_the_same_tpm() {
    let world = World::new();
    let second = World {
        ak: secret(68),
        ..world.clone()
    };
    // Its statements in a bundle that names the first.
    let mut bundle = world.bundle();
    let other = second.certified(&world.keys[0]);
    let keys = &mut tpm_of(&mut bundle).keys;
    (keys[0].attest, keys[0].signature) = (other.attest, other.signature);
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-signature"));
    // One that says of itself that another has signed it.
    let mut bundle = world.bundle();
    let tpm = tpm_of(&mut bundle);
    tpm.keys[0] = World {
        signer: Some(second.ak_qn()),
        ..world.clone()
    }
    .certified(&world.keys[0]);
    tpm.quote = Some(world.quoted(&tpm.keys));
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-signer"));
}

#[test]
fn an_imported_key() {
    let world = World::new();
    // TPM2_Import clears these, and TPM2_Certify tells.
    for attributes in [
        KEY & !(2 | 1 << 4 | 1 << 5),
        KEY & !(1 << 5),
        KEY & !2,
        KEY & !(1 << 4),
    ] {
        let mut brought = world.clone();
        brought.keys[0].attributes = attributes;
        let bundle = brought.bundle();
        assert_eq!(
            Party::of(&world).finds(&bundle),
            only("key-origin"),
            "{attributes:x}"
        );
        // Not even a policy that allows imported keys allows one that is not said to be.
        let mut party = Party::of(&world);
        party.policy = format!("imported = \"allow\"\n{}", party.policy);
        assert_eq!(party.finds(&bundle), only("key-origin"));
        let mut bundle = brought.bundle();
        tpm_of(&mut bundle).keys[0].imported = true;
        let left_out = ["key-origin", "level"];
        assert!(party.finds_but(&bundle, &left_out).is_empty());
        let report = party.asks(bundle.to_json().as_bytes());
        assert!(report.keys[0].imported);
        assert_eq!(report.keys[0].level.to_string(), "none");
    }
}

#[test]
fn a_key_that_is_more_than_a_signing_key() {
    let world = World::new();
    for attributes in [
        KEY | 1 << 16,
        KEY | 1 << 17,
        KEY | 1 << 11,
        KEY & !(1 << 18),
    ] {
        let mut other = world.clone();
        other.keys[0].attributes = attributes;
        assert_eq!(
            Party::of(&world).finds(&other.bundle()),
            only("key-attributes"),
            "{attributes:x}"
        );
    }
}

#[test]
fn a_key_with_another_policy_than_is_shown() {
    let world = World::new();
    let party = Party::of(&world);
    let steps = vec![
        PolicyStep::Authorize {
            authority: bytes(&area(&secret(9), KEY, &[], false)),
            reference: bytes(b"assertd"),
        },
        PolicyStep::AuthValue {},
    ];
    let pcrs = PolicyStep::Pcr {
        selection: BTreeMap::from([(Bank::Sha256, BTreeSet::from([pcr(0), pcr(7)]))]),
        digest: bytes(&[4; 32]),
    };
    let mut bound = world.clone();
    bound.keys[0].attributes = KEY & !(1 << 6); // without userWithAuth
    bound.keys[0].auth_policy = policy_digest(&steps, Hash::Sha256).unwrap();
    let with = |bound: &World, policy: Option<Vec<PolicyStep>>| {
        let mut bundle = bound.bundle();
        tpm_of(&mut bundle).keys[0].policy = policy;
        bundle
    };
    assert!(party.finds(&with(&bound, Some(steps.clone()))).is_empty());
    let mut report = party.asks(with(&bound, Some(steps.clone())).to_json().as_bytes());
    let use_by = report.keys.remove(0).use_by;
    assert_eq!(use_by.map(|it| it.to_string()), Some("policy".into()));
    // One that asks for nothing is no policy.
    let mut open = bound.clone();
    open.keys[0].auth_policy = vec![0; 32];
    let nothing = party.finds(&with(&open, Some(Vec::new())));
    assert_eq!(nothing, only("key-policy"));
    // Nor is one that asks for PCRs that every program can set, or for none of them.
    for selection in [
        BTreeMap::new(),
        BTreeMap::from([(Bank::Sha256, BTreeSet::new())]),
        BTreeMap::from([(Bank::Sha256, BTreeSet::from([pcr(16), pcr(23)]))]),
        BTreeMap::from([(Bank::Sha1, BTreeSet::from([pcr(7)]))]),
    ] {
        let shown = format!("{selection:?}");
        let mut steps = vec![PolicyStep::Pcr {
            selection,
            digest: bytes(&Hash::Sha256.of(&[])),
        }];
        open.keys[0].auth_policy = policy_digest(&steps, Hash::Sha256).unwrap();
        let found = party.finds(&with(&open, Some(steps.clone())));
        assert_eq!(found, only("key-policy"), "{shown}");
        steps.push(PolicyStep::AuthValue {});
        open.keys[0].auth_policy = policy_digest(&steps, Hash::Sha256).unwrap();
        let report = party.asks(with(&open, Some(steps)).to_json().as_bytes());
        let use_by = report.keys[0].use_by.map(|it| it.to_string());
        assert_eq!(use_by, Some("auth-value".into()), "{shown}");
    }
    let other = only("key-policy");
    // What stands in front of an approval is in no digest: the TPM forgets it.
    let shown = [&[pcrs.clone()][..], &steps].concat();
    assert_eq!(party.finds(&with(&bound, Some(shown))), other);
    assert_eq!(party.finds(&with(&bound, Some(vec![pcrs]))), other);
    assert_eq!(party.finds(&with(&bound, None)), other);
    bound.keys[0].attributes = KEY;
    assert_eq!(
        party.finds(&with(&bound, Some(steps))),
        other,
        "the auth value is enough for it"
    );
}
