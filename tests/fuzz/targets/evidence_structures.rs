//! What a TPM hands out as evidence, each structure by itself: public areas, statements, signatures and
//! selections of PCRs.
//!
//! Asserted: what is read is written back here as the same bytes, so that nothing is passed over; a public
//! area that tpm2-tss reads as well has the same Name and the same key there; no signature verifies under a
//! key that has signed nothing.

use super::input::Input;
use keystore::PublicKey;
use keystore::evidence::attest::{Attest, Attested, Selected};
use keystore::evidence::hash::Hash;
use keystore::evidence::public::{PublicArea, Scheme, Symmetric, Unique};
use keystore::evidence::signature::{Parts, Signature};
use keystore_tpm::fuzzed::{name, read_signing_key, unmarshalled};

/// A P-256 attestation key, whose private half nobody here has.
const AK: &[u8] = b"\x00\x23\x00\x0b\x00\x05\x04\x72\0\0\x00\x10\x00\x18\x00\x0b\x00\x03\x00\x10\
    \x00\x20\x7f\xcd\xce\x27\x70\xf6\xc4\x5d\x41\x83\xcb\xee\x6f\xdb\x4b\x7b\x58\x07\x33\x35\x7b\xe9\xef\
    \x13\xba\xcf\x6e\x3c\x7b\xd1\x54\x45\
    \x00\x20\xc7\xf1\x44\xcd\x1b\xbd\x9b\x7e\x87\x2c\xdf\xed\xb9\xee\xb9\xf4\xb3\x69\x5d\x6e\xa9\x0b\x24\
    \xad\x8a\x46\x23\x28\x85\x88\xe5\xad";

/// Runs one input.
pub fn check(data: &[u8]) {
    let mut input = Input::of(data);
    match input.choice(4) {
        0 => public_area(input.rest()),
        1 => statement(input.rest()),
        2 => signature(input.rest()),
        _ => selection(input.rest()),
    }
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn scheme(scheme: Option<Scheme>) -> Vec<u8> {
    match scheme {
        None => vec![0x00, 0x10],
        Some(it) => [it.id.to_be_bytes(), it.hash.id().to_be_bytes()].concat(),
    }
}

fn public_area(bytes: &[u8]) {
    let Ok(area) = PublicArea::parse(bytes) else {
        return;
    };
    let symmetric: &[u8] = match area.symmetric {
        Symmetric::None => b"\x00\x10",
        Symmetric::Aes128Cfb => b"\x00\x06\x00\x80\x00\x43",
        Symmetric::Aes256Cfb => b"\x00\x06\x01\x00\x00\x43",
    };
    let begin = |kind: u16| {
        [
            &kind.to_be_bytes()[..],
            &area.name_alg.id().to_be_bytes(),
            &area.attributes.0.to_be_bytes(),
            &sized(&area.auth_policy),
            symmetric,
            &scheme(area.scheme),
        ]
        .concat()
    };
    let written = match &area.unique {
        Unique::Rsa { n, e, bits } => {
            // The exponent is written in one of two ways.
            let at = begin(1).len() + 2;
            assert!(
                [e.to_be_bytes(), [0; 4]]
                    .contains(&bytes[at..at + 4].try_into().expect("there are four"))
            );
            [
                begin(1),
                bits.to_be_bytes().to_vec(),
                bytes[at..at + 4].to_vec(),
                sized(n),
            ]
            .concat()
        }
        Unique::Ecc { curve, x, y } => {
            let how = [curve.to_be_bytes(), [0x00, 0x10]].concat();
            [begin(0x23), how, sized(x), sized(y)].concat()
        }
    };
    assert_eq!(written, bytes, "one public area has one form");
    let digest = area.name_alg.of(&[bytes]);
    assert_eq!(
        area.name(),
        [&area.name_alg.id().to_be_bytes(), &digest[..]].concat()
    );
    let key = area.public_key();
    if let (Ok(key), Some(alg)) = (&key, area.alg()) {
        assert!(key.fits(alg));
    }
    let Ok(theirs) = unmarshalled(bytes) else {
        return;
    };
    if area.name_alg == Hash::Sha256 {
        assert_eq!(name(&theirs).expect("it was read"), area.name());
    }
    if let Ok((alg, theirs)) = read_signing_key(&theirs) {
        assert_eq!((area.alg(), key), (Some(alg), Ok::<PublicKey, _>(theirs)));
    }
}

fn statement(bytes: &[u8]) {
    let Ok(attest) = Attest::parse(bytes) else {
        return;
    };
    let (kind, attested) = match &attest.attested {
        Attested::Certify {
            name,
            qualified_name,
        } => (0x8017u16, [sized(name), sized(qualified_name)].concat()),
        Attested::Quote { selection, digest } => {
            (0x8018, [written(selection), sized(digest)].concat())
        }
    };
    let clock = attest.clock;
    let again = [
        &b"\xffTCG"[..],
        &kind.to_be_bytes(),
        &sized(&attest.qualified_signer),
        &sized(&attest.extra_data),
        &clock.clock_ms.to_be_bytes(),
        &clock.reset_count.to_be_bytes(),
        &clock.restart_count.to_be_bytes(),
        &[u8::from(clock.safe)],
        &attest.firmware_version.to_be_bytes(),
        &attested,
    ]
    .concat();
    match kind {
        0x8017 => assert_eq!(again, bytes, "one statement has one form"),
        // Bitmaps have several lengths, and banks of which nothing is selected say nothing.
        _ => assert_eq!(Attest::parse(&again), Ok(attest)),
    }
}

fn signature(bytes: &[u8]) {
    let Ok(signature) = Signature::parse(bytes) else {
        return;
    };
    let parts = match &signature.parts {
        Parts::Rsa(it) => sized(it),
        Parts::Ecdsa(r, s) => [sized(r), sized(s)].concat(),
    };
    assert_eq!([scheme(Some(signature.scheme)), parts].concat(), bytes);
    let ak = PublicArea::parse(AK).expect("it is one");
    assert!(ak.public_key().is_ok());
    assert!(signature.verify(&ak, b"a statement").is_err());
}

fn selection(bytes: &[u8]) {
    if let Ok(selected) = Selected::parse(bytes) {
        assert!(selected.0.len() <= 4 && selected.0.iter().all(|(_, of)| !of.is_empty()));
        assert_eq!(Selected::parse(&written(&selected)), Ok(selected));
    }
}

fn written(selected: &Selected) -> Vec<u8> {
    let mut bytes = (selected.0.len() as u32).to_be_bytes().to_vec();
    for (bank, indices) in &selected.0 {
        let mut bitmap = [0u8; 3];
        for index in indices {
            bitmap[usize::from(index.number() / 8)] |= 1 << (index.number() % 8);
        }
        bytes.extend(bank.id().to_be_bytes());
        bytes.push(3);
        bytes.extend(bitmap);
    }
    bytes
}
