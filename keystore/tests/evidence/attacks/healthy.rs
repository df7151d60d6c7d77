//! A relying party that wants keys to sign in good states of their hosts alone, and keys that do not.

use super::{only, tpm_of};
use crate::Party;
use crate::fixture::{KEY, World, area, bytes, pcr, public, secret};
use keystore::evidence::Bundle;
use keystore::evidence::bundle::{PcrValue, PolicyStep};
use keystore::evidence::hash::Hash;
use keystore::evidence::healthy::{Authority, Generation, State, steps};
use keystore::evidence::policy::Policy;
use keystore::evidence::steps::policy_digest;
use std::path::Path;

/// A key with this policy, as its TPM certifies it.
fn bound(steps: Vec<PolicyStep>) -> Bundle {
    let mut world = World::new();
    world.keys.truncate(1);
    world.keys[0].attributes = KEY & !(1 << 6); // without userWithAuth
    world.keys[0].auth_policy = policy_digest(&steps, Hash::Sha256).expect("they lead to one");
    let mut bundle = world.bundle();
    tpm_of(&mut bundle).keys[0].policy = Some(steps);
    bundle
}

fn state(index: u8, byte: u8) -> State {
    State::new([(pcr(index), PcrValue::new(&[byte; 32]))].into()).expect("it is one")
}

fn authority(byte: u8) -> Authority {
    Authority::new(public(&secret(byte))).expect("it is on P-256")
}

fn wanting(healthy: &str) -> Party {
    let mut world = World::new();
    world.keys.truncate(1);
    let party = Party::of(&world);
    Party {
        policy: format!("{}[healthy]\n{healthy}\n", party.policy),
        ..party
    }
}

#[test]
fn a_key_that_signs_in_states_that_nobody_wants() {
    let ours = authority(9);
    let first = Generation::FIRST;
    let party = wanting(&format!("authorities = [\"{ours}\"]"));
    let good = state(7, 1);
    assert!(
        party
            .finds(&bound(steps(&good, Some((&ours, first)))))
            .is_empty()
    );
    let mut with_auth_twice = steps(&good, Some((&ours, first)));
    with_auth_twice.push(PolicyStep::AuthValue {});
    assert!(party.finds(&bound(with_auth_twice)).is_empty());
    let reference = first.reference();
    // A public area of the same key by which it may sign more than approvals of ours.
    let other_area = PolicyStep::Authorize {
        authority: bytes(&area(&secret(9), KEY, &[], false)),
        reference: bytes(&reference),
    };
    for wrong in [
        steps(&good, Some((&authority(10), first))),
        steps(&good, Some((&ours, Generation(2)))),
        steps(&good, None),
        vec![other_area],
        vec![PolicyStep::AuthValue {}],
        vec![PolicyStep::AuthValue {}, good.step()],
    ] {
        let shown = format!("{wrong:?}");
        assert_eq!(party.finds(&bound(wrong)), only("key-policy"), "{shown}");
    }
    // And one that signs in any state.
    let mut world = World::new();
    world.keys.truncate(1);
    assert_eq!(party.finds(&world.bundle()), only("key-policy"));

    let value = "01".repeat(32);
    let party = wanting(&format!("[[healthy.state]]\n7 = \"{value}\""));
    assert!(party.finds(&bound(steps(&good, None))).is_empty());
    for wrong in [
        steps(&state(7, 2), None),
        steps(&state(8, 1), None), // the same value of another PCR: one can be brought to any
        steps(&good, Some((&ours, first))),
    ] {
        let shown = format!("{wrong:?}");
        assert_eq!(party.finds(&bound(wrong)), only("key-policy"), "{shown}");
    }
    let party = wanting(&format!("authorities = [\"{ours}\"]\ngenerations = [2, 3]"));
    assert!(
        party
            .finds(&bound(steps(&good, Some((&ours, Generation(3))))))
            .is_empty()
    );
    assert_eq!(
        party.finds(&bound(steps(&good, Some((&ours, first))))),
        only("key-policy")
    );
}

#[test]
fn a_wish_that_no_key_could_meet_is_a_mistake() {
    let parse = |text: &str| Policy::parse(Path::new("policy.toml"), text).map(drop);
    let begin = "minimum = \"tpm-certified\"\n[ek]\ncertificate = \"optional\"\n[healthy]\n";
    let name = authority(9).to_string();
    let authorities = format!("authorities = [\"{name}\"]\n");
    assert!(parse(&format!("{begin}{authorities}")).is_ok());
    for (wrong, why) in [
        (begin.to_owned(), "names neither"),
        (
            format!("{begin}{authorities}").replace("tpm-certified", "asserted"),
            "write minimum",
        ),
        (
            format!("imported = \"allow\"\n{begin}{authorities}"),
            "write imported = \"refuse\"",
        ),
        (
            format!("{begin}authorities = [\"{}\"]\n", &name[2..]),
            "68 hexadecimal",
        ),
        (
            format!("{begin}[[healthy.state]]\n16 = \"{}\"\n", "00".repeat(32)),
            "can be reset",
        ),
        (
            format!("{begin}[[healthy.state]]\n7 = \"00\"\n"),
            "hexadecimal",
        ),
    ] {
        let said = parse(&wrong).unwrap_err().to_string();
        assert!(said.contains(why), "{why}: {said}");
    }
}
