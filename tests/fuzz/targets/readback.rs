//! The read-back judgement. The input is the document that was found at an issuer's public URL; two keys
//! are expected there, of which the first signs now.
//!
//! Asserted: a key is seen only where serde_json's own reading of the document has it, once and with the
//! members that were published; a document that it cannot read, or in which it finds a private member,
//! shows nothing; a set is another's only if none of our ids is in it; every verdict is one sentence, and
//! white space around the document changes none.

use broker::courier::BODY_LEN_MAX;
use broker::courier::readback::{Expected, ReadBack, Sight, judge};
use keystore::{Alg, PublicKey};
use serde_json::Value;

/// What is expected. Seeds (tests/corpus/seeds) know them too.
const KEYS: [(&str, Alg); 2] = [
    (
        r#"{"crv":"P-256","kty":"EC","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
        Alg::ES256,
    ),
    (
        r#"{"crv":"P-256","kty":"EC","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#,
        Alg::ES256,
    ),
];

const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// Runs one input.
pub fn check(data: &[u8]) {
    let keys = KEYS.map(|(text, alg)| {
        let key: PublicKey = serde_json::from_str(text).expect("it is a point");
        (key, alg)
    });
    let expected = Expected::new(keys.clone(), Some(keys[0].0.kid()));
    let read = judge(data, &expected);
    let sentence = read.to_string();
    assert!(
        sentence.len() < 400 && !sentence.contains(char::is_control),
        "{sentence:?}"
    );
    let spaced = [b"\n ", data, b"\t\r\n"].concat();
    if spaced.len() <= BODY_LEN_MAX && !matches!(read, ReadBack::Unreadable(_)) {
        assert_eq!(judge(&spaced, &expected), read);
    }
    let document: Option<Value> = serde_json::from_slice(data).ok();
    let set = document.as_ref().and_then(|it| it.get("keys")?.as_array());
    let Some(set) = set else {
        assert!(matches!(read, ReadBack::Unreadable(_)), "{sentence}");
        return;
    };
    let is_private = |it: &Value| PRIVATE.iter().any(|name| it.get(name).is_some());
    if set.iter().any(is_private) {
        assert!(matches!(read, ReadBack::Unreadable(_)), "{sentence}");
    }
    let with_id = |id: &str| {
        let named = set
            .iter()
            .filter(|it| it.get("kid").and_then(Value::as_str) == Some(id));
        named.collect::<Vec<&Value>>()
    };
    for (key, alg) in &keys {
        let kid = key.kid();
        let found = with_id(kid.as_str());
        match read.sight(&kid) {
            Sight::Seen => match found[..] {
                [one] => is_as_published(one, key, *alg),
                _ => panic!("{kid} is there {} times: {sentence}", found.len()),
            },
            Sight::NotYet if matches!(read, ReadBack::Set(_)) => assert!(found.is_empty(), "{kid}"),
            Sight::NotYet => {}
        }
        if let ReadBack::AnothersSet { keys } = read {
            assert!(found.is_empty() && keys == set.len(), "{sentence}");
        }
    }
}

fn is_as_published(found: &Value, key: &PublicKey, alg: Alg) {
    let published = serde_json::to_value(key).expect("it is an object of texts");
    for name in ["kty", "crv", "x", "y", "n", "e"] {
        assert_eq!(found.get(name), published.get(name), "{name}");
    }
    let said = found.get("alg");
    assert!(
        said.is_none_or(|it| it.as_str() == Some(alg.name())),
        "{found}"
    );
}
