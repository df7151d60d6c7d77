//! A key pair for one trial: session objects (CKA_TOKEN false) in a session of their own, which the
//! token forgets with that session whatever happens to us. Made from the templates of real keys, so
//! that what is tried is what minting uses; never found by a search for our keys, since it carries
//! no label of ours.

use crate::attribute::{Lifetime, Template};
use crate::backend::generate_pair;
use crate::errors::explain;
use crate::mechanism::Scheme;
use crate::object::View;
use crate::token::{Access, Token};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use keystore::backend::{ObjectId, Trial};
use keystore::{Alg, Error, Kind, PublicKey};

/// How the objects are labelled: not as ours, which others would then take for strange ones.
const LABEL: &str = "trial of a keystore check";

/// One key pair and its session.
pub struct SessionKey<'a> {
    session: Session,
    token: &'a Token,
    halves: [ObjectHandle; 2],
    public_key: PublicKey,
    scheme: Scheme,
}

impl<'a> SessionKey<'a> {
    /// Opens a session and makes a key pair in it.
    ///
    /// # Errors
    /// `Unavailable` if there is no session to be had; `Unsupported` if the token makes no key that
    /// it does not keep.
    pub fn make(token: &'a Token, alg: Alg, scheme: Scheme) -> Result<SessionKey<'a>, Error> {
        let session = token.open_session(Access::ReadOnly)?;
        let object = ObjectId::random()?;
        let view = View {
            session: &session,
            token,
        };
        let template = Template {
            object,
            label: LABEL,
            lifetime: Lifetime::Session,
        };
        let (public, private) = generate_pair(view, &template, alg, scheme)?;
        let public_key = view.public_key_of(public)?;
        if !public_key.fits(alg) {
            let text = format!(
                "{}: was asked for an {alg} key and made another kind",
                token.place
            );
            return Err(Error::new(Kind::Mismatch, text));
        }
        Ok(SessionKey {
            session,
            token,
            halves: [private, public],
            public_key,
            scheme,
        })
    }
}

impl Trial for SessionKey<'_> {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn sign(&mut self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let input = self.scheme.input(message);
        let signed = self
            .session
            .sign(&self.scheme.mechanism(), self.halves[0], &input);
        signed.map_err(|error| explain(&self.token.place, "signing with a trial's key", &error))
    }

    fn end(self: Box<Self>) -> Result<(), Error> {
        let failed = |doing| {
            let place = &self.token.place;
            move |error| explain(place, doing, &error)
        };
        for half in self.halves {
            self.session
                .destroy_object(half)
                .map_err(failed("destroying a trial's key"))?;
        }
        let Self { session, token, .. } = *self;
        session
            .close()
            .map_err(|error| explain(&token.place, "closing a trial's session", &error))
    }
}
