//! Certificates of keys: made by the key over itself, or asked for. Which bytes are signed is decided
//! in [`crate::certificate`]; here, whether the key may, and that what it signed is right before it
//! is kept or given away.

use super::{Keys, not_found, replace};
use crate::backend::Backend;
use crate::certificate::{Certificate, Der, Unsigned, Validity};
use crate::charter::CertificateUse;
use crate::livekey::LiveKey;
use crate::protocol::{Condition, KeyEntry};
use crate::publickey::WrongSignature;
use crate::{Error, KeyId, Kind};
use std::sync::Arc;

impl<B: Backend> Keys<B> {
    /// Gives a key a certificate by itself, in place of the one it has. A charter that names a
    /// certificate names this one from here on. For the same time there is one, however often it is
    /// asked for.
    ///
    /// # Errors
    /// `Refused` if the charter has no certificate, or not for this time.
    pub fn certify(&self, key: &KeyId, validity: Validity) -> Result<KeyEntry, Error> {
        let mut guard = self.lock(); // nobody destroys or amends it meanwhile
        let live = self.certifiable(key)?;
        let has_it = |certificate: &Certificate| certificate.validity() == validity;
        if live.certificate.as_ref().is_some_and(has_it) {
            return Ok(live.entry(key));
        }
        validity.check(self.clock.trusted()?)?;
        let unsigned = Unsigned::certificate(key, &live.public_key, live.charter.alg, validity)?;
        let certificate = Certificate::new(self.signed(key, &live, unsigned)?, validity);
        replace(&mut guard, |stored| {
            if let Some(record) = stored.keys.get_mut(key) {
                record.certificate = Some(certificate.clone());
            }
        })?;
        let mut all = self.write_live();
        let now = all.get(key).ok_or_else(|| not_found(key))?; // as it is by now
        let certified = Arc::new(LiveKey {
            certificate: Some(certificate),
            ..(**now).clone()
        });
        all.insert(key.clone(), certified.clone());
        Ok(certified.entry(key))
    }

    /// A request for a certificate of a key. Nothing of it is kept.
    ///
    /// # Errors
    /// `Refused` if the charter has no certificate.
    pub fn request_certificate(&self, key: &KeyId) -> Result<Der, Error> {
        let live = self.certifiable(key)?;
        let unsigned = Unsigned::request(key, &live.public_key, live.charter.alg);
        self.signed(key, &live, unsigned)
    }

    fn certifiable(&self, key: &KeyId) -> Result<Arc<LiveKey>, Error> {
        let live = self.find(key)?;
        if let Condition::Failed { kind, why } = &live.condition {
            return Err(Error::new(*kind, why.clone()));
        }
        match live.charter.certificate {
            CertificateUse::Allowed | CertificateUse::Named => Ok(live),
            CertificateUse::None => {
                let text = format!(
                    "key {key}: its charter has no certificate; root can amend it by `assertctl \
                     apply`"
                );
                Err(Error::new(Kind::Refused, text))
            }
        }
    }

    /// Signed, and verified under the recorded key: what is registered somewhere is right.
    fn signed(&self, key: &KeyId, live: &Arc<LiveKey>, unsigned: Unsigned) -> Result<Der, Error> {
        let signature = self.sign(key, live, unsigned.as_bytes())?;
        let verifier = live.public_key.verifier(live.charter.alg)?;
        match verifier.verify(unsigned.as_bytes(), &signature) {
            Ok(_valid) => Ok(unsigned.with_signature(&signature)),
            Err(WrongSignature) => {
                let text = format!(
                    "key {key}: {} signed a certificate wrongly; the key is not used; check the \
                     module's version and mechanism list",
                    self.backend.describe()
                );
                let error = Error::new(Kind::Mismatch, text);
                self.stop(key, live, &error);
                Err(error)
            }
        }
    }
}
