use super::fixtures::{issuer, key, public_key, set};
use super::render::{Bundle, DOCUMENT_LEN_MAX, discovery, jwks, upload};
use super::*;
use crate::publication::documents::directory_of;
use keystore::KeyName;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// RFC 7518 §6 and RFC 9964: what only the owner of a key may know.
const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

fn value(bytes: &[u8]) -> Value {
    assert!(bytes.ends_with(b"\n"));
    serde_json::from_slice(bytes).unwrap()
}

/// The key of one element, by its required members alone.
fn read_back(element: &Value) -> PublicKey {
    let mut members = element.as_object().unwrap().clone();
    for other in ["alg", "kid", "use"] {
        members.remove(other);
    }
    serde_json::from_value(Value::Object(members)).unwrap()
}

fn names(element: &Value) -> BTreeSet<&str> {
    element
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn bundle(set: KeySet) -> Bundle {
    Bundle {
        set,
        sequence_min: 7,
        refresh_hint_s: 300,
    }
}

fn algs() -> impl Strategy<Value = Vec<Alg>> {
    let alg = proptest::sample::select(Alg::ALL.to_vec());
    proptest::collection::vec(alg, 1..=KEYS_MAX)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What verifiers read is what went in: keys, order, names, and nothing that is private.
    #[test]
    fn what_is_rendered_is_read_back(algs in algs(), signs in 0_usize..KEYS_MAX) {
        let mut keys: Vec<Key> = (1_u32..).zip(&algs).map(|(n, alg)| key(n, *alg)).collect();
        let first = keys.remove(signs % keys.len());
        let expected: Vec<Key> = [vec![first.clone()], keys.clone()].concat();
        keys.reverse(); // the order in which they are given is no matter
        let set = KeySet::new(first, keys).unwrap();
        for bytes in [jwks(&set), upload(&set), bundle(set.clone()).render(1)] {
            prop_assert!(bytes.len() <= DOCUMENT_LEN_MAX);
            let document = value(&bytes);
            let read = document["keys"].as_array().unwrap();
            prop_assert_eq!(read.len(), expected.len());
            for (element, key) in read.iter().zip(&expected) {
                prop_assert_eq!(&read_back(element), key.public_key());
                prop_assert_eq!(&element["kid"], key.kid().as_str());
                prop_assert!(PRIVATE.iter().all(|name| element.get(name).is_none()));
            }
        }
        for (element, key) in value(&jwks(&set))["keys"].as_array().unwrap().iter().zip(&expected) {
            prop_assert_eq!(&element["alg"], key.alg().name());
            prop_assert_eq!(&element["use"], "sig");
        }
    }
}

#[test]
fn nine_keys_are_refused_and_eight_are_not() {
    let others = |count| (2..=count).map(|n| key(n, Alg::ES256));
    assert_eq!(
        KeySet::new(key(1, Alg::ES256), others(8))
            .unwrap()
            .keys()
            .len(),
        8
    );
    for count in [9, 200] {
        let refused = KeySet::new(key(1, Alg::ES256), others(count)).unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused);
        assert!(refused.to_string().contains("destroy"), "{refused}");
    }
}

#[test]
fn a_version_or_a_key_is_in_a_set_once() {
    let one = key(1, Alg::ES256);
    let again = Key::new(
        KeyVersion::new(2).unwrap(),
        one.public_key().clone(),
        Alg::ES256,
    )
    .unwrap();
    for other in [key(1, Alg::ES256), again] {
        let refused = KeySet::new(one.clone(), [other]).unwrap_err();
        assert_eq!(refused.kind(), Kind::Mismatch);
    }
}

#[test]
fn a_key_is_published_for_an_algorithm_that_it_can_carry() {
    let version = KeyVersion::FIRST;
    let refused = Key::new(version, public_key(Alg::ES256), Alg::ES384).unwrap_err();
    assert_eq!(refused.kind(), Kind::Mismatch);
    let rsa = public_key(Alg::RS256);
    assert!(Key::new(version, rsa.clone(), Alg::RS256).is_ok());
    assert!(Key::new(version, rsa, Alg::PS256).is_ok());
}

/// Google's jwksJson refuses a set with any other member (standards §1.5, gcp-wif).
#[test]
fn what_is_uploaded_has_the_members_that_are_listed_and_no_other() {
    let listed = BTreeSet::from(["kty", "alg", "use", "kid", "n", "e", "x", "y", "crv"]);
    let set = KeySet::new(key(1, Alg::ES256), [key(2, Alg::RS256)]).unwrap();
    let document = value(&upload(&set));
    assert_eq!(names(&document), BTreeSet::from(["keys"]));
    for element in document["keys"].as_array().unwrap() {
        assert!(names(element).is_subset(&listed), "{element}");
        assert_eq!(element["use"], "sig");
    }
}

#[test]
fn a_bundle_says_what_its_keys_are_for_and_no_algorithm() {
    let set = KeySet::new(key(1, Alg::ES256), [key(2, Alg::RS256)]).unwrap();
    let document = value(&bundle(set).render(u64::MAX));
    assert_eq!(document["spiffe_sequence"], u64::MAX);
    assert_eq!(document["spiffe_refresh_hint"], 300);
    for element in document["keys"].as_array().unwrap() {
        assert_eq!(element["use"], "jwt-svid");
        assert!(element.get("alg").is_none());
        assert!(element.get("kid").is_some());
    }
}

#[test]
fn a_bundles_sequence_grows_with_every_change_and_with_nothing_else() {
    let (one, two) = (bundle(set(&[1])), bundle(set(&[1, 2])));
    let sequence = |bytes: &[u8]| value(bytes)["spiffe_sequence"].as_u64().unwrap();
    let first = one.after(None);
    assert_eq!(sequence(&first), 7);
    assert_eq!(one.after(Some(&first)), first);
    let second = two.after(Some(&first));
    assert_eq!(sequence(&second), 8);
    let third = one.after(Some(&second));
    assert_eq!(sequence(&third), 9, "the same keys once more are news too");
    let later = Bundle {
        sequence_min: 1_000,
        ..one.clone()
    };
    assert_eq!(later.after(Some(&third)), third, "nothing changed");
    assert_eq!(
        sequence(
            &Bundle {
                sequence_min: 1_000,
                ..two
            }
            .after(Some(&third))
        ),
        1_000
    );
    for broken in [&b""[..], b"{", b"[]", b"{\"spiffe_sequence\":-1}"] {
        assert_eq!(sequence(&one.after(Some(broken))), 7);
    }
}

#[test]
fn no_key_is_a_constructor_of_its_own() {
    let none = KeySet::all_revoked();
    assert_eq!(value(&jwks(&none)), json!({ "keys": [] }));
    let document = value(&bundle(none).render(3));
    assert_eq!(
        document["keys"],
        json!([]),
        "MUST be there, and is empty (§4.1.3)"
    );
    assert_eq!(document["spiffe_sequence"], 3);
}

#[test]
fn the_discovery_document_is_that_of_the_url_and_the_keys() {
    let set = KeySet::new(key(1, Alg::ES256), [key(2, Alg::EdDSA)]).unwrap();
    let document = value(&discovery("https://id.example.com/prod", &set));
    assert_eq!(
        document,
        json!({
            "issuer": "https://id.example.com/prod",
            "jwks_uri": "https://id.example.com/prod/jwks.json",
            "authorization_endpoint": "",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "RS256", "EdDSA"],
            "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nbf", "jti"],
        })
    );
    // Letter by letter the `iss` of assertions, also where it ends in a slash.
    let document = value(&discovery("https://id.example.com/", &set));
    assert_eq!(document["issuer"], "https://id.example.com/");
    assert_eq!(document["jwks_uri"], "https://id.example.com/jwks.json");
}

#[test]
fn a_document_is_the_same_bytes_whenever_it_is_rendered() {
    let json = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let public_key: PublicKey = serde_json::from_str(json).unwrap();
    let one = Key::new(KeyVersion::FIRST, public_key, Alg::EdDSA).unwrap();
    let set = KeySet::new(one, []).unwrap();
    let expected = r#"{
  "keys": [
    {
      "crv": "Ed25519",
      "kty": "OKP",
      "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
      "alg": "EdDSA",
      "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
      "use": "sig"
    }
  ]
}
"#;
    assert_eq!(String::from_utf8(jwks(&set)).unwrap(), expected);
}

#[test]
fn an_issuer_and_a_client_have_directories_of_their_own() {
    let of = |name: &str| directory_of(&name.parse::<KeyName>().unwrap()).join("/");
    assert_eq!(of("issuer/prod"), "issuer/prod");
    assert_eq!(of("payments/bank"), "client/payments/bank");
    let mut documents = Documents::default();
    let spiffe = Spiffe {
        sequence_min: 1,
        refresh_hint_s: 300,
    };
    documents.add_issuer(&issuer("a", "https://a.example", None), &set(&[1]), spiffe);
    documents.add_issuer(
        &issuer("b", "https://b.example", Some("b.example")),
        &set(&[1]),
        spiffe,
    );
    let key = |name: &str| name.parse::<KeyName>().unwrap();
    assert!(!documents.has(&key("issuer/a"), documents::BUNDLE));
    assert!(documents.has(&key("issuer/b"), documents::BUNDLE));
}
