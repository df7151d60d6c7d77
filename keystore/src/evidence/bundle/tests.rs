use super::*;
use serde_json::{Value, json};

const JWK: &str = r#"{"crv":"P-256","kty":"EC","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

fn key(id: &str) -> Value {
    let jwk: PublicKey = serde_json::from_str(JWK).unwrap();
    json!({
        "key": id, "kid": jwk.kid(), "purpose": "client_authentication", "alg": "ES256", "jwk": jwk,
        "public": "AQ", "attest": "Ag", "signature": "Aw", "imported": false,
        "policy": [
            { "command": "pcr", "selection": { "sha256": [0, 7] }, "digest": "BA" },
            { "command": "authorize", "authority": "BQ", "reference": "" },
            { "command": "auth_value" },
        ],
    })
}

fn whole() -> Value {
    let jwk: PublicKey = serde_json::from_str(JWK).unwrap();
    json!({
        "type": "assertd-evidence", "version": 1, "made_at": 1_800_000_000, "host": "web-1",
        "nonce": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc",
        "keystores": [
            {
                "kind": "tpm", "name": "tpm",
                "tpm": {
                    "manufacturer": "IBM", "vendor": "SW   TPM", "firmware": "2019102300163636",
                    "family_revision": "1.59",
                    "ek": { "public": "AQ", "certificate": "Ag", "chain": ["Aw"] },
                    "ak": { "public": "AQ", "qualified_name": "Ag", "parent": "Aw" },
                },
                "keys": [key("ours/bank.1")],
                "quote": {
                    "attest": "AQ", "signature": "Ag",
                    "pcrs": { "sha256": { "0": "00".repeat(32), "23": "ff".repeat(32) } },
                },
            },
            {
                "kind": "pkcs11", "name": "hsm",
                "module": {
                    "library": "SoftHSM, 2.6", "manufacturer": "SoftHSM project", "model": "SoftHSM v2",
                    "serial": "1", "firmware": "2.6",
                },
                "keys": [{
                    "key": "ours/other.1", "kid": jwk.kid(), "purpose": "federation", "alg": "ES256",
                    "jwk": jwk, "attributes": { "local": true, "extractable": false }, "imported": false,
                }],
            },
        ],
        "event_log": "AQ", "ima": "AQ",
    })
}

fn parse(value: &Value) -> Result<Bundle, String> {
    Bundle::parse(value.to_string().as_bytes())
}

#[test]
fn a_bundle_comes_back_as_it_was_written() {
    let bundle = parse(&whole()).unwrap();
    assert_eq!(Bundle::parse(bundle.to_json().as_bytes()).unwrap(), bundle);
    let KeystoreEvidence::Tpm(tpm) = &bundle.keystores[0] else {
        panic!("the first is a TPM");
    };
    let pcrs = &tpm.quote.as_ref().unwrap().pcrs[&Bank::Sha256];
    let indices: Vec<u8> = pcrs.keys().map(|index| index.number()).collect();
    assert_eq!(indices, [0, 23]);
}

#[test]
fn what_is_not_known_is_refused_wherever_it_stands() {
    for at in [
        "",
        "/keystores/0",
        "/keystores/0/tpm",
        "/keystores/0/tpm/ek",
        "/keystores/0/tpm/ak",
        "/keystores/0/keys/0",
        "/keystores/0/keys/0/policy/0",
        "/keystores/0/keys/0/policy/2",
        "/keystores/0/quote",
        "/keystores/1",
        "/keystores/1/module",
        "/keystores/1/keys/0",
        "/keystores/1/keys/0/attributes",
    ] {
        let mut bundle = whole();
        bundle.pointer_mut(at).unwrap()["extra"] = json!(true);
        assert!(parse(&bundle).is_err(), "{at}");
    }
}

#[test]
fn what_is_not_known_is_quoted_on_one_short_line() {
    let mut bundle = whole();
    bundle["type"] = json!(format!("\nweb-1: passed: 41 checks{}", "!".repeat(1 << 20)));
    let wrong = parse(&bundle).unwrap_err();
    assert!(wrong.contains("`\\nweb-1: passed"), "{wrong}");
    assert!(wrong.contains("expected `assertd-evidence`"), "{wrong}");
    assert!(wrong.len() < 1000, "{wrong}");
}

#[test]
fn a_value_has_its_limit_and_its_form() {
    for (at, value) in [
        ("/type", json!("evidence")),
        ("/version", json!(2)),
        ("/host", json!("")),
        ("/host", json!("a\nb")),
        ("/host", json!("a".repeat(254))),
        ("/nonce", json!("BwcH")),
        ("/nonce", json!("07".repeat(32))),
        ("/keystores/0/kind", json!("hsm")),
        ("/keystores/0/tpm/firmware", json!("1")),
        ("/keystores/0/tpm/firmware", json!("201910230016363G")),
        ("/keystores/0/tpm/vendor", json!("a".repeat(257))),
        ("/keystores/0/tpm/ek/chain", json!(vec!["AQ"; 9])),
        ("/keystores/0/keys/0/public", json!("AQ==")),
        ("/keystores/0/keys/0/public", json!("AR")),
        (
            "/keystores/0/keys/0/public",
            json!("A".repeat(1024 * 4 / 3 + 4)),
        ),
        (
            "/keystores/0/keys/0/jwk/y",
            json!("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a1"),
        ),
        ("/keystores/0/keys/0/purpose", json!("audit")),
        (
            "/keystores/0/keys/0/policy",
            json!(vec![json!({"command": "auth_value"}); 9]),
        ),
        (
            "/keystores/0/keys/0/policy/0/selection",
            json!({ "sha256": [24] }),
        ),
        (
            "/keystores/0/keys/0/policy/0/selection",
            json!({ "md5": [1] }),
        ),
        (
            "/keystores/0/quote/pcrs/sha256",
            json!({ "00": "00".repeat(32) }),
        ),
        (
            "/keystores/0/quote/pcrs/sha256",
            json!({ "24": "00".repeat(32) }),
        ),
        (
            "/keystores/0/quote/pcrs/sha256",
            json!({ "0": "00".repeat(31) }),
        ),
        ("/keystores/1/keys/0/key", json!("ours/bank.1")),
        ("/keystores/1/name", json!("tpm")),
        ("/keystores/0/name", json!("")),
        ("/keystores/0/name", json!("tpm\n")),
        ("/keystores/1/name", json!("ours/bank.1")),
    ] {
        let mut bundle = whole();
        *bundle.pointer_mut(at).unwrap() = value.clone();
        assert!(parse(&bundle).is_err(), "{at} {value}");
    }
    assert!(Bundle::parse(&vec![b' '; BUNDLE_LEN_MAX + 1]).is_err());
}

#[test]
fn bytes_end_at_their_limit() {
    let read = |len: usize| {
        let json = serde_json::to_string(&Bytes::<5000>::new(vec![1; len]).unwrap()).unwrap();
        serde_json::from_str::<Bytes<100>>(&json)
    };
    assert_eq!(read(100).unwrap().as_slice(), [1; 100]);
    for len in [101, 102, 103, 5000] {
        assert!(read(len).is_err(), "{len}");
    }
}

#[test]
fn a_nonce_is_given_in_either_form() {
    let nonce = Nonce([7; 32]);
    assert_eq!(nonce.to_base64url().parse(), Ok(nonce));
    assert_eq!("07".repeat(32).parse(), Ok(nonce));
    for text in [
        "",
        "07",
        &"07".repeat(31),
        &"0G".repeat(32),
        "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwd",
    ] {
        assert!(text.parse::<Nonce>().is_err(), "{text}");
    }
}
