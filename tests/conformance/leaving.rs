//! A private key cannot be taken out of the token. Each attempt is made twice: on a key that the
//! backend made, where it must fail, and on a control key that the test made extractable, where
//! it must succeed, or the attempt would prove nothing.

use crate::promises::check;
use crate::token::{Module, with_token};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{
    Attribute, AttributeInfo, AttributeType, KeyType, ObjectClass, ObjectHandle,
};
use cryptoki::session::Session;
use keystore::Alg;
use keystore::backend::{Backend, LABEL_PREFIX, ObjectId};

const OURS: ObjectId = ObjectId([1; 16]);
const CONTROL: ObjectId = ObjectId([2; 16]);

/// DER of the object identifier of P-256.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Every attribute that holds a private key or a part of one.
const EC_SECRETS: &[AttributeType] = &[AttributeType::Value];
const RSA_SECRETS: &[AttributeType] = &[
    AttributeType::PrivateExponent,
    AttributeType::Prime1,
    AttributeType::Prime2,
    AttributeType::Exponent1,
    AttributeType::Exponent2,
    AttributeType::Coefficient,
];

/// Makes our key and the control key, tries `attempt` on both, and sees that ours still signs.
fn attempt_on_both(test: &str, alg: Alg, attempt: fn(&Session, ObjectHandle) -> Outcome) {
    with_token(test, Module::SoftHsm, |token| {
        let backend = token.open().unwrap();
        let label = format!("{LABEL_PREFIX}a/b/1");
        let made = backend.generate(OURS, &label, alg).unwrap();
        let session = token.session_beside();
        make_control(&session, alg);

        assert_eq!(
            attempt(&session, private(&session, CONTROL)),
            Outcome::Succeeded,
            "control"
        );
        match attempt(&session, private(&session, OURS)) {
            Outcome::Succeeded => panic!("our key was taken"),
            Outcome::Refused(why) => println!("refused: {why}"),
        }
        assert_eq!(backend.inspect(OURS).unwrap(), made);
        let signature = backend.sign(OURS, &made.public_key, alg, b"x").unwrap();
        check(&made.public_key, alg, b"x", &signature);
    });
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Succeeded,
    Refused(String),
}

fn outcome<T>(result: Result<T, Pkcs11Error>) -> Outcome {
    match result {
        Ok(_) => Outcome::Succeeded,
        Err(error @ Pkcs11Error::Pkcs11(..)) => Outcome::Refused(format!("{error:?}")),
        Err(error) => panic!("the attempt was not made: {error}"),
    }
}

fn make_control(session: &Session, alg: Alg) {
    let kind = match alg {
        Alg::RS256 => vec![
            Attribute::ModulusBits(2048.into()),
            Attribute::PublicExponent(vec![0x01, 0x00, 0x01]),
        ],
        _ => vec![Attribute::EcParams(P256.to_vec())],
    };
    let mechanism = match alg {
        Alg::RS256 => Mechanism::RsaPkcsKeyPairGen,
        _ => Mechanism::EccKeyPairGen,
    };
    let mut public = vec![Attribute::Token(true), Attribute::Encrypt(true)];
    public.extend(kind);
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::Sign(true),
        Attribute::Decrypt(true),
        Attribute::Derive(true),
        Attribute::Id(CONTROL.0.to_vec()),
    ];
    session
        .generate_key_pair(&mechanism, &public, &private)
        .unwrap();
}

fn private(session: &Session, object: ObjectId) -> ObjectHandle {
    let template = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Id(object.0.to_vec()),
    ];
    let handles = session.find_objects(&template).unwrap();
    assert_eq!(handles.len(), 1);
    handles[0]
}

/// Reads every secret attribute; one that can be had is enough.
fn read(session: &Session, key: ObjectHandle, secrets: &[AttributeType]) -> Outcome {
    let mut refused = Vec::new();
    for secret in secrets {
        let info = session
            .get_attribute_info(key, &[*secret])
            .unwrap()
            .remove(0);
        let values = session.get_attributes(key, &[*secret]).unwrap();
        match (info, values.is_empty()) {
            (AttributeInfo::Available(len), false) if len > 0 => return Outcome::Succeeded,
            (AttributeInfo::Sensitive, true) => refused.push(secret.to_string()),
            (info, _) => panic!("{secret}: {info:?} {}", values.len()),
        }
    }
    Outcome::Refused(refused.join(" "))
}

fn wrap(session: &Session, key: ObjectHandle) -> Outcome {
    let wrapping = [
        Attribute::Token(false),
        Attribute::ValueLen(32.into()),
        Attribute::Wrap(true),
        Attribute::Encrypt(true),
    ];
    let wrapping = session
        .generate_key(&Mechanism::AesKeyGen, &wrapping)
        .unwrap();
    outcome(session.wrap_key(&Mechanism::AesKeyWrapPad, wrapping, key))
}

#[test]
fn no_secret_attribute_of_an_ec_key_can_be_read() {
    attempt_on_both(
        "leaving::no_secret_attribute_of_an_ec_key_can_be_read",
        Alg::ES256,
        |session, key| read(session, key, EC_SECRETS),
    );
}

#[test]
fn no_secret_attribute_of_an_rsa_key_can_be_read() {
    attempt_on_both(
        "leaving::no_secret_attribute_of_an_rsa_key_can_be_read",
        Alg::RS256,
        |session, key| read(session, key, RSA_SECRETS),
    );
}

#[test]
fn an_ec_key_cannot_be_wrapped() {
    attempt_on_both("leaving::an_ec_key_cannot_be_wrapped", Alg::ES256, wrap);
}

#[test]
fn an_rsa_key_cannot_be_wrapped() {
    attempt_on_both("leaving::an_rsa_key_cannot_be_wrapped", Alg::RS256, wrap);
}

#[test]
fn a_key_cannot_be_copied_with_weaker_attributes() {
    attempt_on_both(
        "leaving::a_key_cannot_be_copied_with_weaker_attributes",
        Alg::ES256,
        |session, key| {
            for weaker in [Attribute::Extractable(true), Attribute::Sensitive(false)] {
                let template = [Attribute::Token(false), weaker];
                if let Ok(copy) = session.copy_object(key, &template) {
                    return read(session, copy, EC_SECRETS);
                }
            }
            outcome(session.copy_object(key, &[Attribute::Token(false)]))
        },
    );
}

#[test]
fn a_key_cannot_be_made_extractable_afterwards() {
    attempt_on_both(
        "leaving::a_key_cannot_be_made_extractable_afterwards",
        Alg::ES256,
        |session, key| {
            let weaker = [Attribute::Extractable(true), Attribute::Sensitive(false)];
            let refused: Vec<Outcome> = weaker
                .iter()
                .map(|weaker| outcome(session.update_attributes(key, std::slice::from_ref(weaker))))
                .filter(|outcome| *outcome != Outcome::Succeeded)
                .collect();
            match refused.into_iter().next() {
                // Whatever was answered, it is the value that counts.
                Some(refused) if wrap(session, key) != Outcome::Succeeded => refused,
                _ => Outcome::Succeeded,
            }
        },
    );
}

#[test]
fn an_rsa_key_does_not_decrypt() {
    attempt_on_both(
        "leaving::an_rsa_key_does_not_decrypt",
        Alg::RS256,
        |session, key| {
            // A block that decrypts to 2 is as good as any; RSA without padding is raw signing.
            let mut block = vec![0; 256];
            block[255] = 2;
            outcome(session.decrypt(&Mechanism::RsaX509, key, &block))
        },
    );
}

#[test]
fn an_rsa_key_signs_nothing_but_rs256() {
    attempt_on_both(
        "leaving::an_rsa_key_signs_nothing_but_rs256",
        Alg::RS256,
        |session, key| {
            let listed = session_mechanisms(session);
            assert!(listed.contains(&MechanismType::RSA_PKCS));
            outcome(session.sign(&Mechanism::RsaPkcs, key, b"anything"))
        },
    );
}

#[test]
fn an_ec_key_derives_no_secret() {
    attempt_on_both(
        "leaving::an_ec_key_derives_no_secret",
        Alg::ES256,
        |session, key| {
            let base = p256::SecretKey::from_slice(&[7; 32])
                .unwrap()
                .public_key()
                .to_sec1_bytes();
            let parameters = Ecdh1DeriveParams::new(EcKdf::null(), &base);
            let template = [
                Attribute::Token(false),
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::KeyType(KeyType::GENERIC_SECRET),
                Attribute::ValueLen(32.into()),
                Attribute::Extractable(true),
                Attribute::Sensitive(false),
            ];
            outcome(session.derive_key(&Mechanism::Ecdh1Derive(parameters), key, &template))
        },
    );
}

fn session_mechanisms(session: &Session) -> Vec<MechanismType> {
    let context = cryptoki::context::Pkcs11::new(Module::SoftHsm.path()).unwrap();
    let slot = session.get_session_info().unwrap().slot_id();
    context.get_mechanism_list(slot).unwrap()
}

/// Not an attempt to take a key, but what the attempts rely on.
#[test]
fn the_attributes_of_a_made_key_are_as_promised() {
    let test = "leaving::the_attributes_of_a_made_key_are_as_promised";
    with_token(test, Module::SoftHsm, |token| {
        let backend = token.open().unwrap();
        backend
            .generate(OURS, &format!("{LABEL_PREFIX}a/b/1"), Alg::ES256)
            .unwrap();
        let session = token.session_beside();
        let key = private(&session, OURS);
        for expected in [
            (AttributeType::Token, Attribute::Token(true)),
            (AttributeType::Private, Attribute::Private(true)),
            (AttributeType::Sensitive, Attribute::Sensitive(true)),
            (AttributeType::Extractable, Attribute::Extractable(false)),
            (AttributeType::Sign, Attribute::Sign(true)),
            (AttributeType::Decrypt, Attribute::Decrypt(false)),
            (AttributeType::Unwrap, Attribute::Unwrap(false)),
            (AttributeType::Derive, Attribute::Derive(false)),
            (AttributeType::SignRecover, Attribute::SignRecover(false)),
            (AttributeType::Modifiable, Attribute::Modifiable(false)),
            (AttributeType::Copyable, Attribute::Copyable(false)),
            (AttributeType::Local, Attribute::Local(true)),
            (
                AttributeType::AlwaysSensitive,
                Attribute::AlwaysSensitive(true),
            ),
            (
                AttributeType::NeverExtractable,
                Attribute::NeverExtractable(true),
            ),
            (
                AttributeType::AllowedMechanisms,
                Attribute::AllowedMechanisms(vec![MechanismType::ECDSA]),
            ),
        ] {
            assert_eq!(
                session.get_attributes(key, &[expected.0]).unwrap(),
                [expected.1]
            );
        }
        let label = session.update_attributes(key, &[Attribute::Label(b"other".to_vec())]);
        assert!(
            matches!(
                label,
                Err(Pkcs11Error::Pkcs11(RvError::ActionProhibited, _))
            ),
            "{label:?}"
        );
    });
}
