//! Public keys, from wherever one comes: CKA_EC_POINT in its five encodings, a JWK, the coordinates
//! in a TPM's public area (which may lack leading zeros), an RSA modulus.
//!
//! Asserted: a P-256 point is accepted exactly when p256 accepts it in one of the encodings, and
//! with the same coordinates; a P-384 point that is accepted solves the curve's equation; a key
//! that is accepted verifies under the algorithms it fits and no other, survives its JWK, and has a
//! thumbprint of its own.

use super::input::Input;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use keystore::{Alg, PublicKey};
use keystore_pkcs11::fuzzed::{Curve, parse};
use keystore_tpm::fuzzed::{marshalled, read_signing_key, signing_key, unmarshalled};
use p256::elliptic_curve::sec1::ToSec1Point;
use serde_json::Value;

/// Longer than any encoding of a point.
const POINT_LEN_MAX: usize = 120;

/// The largest modulus we take, and a byte.
const MODULUS_LEN_MAX: usize = 8192 / 8 + 1;

/// Runs one input.
pub fn check(data: &[u8]) {
    let mut input = Input::of(data);
    match input.choice(6) {
        0 => cka_ec_point(input.rest()),
        1 => a_point_in_its_forms(&mut input),
        2 => tpm_point(&mut input),
        3 => jwk(input.rest()),
        4 => rsa(&mut input),
        _ => sec1(input.rest()),
    }
}

/// The point of a secret number, uncompressed; of any 32 bytes but a few.
pub fn point_of(scalar: &[u8]) -> Option<[u8; 65]> {
    let secret = p256::SecretKey::from_slice(scalar).ok()?;
    let point = secret.public_key().to_sec1_point(false);
    point.as_bytes().try_into().ok()
}

/// What p256 makes of an uncompressed point.
fn p256_of(point: &[u8]) -> Option<PublicKey> {
    let uncompressed = point.len() == 65 && point[0] == 4;
    let key = p256::PublicKey::from_sec1_bytes(point)
        .ok()
        .filter(|_| uncompressed)?;
    let point = key.to_sec1_point(false);
    let half = |bytes: &[u8]| -> [u8; 32] { bytes.try_into().expect("32 bytes each") };
    let bytes = point.as_bytes();
    Some(PublicKey::P256 {
        x: half(&bytes[1..33]),
        y: half(&bytes[33..]),
    })
}

/// The five encodings of CKA_EC_POINT for P-256, each known by its length and how it begins.
fn naive_p256(bytes: &[u8]) -> Option<PublicKey> {
    match (bytes.len(), bytes) {
        (67, [0x04, 65, point @ ..]) => p256_of(point),
        (68, [0x03, 66, 0x00, point @ ..]) => p256_of(point),
        (65, point) => p256_of(point),
        (64, x_y) => p256_of(&[&[0x04], x_y].concat()),
        _ => None,
    }
}

fn cka_ec_point(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(POINT_LEN_MAX)];
    assert_eq!(parse(Curve::P256, bytes).ok(), naive_p256(bytes));
    for curve in [Curve::P256, Curve::P384, Curve::Ed25519] {
        match parse(curve, bytes) {
            Ok(key) => {
                let expected = match curve {
                    Curve::P256 => Alg::ES256,
                    Curve::P384 => Alg::ES384,
                    Curve::Ed25519 => Alg::EdDSA,
                };
                assert!(key.fits(expected), "{curve:?}");
                is_a_key(&key);
            }
            Err(error) => assert!(error.to_string().len() < 500, "{error}"),
        }
    }
}

/// A point that is one, as each module would show it, and with a byte changed.
fn a_point_in_its_forms(input: &mut Input<'_>) {
    let form = input.choice(4);
    let (at, change) = (usize::from(input.byte()), input.byte());
    let Some(point) = point_of(input.take(32)) else {
        return;
    };
    let mut bytes = match form {
        0 => [&[0x04, 65][..], &point].concat(),
        1 => [&[0x03, 66, 0x00][..], &point].concat(),
        2 => point.to_vec(),
        _ => point[1..].to_vec(),
    };
    assert_eq!(parse(Curve::P256, &bytes).ok(), p256_of(&point));
    let at = at % bytes.len();
    bytes[at] ^= change;
    cka_ec_point(&bytes);
}

/// TPMT_PUBLIC with these coordinates. A TPM may leave out leading zeros, and we take too many.
fn tpm_point(input: &mut Input<'_>) {
    let point = match input.choice(2) {
        0 => point_of(input.take(32)),
        _ => None,
    };
    let coordinate = |input: &mut Input<'_>, own: Option<&[u8]>| match own {
        Some(own) => {
            let zeros = own.iter().take_while(|byte| **byte == 0).count();
            let skip = usize::from(input.byte()).min(zeros);
            [&vec![0; usize::from(input.choice(4))], &own[skip..]].concat()
        }
        None => input.bytes(POINT_LEN_MAX).to_vec(),
    };
    let x = coordinate(input, point.as_ref().map(|point| &point[1..33]));
    let y = coordinate(input, point.as_ref().map(|point| &point[33..]));

    let template = signing_key(Alg::ES256).expect("a TPM has ES256");
    let bytes = marshalled(&template).expect("our template can be written");
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let without = bytes
        .strip_suffix(&[0; 4])
        .expect("it ends with two empty coordinates");
    let Ok(public) = unmarshalled(&[without, &sized(&x), &sized(&y)].concat()) else {
        return;
    };
    let full = |number: &[u8]| -> Option<Vec<u8>> {
        let mut digits: Vec<u8> = number
            .iter()
            .copied()
            .skip_while(|byte| *byte == 0)
            .collect();
        (digits.len() <= 32).then(|| {
            digits.splice(0..0, vec![0; 32 - digits.len()]);
            digits
        })
    };
    let expected = full(&x).zip(full(&y));
    let expected = expected.and_then(|(x, y)| p256_of(&[&[4], &x[..], &y[..]].concat()));
    if let Some(point) = &point {
        assert_eq!(
            expected,
            p256_of(point),
            "zeros before a number change nothing"
        );
    }
    match read_signing_key(&public) {
        Ok((alg, key)) => {
            assert_eq!((alg, Some(&key)), (Alg::ES256, expected.as_ref()));
            is_a_key(&key);
        }
        Err(error) => assert_eq!(expected, None, "{error}"),
    }
}

fn jwk(text: &[u8]) {
    let Ok(key) = serde_json::from_slice::<PublicKey>(text) else {
        return;
    };
    is_a_key(&key);
    let members: Value = serde_json::from_slice(text).expect("it was JSON a moment ago");
    let shown = serde_json::to_value(&key).expect("a struct of strings");
    for (name, value) in shown.as_object().expect("a JWK is an object") {
        let is_number = matches!(name.as_str(), "n" | "e"); // may have begun with zeros
        assert!(is_number || members.get(name) == Some(value), "{name}");
    }
}

fn rsa(input: &mut Input<'_>) {
    let e = input.bytes(10);
    let n = match input.choice(2) {
        0 => input.bytes(MODULUS_LEN_MAX).to_vec(),
        _ => {
            let (bits, fill) = (
                input.number(2) as usize % (8 * MODULUS_LEN_MAX),
                input.byte(),
            );
            let mut n = vec![fill; bits.div_ceil(8)];
            if let Some(first) = n.first_mut() {
                *first = 0xff >> (7 - (bits + 7) % 8);
            }
            n
        }
    };
    let digits = |bytes: &[u8]| -> Vec<u8> {
        bytes
            .iter()
            .copied()
            .skip_while(|byte| *byte == 0)
            .collect()
    };
    let (n_digits, e_digits) = (digits(&n), digits(e));
    let bits = n_digits
        .first()
        .map_or(0, |first| first.ilog2() as usize + 1)
        + 8 * n_digits.len().saturating_sub(1);
    let exponent = e_digits
        .iter()
        .fold(0u128, |e, byte| e << 8 | u128::from(*byte));
    let is_key = (2048..=8192).contains(&bits)
        && exponent >= 3
        && exponent % 2 == 1
        && exponent <= u128::from(u64::MAX);
    let key = PublicKey::from_rsa(&n, e);
    assert_eq!(key.is_ok(), is_key, "{bits} bits, exponent {exponent}");
    if let Ok(key) = key {
        assert_eq!(
            key,
            PublicKey::Rsa {
                n: n_digits,
                e: e_digits
            }
        );
        is_a_key(&key);
    }
}

fn sec1(point: &[u8]) {
    match PublicKey::from_sec1(point) {
        Ok(key) => is_a_key(&key),
        Err(error) => assert_eq!(p256_of(point), None, "{error}"),
    }
}

/// What holds for every key that was accepted, wherever it came from.
fn is_a_key(key: &PublicKey) {
    let (bytes, algs): (Vec<u8>, &[Alg]) = match key {
        PublicKey::P256 { x, y } => {
            let point = [&[4], &x[..], &y[..]].concat();
            assert_eq!(p256_of(&point).as_ref(), Some(key));
            (point, &[Alg::ES256])
        }
        PublicKey::P384 { x, y } => {
            assert!(p384::is_on_curve(x, y));
            ([&[4], &x[..], &y[..]].concat(), &[Alg::ES384])
        }
        PublicKey::Rsa { n, .. } => (n.clone(), &[Alg::RS256, Alg::PS256]),
        PublicKey::Ed25519 { x } => (x.to_vec(), &[Alg::EdDSA]),
    };
    for alg in Alg::ALL {
        assert_eq!(key.fits(alg), algs.contains(&alg));
        assert_eq!(key.verifier(alg).is_ok(), algs.contains(&alg), "{alg}");
        if let Ok(verifier) = key.verifier(alg) {
            assert!(verifier.verify(b"message", &bytes).is_err());
        }
    }
    let text = serde_json::to_string(key).expect("a struct of strings");
    let again: PublicKey = serde_json::from_str(&text).expect("our own JWK");
    assert_eq!(again, *key);
    assert_eq!(again.kid(), key.kid());
    let kid = BASE64URL
        .decode(key.kid().as_str())
        .expect("a thumbprint is base64url");
    assert_eq!(kid.len(), 32);
    let published = serde_json::to_value(key.published(algs[0])).expect("as above");
    assert_eq!(published["kid"], key.kid().as_str());
    assert_eq!(published["alg"], algs[0].name());
}

/// The equation of P-384, y² = x³ − 3x + b (SP 800-186 §3.2.1.4), counted out.
mod p384 {
    use p256::elliptic_curve::bigint::{NonZero, U384};

    const P: &str = "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe\
                     ffffffff0000000000000000ffffffff";
    const B: &str = "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875a\
                     c656398d8a2ed19d2a85c8edd3ec2aef";

    pub fn is_on_curve(x: &[u8; 48], y: &[u8; 48]) -> bool {
        let p = NonZero::new(U384::from_be_hex(P)).expect("P is not 0");
        let (x, y) = (U384::from_be_slice(x), U384::from_be_slice(y));
        let times = |a: &U384, b: &U384| a.mul_mod(b, &p);
        let cube = times(&times(&x, &x), &x);
        let right = cube
            .sub_mod(&times(&U384::from_u8(3), &x), &p)
            .add_mod(&U384::from_be_hex(B), &p);
        x < *p && y < *p && times(&y, &y) == right
    }
}
