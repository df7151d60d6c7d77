//! A keystore's records over a backend that is cut off at a chosen moment, as a power cut would: what
//! was done in the token is done, and nobody is told. Everything else is the backend itself.

use crate::subject::Made;
use keystore::backend::{Backend, Existing, Inspection, ObjectId, TokenId, Trial};
use keystore::survey::Line;
use keystore::{Alg, Error, Kind, PrivateKey, PublicKey};
use std::sync::{Arc, Mutex};

/// When it is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Never,
    BeforeMaking,
    AfterMaking,
    BeforeDestroying,
    AfterDestroying,
    /// One signature fails; it is not cut off then.
    FirstSignature,
}

/// The backend, and what keeps account of the keys it makes.
pub struct Severed {
    pub backend: Box<dyn Backend>,
    pub made: Made,
    pub cut: Arc<Mutex<Cut>>,
}

impl Severed {
    /// At that moment nothing goes on.
    fn at(&self, moment: Cut) -> Result<(), Error> {
        match *self.cut.lock().unwrap() == moment {
            true => Err(Error::new(
                Kind::Unavailable,
                format!("cut off: {moment:?}"),
            )),
            false => Ok(()),
        }
    }
}

impl Backend for Severed {
    fn describe(&self) -> String {
        self.backend.describe()
    }

    fn algs(&self) -> Vec<Alg> {
        self.backend.algs()
    }

    fn parallelism(&self) -> usize {
        self.backend.parallelism()
    }

    fn generate(&self, object: ObjectId, label: &str, alg: Alg) -> Result<Inspection, Error> {
        self.at(Cut::BeforeMaking)?;
        let made = self.backend.generate(object, label, alg)?;
        let public_key = made.public_key.clone();
        self.made.lock().unwrap().push((object, public_key));
        self.at(Cut::AfterMaking)?;
        Ok(made)
    }

    fn import(
        &self,
        object: ObjectId,
        label: &str,
        alg: Alg,
        key: &PrivateKey,
    ) -> Result<Inspection, Error> {
        self.at(Cut::BeforeMaking)?;
        let made = self.backend.import(object, label, alg, key)?;
        let public_key = made.public_key.clone();
        self.made.lock().unwrap().push((object, public_key));
        self.at(Cut::AfterMaking)?;
        Ok(made)
    }

    fn find(&self, which: &Existing) -> Result<(TokenId, Inspection), Error> {
        self.backend.find(which)
    }

    fn alias(&self, object: ObjectId, id: &TokenId) {
        self.backend.alias(object, id);
    }

    fn mend(&self) -> Result<(), Error> {
        self.backend.mend()
    }

    fn inspect(&self, object: ObjectId) -> Result<Inspection, Error> {
        self.backend.inspect(object)
    }

    fn sign(
        &self,
        object: ObjectId,
        public_key: &PublicKey,
        alg: Alg,
        message: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let signed = self.at(Cut::FirstSignature);
        if signed.is_err() {
            *self.cut.lock().unwrap() = Cut::Never;
        }
        signed?;
        self.backend.sign(object, public_key, alg, message)
    }

    fn destroy(&self, object: ObjectId, public_key: &PublicKey) -> Result<(), Error> {
        self.at(Cut::BeforeDestroying)?;
        self.backend.destroy(object, public_key)?;
        self.at(Cut::AfterDestroying)
    }

    fn strange(&self, known: &[ObjectId]) -> Result<Vec<String>, Error> {
        self.backend.strange(known)
    }

    fn survey(&self) -> Vec<Line> {
        self.backend.survey()
    }

    fn trial(&self, alg: Alg) -> Result<Box<dyn Trial + '_>, Error> {
        self.backend.trial(alg)
    }
}
