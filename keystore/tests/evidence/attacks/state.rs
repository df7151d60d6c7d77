//! What the state of a host is made to look like: other PCRs, another host's, an older one.

use super::{only, tpm_of};
use crate::Party;
use crate::fixture::{World, bytes, logs, pcr, secret};
use keystore::evidence::bundle::{Bank, PcrValue, Pcrs};
use keystore::evidence::enrolment::registry::{Counters, Replacing};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn a_quote_of_other_pcrs() {
    let world = World::new();
    let party = Party::of(&world);
    let sha1: BTreeMap<_, _> = (0..=10)
        .map(|it| (pcr(it), PcrValue::new(&[0; 20])))
        .collect();
    let resettable = BTreeMap::from([
        (pcr(16), PcrValue::new(&[0; 32])),
        (pcr(23), PcrValue::new(&[0; 32])),
    ]);
    let mut fewer = world.pcrs.clone();
    fewer.get_mut(&Bank::Sha256).unwrap().remove(&pcr(10));
    let mut more = world.pcrs.clone();
    more.insert(Bank::Sha1, sha1.clone());
    for pcrs in [
        Pcrs::new(),
        BTreeMap::from([(Bank::Sha1, sha1)]),
        BTreeMap::from([(Bank::Sha256, resettable)]),
        fewer,
        more,
    ] {
        let mut bundle = world.bundle();
        let tpm = tpm_of(&mut bundle);
        tpm.quote = Some(world.requoted(&tpm.keys, &pcrs));
        assert_eq!(party.finds(&bundle), only("quote-selection"), "{pcrs:?}");
    }
    let mut bundle = world.bundle();
    tpm_of(&mut bundle).quote = None;
    assert_eq!(party.finds(&bundle), only("quote"));
    // Where the policy names no PCRs, the SHA-1 bank is none all the same.
    let mut party = Party::of(&world);
    party.policy = "minimum = \"tpm-certified\"\n[ek]\nroots = [\"r\"]\n".into();
    let mut bundle = world.bundle();
    let left_out = ["quote-selection", "pcr-reference", "event-rules"];
    assert!(party.finds_but(&bundle, &left_out).is_empty());
    let sha1 = BTreeMap::from([(
        Bank::Sha1,
        BTreeMap::from([(pcr(0), PcrValue::new(&[0; 20]))]),
    )]);
    let tpm = tpm_of(&mut bundle);
    tpm.quote = Some(world.requoted(&tpm.keys, &sha1));
    assert_eq!(party.finds(&bundle), only("quote-selection"));
}

#[test]
fn a_clean_hosts_quote_with_a_dirty_hosts_key() {
    let world = World::new();
    let party = Party::of(&world);
    // Another TPM's.
    let clean = World {
        ak: secret(69),
        ..world.clone()
    };
    let mut bundle = world.bundle();
    let tpm = tpm_of(&mut bundle);
    tpm.quote = Some(clean.quoted(&tpm.keys));
    assert_eq!(party.finds(&bundle), only("quote-signature"));
    // The same TPM's, made with other statements: before the key was there, or without it.
    let mut bundle = world.bundle();
    let tpm = tpm_of(&mut bundle);
    tpm.quote = Some(world.quoted(&tpm.keys[..1]));
    assert_eq!(party.finds(&bundle), only("quote-context"));
    // A key that was left out afterwards.
    let mut bundle = world.bundle();
    tpm_of(&mut bundle).keys.pop();
    assert_eq!(party.finds(&bundle), only("quote-context"));
}

#[test]
fn values_that_were_not_quoted() {
    let world = World::new();
    let party = Party::of(&world);
    let mut bundle = world.bundle();
    let quote = tpm_of(&mut bundle).quote.as_mut().unwrap();
    quote
        .pcrs
        .get_mut(&Bank::Sha256)
        .unwrap()
        .insert(pcr(3), PcrValue::new(&[5; 32]));
    assert_eq!(party.finds(&bundle), only("quote-values"));
    let mut bundle = world.bundle();
    let quote = tpm_of(&mut bundle).quote.as_mut().unwrap();
    quote
        .pcrs
        .get_mut(&Bank::Sha256)
        .unwrap()
        .insert(pcr(23), PcrValue::new(&[5; 32]));
    assert_eq!(party.finds(&bundle), only("quote-values"));
    let mut bundle = world.bundle();
    let quote = tpm_of(&mut bundle).quote.as_mut().unwrap();
    quote.pcrs.insert(
        Bank::Sha384,
        BTreeMap::from([(pcr(0), PcrValue::new(&[5; 48]))]),
    );
    assert_eq!(party.finds(&bundle), only("quote-values"));
}

#[test]
fn a_state_that_the_policy_does_not_know() {
    let world = World::new();
    let party = Party::of(&world);
    let off = {
        let mut off = world.clone();
        off.event_log = logs::event_log(0);
        off.boot();
        off
    };
    assert_eq!(
        party.finds(&off.bundle()),
        BTreeSet::from(["pcr-reference", "event-rules"])
    );
    let mut by_events = Party::of(&world);
    by_events.policy = party
        .policy
        .replace("[quote.values.sha256]", "[host.x.none]");
    let start = by_events.policy.find("[host.x.none]").unwrap();
    let end = by_events.policy.find("[event_log]").unwrap();
    by_events.policy.replace_range(start..end, "");
    let left_out = ["pcr-reference"];
    assert_eq!(
        by_events.finds_but(&off.bundle(), &left_out),
        only("event-rules")
    );
    // The good log with the bad state.
    let mut bundle = off.bundle();
    bundle.event_log = Some(bytes(&world.event_log));
    assert_eq!(by_events.finds_but(&bundle, &left_out), only("event-log"));
    // None at all.
    let mut bundle = world.bundle();
    bundle.event_log = None;
    assert_eq!(party.finds(&bundle), only("event-log"));
    // One by which somebody acted as the firmware after it had handed over.
    let mut late = world.clone();
    late.event_log.extend(logs::event(0, 8, b"version"));
    late.boot();
    assert_eq!(party.finds(&late.bundle()), only("event-log"));
}

#[test]
fn counters_that_went_back() {
    let world = World::new();
    let mut party = Party::of(&world);
    let bundle = world.bundle();
    let accepted = |reset, restart| Counters { reset, restart };
    for (last, is_fine) in [
        (accepted(12, 3), true),
        (accepted(11, 9), true),
        (accepted(12, 4), false),
        (accepted(13, 0), false),
    ] {
        party.registry.count(&world.host, "tpm", last);
        let expected = if is_fine {
            BTreeSet::new()
        } else {
            only("counters")
        };
        assert_eq!(party.finds(&bundle), expected, "{last:?}");
    }
    // By what the policy says.
    let mut party = Party::of(&world);
    party.policy += "[host.web-1]\ncounters = { reset = 13, restart = 0 }\n";
    assert_eq!(party.finds(&bundle), only("counters"));
    // A key that was certified before the host was rebooted.
    let before = World {
        reset: 11,
        ..world.clone()
    };
    let mut bundle = world.bundle();
    let tpm = tpm_of(&mut bundle);
    tpm.keys[0] = before.certified(&world.keys[0]);
    tpm.quote = Some(world.quoted(&tpm.keys));
    assert_eq!(Party::of(&world).finds(&bundle), only("counters"));
}

/// A TPM that was cleared begins to count anew; so does one that is enrolled again.
#[test]
fn a_tpm_that_was_cleared() {
    let world = World::new();
    let mut party = Party::of(&world);
    party.registry.count(
        &world.host,
        "tpm",
        Counters {
            reset: world.reset,
            restart: world.restart,
        },
    );
    let cleared = World {
        reset: 0,
        restart: 0,
        ..world.clone()
    };
    assert_eq!(party.finds(&cleared.bundle()), only("counters"));
    let again = party
        .registry
        .record(cleared.enrolled(), Replacing::Refused);
    again.unwrap();
    assert!(party.finds(&cleared.bundle()).is_empty());
}

/// Taken while the host was clean, for an earlier challenge, with what is stated now.
#[test]
fn an_old_quote_with_new_statements() {
    let world = World::new();
    let party = Party::of(&world);
    let before = World {
        nonce: keystore::evidence::bundle::Nonce([6; 32]),
        ..world.clone()
    };
    let mut bundle = world.bundle();
    tpm_of(&mut bundle).quote = before.evidence().quote;
    assert_eq!(party.finds(&bundle), only("quote-context"));
    // For this nonce, but before the host was rebooted into something else.
    let before = World {
        reset: world.reset - 1,
        ..world.clone()
    };
    let mut bundle = world.bundle();
    let tpm = tpm_of(&mut bundle);
    tpm.quote = Some(before.quoted(&tpm.keys));
    assert_eq!(party.finds(&bundle), only("counters"));
}
