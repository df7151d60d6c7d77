//! Points, public keys and signatures.

use super::messages::JWKS;
use super::{Corpus, sized};
use p256::elliptic_curve::sec1::ToSec1Point;

pub fn write(corpus: &Corpus) {
    let secret = p256::SecretKey::from_slice(&[1; 32]).unwrap();
    let point = secret.public_key().to_sec1_point(false);
    let point = point.as_bytes();
    let put = |name: &str, mode: u8, rest: &[u8]| {
        corpus.put("ecpoint", name, &[&[mode], rest].concat());
    };
    // CKA_EC_POINT as SoftHSM, NSS and others show it.
    put("octet-string", 0, &[&[4, 65], point].concat());
    put("bit-string", 0, &[&[3, 66, 0], point].concat());
    put("octet-string-of-99", 0, &[&[4, 99], point].concat());
    put("bit-string-of-99", 0, &[&[3, 99, 0], point].concat());
    put("bit-string-less-1-bit", 0, &[&[3, 66, 1], point].concat());
    put("point", 0, point);
    put("x-y", 0, &point[1..]);
    let edwards = [0x58; 32];
    put("edwards", 0, &edwards);
    put(
        "edwards-octet-string",
        0,
        &[&[4, 32], &edwards[..]].concat(),
    );
    for (form, name) in ["octets", "bits", "bare", "halves"].into_iter().enumerate() {
        let changed = [&[form as u8, 40, 1][..], &[1; 32]].concat();
        put(&format!("changed-{name}"), 1, &changed);
    }
    // One whose y begins with a zero, found by counting up.
    let has_zero = |n: &u64| {
        let scalar = [&[0; 24][..], &n.to_be_bytes()].concat();
        let key = p256::SecretKey::from_slice(&scalar).unwrap();
        key.public_key().to_sec1_point(false).as_bytes()[33] == 0
    };
    let n = (1..).find(has_zero).unwrap();
    let scalar = [&[0; 24][..], &n.to_be_bytes()].concat();
    put(
        "tpm-short-y",
        2,
        &[&[0][..], &scalar, &[0, 0, 1, 0]].concat(),
    );
    put(
        "tpm-long-x",
        2,
        &[&[0][..], &[1; 32], &[0, 3, 0, 1]].concat(),
    );
    let apart = [vec![1], sized(&point[1..33]), sized(&point[33..])].concat();
    put("tpm", 2, &apart);
    for (n, jwk) in JWKS.iter().enumerate() {
        put(&format!("jwk-{n}"), 3, jwk.as_bytes());
    }
    let known = include_str!("../../fuzz/targets/signatures.json");
    let known: Vec<serde_json::Value> = serde_json::from_str(known).unwrap();
    for (n, one) in known.iter().enumerate() {
        put(
            &format!("jwk-known-{n}"),
            3,
            one["key"].to_string().as_bytes(),
        );
    }
    for (name, bits) in [("2047", 2047u16), ("2048", 2048), ("8192", 8192)] {
        let modulus = [
            sized(&[1, 0, 1]),
            vec![1],
            bits.to_be_bytes().to_vec(),
            vec![0xff],
        ];
        put(&format!("rsa-{name}"), 4, &modulus.concat());
    }
    put("sec1", 5, point);
    put(
        "compressed",
        5,
        secret.public_key().to_sec1_point(true).as_bytes(),
    );
    signatures(corpus);
}

fn signatures(corpus: &Corpus) {
    let put = |name: &str, bytes: &[&[u8]]| corpus.put("signature", name, &bytes.concat());
    for key in 0..3u8 {
        put(&format!("es256-{key}"), &[&[0, key, 4]]);
    }
    put("es256-flipped", &[&[0, 0], &[4, 5, 0, 1]]);
    put("es256-short", &[&[0, 0], &[1, 63]]);
    put("es256-long", &[&[0, 0], &[2], &sized(&[0])]);
    put("es256-led", &[&[0, 0], &[3], &sized(&[0])]);
    put("es256-zeros", &[&[0, 0], &[0], &sized(&[0; 64])]);
    put("tpm-short", &[&[1, 0], &[1, 1]]);
    put("tpm-long", &[&[1, 0], &[2, 3, 2, 7]]);
    put("tpm-cut", &[&[1, 0], &[3, 1, 3, 0]]);
    // TPMT_SIGNATURE: ECDSA and RSASSA with SHA-256.
    let ecdsa = [&[0, 0x18, 0, 0x0b, 0, 32][..], &[7; 32], &[0, 31], &[9; 31]].concat();
    put("tpm-ecdsa", &[&[2], &ecdsa]);
    put("tpm-rsassa", &[&[2], &[0, 0x14, 0, 0x0b, 1, 0], &[7; 256]]);
    put("tpm-rsapss", &[&[2], &[0, 0x16, 0, 0x0b, 1, 0], &[7; 256]]);
    put("assertion", &[&[3, 0], &[0, 4]]);
    put("assertion-flipped", &[&[3, 0], &[1, 4, 150, 0, 1]]);
    put("assertion-padded", &[&[3, 0], &[1, 2], &sized(b"=")]);
    for n in 0..4u8 {
        put(&format!("known-{n}"), &[&[4, n, 4]]);
        put(&format!("known-{n}-led"), &[&[4, n, 3], &sized(&[0])]);
    }
}
