//! What is brought from elsewhere: another genuine TPM, or a key of this one that shows its state otherwise.

use super::{only, tpm_of};
use crate::Party;
use crate::fixture::{World, bytes, secret};
use keystore::evidence::bundle::{KeystoreEvidence, Text};
use keystore::evidence::enrolment::registry::Replacing;
use keystore::evidence::nonces::NonceUse;
use keystore::evidence::public::PublicArea;

/// TPM_RH_OWNER and TPM_RH_NULL: there a TPM states counters and firmware with a constant added.
const OTHERS: [u32; 2] = [0x4000_0001, 0x4000_0007];

/// Root makes one in another hierarchy. It is genuine, restricted, in the right TPM, and was enrolled somehow.
#[test]
fn an_attestation_key_of_another_hierarchy() {
    for hierarchy in OTHERS {
        let attacker = World {
            hierarchy,
            ..World::new()
        };
        let mut party = Party::of(&attacker);
        assert_eq!(party.finds(&attacker.bundle()), only("ak-hierarchy"));
        // It says that it is of the right one: so does no statement of the TPM.
        let genuine = World::new();
        party.registry = genuine.registry();
        let mut bundle = attacker.bundle();
        tpm_of(&mut bundle).tpm.ak.qualified_name = bytes(&genuine.ak_qn());
        let found = party.finds(&bundle);
        assert_eq!(
            found,
            std::collections::BTreeSet::from(["certify-signer", "quote-signer"])
        );
        // It shows another key above it.
        let mut bundle = attacker.bundle();
        let other = World {
            ek: secret(90),
            ..World::new()
        };
        tpm_of(&mut bundle).tpm.ak.parent = bytes(&other.parent_area());
        assert_eq!(party.finds(&bundle), only("ak-hierarchy"));
    }
}

/// Another key than the one above it can be found that has the same Name, where that is a SHA-1.
#[test]
fn an_attestation_key_below_one_whose_name_is_weak() {
    let world = World::new();
    let mut parent = world.parent_area();
    parent[3] = 0x04; // nameAlg
    let [ak, above] = [&world.ak_area(), &parent].map(|it| PublicArea::parse(it).unwrap());
    let name = ak.qualified_name(&above);
    let world = World {
        signer: Some(name.clone()),
        ..world
    };
    let mut party = Party::of(&world);
    party.registry.enrolled[0].ak_qualified_name = bytes(&name);
    let mut bundle = world.bundle();
    let key = &mut tpm_of(&mut bundle).tpm.ak;
    (key.parent, key.qualified_name) = (bytes(&parent), bytes(&name));
    assert_eq!(party.finds(&bundle), only("ak-hierarchy"));
}

#[test]
fn a_relay_under_another_keystores_name() {
    let world = World::new();
    let elsewhere = World {
        ek: secret(91),
        ak: secret(92),
        ..world.clone()
    };
    let named = |world: &World, name: &str| {
        let mut bundle = world.bundle();
        tpm_of(&mut bundle).name = Text::cut(name);
        bundle
    };
    // A genuine TPM that is nobody's, beside the name of the host's own.
    let mut party = Party::of(&world);
    assert_eq!(party.finds(&named(&elsewhere, "tpm2")), only("host"));
    // One that is another host's.
    let mut others = elsewhere.clone();
    others.host = "web-2".parse().unwrap();
    let enrolled = keystore::evidence::enrolment::registry::Enrolled {
        keystore: Text::cut("tpm2"),
        ..others.enrolled()
    };
    party.registry.record(enrolled, Replacing::Refused).unwrap();
    assert!(party.finds(&named(&others, "tpm2")).is_empty());
    for name in ["tpm", "tpm2", "tpm3"] {
        assert_eq!(
            party.finds(&named(&elsewhere, name)),
            only("host"),
            "{name}"
        );
    }
    // One that the policy knows as another host's, whatever the registry says.
    let mut party = Party::of(&world);
    let ek = world.enrolled().ek;
    party.policy += &format!("[host.web-2]\nek = [\"{ek}\"]\n");
    assert_eq!(party.finds(&world.bundle()), only("host"));
    // The host's own beside it, which proves nothing for the other.
    let party = Party::of(&world);
    let mut bundle = world.bundle();
    let mut relayed = elsewhere.clone();
    relayed.keys = vec![crate::fixture::Key {
        id: "ours/third.1",
        ..world.keys[0].clone()
    }];
    let mut second = relayed.evidence();
    second.name = Text::cut("tpm2");
    bundle.keystores.push(KeystoreEvidence::Tpm(second));
    assert_eq!(party.finds(&bundle), only("host"));
    let report = party.asks(bundle.to_json().as_bytes());
    assert_eq!(report.verified_host(), None);
    let levels: Vec<String> = report.keys.iter().map(|it| it.level.to_string()).collect();
    assert_eq!(levels, ["tpm-certified", "tpm-certified", "none"]);
}

/// The same answer a second time; one to a challenge that is not ours; one that took too long.
#[test]
fn a_challenge_that_was_answered_before() {
    let world = World::new();
    let mut party = Party::of(&world);
    let bundle = world.bundle();
    party.nonce_use = NonceUse::NotOpen;
    assert_eq!(party.finds(&bundle), only("nonce-use"));
    for (made_at, is_fine) in [(0, true), (300, true), (301, false)] {
        party.nonce_use = NonceUse::Open {
            made_at: crate::fixture::NOW - made_at,
        };
        assert_eq!(party.finds(&bundle).is_empty(), is_fine, "{made_at}");
    }
    party.nonce_use = NonceUse::Open {
        made_at: crate::fixture::NOW + 61,
    };
    assert_eq!(party.finds(&bundle), only("nonce-use"));
    // Who keeps no challenges is told so, and has to see to it.
    party.nonce_use = NonceUse::NotKept;
    assert!(party.finds_but(&bundle, &["nonce-use"]).is_empty());
}
