//! Keys in a PKCS#11 token: nobody has signed what is said of them, so that anybody may say it.

use super::{chip, only};
use crate::Party;
use crate::fixture::{World, public, secret};
use keystore::PublicKey;
use keystore::charter::PurposeKind;
use keystore::evidence::Bundle;
use keystore::evidence::bundle::{
    AssertedKey, Attributes, KeystoreEvidence, Module, Pkcs11Evidence, Text,
};
use keystore::evidence::verdict::Check;
use std::collections::BTreeSet;

/// A token with one key in it.
fn token(key: AssertedKey) -> KeystoreEvidence {
    let text = || Text::cut("x");
    KeystoreEvidence::Pkcs11(Pkcs11Evidence {
        name: Text::cut("hsm"),
        module: Module {
            library: text(),
            manufacturer: text(),
            model: text(),
            serial: text(),
            firmware: text(),
        },
        keys: vec![key],
    })
}

/// As a token of ours makes it.
fn good() -> AssertedKey {
    let jwk = public(&secret(20));
    AssertedKey {
        key: "ours/third.1".parse().expect("it is an id"),
        target: None,
        kid: jwk.kid(),
        purpose: PurposeKind::ClientAuthentication,
        alg: keystore::Alg::ES256,
        jwk,
        attributes: Attributes {
            token: Some(true),
            private: Some(true),
            local: Some(true),
            sensitive: Some(true),
            extractable: Some(false),
            sign: Some(true),
            decrypt: Some(false),
            unwrap: Some(false),
            derive: Some(false),
            sign_recover: Some(false),
            ..Attributes::default()
        },
        imported: false,
    }
}

/// A bundle of such a key alone.
fn alone(key: AssertedKey) -> Bundle {
    let mut bundle = World::new().bundle();
    bundle.keystores = vec![token(key)];
    bundle
}

/// One who is content with what a token says.
fn content() -> Party {
    let mut party = Party::of(&World::new());
    party.policy = "minimum = \"asserted\"\n".into();
    party
}

#[test]
fn what_is_only_asserted() {
    let with = |change: fn(&mut Attributes)| {
        let mut key = good();
        change(&mut key.attributes);
        alone(key)
    };
    // Nor does it show the state of a host, which this policy wants.
    let level = BTreeSet::from(["level", "proof"]);
    assert_eq!(Party::of(&World::new()).finds(&alone(good())), level);
    let party = content();
    assert!(party.finds(&alone(good())).is_empty());
    let wrong: [fn(&mut Attributes); 15] = [
        |it| it.token = Some(false),
        |it| it.extractable = Some(true),
        |it| it.sensitive = None,
        |it| it.sign = Some(false),
        |it| it.private = Some(false),
        |it| it.decrypt = Some(true),
        |it| it.derive = Some(true),
        |it| it.unwrap = Some(true),
        |it| it.sign_recover = Some(true),
        // What a token keeps to itself may be either.
        |it| it.decrypt = None,
        |it| it.derive = None,
        |it| it.unwrap = None,
        |it| it.sign_recover = None,
        |it| it.token = None,
        |it| it.private = None,
    ];
    for (index, change) in wrong.into_iter().enumerate() {
        let found = party.finds(&with(change));
        assert_eq!(found, only("asserted-attributes"), "{index}");
    }
    let foreign: [fn(&mut Attributes); 3] = [
        |it| it.local = Some(false),
        |it| it.local = None,
        |it| it.never_extractable = Some(false),
    ];
    for (index, change) in foreign.into_iter().enumerate() {
        assert_eq!(party.finds(&with(change)), only("key-origin"), "{index}");
    }
}

/// Who carries a genuine bundle adds a key of his own to it, as one that was imported.
#[test]
fn a_key_that_nobody_has_signed_in_a_bundle_that_was() {
    let world = World::new();
    let imported = || AssertedKey {
        imported: true,
        ..good()
    };
    let mut allows = Party::of(&world);
    allows.policy = format!("imported = \"allow\"\n{}", allows.policy);
    let mut bundle = world.bundle();
    bundle.keystores.push(token(imported()));
    assert_eq!(allows.finds_but(&bundle, &["key-origin"]), only("level"));
    assert_eq!(Party::of(&world).finds(&bundle), only("key-origin"));
    assert_eq!(
        allows.finds_but(&alone(imported()), &["key-origin"]),
        BTreeSet::from(["level", "proof"])
    );
    // Who is content with what a token says has it as what it is.
    let mut party = content();
    assert_eq!(party.finds(&alone(imported())), only("key-origin"));
    party.policy = format!("imported = \"allow\"\n{}", party.policy);
    let left_out = ["key-origin", "level"];
    assert!(party.finds_but(&alone(imported()), &left_out).is_empty());
    let report = party.asks(alone(imported()).to_json().as_bytes());
    assert!(report.keys[0].imported);
    assert_eq!(report.keys[0].level.to_string(), "none");
    let level = report.verdicts.iter().find(|it| it.check == Check::Level);
    assert_eq!(level.map(|it| it.outcome.name()), Some("skipped"));
    // A better word is not had for it.
    party.policy = party.policy.replace("asserted", "device-attested");
    party.policy += "[ek]\ncertificate = \"optional\"\n";
    assert_eq!(
        party.finds_but(&alone(imported()), &["key-origin"]),
        only("level")
    );
}

#[test]
fn a_tokens_rsa_key_that_can_be_computed() {
    let party = content();
    let rsa = |n: &[u8], e: &[u8]| {
        let jwk = PublicKey::from_rsa(n, e).expect("it is a key");
        let (kid, alg) = (jwk.kid(), keystore::Alg::RS256);
        alone(AssertedKey {
            jwk,
            kid,
            alg,
            ..good()
        })
    };
    assert!(party.finds(&rsa(&chip::odd(), &[1, 0, 1])).is_empty());
    for wrong in [
        rsa(&chip::roca(), &[1, 0, 1]),
        rsa(&chip::odd(), &[3]),
        rsa(&chip::odd(), &[1, 0, 3]),
    ] {
        assert_eq!(party.finds(&wrong), only("key-scheme"));
    }
}
