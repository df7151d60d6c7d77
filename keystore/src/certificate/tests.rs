use super::*;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
};
use proptest::prelude::*;
use std::io::Write;
use std::process::{Command, Stdio};

const NOW: u64 = 1_800_000_000;

const YEAR: Validity = Validity {
    not_before: NOW,
    not_after: NOW + 365 * 86_400,
};

fn id(text: &str) -> KeyId {
    text.parse().unwrap()
}

/// What `openssl` says of DER, in words of its own.
fn openssl(arguments: &[&str], der: &[u8]) -> String {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed by `make setup`");
    child.stdin.take().unwrap().write_all(der).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

/// Signs as JWS has it.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key in memory, and what it signs; RSA is tried where keys are made, in tests/conformance.
fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> (PublicKey, Sign) {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let key = PublicKey::from_sec1(pair.public_key().as_ref()).unwrap();
    let sign = move |message: &[u8]| {
        let signature = pair.sign(&SystemRandom::new(), message).unwrap();
        signature.as_ref().to_vec()
    };
    (key, Box::new(sign))
}

fn ed25519() -> (PublicKey, Sign) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let key = PublicKey::from_ed25519(pair.public_key().as_ref()).unwrap();
    let sign = move |message: &[u8]| pair.sign(message).as_ref().to_vec();
    (key, Box::new(sign))
}

#[test]
fn openssl_reads_and_verifies_what_is_made() {
    let dir = tempfile::tempdir().unwrap();
    for (alg, (key, sign)) in [
        (Alg::ES256, ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING)),
        (Alg::ES384, ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING)),
        (Alg::EdDSA, ed25519()),
    ] {
        let unsigned = Unsigned::certificate(&id("payments/bank.3"), &key, alg, YEAR).unwrap();
        let signature = sign(unsigned.as_bytes());
        let der = unsigned.with_signature(&signature);
        let text = openssl(
            &["x509", "-inform", "DER", "-noout", "-text"],
            der.as_bytes(),
        );
        for phrase in [
            "Version: 3 (0x2)",
            "Issuer: CN = payments/bank.3",
            "Subject: CN = payments/bank.3",
            "Not Before: Jan 15 08:00:00 2027 GMT",
            "Not After : Jan 15 08:00:00 2028 GMT",
            "X509v3 Basic Constraints: critical\n                CA:FALSE",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "X509v3 Subject Key Identifier",
        ] {
            assert!(text.contains(phrase), "{phrase}\n{text}");
        }
        let pem = dir.path().join(alg.name());
        let mut file = std::fs::File::create_new(&pem).unwrap();
        file.write_all(der.pem("CERTIFICATE").as_bytes()).unwrap();
        let pem = pem.to_str().unwrap();
        let at = NOW.to_string();
        let verify = ["verify", "-x509_strict", "-check_ss_sig", "-attime", &at];
        let said = openssl(&[&verify[..], &["-CAfile", pem, pem]].concat(), b"");
        assert!(said.contains("OK"), "{said}");

        let unsigned = Unsigned::request(&id("payments/bank.3"), &key, alg);
        let signature = sign(unsigned.as_bytes());
        let der = unsigned.with_signature(&signature);
        let request = ["req", "-inform", "DER", "-noout", "-verify", "-text"];
        let text = openssl(&request, der.as_bytes());
        assert!(text.contains("self-signature verify OK"), "{text}");
        assert!(text.contains("Subject: CN = payments/bank.3"), "{text}");
    }
}

#[test]
fn a_name_that_is_too_long_for_a_certificate_is_the_keys_thumbprint() {
    let (key, _) = ed25519();
    let longest = format!("{}/{}.1", "a".repeat(31), "b".repeat(30));
    assert_eq!(longest.len(), COMMON_NAME_LEN_MAX);
    for (subject, common_name) in [
        (longest.clone(), longest.clone()),
        (longest.replace(".1", ".10"), key.kid().to_string()),
    ] {
        let name = name(&id(&subject), &key);
        let at = name.len() - common_name.len();
        assert_eq!(&name[at..], common_name.as_bytes());
        assert_eq!(usize::from(name[at - 1]), common_name.len());
    }
}

#[test]
fn a_certificate_begins_now_and_lasts_two_years_at_most() {
    let check = |not_before, not_after| {
        Validity {
            not_before,
            not_after,
        }
        .check(Time::from_unix_s(NOW))
        .map_err(|error| error.kind())
    };
    for not_before in [NOW - 300, NOW, NOW + 300] {
        assert_eq!(check(not_before, not_before + LIFE_MAX_S), Ok(()));
        assert_eq!(check(not_before, NOW + 301), Ok(()));
    }
    for (not_before, not_after) in [
        (NOW - 301, NOW + 3600),
        (NOW + 301, NOW + 3600),
        (0, NOW + 3600),
        (u64::MAX, u64::MAX),
        (NOW, NOW),
        (NOW, NOW - 1),
        (NOW, NOW + LIFE_MAX_S + 1),
        (NOW, u64::MAX),
        (NOW - 300, NOW), // over already
    ] {
        let refused = check(not_before, not_after);
        assert_eq!(refused, Err(Kind::Refused), "{not_before} {not_after}");
    }
}

#[test]
fn times_are_written_as_rfc_5280_has_them() {
    for (unix_s, written) in [
        (0, &b"\x17\x0d700101000000Z"[..]),
        (951_782_400, b"\x17\x0d000229000000Z"),
        (NOW, b"\x17\x0d270115080000Z"),
        (2_524_607_999, b"\x17\x0d491231235959Z"),
        (2_524_608_000, b"\x18\x0f20500101000000Z"),
        (4_107_542_399, b"\x18\x0f21000228235959Z"),
        (4_107_542_400, b"\x18\x0f21000301000000Z"),
    ] {
        assert_eq!(time(unix_s), written, "{unix_s}");
    }
}

#[test]
fn a_serial_is_positive_and_always_another() {
    let serials: std::collections::BTreeSet<_> = (0..100).map(|_| serial().unwrap()).collect();
    assert_eq!(serials.len(), 100);
    assert!(serials.iter().all(|it| (0x40..0x80).contains(&it[0])));
}

#[test]
fn a_certificate_is_stored_with_its_time_and_read_again() {
    let certificate = Certificate::new(Der(vec![7; 300]), YEAR);
    let json = serde_json::to_string(&certificate).unwrap();
    let again: Certificate = serde_json::from_str(&json).unwrap();
    assert_eq!(again, certificate);
    assert_eq!(again.thumbprint(), certificate.thumbprint());
    for (len, fits) in [(0, false), (1, true), (LEN_MAX, true), (LEN_MAX + 1, false)] {
        let text = BASE64.encode(vec![7; len]);
        assert_eq!(Der::try_from(text).is_ok(), fits, "{len}");
    }
}

proptest! {
    #[test]
    fn a_day_is_the_day_after_the_one_before(days in 0u64..100_000) {
        let ((y, m, d), next) = (civil(days), civil(days + 1));
        let is_next = [(y, m, d + 1), (y, m + 1, 1), (y + 1, 1, 1)].contains(&next);
        prop_assert!(is_next, "{:?} {:?}", (y, m, d), next);
        let leap = y % 4 == 0 && y % 100 != 0 || y % 400 == 0;
        let last = match m { 2 if leap => 29, 2 => 28, 4 | 6 | 9 | 11 => 30, _ => 31 };
        prop_assert_eq!(d == last, next.2 == 1);
    }
}
