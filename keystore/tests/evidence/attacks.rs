//! The table of standards §4.8: each attack on a bundle that is otherwise valid, re-signed as far as the attacker
//! can, and the one check that names it.

use super::Party;
use super::fixture::{
    self, AK, Authority, KEY, NOW, World, area, bytes, logs, name, pcr, public, secret, sign, sized,
};
use keystore::charter::PurposeKind;
use keystore::evidence::bundle::{
    Bank, Bundle, Firmware, KeystoreEvidence, Nonce, PcrValue, Pcrs, PolicyStep, Text, TpmEvidence,
};
use keystore::evidence::context;
use keystore::evidence::enrolment::registry::{Counters, Replacing};
use keystore::evidence::hash::Hash;
use keystore::evidence::verify::policy_digest;
use std::collections::{BTreeMap, BTreeSet};

fn only(check: &'static str) -> BTreeSet<&'static str> {
    BTreeSet::from([check])
}

fn tpm(bundle: &mut Bundle) -> &mut TpmEvidence {
    match &mut bundle.keystores[0] {
        KeystoreEvidence::Tpm(tpm) => tpm,
        KeystoreEvidence::Pkcs11(_) => panic!("it is a TPM"),
    }
}

#[test]
fn a_replayed_bundle() {
    let world = World::new();
    let mut party = Party::of(&world);
    party.nonce = Nonce([8; 32]);
    let mut bundle = world.bundle();
    assert_eq!(party.finds(&bundle), only("nonce"));
    // With the new challenge written over the old one, which nobody has signed.
    bundle.nonce = party.nonce;
    assert_eq!(party.finds(&bundle), only("certify-context"));
}

#[test]
fn an_old_bundle() {
    let world = World::new();
    let mut party = Party::of(&world);
    let bundle = world.bundle();
    party.now = NOW + 300;
    assert!(party.finds(&bundle).is_empty());
    party.now = NOW + 301;
    assert_eq!(party.finds(&bundle), only("age"));
    party.now = NOW - 61;
    assert_eq!(party.finds(&bundle), only("age"));
}

#[test]
fn an_attestation_key_in_software() {
    let world = World::new();
    let attacker = World {
        ak: secret(66),
        ..world.clone()
    };
    assert_eq!(
        Party::of(&world).finds(&attacker.bundle()),
        only("ak-enrolled")
    );
}

#[test]
fn an_attestation_key_that_signs_anything() {
    let world = World::new();
    for attributes in [
        AK & !(1 << 16),
        AK & !2,
        AK & !(1 << 4),
        AK & !(1 << 5),
        AK | 1 << 17,
    ] {
        let attacker = World {
            ak_attributes: attributes,
            ..world.clone()
        };
        // Even where somebody has enrolled it.
        let mut party = Party::of(&world);
        party.registry = attacker.registry();
        assert_eq!(
            party.finds(&attacker.bundle()),
            only("ak-attributes"),
            "{attributes:x}"
        );
    }
}

#[test]
fn a_workloads_key_as_attestation_key() {
    let world = World::new();
    let attacker = World {
        ak: world.keys[0].secret.clone(),
        ak_attributes: KEY,
        ..world.clone()
    };
    assert_eq!(
        Party::of(&world).finds(&attacker.bundle()),
        only("ak-attributes")
    );
}

#[test]
fn a_workloads_key_that_signs_what_looks_like_a_statement() {
    let world = World::new();
    let mut bundle = world.bundle();
    let forged = {
        let key = &tpm(&mut bundle).keys[0];
        sign(&world.keys[1].secret, key.attest.as_slice())
    };
    tpm(&mut bundle).keys[0].signature = bytes(&forged);
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-signature"));
}

#[test]
fn another_key_than_was_certified() {
    let world = World::new();
    let other = world.keys[1].secret.clone();
    // Its public area, and all that goes with it.
    let mut bundle = world.bundle();
    let key = &mut tpm(&mut bundle).keys[0];
    (key.jwk, key.kid) = (public(&other), public(&other).kid());
    key.public = bytes(&area(&other, KEY, &[], false));
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-name"));
    // The key that is registered alone.
    let mut bundle = world.bundle();
    let key = &mut tpm(&mut bundle).keys[0];
    (key.jwk, key.kid) = (public(&secret(67)), public(&secret(67)).kid());
    assert_eq!(Party::of(&world).finds(&bundle), only("key-jwk"));
    // Its name alone.
    let mut bundle = world.bundle();
    tpm(&mut bundle).keys[0].kid = public(&other).kid();
    assert_eq!(Party::of(&world).finds(&bundle), only("key-jwk"));
}

#[test]
fn a_key_for_another_purpose_or_algorithm() {
    let world = World::new();
    let mut bundle = world.bundle();
    tpm(&mut bundle).keys[0].purpose = PurposeKind::Federation;
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-context"));
    let mut bundle = world.bundle();
    tpm(&mut bundle).keys[0].alg = keystore::Alg::ES384;
    assert_eq!(Party::of(&world).finds(&bundle), only("key-scheme"));
}

#[test]
fn a_statement_of_another_kind() {
    let world = World::new();
    let mut bundle = world.bundle();
    let spki = public(&world.keys[0].secret).spki();
    let purpose = PurposeKind::ClientAuthentication;
    let extra = context::certify(&world.nonce, &world.host, purpose, &spki);
    let quote = world.quote(&extra, &world.pcrs);
    let tpm = tpm(&mut bundle);
    world.restate(&mut tpm.keys[0], &quote);
    tpm.quote = Some(world.quoted(&tpm.keys));
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-statement"));
    // What no TPM has made, were it to sign that.
    for change in [0, 1] {
        let mut bundle = world.bundle();
        let tpm = self::tpm(&mut bundle);
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
        ak_qn: [&[0, 11][..], &[6; 32]].concat(),
        ..world.clone()
    };
    // Its statements in a bundle that names the first.
    let mut bundle = world.bundle();
    let other = second.certified(&world.keys[0]);
    let keys = &mut tpm(&mut bundle).keys;
    (keys[0].attest, keys[0].signature) = (other.attest, other.signature);
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-signature"));
    // One that says of itself that another has signed it.
    let mut bundle = world.bundle();
    let tpm = tpm(&mut bundle);
    tpm.keys[0] = World {
        ak_qn: second.ak_qn.clone(),
        ..world.clone()
    }
    .certified(&world.keys[0]);
    tpm.quote = Some(world.quoted(&tpm.keys));
    assert_eq!(Party::of(&world).finds(&bundle), only("certify-signer"));
}

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
        let tpm = tpm(&mut bundle);
        tpm.quote = Some(world.requoted(&tpm.keys, &pcrs));
        assert_eq!(party.finds(&bundle), only("quote-selection"), "{pcrs:?}");
    }
    let mut bundle = world.bundle();
    tpm(&mut bundle).quote = None;
    assert_eq!(party.finds(&bundle), only("quote"));
    // Where the policy names no PCRs, the SHA-1 bank is none all the same.
    let mut party = Party::of(&world);
    party.policy = "minimum = \"tpm-certified\"\n[ek]\nroots = [\"r\"]\n".into();
    let mut bundle = world.bundle();
    assert!(party.finds(&bundle).is_empty());
    let sha1 = BTreeMap::from([(
        Bank::Sha1,
        BTreeMap::from([(pcr(0), PcrValue::new(&[0; 20]))]),
    )]);
    let tpm = tpm(&mut bundle);
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
    let tpm = tpm(&mut bundle);
    tpm.quote = Some(clean.quoted(&tpm.keys));
    assert_eq!(party.finds(&bundle), only("quote-signature"));
    // The same TPM's, made with other statements: before the key was there, or without it.
    let mut bundle = world.bundle();
    let tpm = self::tpm(&mut bundle);
    tpm.quote = Some(world.quoted(&tpm.keys[..1]));
    assert_eq!(party.finds(&bundle), only("quote-context"));
    // A key that was left out afterwards.
    let mut bundle = world.bundle();
    self::tpm(&mut bundle).keys.pop();
    assert_eq!(party.finds(&bundle), only("quote-context"));
}

#[test]
fn values_that_were_not_quoted() {
    let world = World::new();
    let party = Party::of(&world);
    let mut bundle = world.bundle();
    let quote = tpm(&mut bundle).quote.as_mut().unwrap();
    quote
        .pcrs
        .get_mut(&Bank::Sha256)
        .unwrap()
        .insert(pcr(3), PcrValue::new(&[5; 32]));
    assert_eq!(party.finds(&bundle), only("quote-values"));
    let mut bundle = world.bundle();
    let quote = tpm(&mut bundle).quote.as_mut().unwrap();
    quote
        .pcrs
        .get_mut(&Bank::Sha256)
        .unwrap()
        .insert(pcr(23), PcrValue::new(&[5; 32]));
    assert_eq!(party.finds(&bundle), only("quote-values"));
    let mut bundle = world.bundle();
    let quote = tpm(&mut bundle).quote.as_mut().unwrap();
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
    assert_eq!(by_events.finds(&off.bundle()), only("event-rules"));
    // The good log with the bad state.
    let mut bundle = off.bundle();
    bundle.event_log = Some(bytes(&world.event_log));
    assert_eq!(by_events.finds(&bundle), only("event-log"));
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
fn a_list_of_another_boot() {
    let world = World::new();
    let party = Party::of(&world);
    let mut bundle = world.bundle();
    bundle.ima = None;
    assert_eq!(party.finds(&bundle), only("ima"));
    let mut other = world.clone();
    let (list, value) = logs::ima(&[3; 32]);
    other.ima = list.clone();
    let values = other.pcrs.get_mut(&Bank::Sha256).unwrap();
    values.insert(pcr(10), PcrValue::new(&value));
    assert_eq!(
        party.finds(&other.bundle()),
        only("ima"),
        "its aggregate is another boot's"
    );
    let mut bundle = world.bundle();
    bundle.ima = Some(bytes(&list));
    assert_eq!(
        party.finds(&bundle),
        only("ima"),
        "it does not lead to the PCR"
    );
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
    let tpm = tpm(&mut bundle);
    tpm.keys[0] = before.certified(&world.keys[0]);
    tpm.quote = Some(world.quoted(&tpm.keys));
    assert_eq!(Party::of(&world).finds(&bundle), only("counters"));
}

#[test]
fn another_tpm_than_the_hosts() {
    let world = World::new();
    let mut other = World {
        ek: secret(70),
        ak: secret(71),
        ..world.clone()
    };
    // A genuine one that nobody knows; and one that is known as another host.
    assert_eq!(Party::of(&world).finds(&other.bundle()), only("host"));
    let mut party = Party::of(&world);
    other.host = "web-2".parse().unwrap();
    party
        .registry
        .record(other.enrolled(), Replacing::Refused)
        .unwrap();
    assert!(party.finds(&other.bundle()).is_empty());
    other.host = world.host.clone();
    assert_eq!(party.finds(&other.bundle()), only("host"));
    // And a host's bundle under another host's name.
    let mut bundle = world.bundle();
    bundle.host = "web-2".parse().unwrap();
    assert_eq!(party.finds(&bundle), only("host"));
    // By the policy's own pairs.
    let mut party = Party::of(&world);
    let ek = "00".repeat(32);
    party.policy += &format!("[host.web-1]\nek = [\"{ek}\"]\n");
    assert_eq!(party.finds(&world.bundle()), only("host"));
}

#[test]
fn a_host_that_was_never_enrolled() {
    let world = World::new();
    let mut party = Party::of(&world);
    party.registry = Default::default();
    assert_eq!(party.finds(&world.bundle()), only("host"));
    let ek = world.enrolled().ek;
    party.policy += &format!("[host.web-1]\nek = [\"{ek}\"]\n");
    assert_eq!(party.finds(&world.bundle()), only("ak-enrolled"));
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
        tpm(&mut bundle).keys[0].imported = true;
        assert!(party.finds(&bundle).is_empty());
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
        tpm(&mut bundle).keys[0].policy = policy;
        bundle
    };
    assert!(party.finds(&with(&bound, Some(steps.clone()))).is_empty());
    let other = only("key-policy");
    assert_eq!(party.finds(&with(&bound, Some(vec![pcrs]))), other);
    assert_eq!(party.finds(&with(&bound, None)), other);
    bound.keys[0].attributes = KEY;
    assert_eq!(
        party.finds(&with(&bound, Some(steps))),
        other,
        "the auth value is enough for it"
    );
}

#[test]
fn another_root_or_a_certificate_of_another_kind() {
    let world = World::new();
    let party = Party::of(&world);
    let with = |certificate: Option<Vec<u8>>| {
        let mut bundle = world.bundle();
        tpm(&mut bundle).tpm.ek.certificate = certificate.map(|it| bytes(&it));
        bundle
    };
    let spki = public(&world.ek).spki();
    let eku = [0x67, 0x81, 0x05, 0x08, 0x01];
    let unknown = Authority::new(72, "Root");
    for certificate in [
        None,
        Some(unknown.ek_certificate(&spki, &eku, NOW)),
        Some(
            world
                .root
                .ek_certificate(&spki, &[0x67, 0x81, 0x05, 0x08, 0x03], NOW),
        ),
        Some(world.root.ek_certificate(&spki, &eku, 0)), // expired
        Some(world.root.certificate()),
        Some(vec![0x30]),
    ] {
        assert_eq!(party.finds(&with(certificate)), only("ek-certificate"));
    }
    let another = world
        .root
        .ek_certificate(&public(&secret(73)).spki(), &eku, NOW);
    assert_eq!(party.finds(&with(Some(another))), only("ek-match"));
    // What fills an NV index behind a certificate is no part of it.
    let padded = [world.ek_certificate(), vec![0xff; 100]].concat();
    assert!(party.finds(&with(Some(padded))).is_empty());
    // A policy that knows the fingerprint from elsewhere wants no certificate.
    let mut party = Party::of(&world);
    party.policy = party
        .policy
        .replace("[ek]", "[ek]\ncertificate = \"optional\"");
    assert!(party.finds(&with(None)).is_empty());
}

#[test]
fn an_endorsement_key_that_can_be_computed() {
    // 2^2047 + …: a modulus that is a power of 65537 modulo each of the small primes.
    let world = World::new();
    let mut bundle = world.bundle();
    let n = roca();
    let rsa = [
        &b"\x00\x01\x00\x0b\x00\x03\x00\xb2\x00\x00\x00\x06\x00\x80\x00\x43\x00\x10\x08\x00\0\0\0\0"[..],
        &sized(&n),
    ]
    .concat();
    let tpm = tpm(&mut bundle);
    tpm.tpm.ek.public = bytes(&rsa);
    tpm.tpm.ek.certificate = None;
    let mut party = Party::of(&world);
    party.policy = party
        .policy
        .replace("[ek]", "[ek]\ncertificate = \"optional\"");
    party.registry.enrolled[0].ek = {
        let area = keystore::evidence::public::PublicArea::parse(&rsa).unwrap();
        keystore::evidence::enrolment::registry::EkFingerprint::of(&area).unwrap()
    };
    assert_eq!(party.finds(&bundle), only("ek-strength"));
}

/// A number of 2048 bits that is 1, and so a power of 65537, modulo each of them, and odd.
fn roca() -> Vec<u8> {
    let primes = [
        2, 11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
    ];
    let product: u128 = primes.iter().product();
    // (2^2047 / product + 1) * product + 1, by long division and multiplication.
    let mut quotient = Vec::new();
    let mut rest: u128 = 0;
    for index in 0..256 {
        rest = rest << 8 | if index == 0 { 0x80 } else { 0 };
        quotient.push((rest / product) as u8);
        rest %= product;
    }
    let mut out = vec![0u8; 256];
    let mut carry: u128 = 1 + product; // the one more, and the one of 1 modulo each
    for index in (0..256).rev() {
        carry += u128::from(quotient[index]) * product;
        out[index] = carry as u8;
        carry >>= 8;
    }
    assert_eq!(carry, 0);
    out
}

#[test]
fn firmware_with_a_known_hole() {
    let world = World::new();
    let bundle = world.bundle();
    let deny = |maker: &str, to: &str| {
        let mut party = Party::of(&world);
        party.policy += &format!(
            "[[firmware.deny]]\nmanufacturer = \"{maker}\"\nto = \"{to}\"\nreason = \"CVE\"\n"
        );
        party
    };
    assert_eq!(
        deny("IBM", "2019102300163636").finds(&bundle),
        only("firmware")
    );
    assert!(deny("IBM", "2019102300163635").finds(&bundle).is_empty());
    assert!(deny("IFX", "2019102300163636").finds(&bundle).is_empty());
    let mut party = Party::of(&world);
    party.policy += "[[firmware.allow]]\nmanufacturer = \"IFX\"\n";
    assert_eq!(party.finds(&bundle), only("firmware"));
    // TPM-FAIL, by the program's own list.
    let known = World {
        firmware: 0x0047_0004_0000_0000,
        ..world.clone()
    };
    let mut party = Party::of(&world);
    party.policy = party
        .policy
        .replace("[ek]", "[ek]\ncertificate = \"optional\"");
    let mut bundle = known.bundle();
    tpm(&mut bundle).tpm.ek.certificate = None;
    tpm(&mut bundle).tpm.manufacturer = Text::cut("STM");
    assert_eq!(party.finds(&bundle), only("firmware"));
    // The host says another than its TPM, or another maker than its certificate.
    let mut bundle = world.bundle();
    tpm(&mut bundle).tpm.firmware = Firmware(1);
    assert_eq!(Party::of(&world).finds(&bundle), only("firmware"));
    let mut bundle = world.bundle();
    tpm(&mut bundle).tpm.manufacturer = Text::cut("IFX");
    assert_eq!(
        deny("IBM", "2019102300163636").finds(&bundle),
        only("firmware")
    );
}

#[test]
fn what_is_only_asserted() {
    use keystore::evidence::bundle::{AssertedKey, Attributes, Module, Pkcs11Evidence};
    let world = World::new();
    let jwk = public(&secret(20));
    let asserted = |attributes| {
        let text = || Text::cut("x");
        let mut bundle = world.bundle();
        bundle.keystores = vec![KeystoreEvidence::Pkcs11(Pkcs11Evidence {
            name: Text::cut("hsm"),
            module: Module {
                library: text(),
                manufacturer: text(),
                model: text(),
                serial: text(),
                firmware: text(),
            },
            keys: vec![AssertedKey {
                key: "ours/bank.1".parse().unwrap(),
                target: None,
                kid: jwk.kid(),
                purpose: PurposeKind::ClientAuthentication,
                alg: keystore::Alg::ES256,
                jwk: jwk.clone(),
                attributes,
                imported: false,
            }],
        })];
        bundle
    };
    let good = Attributes {
        sensitive: Some(true),
        extractable: Some(false),
        sign: Some(true),
        ..Attributes::default()
    };
    let mut party = Party::of(&world);
    assert_eq!(party.finds(&asserted(good.clone())), only("level"));
    party.policy = party.policy.replace("tpm-certified", "asserted");
    assert!(party.finds(&asserted(good.clone())).is_empty());
    for bad in [
        Attributes {
            extractable: Some(true),
            ..good.clone()
        },
        Attributes {
            sensitive: None,
            ..good.clone()
        },
        Attributes {
            decrypt: Some(true),
            ..good.clone()
        },
        Attributes {
            derive: Some(true),
            ..good
        },
    ] {
        assert_eq!(party.finds(&asserted(bad)), only("asserted-attributes"));
    }
    let _ = name(&world.ak_area()); // the fixture's name() is used by its other programs
    let _ = fixture::EK;
}
