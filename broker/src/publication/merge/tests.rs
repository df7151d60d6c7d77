use super::*;
use crate::publication::fixtures::{public_key, set};
use crate::publication::render::jwks;
use keystore::Alg;
use proptest::prelude::*;
use serde_json::json;

fn of(document: &Value) -> Result<Set, String> {
    Set::read("x.json", document.to_string().as_bytes())
}

fn element(alg: Alg) -> Value {
    serde_json::to_value(public_key(alg).published(alg)).unwrap()
}

fn kids(merged: &Merged) -> Vec<&str> {
    merged.keys.iter().map(|key| key.kid.as_str()).collect()
}

#[test]
fn what_signs_comes_first_and_what_all_have_is_there_once() {
    let (a, b) = (set(&[1, 2, 3]), set(&[1, 2]));
    let (first, second) = (jwks(&a), jwks(&b));
    let read = |name: &str, bytes: &[u8]| Set::read(name, bytes).unwrap();
    let sets = [
        read("a", &first),
        read("a again", &first),
        read("b", &second),
    ];
    let merged = merge(&sets).unwrap();
    let kid = |set: &crate::publication::KeySet, at: usize| set.keys()[at].kid().to_string();
    assert_eq!(
        kids(&merged),
        [kid(&a, 0), kid(&b, 0), kid(&a, 1), kid(&a, 2), kid(&b, 1)]
    );
    // What comes out can be merged again, and is the same bytes.
    let again = merge(&[read("merged", &merged.render())]).unwrap();
    assert_eq!(again.render(), merged.render());
}

#[test]
fn a_kid_that_stands_for_two_keys_is_refused_by_name() {
    let (one, mut two) = (element(Alg::ES256), element(Alg::ES256));
    two["kid"] = one["kid"].clone();
    let read = |name: &str, key: &Value| {
        Set::read(name, json!({ "keys": [key] }).to_string().as_bytes()).unwrap()
    };
    let why = merge(&[read("host-a.json", &one), read("host-b.json", &two)]).unwrap_err();
    for part in [
        "host-a.json",
        "host-b.json",
        "two keys",
        one["kid"].as_str().unwrap(),
    ] {
        assert!(why.contains(part), "{why}");
    }
    let mut other = one.clone();
    other["alg"] = json!("ES384");
    let why = merge(&[read("a", &one), read("b", &other)]).unwrap_err();
    assert!(why.contains("in two ways"), "{why}");
}

#[test]
fn whatever_is_private_or_unknown_is_refused() {
    for name in PRIVATE {
        let mut key = element(Alg::RS256);
        key[name] = json!("AA");
        let why = of(&json!({ "keys": [key] })).unwrap_err();
        assert!(why.contains(&format!("private member `{name}`")), "{why}");
    }
    let mut key = element(Alg::ES256);
    key["secret"] = json!("AA");
    assert!(
        of(&json!({ "keys": [key] }))
            .unwrap_err()
            .contains("`secret`")
    );
}

#[test]
fn what_is_no_set_of_signing_keys_is_refused_and_says_why() {
    let good = element(Alg::ES256);
    let but = |name: &str, value: Value| {
        let mut key = good.clone();
        match value.is_null() {
            true => drop(key.as_object_mut().unwrap().remove(name)),
            false => key[name] = value,
        }
        json!({ "keys": [key] })
    };
    assert!(of(&json!({ "keys": [good] })).is_ok());
    for (document, part) in [
        (json!([]), "no JWK set"),
        (json!({}), "no JWK set"),
        (json!({ "keys": [] }), "holds no key"),
        (json!({ "keys": [1] }), "no JWK set"),
        (
            json!({ "keys": [good], "spiffe_sequence": 1 }),
            "SPIFFE bundle",
        ),
        (json!({ "keys": [good], "more": 1 }), "`more`"),
        (but("kid", Value::Null), "no `kid`"),
        (but("kid", json!(7)), "`kid`"),
        (but("kid", json!("k".repeat(KID_LEN_MAX + 1))), "`kid`"),
        (but("use", json!("enc")), "enc"),
        (but("use", json!("jwt-svid")), "jwt-svid"),
        (but("x", json!("AA")), "full length"),
        (but("kty", json!("oct")), "unknown key type"),
        (but("y", Value::Null), "full length"),
    ] {
        let why = of(&document).unwrap_err();
        assert!(why.contains(part), "{document}: {why}");
    }
    assert!(
        Set::read("x", b"{\"keys\": [")
            .unwrap_err()
            .contains("no JWK set")
    );
}

#[test]
fn a_hundred_keys_are_the_most() {
    let one = |_| of(&json!({ "keys": [element(Alg::ES256)] })).unwrap();
    let mut sets: Vec<Set> = (0..MERGED_MAX).map(one).collect();
    assert_eq!(merge(&sets).unwrap().len(), MERGED_MAX);
    sets.push(one(0));
    assert!(merge(&sets).unwrap_err().contains("101 keys"));
}

#[test]
fn certificates_beside_a_key_are_kept() {
    let mut key = element(Alg::RS256);
    key["x5t#S256"] = json!("AA");
    let set = of(&json!({ "keys": [key] })).unwrap();
    let rendered: Value = serde_json::from_slice(&merge(&[set]).unwrap().render()).unwrap();
    assert_eq!(rendered["keys"], json!([key]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is in a file: a sentence or a set, and never a private member in what comes out.
    #[test]
    fn a_file_of_anything_is_judged(
        at in any::<proptest::sample::Index>(),
        with in proptest::collection::vec(any::<u8>(), 0..8),
        name in proptest::sample::select([&PRIVATE[..], &OF_KEY, &BESIDE].concat()),
        value in "[A-Za-z0-9_-]{0,90}",
    ) {
        let mut document = json!({ "keys": [element(Alg::ES256), element(Alg::RS256)] });
        let mut bytes = document.to_string().into_bytes();
        let from = at.index(bytes.len());
        let to = (from + with.len()).min(bytes.len());
        bytes.splice(from..to, with);
        document["keys"][1][name] = json!(value);
        for bytes in [bytes, document.to_string().into_bytes()] {
            let Ok(set) = Set::read("x", &bytes) else { continue };
            let Ok(merged) = merge(&[set]) else { continue };
            let merged: Value = serde_json::from_slice(&merged.render()).unwrap();
            for key in merged["keys"].as_array().unwrap() {
                prop_assert!(PRIVATE.iter().all(|name| key.get(name).is_none()), "{}", key);
            }
        }
    }
}
