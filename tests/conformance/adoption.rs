//! What only a PKCS#11 token has: keys under ids that are not ours, and ways for a key to come in.

use crate::foreign::{charter, made_elsewhere};
use crate::promises::check;
use crate::token::{Module, SHIM_COUNTS, SHIM_RULES, Token, with_token};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use keystore::backend::{Backend, Existing, ObjectId, TokenId};
use keystore::protocol::Condition;
use keystore::records::{Keys, Reach};
use keystore::statefile::StateDir;
use keystore::{Alg, Error, KeyId, Kind};
use keystore_pkcs11::Pkcs11Backend;
use pkcs11_shim::counts::Counts;
use pkcs11_shim::functions::Function;

/// DER of secp256r1's object identifier.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

fn shimmed(test: &str, body: fn(&Token)) {
    with_token(&format!("{}::{test}", module_path!()), Module::Shim, body);
}

fn count(token: &Token, function: Function) -> u64 {
    let counts = Counts::open(&token.directory.join(SHIM_COUNTS));
    counts.unwrap().of(function)
}

fn set_rules(token: &Token, rules: &str) {
    let new = token.directory.join("rules.new");
    std::fs::write(&new, rules).unwrap();
    std::fs::rename(new, token.directory.join(SHIM_RULES)).unwrap();
}

fn id(text: &str) -> KeyId {
    text.parse().unwrap()
}

fn labelled(label: &str) -> Existing {
    Existing::Label(label.to_owned().try_into().unwrap())
}

fn with_id(bytes: &[u8]) -> Existing {
    Existing::Id(TokenId::new(bytes.to_vec()).unwrap())
}

/// A key pair of somebody else, whose private half is as ours but for these.
fn make(token: &Token, id: &[u8], label: &str, but: &[Attribute]) {
    let common = [
        Attribute::Token(true),
        Attribute::Id(id.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    let mut public = common.to_vec();
    public.extend([Attribute::EcParams(P256.to_vec()), Attribute::Verify(true)]);
    let mut private = common.to_vec();
    let ours = [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::SignRecover(false),
    ];
    let differs = |attribute: &Attribute| {
        let kind = attribute.attribute_type();
        but.iter().any(|other| other.attribute_type() == kind)
    };
    private.extend(ours.into_iter().filter(|attribute| !differs(attribute)));
    private.extend_from_slice(but);
    let session = token.session_beside();
    let made = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private);
    made.unwrap();
}

fn open(token: &Token) -> Keys<Pkcs11Backend> {
    let state = StateDir::lock(&token.directory.join("records")).unwrap();
    Keys::open(token.open().unwrap(), &state, std::sync::Arc::default()).unwrap()
}

#[track_caller]
fn signs(keys: &Keys<Pkcs11Backend>, key: &KeyId) {
    let entry = keys.list(None).0.into_iter().find(|it| it.key == *key);
    let entry = entry.unwrap();
    assert_eq!(entry.condition, Condition::Usable {}, "{entry:?}");
    let recorded = keys.recorded().into_iter().find(|(it, _)| it == key);
    let object: ObjectId = recorded.unwrap().1.unwrap().object;
    let signed = keys
        .backend()
        .sign(object, &entry.public_key, Alg::ES256, b"x");
    check(&entry.public_key, Alg::ES256, b"x", &signed.unwrap());
}

#[track_caller]
fn is_refused<T: std::fmt::Debug>(done: Result<T, Error>, kind: Kind, phrase: &str) {
    let error = done.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(phrase), "{error}");
}

#[test]
fn keys_with_ids_of_their_own_are_found_by_them() {
    shimmed("keys_with_ids_of_their_own_are_found_by_them", |token| {
        let keys = open(token);
        let names: Vec<(KeyId, Vec<u8>)> = (1..=10u8)
            .map(|n| (id(&format!("theirs/k{n}.1")), vec![n; usize::from(n)]))
            .collect();
        for (key, token_id) in &names {
            let label = format!("theirs {}", token_id.len());
            make(token, token_id, &label, &[]);
            let (entry, created) = keys
                .adopt(key, &charter(Alg::ES256), &labelled(&label))
                .unwrap();
            assert!(created);
            assert!(!entry.evidence.imported, "it was born in the token");
            signs(&keys, key);
        }
        drop(keys);
        let keys = open(token);
        for (key, token_id) in &names {
            signs(&keys, key);
            let again = keys.adopt(key, &charter(Alg::ES256), &with_id(token_id));
            assert!(!again.unwrap().1);
            let done = keys.adopt(&id("other/k.1"), &charter(Alg::ES256), &with_id(token_id));
            is_refused(done, Kind::Exists, "already");
        }
        assert_eq!(keys.strange().unwrap(), Vec::<String>::new());
        keys.destroy(&names[2].0, Reach::Any).unwrap();
        let session = token.session_beside();
        let left = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]);
        assert_eq!(left.unwrap().len(), names.len() - 1);
        is_refused(
            keys.backend().find(&with_id(&names[2].1)),
            Kind::NotFound,
            "the id 030303",
        );
        signs(&keys, &names[3].0);
    });
}

#[test]
fn a_key_that_is_not_one_or_could_do_more_than_sign_is_not_adopted() {
    let test = "a_key_that_is_not_one_or_could_do_more_than_sign_is_not_adopted";
    shimmed(test, |token| {
        let keys = open(token);
        let adopt = |which: &Existing| keys.adopt(&id("a/b.1"), &charter(Alg::ES256), which);
        for (n, (attribute, phrase)) in [
            (Attribute::Sensitive(false), "CKA_SENSITIVE is not true"),
            (Attribute::Extractable(true), "CKA_EXTRACTABLE is not false"),
            (Attribute::Decrypt(true), "CKA_DECRYPT is true"),
            (Attribute::Unwrap(true), "CKA_UNWRAP is true"),
            (Attribute::Derive(true), "CKA_DERIVE is true"),
            (Attribute::Private(false), "CKA_PRIVATE is false"),
        ]
        .into_iter()
        .enumerate()
        {
            make(token, &[n as u8 + 1], phrase, &[attribute]);
            is_refused(adopt(&labelled(phrase)), Kind::Mismatch, phrase);
        }
        make(token, b"one", "two", &[]);
        make(token, b"two", "two", &[]);
        is_refused(
            adopt(&labelled("two")),
            Kind::Mismatch,
            "two private keys have",
        );
        make(token, b"same", "first", &[]);
        make(token, b"same", "second", &[]);
        for which in [labelled("first"), with_id(b"same")] {
            is_refused(adopt(&which), Kind::Mismatch, "two private keys have");
        }
        make(token, b"", "nameless", &[]);
        is_refused(
            adopt(&labelled("nameless")),
            Kind::Mismatch,
            "has no CKA_ID",
        );
        assert!(keys.recorded().is_empty());
        set_rules(token, "C_Sign * zeros\n");
        is_refused(
            adopt(&with_id(b"two")),
            Kind::Mismatch,
            "signs ES256 wrongly",
        );
        assert!(keys.recorded().is_empty());
        set_rules(token, "");
        adopt(&with_id(b"two")).unwrap();
        signs(&keys, &id("a/b.1"));
    });
}

#[test]
fn a_token_that_takes_no_key_in_the_clear_gets_it_wrapped() {
    shimmed(
        "a_token_that_takes_no_key_in_the_clear_gets_it_wrapped",
        |token| {
            for (alg, answer) in [(Alg::ES256, "0x54"), (Alg::RS256, "0x1b")] {
                let keys = open(token);
                // The first is the private half, the second the public one.
                set_rules(token, &format!("C_CreateObject 1 ckr:{answer}\n"));
                let before = count(token, Function::C_UnwrapKey);
                let (key, private_key) = (id(&format!("a/{alg}.1")), made_elsewhere(alg));
                let (entry, _) = keys.import(&key, &charter(alg), &private_key).unwrap();
                assert!(count(token, Function::C_UnwrapKey) > before, "{alg}");
                assert_eq!(entry.condition, Condition::Usable {}, "{entry:?}");
                assert!(entry.evidence.imported);
                let session = token.session_beside();
                let left = session.find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)]);
                assert_eq!(left.unwrap().len(), 0, "the key that wrapped it");
            }
        },
    );
}
