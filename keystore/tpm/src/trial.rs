//! A key for one trial: made under our primary like any other, and kept in our memory alone, which
//! has of it what a key file has (both halves encrypted by the TPM). It is brought into a slot like
//! our keys are, and makes room for them like they do for each other, so that a trial takes no slot
//! from anybody for longer than one signature.

use crate::backend::TpmBackend;
use crate::connection::Order;
use crate::keydir::StoredKey;
use keystore::backend::{ObjectId, Trial};
use keystore::{Alg, Error, PublicKey};

/// One such key.
pub struct MemoryKey<'a> {
    backend: &'a TpmBackend,
    object: ObjectId,
    stored: StoredKey,
    alg: Alg,
}

impl<'a> MemoryKey<'a> {
    /// Makes one.
    ///
    /// # Errors
    /// As making a key that is kept.
    pub fn make(backend: &'a TpmBackend, alg: Alg) -> Result<MemoryKey<'a>, Error> {
        let object = ObjectId::random()?;
        let stored =
            backend.at_desk(|connection, lasting| connection.create(lasting, object, alg, None))?;
        Ok(MemoryKey {
            backend,
            object,
            stored,
            alg,
        })
    }

    fn leave(&self) -> Result<(), Error> {
        self.backend
            .at_desk(|connection, lasting| connection.forget(lasting, self.object))
    }
}

impl Trial for MemoryKey<'_> {
    fn public_key(&self) -> &PublicKey {
        &self.stored.public_key
    }

    fn sign(&mut self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let order = Order {
            object: self.object,
            public_key: &self.stored.public_key,
            alg: self.alg,
            message,
        };
        self.backend.at_desk(|connection, lasting| {
            connection.sign_with(lasting, &order, &|| Ok(self.stored.clone()))
        })
    }

    fn end(self: Box<Self>) -> Result<(), Error> {
        self.leave()
    }
}

impl Drop for MemoryKey<'_> {
    /// After [`Trial::end`] there is nothing left to flush, and this asks the TPM nothing.
    fn drop(&mut self) {
        let _ = self.leave();
    }
}
