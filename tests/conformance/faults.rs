//! A module that misbehaves, by way of `pkcs11-shim` between the backend and SoftHSM: PINs are
//! tried once or not at all, a failed signature costs one session and no more, a lost login is
//! said, and two tokens or objects that fit are an error.

use crate::promises::check;
use crate::token::softhsm::{self, LABEL};
use crate::token::{Module, PIN, SHIM_COUNTS, SHIM_RULES, Token, pin, with_token};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::Session;
use keystore::backend::{Backend, LABEL_PREFIX, ObjectId};
use keystore::protocol::Condition;
use keystore::records::Keys;
use keystore::statefile::StateDir;
use keystore::{Alg, CertificateUse, Charter, KeyId, KidMember, Kind, PublicKey, Purpose, Typ};
use keystore_pkcs11::{Pkcs11Backend, Settings};
use pkcs11_shim::counts::Counts;
use pkcs11_shim::functions::Function;
use std::path::{Path, PathBuf};

const ONE: ObjectId = ObjectId([1; 16]);

fn counts_path(token: &Token) -> PathBuf {
    token.directory.join(SHIM_COUNTS)
}

fn rules_path(token: &Token) -> PathBuf {
    token.directory.join(SHIM_RULES)
}

fn count(token: &Token, function: Function) -> u64 {
    Counts::open(&counts_path(token)).unwrap().of(function)
}

fn set_rules(token: &Token, rules: &str) {
    let new = token.directory.join("rules.new");
    std::fs::write(&new, rules).unwrap();
    std::fs::rename(&new, rules_path(token)).unwrap();
}

fn shimmed(test: &str, body: fn(&Token)) {
    with_token(&format!("{}::{test}", module_path!()), Module::Shim, body);
}

fn make(backend: &dyn Backend) -> PublicKey {
    backend
        .generate(ONE, &format!("{LABEL_PREFIX}a/b/1"), Alg::ES256)
        .unwrap()
        .public_key
}

fn signs(backend: &dyn Backend, key: &PublicKey) {
    let signature = backend.sign(ONE, key, Alg::ES256, b"x").unwrap();
    check(key, Alg::ES256, b"x", &signature);
}

#[test]
fn a_wrong_pin_is_tried_once() {
    shimmed("a_wrong_pin_is_tried_once", |token| {
        let wrong = Settings {
            pin: pin(b"not-the-pin"),
            ..token.settings()
        };
        let error = Pkcs11Backend::open(wrong).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::BadPin, "{error}");
        let shown = error.to_string();
        assert!(
            shown.contains(LABEL) && shown.contains("correct the PIN"),
            "{shown}"
        );
        assert!(!shown.contains("not-the-pin"), "{shown}");
        assert_eq!(count(token, Function::C_Login), 1);
    });
}

#[test]
fn a_right_pin_is_used_once_for_life() {
    shimmed("a_right_pin_is_used_once_for_life", |token| {
        let backend = token.open().unwrap();
        let key = make(&backend);
        for _ in 0..50 {
            signs(&backend, &key);
        }
        assert_eq!(count(token, Function::C_Login), 1);
        assert_eq!(count(token, Function::C_Logout), 0);
        assert_eq!(count(token, Function::C_Sign), 50);
    });
}

#[test]
fn a_pin_that_is_locked_or_at_its_last_try_is_not_tried() {
    shimmed(
        "a_pin_that_is_locked_or_at_its_last_try_is_not_tried",
        |token| {
            for (flags, part) in [("0x20000", "one try left"), ("0x40000", "locked")] {
                set_rules(token, &format!("C_GetTokenInfo * flags:{flags}\n"));
                let error = token.open().map(drop).unwrap_err();
                assert_eq!(error.kind(), Kind::Locked, "{error}");
                assert!(error.to_string().contains(part), "{error}");
            }
            assert_eq!(count(token, Function::C_Login), 0);
            set_rules(token, "");
            token.open().unwrap();
        },
    );
}

#[test]
fn a_pin_that_is_not_utf_8_is_handed_over_as_it_is() {
    shimmed("a_pin_that_is_not_utf_8_is_handed_over_as_it_is", |token| {
        let session = token.session_beside();
        let old = cryptoki::types::RawAuthPin::new(Box::new(PIN.as_bytes().to_vec()));
        session
            .login_with_raw(cryptoki::session::UserType::User, &old)
            .unwrap();
        drop(session);
        let raw = Settings {
            pin: pin(b"\xff\xfe\x00pin"),
            ..token.settings()
        };
        let error = Pkcs11Backend::open(raw).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::BadPin, "{error}");
        token.open().unwrap();
    });
}

#[test]
fn a_failed_signature_costs_its_session_and_no_more() {
    shimmed(
        "a_failed_signature_costs_its_session_and_no_more",
        |token| {
            let backend = token.open().unwrap();
            let key = make(&backend);
            signs(&backend, &key);
            let closed = count(token, Function::C_CloseSession);
            // Not asking the module leaves its operation open, as a real one does when it is cut off.
            set_rules(token, "C_Sign 1 ckr:0x32\n");
            let error = backend.sign(ONE, &key, Alg::ES256, b"x").unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
            assert!(error.to_string().contains("CKR_DEVICE_REMOVED"), "{error}");
            assert_eq!(count(token, Function::C_CloseSession), closed + 1);
            for _ in 0..2 * backend.parallelism() {
                signs(&backend, &key);
            }
            assert_eq!(count(token, Function::C_Login), 1);
        },
    );
}

/// Signs in two sessions at once; returns how many searches that took.
fn searches_of_two_at_once(token: &Token, backend: &dyn Backend, key: &PublicKey) -> u64 {
    set_rules(token, "C_Sign 1 delay:1000\n");
    let searches = count(token, Function::C_FindObjectsInit);
    let signed = count(token, Function::C_Sign);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| signs(backend, key));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while count(token, Function::C_Sign) == signed {
            assert!(
                std::time::Instant::now() < deadline,
                "the slow call did not begin"
            );
            std::thread::yield_now();
        }
        signs(backend, key);
        assert!(!slow.is_finished(), "they were not signing at once");
    });
    count(token, Function::C_FindObjectsInit) - searches
}

#[test]
fn a_key_that_fails_costs_other_sessions_nothing_and_a_dead_session_does() {
    shimmed(
        "a_key_that_fails_costs_other_sessions_nothing_and_a_dead_session_does",
        |token| {
            let backend = token.open().unwrap();
            let key = make(&backend);
            let both = searches_of_two_at_once(token, &backend, &key);
            assert!(both >= 2, "each session searches for itself: {both}");
            assert_eq!(searches_of_two_at_once(token, &backend, &key), 0);
            // CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_GENERAL_ERROR
            for code in ["0x68", "0x5"] {
                set_rules(token, &format!("C_SignInit 1 ckr:{code}\n"));
                backend.sign(ONE, &key, Alg::ES256, b"x").unwrap_err();
                let searches = searches_of_two_at_once(token, &backend, &key);
                assert_eq!(searches, both / 2, "the session that failed, {code}");
            }
            // CKR_USER_NOT_LOGGED_IN: no handle means anything any more.
            set_rules(token, "C_SignInit 1 ckr:0x101\n");
            backend.sign(ONE, &key, Alg::ES256, b"x").unwrap_err();
            assert_eq!(searches_of_two_at_once(token, &backend, &key), both);
        },
    );
}

#[test]
fn after_session_loss_the_same_key_signs() {
    shimmed("after_session_loss_the_same_key_signs", |token| {
        let backend = token.open().unwrap();
        let other = ObjectId([0; 16]);
        backend
            .generate(other, &format!("{LABEL_PREFIX}a/a/1"), Alg::ES256)
            .unwrap();
        let key = make(&backend);
        signs(&backend, &key);
        // CKR_SESSION_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID, CKR_OPERATION_ACTIVE
        for code in ["0xb3", "0x82", "0x90"] {
            for rule in ["C_SignInit 1 ckr:", "C_Sign 1 ckr:", "C_Sign 1 lie:"] {
                set_rules(token, &format!("{rule}{code}\n"));
                signs(&backend, &key);
                signs(&backend, &key);
            }
        }
        // For good: an error within bounded time, not a loop.
        set_rules(token, "C_SignInit * ckr:0xb3\n");
        let before = count(token, Function::C_SignInit);
        let error = backend.sign(ONE, &key, Alg::ES256, b"x").unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        assert_eq!(count(token, Function::C_SignInit), before + 2);
        set_rules(token, "");
        signs(&backend, &key);
    });
}

#[test]
fn a_lost_login_is_said_and_not_taken_for_a_lost_key() {
    shimmed(
        "a_lost_login_is_said_and_not_taken_for_a_lost_key",
        |token| {
            let backend = token.open().unwrap();
            let key = make(&backend);
            signs(&backend, &key);
            token.session_beside().logout().unwrap();
            for error in [
                backend.sign(ONE, &key, Alg::ES256, b"x").unwrap_err(),
                backend.inspect(ONE).map(drop).unwrap_err(),
            ] {
                assert_eq!(error.kind(), Kind::Unavailable, "{error}");
                assert!(error.to_string().contains("login is lost"), "{error}");
            }
            assert_eq!(count(token, Function::C_Login), 1);
        },
    );
}

#[test]
fn a_key_that_was_destroyed_elsewhere_is_not_found_and_not_replaced() {
    shimmed(
        "a_key_that_was_destroyed_elsewhere_is_not_found_and_not_replaced",
        |token| {
            let backend = token.open().unwrap();
            let key = make(&backend);
            signs(&backend, &key);
            let session = token.session_beside();
            let template = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
            for handle in session.find_objects(&template).unwrap() {
                session.destroy_object(handle).unwrap();
            }
            for _ in 0..3 {
                let error = backend.sign(ONE, &key, Alg::ES256, b"x").unwrap_err();
                assert_eq!(error.kind(), Kind::NotFound, "{error}");
            }
            assert_eq!(count(token, Function::C_GenerateKeyPair), 1);
            // What is left of it, the public half, is still ours to clear away.
            backend.destroy(ONE, &key).unwrap();
            assert_eq!(backend.strange(&[]).unwrap(), Vec::<String>::new());
        },
    );
}

#[test]
fn two_objects_with_one_id_are_used_by_nobody() {
    shimmed("two_objects_with_one_id_are_used_by_nobody", |token| {
        let backend = token.open().unwrap();
        let key = make(&backend);
        let session = token.session_beside();
        make_foreign(&session, ONE, None);
        for error in [
            backend.sign(ONE, &key, Alg::ES256, b"x").unwrap_err(),
            backend.inspect(ONE).map(drop).unwrap_err(),
            backend.destroy(ONE, &key).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Mismatch, "{error}");
        }
        let template = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
        assert_eq!(session.find_objects(&template).unwrap().len(), 2);
    });
}

#[test]
fn many_keys_are_found_by_few_searches() {
    shimmed("many_keys_are_found_by_few_searches", |token| {
        const KEYS: u8 = 30;
        let id = |index: u8| ObjectId([100 + index; 16]);
        let backend = token.open().unwrap();
        let keys: Vec<PublicKey> = (0..KEYS)
            .map(|index| {
                let label = format!("{LABEL_PREFIX}a/{index}/1");
                backend
                    .generate(id(index), &label, Alg::ES256)
                    .unwrap()
                    .public_key
            })
            .collect();
        make_foreign(&token.session_beside(), id(0), None);
        drop(backend);
        let before = count(token, Function::C_FindObjectsInit);
        let backend = token.open().unwrap();
        for index in 1..KEYS {
            let key = &keys[usize::from(index)];
            assert_eq!(backend.inspect(id(index)).unwrap().public_key, *key);
            let signature = backend.sign(id(index), key, Alg::ES256, b"x").unwrap();
            check(key, Alg::ES256, b"x", &signature);
        }
        for error in [
            backend.inspect(id(0)).map(drop).unwrap_err(),
            backend.sign(id(0), &keys[0], Alg::ES256, b"x").unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Mismatch, "{error}");
        }
        let searches = count(token, Function::C_FindObjectsInit) - before;
        assert!(searches < u64::from(KEYS), "{searches}");
        // A key that is made now is found as well.
        let key = make(&backend);
        signs(&backend, &key);
        backend.destroy(ONE, &key).unwrap();
        let gone = backend.sign(ONE, &key, Alg::ES256, b"x").unwrap_err();
        assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
    });
}

/// A key pair that somebody else made, under this id.
fn make_foreign(session: &Session, object: ObjectId, extractable: Option<bool>) {
    let p256 = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let id = Attribute::Id(object.0.to_vec());
    let mut public = vec![Attribute::Token(true), Attribute::EcParams(p256.to_vec())];
    let mut private = vec![Attribute::Token(true), Attribute::Sign(true), id.clone()];
    if let Some(extractable) = extractable {
        private.extend([
            Attribute::Sensitive(true),
            Attribute::Extractable(extractable),
        ]);
        public.push(id);
    }
    session
        .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
        .unwrap();
}

#[test]
fn a_key_that_could_leave_is_a_mismatch() {
    shimmed("a_key_that_could_leave_is_a_mismatch", |token| {
        let backend = token.open().unwrap();
        let session = token.session_beside();
        make_foreign(&session, ONE, Some(true));
        let error = backend.inspect(ONE).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Mismatch);
        assert!(error.to_string().contains("CKA_EXTRACTABLE"), "{error}");
    });
}

#[test]
fn a_token_that_refuses_optional_attributes_gets_a_smaller_template() {
    shimmed(
        "a_token_that_refuses_optional_attributes_gets_a_smaller_template",
        |token| {
            let backend = token.open().unwrap();
            // CKR_ATTRIBUTE_TYPE_INVALID for the first, CKR_TEMPLATE_INCONSISTENT for the second.
            set_rules(
                token,
                "C_GenerateKeyPair 1 ckr:0x12\nC_GenerateKeyPair 2 ckr:0xd1\n",
            );
            let key = make(&backend);
            signs(&backend, &key);
            assert_eq!(count(token, Function::C_GenerateKeyPair), 3);

            set_rules(token, "C_GenerateKeyPair * ckr:0x12\n");
            let error = backend
                .generate(ObjectId([2; 16]), "assertd/x", Alg::ES256)
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{error}");
            assert_eq!(count(token, Function::C_GenerateKeyPair), 3 + 4);
        },
    );
}

#[test]
fn a_full_token_is_not_asked_again_with_a_smaller_template() {
    shimmed(
        "a_full_token_is_not_asked_again_with_a_smaller_template",
        |token| {
            let backend = token.open().unwrap();
            set_rules(token, "C_GenerateKeyPair * ckr:0x31\n"); // CKR_DEVICE_MEMORY
            let error = backend.generate(ONE, "assertd/x", Alg::ES256).unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
            assert!(error.to_string().contains("full"), "{error}");
            assert_eq!(count(token, Function::C_GenerateKeyPair), 1);
        },
    );
}

#[test]
fn a_token_that_is_not_there_yet_is_found_later() {
    shimmed("a_token_that_is_not_there_yet_is_found_later", |token| {
        let later = || Settings {
            label: Some("later".into()),
            ..token.settings()
        };
        let error = Pkcs11Backend::open(later()).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Absent, "{error}");
        assert!(
            error.to_string().contains(LABEL),
            "it names the tokens there are: {error}"
        );
        softhsm::initialize(&token.directory, "later");
        Pkcs11Backend::open(later()).unwrap();
    });
}

#[test]
fn two_tokens_with_one_label_are_told_apart_by_serial_only() {
    shimmed(
        "two_tokens_with_one_label_are_told_apart_by_serial_only",
        |token| {
            softhsm::initialize(&token.directory, LABEL);
            let error = token.open().map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::Mismatch, "{error}");
            assert_eq!(count(token, Function::C_Login), 0);
            let text = error.to_string();
            let serials: Vec<&str> = text
                .split("(serial ")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
                .collect();
            assert_eq!(serials.len(), 2, "{text}");
            for serial in serials {
                let serial = Some(serial.to_owned());
                let chosen = Pkcs11Backend::open(Settings {
                    serial,
                    ..token.settings()
                })
                .unwrap();
                drop(chosen);
            }
        },
    );
}

#[test]
fn a_signature_of_zeros_or_too_short_does_not_verify() {
    shimmed(
        "a_signature_of_zeros_or_too_short_does_not_verify",
        |token| {
            let backend = token.open().unwrap();
            let key = make(&backend);
            for (rule, len) in [("zeros", 64), ("short", 63)] {
                set_rules(token, &format!("C_Sign 1 {rule}\n"));
                // No error of the keystore's: who verifies it tells a key to be stopped by it.
                let signature = backend.sign(ONE, &key, Alg::ES256, b"x").unwrap();
                assert_eq!(signature.len(), len);
                let verifier = key.verifier(Alg::ES256).unwrap();
                assert!(verifier.verify(b"x", &signature).is_err(), "{rule}");
                signs(&backend, &key);
            }
        },
    );
}

#[test]
fn a_key_that_signs_wrongly_at_start_is_failed_and_not_used() {
    shimmed(
        "a_key_that_signs_wrongly_at_start_is_failed_and_not_used",
        |token| {
            let state = StateDir::lock(&token.directory.join("state")).unwrap();
            let id: KeyId = "a/b.1".parse().unwrap();
            let charter = Charter {
                purpose: Purpose::ClientAuthentication {
                    iss: "client".into(),
                    sub: "client".into(),
                    aud: "https://as.example".into(),
                },
                alg: Alg::ES256,
                typ: Typ::ClientAuthentication,
                kid: KidMember::Thumbprint,
                lifetime_max_s: 60,
                backdate_s: 0,
                certificate: CertificateUse::None,
            };
            let keys =
                Keys::open(token.open().unwrap(), &state, std::sync::Arc::default()).unwrap();
            keys.make(&id, &charter).unwrap();
            drop(keys);
            for rule in ["zeros", "short", ""] {
                let rules = match rule {
                    "" => String::new(),
                    rule => format!("C_Sign * {rule}\n"),
                };
                set_rules(token, &rules);
                let keys =
                    Keys::open(token.open().unwrap(), &state, std::sync::Arc::default()).unwrap();
                let (entries, _) = keys.list(None);
                match (&entries[0].condition, rule) {
                    (Condition::Usable {}, "") => {}
                    (Condition::Failed { kind, why }, "zeros" | "short") => {
                        assert_eq!(*kind, Kind::Mismatch, "{why}");
                        assert!(why.contains("start-up probe"), "{why}");
                    }
                    (condition, _) => panic!("{rule}: {condition:?}"),
                }
            }
        },
    );
}

#[test]
fn a_slow_call_delays_its_own_signature_alone() {
    shimmed("a_slow_call_delays_its_own_signature_alone", |token| {
        let backend = token.open().unwrap();
        assert_eq!(backend.parallelism(), 2);
        let key = make(&backend);
        signs(&backend, &key);
        set_rules(token, "C_Sign 1 delay:2000\n");
        let before = count(token, Function::C_Sign);
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| signs(&backend, &key));
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(1);
            while count(token, Function::C_Sign) == before {
                assert!(
                    std::time::Instant::now() < deadline,
                    "the slow call did not begin"
                );
                std::thread::yield_now();
            }
            let started = std::time::Instant::now();
            for _ in 0..20 {
                signs(&backend, &key);
            }
            assert!(started.elapsed() < std::time::Duration::from_secs(1));
            assert!(!slow.is_finished());
        });
    });
}

#[test]
fn a_module_that_is_none_is_refused() {
    shimmed("a_module_that_is_none_is_refused", |token| {
        let libc = Path::new("/lib/x86_64-linux-gnu/libc.so.6").canonicalize();
        let libc = libc.unwrap_or_else(|_| "/lib/aarch64-linux-gnu/libc.so.6".into());
        let error = Pkcs11Backend::open(Settings {
            module: libc,
            ..token.settings()
        });
        let error = error.map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        let missing = Settings {
            module: token.directory.join("none.so"),
            ..token.settings()
        };
        let error = Pkcs11Backend::open(missing).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Absent, "{error}");
    });
}
