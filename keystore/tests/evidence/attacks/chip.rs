//! What a TPM is made to look like: one in software, another host's, one with a known hole; and old evidence of the right one.

use super::{only, tpm_of};
use crate::Party;
use crate::fixture::{AK, Authority, KEY, NOW, World, bytes, public, secret, sized};
use keystore::evidence::bundle::{Firmware, Nonce, Text};
use keystore::evidence::enrolment::registry::Replacing;
use keystore::evidence::nonces::NonceUse;
use std::collections::BTreeSet;

/// What is left out of a TPM without a certificate, where the policy wants none.
const UNCERTIFIED: [&str; 2] = ["ek-certificate", "ek-match"];

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

/// Nothing is wrong with what is not there.
#[test]
fn a_bundle_that_proves_nothing() {
    let world = World::new();
    let party = Party::of(&world);
    let mut bundle = world.bundle();
    bundle.keystores.clear();
    assert_eq!(party.finds(&bundle), only("proof"));
    let mut party = Party::of(&world);
    party.policy = "minimum = \"tpm-certified\"\n[ek]\nroots = [\"r\"]\n".into();
    let mut bundle = world.bundle();
    let tpm = tpm_of(&mut bundle);
    tpm.keys.clear();
    tpm.quote = None;
    let found = party.finds_but(&bundle, &["quote", "firmware"]);
    assert_eq!(found, BTreeSet::from(["counters", "proof"]));
}

#[test]
fn an_old_bundle() {
    let world = World::new();
    let mut party = Party::of(&world);
    let bundle = world.bundle();
    // By the host's clock alone.
    party.nonce_use = NonceUse::NotKept;
    party.now = NOW + 300;
    assert!(party.finds_but(&bundle, &["nonce-use"]).is_empty());
    party.now = NOW + 301;
    assert_eq!(party.finds_but(&bundle, &["nonce-use"]), only("age"));
    party.now = NOW - 61;
    assert_eq!(party.finds_but(&bundle, &["nonce-use"]), only("age"));
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
fn another_root_or_a_certificate_of_another_kind() {
    let world = World::new();
    let party = Party::of(&world);
    let with = |certificate: Option<Vec<u8>>| {
        let mut bundle = world.bundle();
        tpm_of(&mut bundle).tpm.ek.certificate = certificate.map(|it| bytes(&it));
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
    assert!(party.finds_but(&with(None), &UNCERTIFIED).is_empty());
}

/// An endorsement key opens what is encrypted to it. One that is certified for signing would sign what a host asks.
#[test]
fn a_certificate_of_a_key_for_something_else() {
    let world = World::new();
    let party = Party::of(&world);
    let spki = public(&world.ek).spki();
    let eku = [0x67, 0x81, 0x05, 0x08, 0x01];
    for (uses, is_taken) in [
        ([0x03, 0x08], true),  // keyAgreement
        ([0x05, 0x20], true),  // keyEncipherment, as swtpm has it
        ([0x07, 0x80], false), // digitalSignature
        ([0x02, 0x04], false), // keyCertSign
        ([0x00, 0x00], false),
    ] {
        let certificate = world.root.ek_certificate_for(uses, &spki, &eku, NOW);
        let mut bundle = world.bundle();
        tpm_of(&mut bundle).tpm.ek.certificate = Some(bytes(&certificate));
        let found = party.finds(&bundle);
        let wanted = match is_taken {
            true => Default::default(),
            false => only("ek-certificate"),
        };
        assert_eq!(found, wanted, "{uses:02x?}");
    }
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
    let tpm = tpm_of(&mut bundle);
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
    assert_eq!(party.finds_but(&bundle, &UNCERTIFIED), only("ek-strength"));
}

/// A number of 2048 bits that is of no such form.
pub fn odd() -> Vec<u8> {
    vec![0xff; 256]
}

/// A number of 2048 bits that is 1, and so a power of 65537, modulo each of them, and odd.
pub fn roca() -> Vec<u8> {
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
    tpm_of(&mut bundle).tpm.ek.certificate = None;
    party.registry.enrolled[0].manufacturer = Some(Text::cut("STM"));
    assert_eq!(party.finds_but(&bundle, &UNCERTIFIED), only("firmware"));
    // A maker that only the host names is none: versions are held against every maker's list, and none allows one.
    let mut party = Party::of(&world);
    party.policy = party
        .policy
        .replace("[ek]", "[ek]\ncertificate = \"optional\"");
    party.registry.enrolled[0].manufacturer = None;
    let uncertified = |world: &World| {
        let mut bundle = world.bundle();
        tpm_of(&mut bundle).tpm.ek.certificate = None;
        bundle
    };
    assert!(
        party
            .finds_but(&uncertified(&world), &UNCERTIFIED)
            .is_empty()
    );
    let finds = |party: &Party, world| party.finds_but(&uncertified(world), &UNCERTIFIED);
    assert_eq!(finds(&party, &known), only("firmware"));
    for (list, is_fine) in [
        ("deny]]\nmanufacturer = \"IFX\"", false),
        (
            "deny]]\nmanufacturer = \"IFX\"\nfrom = \"2019102300163637\"",
            true,
        ),
        ("allow]]\nmanufacturer = \"IBM\"", false),
    ] {
        let mut party = party.clone();
        party.policy += &format!("[[firmware.{list}\n");
        assert_eq!(finds(&party, &world).is_empty(), is_fine, "{list}");
        // What was certified when the TPM was enrolled is as good as now.
        party.registry.enrolled[0].manufacturer = Some(Text::cut("IBM"));
        assert!(finds(&party, &world).is_empty(), "{list}");
    }
    // The host says another than its TPM, or another maker than its certificate.
    let mut bundle = world.bundle();
    tpm_of(&mut bundle).tpm.firmware = Firmware(1);
    assert_eq!(Party::of(&world).finds(&bundle), only("firmware"));
    let mut bundle = world.bundle();
    tpm_of(&mut bundle).tpm.manufacturer = Text::cut("IFX");
    assert_eq!(
        deny("IBM", "2019102300163636").finds(&bundle),
        only("firmware")
    );
}
