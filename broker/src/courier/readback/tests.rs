//! What documents are taken for. The keys are real ones; everything else about them is varied.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const RSA_E: &str = "AQAB";

fn p256() -> PublicKey {
    // RFC 7515 §A.3.1
    serde_json::from_value(json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }))
    .unwrap()
}

fn other() -> PublicKey {
    // RFC 7517 §A.1
    serde_json::from_value(json!({
        "kty": "EC", "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    }))
    .unwrap()
}

fn rsa() -> PublicKey {
    let mut n = vec![0xa5; 256];
    n[255] = 1;
    PublicKey::from_rsa(&n, &[1, 0, 1]).unwrap()
}

fn jwk(key: &PublicKey, alg: Alg) -> Value {
    serde_json::to_value(key.published(alg)).unwrap()
}

/// The first signs, the second is to.
fn expected() -> Expected {
    let keys = [(p256(), Alg::ES256), (rsa(), Alg::RS256)];
    Expected::new(keys, Some(p256().kid()))
}

fn set(keys: &[Value]) -> Value {
    json!({ "keys": keys })
}

fn judged(document: &Value) -> ReadBack {
    judge(&serde_json::to_vec(document).unwrap(), &expected())
}

fn unreadable(document: &[u8]) -> Unreadable {
    match judge(document, &expected()) {
        ReadBack::Unreadable(why) => why,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(document)),
    }
}

/// The key that is to sign, with one member changed, beside the one that does.
fn changed(member: &str, value: Value) -> ReadBack {
    let mut ours = jwk(&rsa(), Alg::RS256);
    ours[member] = value;
    judged(&set(&[jwk(&p256(), Alg::ES256), ours]))
}

#[test]
fn keys_are_seen_one_by_one_wherever_they_stand() {
    let (active, next) = (jwk(&p256(), Alg::ES256), jwk(&rsa(), Alg::RS256));
    let foreign = jwk(&other(), Alg::ES256);
    for (keys, next_is) in [
        (vec![active.clone()], Sight::NotYet),
        (vec![active.clone(), next.clone()], Sight::Seen),
        (vec![next.clone(), active.clone()], Sight::Seen),
        (
            vec![foreign.clone(), next.clone(), foreign, active.clone()],
            Sight::Seen,
        ),
    ] {
        let read = judged(&set(&keys));
        assert_eq!(read.sight(&p256().kid()), Sight::Seen, "{read}");
        assert_eq!(read.sight(&rsa().kid()), next_is, "{read}");
        assert_eq!(
            read.sight(&other().kid()),
            Sight::NotYet,
            "nobody expects it"
        );
        assert!(!read.is_alarming());
    }
    let old = judged(&set(&[active])).to_string();
    assert!(old.contains(rsa().kid().as_str()), "{old}");
    let vanished = judged(&set(&[next]));
    assert_eq!(vanished.sight(&p256().kid()), Sight::NotYet, "{vanished}");
}

#[test]
fn what_is_beside_the_keys_is_nobodys_concern() {
    let mut ours = jwk(&rsa(), Alg::RS256);
    ours["x5c"] = json!(["MIIB", "MIIC"]);
    ours["x5t#S256"] = json!("a");
    ours["note"] = json!({ "a": [1, -2, 3.5, null, true, { "b": "\u{1f511}" }] });
    let foreign = [
        json!({}),
        json!({ "kty": "AKP", "alg": "ML-DSA-65", "pub": "AA" }),
        json!({ "kid": 5, "kty": null, "x": [1, [2]], "y": { "a": {} }, "e": 1.5, "n": -1 }),
        json!({ "kid": "somebody's", "kty": "EC", "crv": "P-521" }),
    ];
    let keys = [&foreign[..], &[ours, jwk(&p256(), Alg::ES256)]].concat();
    let document = json!({
        "spiffe_sequence": 7, "spiffe_refresh_hint": 300, "keys": keys, "more": [{}],
    });
    assert_eq!(judged(&document).sight(&rsa().kid()), Sight::Seen);
}

#[test]
fn a_set_that_has_none_of_ours_is_anothers_unless_there_is_nothing_of_ours_to_be_seen_yet() {
    let foreign = set(&[jwk(&other(), Alg::ES256), json!({})]);
    assert_eq!(judged(&foreign), ReadBack::AnothersSet { keys: 2 });
    assert_eq!(judged(&set(&[])), ReadBack::AnothersSet { keys: 0 });
    let first = Expected::new([(rsa(), Alg::RS256)], None);
    for document in [set(&[]), foreign] {
        let read = judge(&serde_json::to_vec(&document).unwrap(), &first);
        assert!(matches!(read, ReadBack::Set(_)), "{read}");
        assert_eq!(read.sight(&rsa().kid()), Sight::NotYet);
    }
}

#[test]
fn our_id_over_another_key_is_an_alert() {
    let other_n = {
        let mut n = vec![0xa5; 256];
        n[255] = 3;
        serde_json::to_value(PublicKey::from_rsa(&n, &[1, 0, 1]).unwrap()).unwrap()["n"].clone()
    };
    let padded = format!("{}==", jwk(&rsa(), Alg::RS256)["n"].as_str().unwrap());
    for (member, value) in [
        ("n", other_n),
        ("n", json!(padded)),
        ("n", json!("")),
        ("n", json!(7)),
        ("e", json!("Aw")),
        ("e", json!(null)),
        ("kty", json!("EC")),
        ("crv", json!("P-256")),
        ("x", json!([])),
        ("alg", json!("PS256")),
        ("alg", json!("none")),
        ("alg", json!({})),
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
    ] {
        let read = changed(member, value.clone());
        let kid = rsa().kid();
        assert_eq!(
            read,
            ReadBack::WrongKey {
                kid,
                member: constant(member)
            },
            "{value}"
        );
        assert!(read.is_alarming());
        assert_eq!(
            read.sight(&p256().kid()),
            Sight::NotYet,
            "nothing is proven by it"
        );
    }
    assert_eq!(
        changed("use", json!("jwt-svid")).sight(&rsa().kid()),
        Sight::Seen
    );
    let right = jwk(&rsa(), Alg::RS256);
    let mut wrong = right.clone();
    wrong["e"] = json!("Aw");
    for both in [[right.clone(), wrong.clone()], [wrong, right]] {
        assert!(matches!(judged(&set(&both)), ReadBack::WrongKey { .. }));
    }
}

/// The same text, for ever.
fn constant(member: &str) -> &'static str {
    let all = [&IDENTITY[..], &["alg", "use", "key_ops"]].concat();
    all.into_iter().find(|it| *it == member).unwrap()
}

#[test]
fn members_that_say_what_a_key_is_for_may_be_missing_and_those_that_make_it_up_may_not() {
    for (member, seen) in [("alg", true), ("use", true), ("n", false), ("kty", false)] {
        let mut ours = jwk(&rsa(), Alg::RS256);
        ours.as_object_mut().unwrap().remove(member);
        let read = judged(&set(&[ours]));
        assert_eq!(
            read.sight(&rsa().kid()) == Sight::Seen,
            seen,
            "{member}: {read}"
        );
    }
    let mut nameless = jwk(&rsa(), Alg::RS256);
    nameless.as_object_mut().unwrap().remove("kid");
    let read = judged(&set(&[nameless, jwk(&p256(), Alg::ES256)]));
    assert_eq!(
        read.sight(&rsa().kid()),
        Sight::NotYet,
        "verifiers look for the id"
    );
}

#[test]
fn a_private_key_on_show_is_an_alert_whosever_it_is() {
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
        for key in [jwk(&rsa(), Alg::RS256), json!({ "kty": "oct" })] {
            let mut key = key;
            key[member] = json!("AA");
            let read = judged(&set(&[jwk(&p256(), Alg::ES256), key]));
            assert_eq!(read, ReadBack::Unreadable(Unreadable::Private { member }));
            assert!(read.is_alarming());
        }
    }
}

#[test]
fn what_verifiers_would_read_in_several_ways_is_not_read() {
    let ours = jwk(&rsa(), Alg::RS256);
    assert_eq!(
        judged(&set(&[ours.clone(), ours])),
        ReadBack::Unreadable(Unreadable::KidTwice(rsa().kid()))
    );
    for twice in [
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[{"kid":"a","kid":"a"}]}"#,
        r#"{"keys":[{"kid":"a","k\u0069d":"b"}]}"#,
        r#"{"keys":[{"note":1,"note":1}]}"#,
        r#"{"a":1,"a":2,"keys":[]}"#,
    ] {
        assert_eq!(
            unreadable(twice.as_bytes()),
            Unreadable::NameTwice,
            "{twice}"
        );
    }
}

#[test]
fn what_is_no_set_of_keys_is_unreadable() {
    for text in [
        "{}",
        "[]",
        "null",
        "7",
        r#""keys""#,
        r#"{"keys":{}}"#,
        r#"{"keys":null}"#,
        r#"{"keys":[[]]}"#,
        r#"{"keys":["a"]}"#,
        r#"{"Keys":[]}"#,
        r#"{"error":"not found"}"#,
    ] {
        assert_eq!(unreadable(text.as_bytes()), Unreadable::NoSet, "{text}");
    }
    let not_json: [&[u8]; 10] = [
        b"",
        b"<!DOCTYPE html><html>503</html>",
        b"{\"keys\":[]",
        b"{\"keys\":[]}{}",
        b"{\"keys\":[]} x",
        b"{\"keys\":[],}",
        b"\xef\xbb\xbf{\"keys\":[]}",
        b"{\"keys\":[],\"a\":\"\xff\"}",
        b"{'keys':[]}",
        b"\0",
    ];
    for text in not_json {
        let why = unreadable(text);
        assert!(matches!(why, Unreadable::NotJson { .. }), "{why}");
    }
    let at = unreadable(b"{\n \"a\": \"\xff\"}");
    assert_eq!(at, Unreadable::NotJson { line: 2, column: 8 });
}

#[test]
fn depth_and_length_have_an_end() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"keys":[],"a":{open}{close}}}"#)
    };
    let fits = judge(nested(15).as_bytes(), &expected());
    assert_eq!(fits, ReadBack::AnothersSet { keys: 0 });
    assert_eq!(unreadable(nested(16).as_bytes()), Unreadable::TooDeep);
    assert_eq!(unreadable(nested(100_000).as_bytes()), Unreadable::TooDeep);
    assert_eq!(unreadable(&[b'['; BODY_LEN_MAX]), Unreadable::TooDeep);
    let brackets = r#"{"keys":[],"a":"\"[[[[[[[[[[[[[[[[[[[[[[[["}"#;
    let fits = judge(brackets.as_bytes(), &expected());
    assert_eq!(
        fits,
        ReadBack::AnothersSet { keys: 0 },
        "a text is no depth"
    );
    let mut filled = serde_json::to_vec(&set(&[])).unwrap();
    filled.resize(BODY_LEN_MAX, b' ');
    assert_eq!(
        judge(&filled, &expected()),
        ReadBack::AnothersSet { keys: 0 }
    );
    filled.push(b' ');
    assert_eq!(unreadable(&filled), Unreadable::TooLong);
}

#[test]
fn a_hundred_thousand_keys_are_read_or_refused_at_once() {
    let started = std::time::Instant::now();
    let ours = jwk(&p256(), Alg::ES256).to_string();
    for (key, count, is) in [
        ("{}", 80_000, None),
        ("{}", 100_000, Some(Unreadable::TooLong)),
        (r#"{"kid":""}"#, 20_000, None),
        (
            ours.as_str(),
            1_000,
            Some(Unreadable::KidTwice(p256().kid())),
        ),
    ] {
        let text = format!(r#"{{"keys":[{}]}}"#, vec![key; count].join(","));
        match (judge(text.as_bytes(), &expected()), is) {
            (ReadBack::AnothersSet { keys }, None) => assert_eq!(keys, count),
            (ReadBack::Unreadable(why), Some(is)) => assert_eq!(why, is),
            (other, _) => panic!("{count} of {key}: {other}"),
        }
    }
    let names: Vec<String> = (0..25_000).map(|i| format!("\"{i}\":0")).collect();
    let text = format!(r#"{{"keys":[{{{}}}]}}"#, names.join(","));
    assert_eq!(
        judge(text.as_bytes(), &expected()),
        ReadBack::AnothersSet { keys: 1 }
    );
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

/// Every sentence stands after "what is published at URL".
#[test]
fn every_verdict_says_what_is_there() {
    let kid = || rsa().kid();
    let all = [
        judged(&set(&[jwk(&p256(), Alg::ES256), jwk(&rsa(), Alg::RS256)])),
        judged(&set(&[jwk(&p256(), Alg::ES256)])),
        ReadBack::AnothersSet { keys: 0 },
        ReadBack::AnothersSet { keys: 2 },
        ReadBack::WrongKey {
            kid: kid(),
            member: "n",
        },
        ReadBack::Unreadable(Unreadable::NotJson { line: 1, column: 1 }),
        ReadBack::Unreadable(Unreadable::TooLong),
        ReadBack::Unreadable(Unreadable::TooDeep),
        ReadBack::Unreadable(Unreadable::NoSet),
        ReadBack::Unreadable(Unreadable::NameTwice),
        ReadBack::Unreadable(Unreadable::KidTwice(kid())),
        ReadBack::Unreadable(Unreadable::Private { member: "d" }),
    ];
    let texts: std::collections::BTreeSet<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), all.len());
    let begins = ["shows ", "does not show ", "is ", "has "];
    for text in texts {
        assert!(begins.iter().any(|it| text.starts_with(it)), "{text}");
    }
}

/// JSON of the kind that sets are made of, and of others.
fn values() -> impl Strategy<Value = Value> {
    let texts = prop_oneof![
        Just("EC".to_owned()),
        Just(rsa().kid().to_string()),
        Just(p256().kid().to_string()),
        Just(RSA_E.to_owned()),
        ".{0,8}",
    ];
    let names = prop_oneof![
        Just("keys".to_owned()),
        Just("kid".to_owned()),
        Just("kty".to_owned()),
        Just("key_ops".to_owned()),
        Just("d".to_owned()),
        "[a-z]{1,3}",
    ];
    let leaves = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        texts.prop_map(Value::from),
        Just(jwk(&p256(), Alg::ES256)),
        Just(jwk(&rsa(), Alg::RS256)),
    ];
    leaves.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::hash_map(names.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The sentence that the judgement stands for, in another way.
fn stands_there_once(document: &Value, key: &PublicKey, alg: Alg) -> bool {
    let ours = jwk(key, alg);
    let same = |it: &&Value| it["kid"] == ours["kid"];
    let keys = document["keys"].as_array().map_or(&[][..], Vec::as_slice);
    let found: Vec<&Value> = keys.iter().filter(same).collect();
    matches!(found[..], [one] if IDENTITY.iter().all(|name| one.get(name) == ours.get(name)))
}

proptest! {
    #[test]
    fn no_bytes_panic_the_judge(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = judge(&bytes, &expected()).to_string();
    }

    #[test]
    fn a_key_is_seen_only_where_it_stands(keys in proptest::collection::vec(values(), 0..6)) {
        let document = set(&keys);
        let read = judged(&document);
        for (key, alg) in [(p256(), Alg::ES256), (rsa(), Alg::RS256)] {
            if read.sight(&key.kid()) == Sight::Seen {
                prop_assert!(stands_there_once(&document, &key, alg), "{}", document);
            }
        }
    }

    #[test]
    fn a_damaged_document_shows_no_key_that_is_not_there(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut body = set(&[jwk(&p256(), Alg::ES256), jwk(&rsa(), Alg::RS256)]).to_string().into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let read = judge(&body, &expected());
        if let Ok(document) = serde_json::from_slice(&body) {
            for (key, alg) in [(p256(), Alg::ES256), (rsa(), Alg::RS256)] {
                let seen = read.sight(&key.kid()) == Sight::Seen;
                prop_assert!(!seen || stands_there_once(&document, &key, alg));
            }
        } else {
            prop_assert!(matches!(read, ReadBack::Unreadable(_)));
        }
    }
}
