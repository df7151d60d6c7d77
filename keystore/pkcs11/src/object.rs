//! The objects of a token as one session sees them: find by CKA_ID, read a public key, read the
//! attributes. Attributes are asked for one at a time, since some tokens fail a whole request
//! over one they do not know.

use crate::attribute::{Facts, JUDGED};
use crate::ecpoint::{self, Curve};
use crate::errors::{Blame, blame, explain};
use crate::token::{LoginNeed, Token};
use cryptoki::error::Error as Pkcs11Error;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState};
use keystore::backend::ObjectId;
use keystore::{Error, Kind, PublicKey};

/// An error, and whether a fresh session may do better.
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

    /// The private key with this id.
    ///
    /// # Errors
    /// `NotFound`; `Mismatch` if there are two; `Unavailable` if the login is lost, because then
    /// the token shows no private key at all.
    pub fn private_key(self, object: ObjectId) -> Result<ObjectHandle, Failure> {
        if let Some(handle) = self.find(ObjectClass::PRIVATE_KEY, object)? {
            return Ok(handle);
        }
        self.check_login()?;
        Err(self.error(
            Kind::NotFound,
            format!("no private key has CKA_ID {object}"),
        ))
    }

    /// The one object of a class with this id; two are an error, since CKA_ID is not unique.
    pub fn find(
        self,
        class: ObjectClass,
        object: ObjectId,
    ) -> Result<Option<ObjectHandle>, Failure> {
        let template = [Attribute::Class(class), Attribute::Id(object.0.to_vec())];
        let handles = self.search(&template, 2)?;
        match handles[..] {
            [] => Ok(None),
            [handle] => Ok(Some(handle)),
            _ => Err(self.error(
                Kind::Mismatch,
                format!(
                    "two objects of {class} have CKA_ID {object}; neither is used; find out who \
                     put the second one there and remove it by the vendor's tool"
                ),
            )),
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

    /// The public key that belongs to an object id. An RSA private key carries it itself; for the
    /// others it is in the public key object, or in some tokens on the private key too.
    pub fn public_key(
        self,
        object: ObjectId,
        private: Option<ObjectHandle>,
    ) -> Result<PublicKey, Failure> {
        if let Some(private) = private
            && self.key_type(private)? == KeyType::RSA
        {
            return self.public_key_of(private);
        }
        if let Some(public) = self.find(ObjectClass::PUBLIC_KEY, object)? {
            return self.public_key_of(public);
        }
        if let Some(private) = private
            && self.bytes(private, AttributeType::EcPoint)?.is_some()
        {
            return self.public_key_of(private);
        }
        Err(self.error(
            Kind::Mismatch,
            format!("object {object} has no public key, so it cannot be told whose it is"),
        ))
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
                | Attribute::NeverExtractable(flag) => Some(flag),
                _ => None,
            }))
    }

    fn key_type(self, handle: ObjectHandle) -> Result<KeyType, Failure> {
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

    /// A token that does not know us any more shows no private objects instead of an error.
    fn check_login(self) -> Result<(), Failure> {
        if self.token.login == LoginNeed::NotNeeded {
            return Ok(());
        }
        let info = self
            .session
            .get_session_info()
            .map_err(self.failed("asking for the login"))?;
        match info.session_state() {
            SessionState::RoUser | SessionState::RwUser => Ok(()),
            SessionState::RoPublic | SessionState::RwPublic | SessionState::RwSecurityOfficer => {
                let text = "the login is lost; restart the keystore";
                Err(self.error(Kind::Unavailable, text.to_owned()))
            }
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

    /// An error about this token that no other session would avoid.
    pub fn error(self, kind: Kind, text: String) -> Failure {
        Failure::from(Error::new(kind, format!("{}: {text}", self.token.place)))
    }
}

impl Failure {
    fn and(self, cause: Error) -> Failure {
        Failure {
            blame: self.blame,
            error: self.error.because(cause),
        }
    }
}
