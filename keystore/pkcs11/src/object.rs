//! The objects of a token as one session sees them: search, read a public key, read attributes.
//! Attributes are asked for one at a time, since some tokens fail a whole request over one they
//! do not know.

use crate::attribute::{Facts, JUDGED};
use crate::ecpoint::{self, Curve};
use crate::errors::{Blame, blame, explain};
use crate::token::Token;
use cryptoki::error::Error as Pkcs11Error;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use cryptoki::session::Session;
use keystore::evidence::bundle::Attributes;
use keystore::{Error, Kind, PublicKey};

/// An error, and what it means for the session.
#[derive(Debug)]
pub struct Failure {
    /// Whose fault.
    pub blame: Blame,
    /// What to tell.
    pub error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure {
            blame: Blame::Other,
            error,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        failure.error
    }
}

/// One session's view.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The session that looks.
    pub session: &'a Session,
    /// Whose objects.
    pub token: &'a Token,
}

impl<'a> View<'a> {
    /// Turns a failed call into ours.
    pub fn failed(self, doing: &str) -> impl Fn(Pkcs11Error) -> Failure {
        move |error| Failure {
            blame: blame(&error),
            error: explain(&self.token.place, doing, &error),
        }
    }

    /// Up to `most` handles of objects that match.
    pub fn search(self, template: &[Attribute], most: usize) -> Result<Vec<ObjectHandle>, Failure> {
        let failed = self.failed("looking for objects");
        let found = self.session.iter_objects(template).map_err(&failed)?;
        found
            .take(most)
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)
    }

    /// The public key in one object's own attributes.
    pub fn public_key_of(self, handle: ObjectHandle) -> Result<PublicKey, Failure> {
        let required = |attribute| {
            self.bytes(handle, attribute)?.ok_or_else(|| {
                self.error(
                    Kind::Mismatch,
                    format!("a key does not show its {attribute}"),
                )
            })
        };
        let key_type = self.key_type(handle)?;
        let curve = match key_type {
            KeyType::RSA => {
                let modulus = required(AttributeType::Modulus)?;
                let exponent = required(AttributeType::PublicExponent)?;
                return self.accept(PublicKey::from_rsa(&modulus, &exponent));
            }
            KeyType::EC => {
                let parameters = required(AttributeType::EcParams)?;
                match [Curve::P256, Curve::P384]
                    .into_iter()
                    .find(|c| c.oid() == parameters)
                {
                    Some(curve) => curve,
                    None => {
                        let text = "a key is on a curve other than P-256 and P-384";
                        return Err(self.error(Kind::Mismatch, text.to_owned()));
                    }
                }
            }
            KeyType::EC_EDWARDS => Curve::Ed25519,
            other => {
                let text = format!("a key is of {other}, which no algorithm of ours uses");
                return Err(self.error(Kind::Mismatch, text));
            }
        };
        self.accept(ecpoint::parse(curve, &required(AttributeType::EcPoint)?))
    }

    /// The judged attributes of a private key.
    pub fn facts(self, private: ObjectHandle) -> Result<Facts, Failure> {
        let mut facts = Facts::default();
        for (fact, attribute) in facts.0.iter_mut().zip(JUDGED) {
            *fact = self.flag(private, attribute)?;
        }
        Ok(facts)
    }

    /// All attributes of a private key that say what may become of it, for somebody far away.
    pub fn attributes(self, private: ObjectHandle) -> Result<Attributes, Failure> {
        let flag = |attribute| self.flag(private, attribute);
        Ok(Attributes {
            token: flag(AttributeType::Token)?,
            private: flag(AttributeType::Private)?,
            sensitive: flag(AttributeType::Sensitive)?,
            always_sensitive: flag(AttributeType::AlwaysSensitive)?,
            extractable: flag(AttributeType::Extractable)?,
            never_extractable: flag(AttributeType::NeverExtractable)?,
            local: flag(AttributeType::Local)?,
            sign: flag(AttributeType::Sign)?,
            sign_recover: flag(AttributeType::SignRecover)?,
            decrypt: flag(AttributeType::Decrypt)?,
            unwrap: flag(AttributeType::Unwrap)?,
            derive: flag(AttributeType::Derive)?,
            modifiable: flag(AttributeType::Modifiable)?,
            copyable: flag(AttributeType::Copyable)?,
            wrap_with_trusted: flag(AttributeType::WrapWithTrusted)?,
        })
    }

    /// One text or byte attribute; `None` if the object has none.
    pub fn bytes(
        self,
        handle: ObjectHandle,
        attribute: AttributeType,
    ) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self
            .attribute(handle, attribute)?
            .and_then(|value| match value {
                Attribute::Id(bytes)
                | Attribute::Label(bytes)
                | Attribute::EcParams(bytes)
                | Attribute::EcPoint(bytes)
                | Attribute::Modulus(bytes)
                | Attribute::PublicExponent(bytes) => Some(bytes),
                _ => None,
            }))
    }

    fn flag(self, handle: ObjectHandle, attribute: AttributeType) -> Result<Option<bool>, Failure> {
        Ok(self
            .attribute(handle, attribute)?
            .and_then(|value| match value {
                Attribute::Token(flag)
                | Attribute::Sensitive(flag)
                | Attribute::Extractable(flag)
                | Attribute::Sign(flag)
                | Attribute::Decrypt(flag)
                | Attribute::Unwrap(flag)
                | Attribute::Derive(flag)
                | Attribute::SignRecover(flag)
                | Attribute::Local(flag)
                | Attribute::AlwaysSensitive(flag)
                | Attribute::NeverExtractable(flag)
                | Attribute::Private(flag)
                | Attribute::Modifiable(flag)
                | Attribute::Copyable(flag)
                | Attribute::WrapWithTrusted(flag) => Some(flag),
                _ => None,
            }))
    }

    /// CKA_KEY_TYPE.
    pub fn key_type(self, handle: ObjectHandle) -> Result<KeyType, Failure> {
        match self.attribute(handle, AttributeType::KeyType)? {
            Some(Attribute::KeyType(key_type)) => Ok(key_type),
            _ => Err(self.error(
                Kind::Mismatch,
                "a key does not show its CKA_KEY_TYPE".to_owned(),
            )),
        }
    }

    fn attribute(
        self,
        handle: ObjectHandle,
        attribute: AttributeType,
    ) -> Result<Option<Attribute>, Failure> {
        match self.session.get_attributes(handle, &[attribute]) {
            Ok(values) => Ok(values.into_iter().next()),
            // An empty value where one is due: the token knows the name and nothing more.
            Err(Pkcs11Error::InvalidValue | Pkcs11Error::TryFromSlice(_)) => Ok(None),
            Err(error) => Err(self.failed(&format!("reading {attribute}"))(error)),
        }
    }

    fn accept(self, key: Result<PublicKey, Error>) -> Result<PublicKey, Failure> {
        key.map_err(|error| {
            self.error(
                Kind::Mismatch,
                "a public key that cannot be used".to_owned(),
            )
            .and(error)
        })
    }

    /// An error about what was found in this token, while every call went well.
    pub fn error(self, kind: Kind, text: String) -> Failure {
        let error = Error::new(kind, format!("{}: {text}", self.token.place));
        Failure {
            blame: Blame::Nobody,
            error,
        }
    }
}

impl Failure {
    /// With its cause.
    pub fn and(self, cause: Error) -> Failure {
        Failure {
            blame: self.blame,
            error: self.error.because(cause),
        }
    }
}
