//! A private key cannot be taken out of the token. Each attempt is made twice: on a key that the
//! backend made, where it must fail, and on a control key that the test made extractable, where
//! it must succeed, or the attempt would prove nothing.

use crate::promises::check;
use crate::suite;
use crate::token::{Module, Token, with_token};
use cryptoki::context::Function;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{
    Attribute, AttributeInfo, AttributeType, KeyType, ObjectClass, ObjectHandle,
};
use cryptoki::session::Session;
use keystore::Alg;
use keystore::backend::{Backend, LABEL_PREFIX, ObjectId};
use keystore::protocol::EvidenceLevel;

/// Hands every case to the macro `suite`, behind `arguments`.
macro_rules! cases {
    ($suite:ident! $arguments:tt) => {
        $suite! { $arguments
            no_secret_attribute_of_an_ec_key_can_be_read
            no_secret_attribute_of_an_rsa_key_can_be_read
            an_ec_key_cannot_be_wrapped
            an_rsa_key_cannot_be_wrapped
            a_key_cannot_be_copied_with_weaker_attributes
            a_key_cannot_be_made_extractable_afterwards
            an_rsa_key_does_not_decrypt
            an_rsa_key_signs_nothing_but_rs256
            an_ec_key_derives_no_secret
            the_attributes_of_a_made_key_are_as_promised
        }
    };
}

cases!(suite!(softhsm: super::on_softhsm, crate::leaving));
cases!(suite!(nss: super::on_nss, crate::leaving));
cases!(suite!(
    kryoptic: super::on_kryoptic,
    crate::leaving,
    "make test-long: needs kryoptic, which takes minutes to build (2026-11-22)"
));

fn on_softhsm(test: &str, case: fn(&Token)) {
    with_token(test, Module::SoftHsm, case);
}

fn on_nss(test: &str, case: fn(&Token)) {
    with_token(test, Module::Nss, case);
}

fn on_kryoptic(test: &str, case: fn(&Token)) {
    with_token(test, Module::Kryoptic, case);
}

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

/// Where an attempt on our key succeeds, and is known to (docs/facts.md). Nothing we could ask of
/// such a module would change it; what we owe the user is to claim nothing for its keys.
const LETS_IT: &[Module] = &[Module::Nss];

/// Where it succeeds nowhere.
const NOWHERE: &[Module] = &[];

/// Makes our key and the control key, tries `attempt` on both, and sees that ours still signs.
fn attempt_on_both(
    token: &Token,
    alg: Alg,
    succeeds: &[Module],
    attempt: fn(&Session, ObjectHandle) -> Outcome,
) {
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
    let on_ours = attempt(&session, private(&session, OURS));
    match (on_ours, succeeds.contains(&token.module)) {
        (Outcome::Refused(why), false) => println!("refused: {why}"),
        (Outcome::Succeeded, true) => assert_eq!(made.evidence.level, EvidenceLevel::None),
        (Outcome::Succeeded, false) => panic!("our key was taken"),
        (Outcome::Refused(why), true) => panic!("refused at last ({why}): correct docs/facts.md"),
    }
    assert_eq!(backend.inspect(OURS).unwrap(), made);
    let signature = backend.sign(OURS, &made.public_key, alg, b"x").unwrap();
    check(&made.public_key, alg, b"x", &signature);
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

/// A key that may do and lose what its kind can.
fn make_control(session: &Session, alg: Alg) {
    // NSS shows nothing secret of a key in its database, whatever it was told about that key.
    let token = Attribute::Token(false);
    let (mechanism, public, can) = match alg {
        Alg::RS256 => {
            let size = Attribute::ModulusBits(2048.into());
            let exponent = Attribute::PublicExponent(vec![0x01, 0x00, 0x01]);
            let public = vec![token.clone(), Attribute::Encrypt(true), size, exponent];
            let mechanism = Mechanism::RsaPkcsKeyPairGen;
            (mechanism, public, Attribute::Decrypt(true))
        }
        _ => {
            let curve = Attribute::EcParams(P256.to_vec());
            let public = vec![token.clone(), curve];
            (Mechanism::EccKeyPairGen, public, Attribute::Derive(true))
        }
    };
    let private = [
        token,
        can,
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::Sign(true),
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

/// By every mechanism we know of that wraps private keys: one is enough.
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
    let mechanisms = [
        Mechanism::AesKeyWrapPad,
        Mechanism::AesKeyWrap,
        Mechanism::AesCbcPad([7; 16]),
    ];
    let outcomes = mechanisms.map(|mechanism| outcome(session.wrap_key(&mechanism, wrapping, key)));
    one_is_enough(&outcomes)
}

fn one_is_enough(outcomes: &[Outcome]) -> Outcome {
    match outcomes.contains(&Outcome::Succeeded) {
        true => Outcome::Succeeded,
        false => Outcome::Refused(format!("{outcomes:?}")),
    }
}

pub fn no_secret_attribute_of_an_ec_key_can_be_read(token: &Token) {
    attempt_on_both(token, Alg::ES256, NOWHERE, |session, key| {
        read(session, key, EC_SECRETS)
    });
}

pub fn no_secret_attribute_of_an_rsa_key_can_be_read(token: &Token) {
    attempt_on_both(token, Alg::RS256, NOWHERE, |session, key| {
        read(session, key, RSA_SECRETS)
    });
}

pub fn an_ec_key_cannot_be_wrapped(token: &Token) {
    attempt_on_both(token, Alg::ES256, LETS_IT, wrap);
}

pub fn an_rsa_key_cannot_be_wrapped(token: &Token) {
    attempt_on_both(token, Alg::RS256, LETS_IT, wrap);
}

pub fn a_key_cannot_be_copied_with_weaker_attributes(token: &Token) {
    attempt_on_both(token, Alg::ES256, LETS_IT, |session, key| {
        let weaker = [
            vec![Attribute::Extractable(true)],
            vec![Attribute::Sensitive(false)],
            vec![Attribute::Extractable(true), Attribute::Sensitive(false)],
            vec![],
        ];
        let outcomes = weaker.map(|mut template| {
            template.push(Attribute::Token(false));
            match session.copy_object(key, &template) {
                // A copy is no loss; that its key can be had would be.
                Ok(copy) => {
                    let had = read_or_wrap(session, copy);
                    session.destroy_object(copy).unwrap(); // it has the original's CKA_ID
                    had
                }
                Err(error) => outcome::<()>(Err(error)),
            }
        });
        one_is_enough(&outcomes)
    });
}

fn read_or_wrap(session: &Session, key: ObjectHandle) -> Outcome {
    one_is_enough(&[read(session, key, EC_SECRETS), wrap(session, key)])
}

pub fn a_key_cannot_be_made_extractable_afterwards(token: &Token) {
    attempt_on_both(token, Alg::ES256, NOWHERE, |session, key| {
        let weaker = [Attribute::Extractable(true), Attribute::Sensitive(false)];
        let answers = weaker
            .each_ref()
            .map(|one| outcome(session.update_attributes(key, std::slice::from_ref(one))));
        // Whatever was answered, it is what came of it that counts.
        let types = [AttributeType::Extractable, AttributeType::Sensitive];
        let now = session.get_attributes(key, &types).unwrap();
        match now.iter().any(|one| weaker.contains(one)) {
            true => Outcome::Succeeded,
            false => Outcome::Refused(format!("{answers:?}")),
        }
    });
}

pub fn an_rsa_key_does_not_decrypt(token: &Token) {
    attempt_on_both(token, Alg::RS256, NOWHERE, |session, key| {
        // RSA without padding is raw signing. What is said of the block is another matter: a token
        // that begins to decrypt does decrypt.
        match session.decrypt(&Mechanism::RsaX509, key, &[2; 256]) {
            Err(error @ Pkcs11Error::Pkcs11(_, Function::DecryptInit)) => outcome::<()>(Err(error)),
            _ => Outcome::Succeeded,
        }
    });
}

pub fn an_rsa_key_signs_nothing_but_rs256(token: &Token) {
    attempt_on_both(token, Alg::RS256, LETS_IT, |session, key| {
        outcome(session.sign(&Mechanism::RsaPkcs, key, b"anything"))
    });
}

pub fn an_ec_key_derives_no_secret(token: &Token) {
    attempt_on_both(token, Alg::ES256, LETS_IT, |session, key| {
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
    });
}

/// Not an attempt to take a key, but what the attempts rely on.
pub fn the_attributes_of_a_made_key_are_as_promised(token: &Token) {
    let backend = token.open().unwrap();
    backend
        .generate(OURS, &format!("{LABEL_PREFIX}a/b/1"), Alg::ES256)
        .unwrap();
    let session = token.session_beside();
    let key = private(&session, OURS);
    for expected in [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::SignRecover(false),
        Attribute::AlwaysSensitive(true),
        Attribute::NeverExtractable(true),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Local(true),
        Attribute::AllowedMechanisms(vec![MechanismType::ECDSA]),
    ] {
        let attribute = expected.attribute_type();
        let optional = [
            (AttributeType::Modifiable, Some(Attribute::Modifiable(true))),
            (AttributeType::Copyable, None),
            (AttributeType::Local, Some(Attribute::Local(false))),
            (AttributeType::AllowedMechanisms, None),
        ];
        let of_nss = optional.into_iter().find(|(of, _)| *of == attribute);
        let expected = match (token.module, of_nss) {
            (Module::Nss, Some((_, instead))) => instead,
            _ => Some(expected),
        };
        let there = session.get_attributes(key, &[attribute]).unwrap().pop();
        assert_eq!(there, expected, "{attribute}");
    }
    let label = session.update_attributes(key, &[Attribute::Label(b"other".to_vec())]);
    match (token.module, &label) {
        (Module::Nss, Ok(())) => {}
        (_, Err(Pkcs11Error::Pkcs11(RvError::ActionProhibited, _))) => {}
        _ => panic!("{label:?}"),
    }
}
