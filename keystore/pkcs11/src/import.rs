//! Bringing a private key into the token: C_CreateObject with the numbers in the template, and where
//! the token takes no key in the clear, C_UnwrapKey under an AES key that it made for that and
//! forgets with the session. What of the key is in our memory meanwhile is wiped.

use crate::attribute::{Leaving, Template, template_refused};
use crate::ecpoint::Curve;
use crate::errors::explain;
use crate::mechanism::Scheme;
use crate::object::View;
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use keystore::der::{OCTET_STRING, element};
use keystore::privatekey::{Parts, RsaParts};
use keystore::{Error, Kind, PrivateKey, PublicKey};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of an AES-256 key.
const WRAPPING_KEY_LEN: usize = 32;

/// What the padding of a wrapped key adds at most, in bytes (RFC 5649 §3).
const WRAPPING_MORE: usize = 16;

/// A template with secrets in it.
struct Secret(Vec<Attribute>);

impl Drop for Secret {
    fn drop(&mut self) {
        for attribute in &mut self.0 {
            match attribute {
                Attribute::PrivateExponent(secret)
                | Attribute::Prime1(secret)
                | Attribute::Prime2(secret)
                | Attribute::Exponent1(secret)
                | Attribute::Exponent2(secret)
                | Attribute::Coefficient(secret)
                | Attribute::Value(secret) => secret.zeroize(),
                _ => {}
            }
        }
    }
}

/// Puts both halves in the token.
///
/// # Errors
/// As [`PrivateKey::read`]; `Unsupported` if the token takes no private key at all.
pub fn import_pair(
    view: View<'_>,
    template: &Template<'_>,
    scheme: Scheme,
    key: &PrivateKey,
) -> Result<(ObjectHandle, ObjectHandle), Error> {
    let (public_key, parts) = key.read()?;
    let doing = "importing a private key";
    let mut refusal = None;
    let mut private = None;
    for leaving in Leaving::LADDER {
        let whole = secret(template, &parts, scheme, leaving);
        match view.session.create_object(&whole.0) {
            Ok(handle) => {
                private = Some(handle);
                break;
            }
            Err(error) if takes_no_secret(&error) => {
                refusal = Some(error);
                break;
            }
            Err(error) if template_refused(&error) => refusal = Some(error),
            Err(error) => return Err(explain(&view.token.place, doing, &error)),
        }
    }
    let private = match (private, refusal) {
        (Some(handle), _) => handle,
        (None, Some(error)) => {
            let refused = explain(&view.token.place, doing, &error);
            unwrap(view, template, scheme, key, &parts).map_err(|and| {
                let text = format!("{refused}; nor does it take it wrapped: {and}");
                Error::new(Kind::Unsupported, text)
            })?
        }
        (None, None) => unreachable!("the ladder has rungs, and each returned or was refused"),
    };
    match create_public(view, template, &public_key) {
        Ok(public) => Ok((public, private)),
        Err(error) => {
            let _ = view.session.destroy_object(private); // the first failure is the one to show
            Err(error)
        }
    }
}

/// Whether a token says that keys do not come in like that.
fn takes_no_secret(error: &Pkcs11Error) -> bool {
    matches!(
        error,
        Pkcs11Error::Pkcs11(
            RvError::ActionProhibited
                | RvError::AttributeSensitive
                | RvError::FunctionNotSupported
                | RvError::FunctionFailed,
            _
        )
    )
}

fn kind(class: ObjectClass, key_type: KeyType) -> Vec<Attribute> {
    vec![Attribute::Class(class), Attribute::KeyType(key_type)]
}

fn key_type(parts: &Parts<'_>) -> KeyType {
    match parts {
        Parts::Rsa(_) => KeyType::RSA,
        Parts::P256(_) => KeyType::EC,
    }
}

fn secret(template: &Template<'_>, parts: &Parts<'_>, scheme: Scheme, leaving: Leaving) -> Secret {
    let mut all = kind(ObjectClass::PRIVATE_KEY, key_type(parts));
    all.extend(template.private(scheme, leaving));
    // Grown before there is a secret in it: what is moved stays behind.
    all.reserve_exact(8);
    match parts {
        Parts::Rsa(numbers) => {
            let RsaParts {
                modulus,
                public_exponent,
                private_exponent,
                prime_1,
                prime_2,
                exponent_1,
                exponent_2,
                coefficient,
            } = *numbers;
            all.extend([
                Attribute::Modulus(modulus.to_vec()),
                Attribute::PublicExponent(public_exponent.to_vec()),
                Attribute::PrivateExponent(private_exponent.to_vec()),
                Attribute::Prime1(prime_1.to_vec()),
                Attribute::Prime2(prime_2.to_vec()),
                Attribute::Exponent1(exponent_1.to_vec()),
                Attribute::Exponent2(exponent_2.to_vec()),
                Attribute::Coefficient(coefficient.to_vec()),
            ]);
        }
        Parts::P256(number) => all.extend([
            Attribute::EcParams(Curve::P256.oid().to_vec()),
            Attribute::Value(number.to_vec()),
        ]),
    }
    Secret(all)
}

fn create_public(
    view: View<'_>,
    template: &Template<'_>,
    key: &PublicKey,
) -> Result<ObjectHandle, Error> {
    let (key_type, parameters) = match key {
        PublicKey::Rsa { n, e } => (
            KeyType::RSA,
            vec![
                Attribute::Modulus(n.clone()),
                Attribute::PublicExponent(e.clone()),
            ],
        ),
        PublicKey::P256 { x, y } => (
            KeyType::EC,
            vec![
                Attribute::EcParams(Curve::P256.oid().to_vec()),
                Attribute::EcPoint(element(OCTET_STRING, &[&[4], &x[..], &y[..]].concat())),
            ],
        ),
        PublicKey::P384 { .. } | PublicKey::Ed25519 { .. } => {
            return Err(Error::new(
                Kind::Unsupported,
                "only RSA and P-256 keys are imported",
            ));
        }
    };
    let mut refusal = None;
    for leaving in Leaving::LADDER {
        let mut all = kind(ObjectClass::PUBLIC_KEY, key_type);
        all.extend(template.public(&parameters, leaving));
        match view.session.create_object(&all) {
            Ok(handle) => return Ok(handle),
            Err(error) if template_refused(&error) => refusal = Some(error),
            Err(error) => {
                let doing = "storing the public half of an imported key";
                return Err(explain(&view.token.place, doing, &error));
            }
        }
    }
    let error = refusal.expect("the ladder has rungs, and each returned or was refused");
    let doing = "storing the public half of an imported key";
    Err(explain(&view.token.place, doing, &error))
}

/// The key, wrapped by us under a key that the token made for that: AES with padding (RFC 5649), which
/// is what CKM_AES_KEY_WRAP_PAD is. That we know that key gives nothing away: we have what it wraps.
fn unwrap(
    view: View<'_>,
    template: &Template<'_>,
    scheme: Scheme,
    key: &PrivateKey,
    parts: &Parts<'_>,
) -> Result<ObjectHandle, Error> {
    let failed = |doing: &'static str| move |error| explain(&view.token.place, doing, &error);
    let session = view.session;
    let wrapping_template = [
        Attribute::Token(false),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::Unwrap(true),
        Attribute::ValueLen((WRAPPING_KEY_LEN as u64).into()),
    ];
    let wrapping = session
        .generate_key(&Mechanism::AesKeyGen, &wrapping_template)
        .map_err(failed("making a key to wrap another one with"))?;
    let done = (|| {
        let mut value = session
            .get_attributes(wrapping, &[AttributeType::Value])
            .map_err(failed("reading a key to wrap another one with"))?;
        let Some(Attribute::Value(bytes)) = value.first_mut() else {
            let text = format!("{}: shows no value of a session's key", view.token.place);
            return Err(Error::new(Kind::Unsupported, text));
        };
        let bytes = Zeroizing::new(std::mem::take(bytes));
        let wrapped = wrap(&bytes, &key.pkcs8()?)?;
        let mut refusal = None;
        for leaving in Leaving::LADDER {
            let mut all = kind(ObjectClass::PRIVATE_KEY, key_type(parts));
            all.extend(template.private(scheme, leaving));
            let mechanism = Mechanism::AesKeyWrapPad;
            match session.unwrap_key(&mechanism, wrapping, &wrapped, &all) {
                Ok(handle) => return Ok(handle),
                Err(error) if template_refused(&error) => refusal = Some(error),
                Err(error) => return Err(failed("unwrapping a private key")(error)),
            }
        }
        let error = refusal.expect("the ladder has rungs, and each returned or was refused");
        Err(failed("unwrapping a private key")(error))
    })();
    let _ = session.destroy_object(wrapping); // it goes with the session in any case
    done
}

fn wrap(wrapping: &[u8], key: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = || Error::new(Kind::Internal, "a private key cannot be wrapped");
    let kek = AesKek::new(&AES_256, wrapping).map_err(|_| failed())?;
    let mut wrapped = vec![0; key.len() + WRAPPING_MORE];
    let length = kek
        .wrap_with_padding(key, &mut wrapped)
        .map_err(|_| failed())?
        .len();
    wrapped.truncate(length);
    Ok(wrapped)
}
