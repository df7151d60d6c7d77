//! One context on the TPM with what belongs to it: the primary, the session, the keys in its slots.
//! Handles mean nothing outside it, so that all of it is thrown away together and built anew. The
//! steps of the backend's verbs stand here; whether one is tried again is decided in
//! [`crate::backend`].

use crate::attestationkey::AkFile;
use crate::auth::Secrets;
use crate::bond::Bond;
use crate::chip::{self, Chip};
use crate::duplicate::Duplicate;
use crate::failure::Failure;
use crate::health::{Accepted, TRIES_MAX, Whose};
use crate::keydir::{KeyDir, StoredKey};
use crate::keyfile::KeyFile;
use crate::primary::{self, Memory, OWNER, Primary, Pss};
use crate::session::{Mode, OwnSession};
use crate::tcti::Leftovers;
use crate::{sign, tcti, template};
use keystore::backend::ObjectId;
use keystore::config::{Healthy, Sessions};
use keystore::privatekey::Parts;
use keystore::tcti::{Company, Tcti};
use keystore::{Alg, Error, Kind, PublicKey};
use std::collections::HashMap;
use std::sync::Arc;
use tss_esapi::Context;
use tss_esapi::constants::PropertyTag;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    CreateKeyResult, Digest, EncryptedSecret, Private, Public, Signature, SignatureScheme,
    SymmetricDefinitionObject,
};

/// Objects that the kernel's resource manager keeps for one opened device (tpm2-space.c).
const MANAGED_SLOTS: usize = 3;

/// What stays when a connection goes.
pub struct Lasting {
    /// How the TPM is reached.
    pub tcti: Tcti,
    /// How it is named in errors.
    pub place: String,
    /// Where key files are.
    pub keys: KeyDir,
    /// Where the attestation key is.
    pub ak: AkFile,
    /// What auth values are made of.
    pub secrets: Secrets,
    /// Which sessions, if that is configured.
    pub sessions: Option<Sessions>,
    /// Which primary.
    pub memory: Memory,
    /// In which states of the host new keys sign, if that is configured.
    pub healthy: Option<Healthy>,
}

/// One context and what belongs to it.
pub struct Connection {
    /// Before `context`, which flushes what is left when it is dropped.
    pub slots: crate::slots::Slots,
    /// What is open of sessions.
    pub session: OwnSession,
    /// The parent of our keys.
    pub primary: Primary,
    /// The parent of the attestation key, as it was when that was loaded.
    pub above_ak: Option<Public>,
    /// What the TPM said of itself.
    pub chip: Chip,
    /// Which sessions are used.
    pub mode: Mode,
    /// What the TPM can sign with.
    pub algs: Vec<Alg>,
    /// What keys that were loaded are bound to.
    pub bonds: HashMap<ObjectId, Option<Arc<Bond>>>,
    /// Approvals that the TPM has seen; its ticket for one is good until the TPM is cleared.
    pub accepted: HashMap<Whose, Arc<Accepted>>,
    /// The way to the TPM.
    pub context: Context,
}

/// What signing asks for.
pub struct Order<'a> {
    /// Our id of the key.
    pub object: ObjectId,
    /// The public key it must have.
    pub public_key: &'a PublicKey,
    /// How.
    pub alg: Alg,
    /// The whole message.
    pub message: &'a [u8],
}

impl Connection {
    /// Opens the TPM and finds its primary.
    pub fn open(lasting: &mut Lasting, leftovers: Leftovers) -> Result<Connection, Failure> {
        let place = &lasting.place;
        let mut context = tcti::connect(&lasting.tcti, leftovers)?;
        let chip = Chip::read(&mut context, place)?;
        let mode = Mode::choose(lasting.sessions, &chip);
        let primary = primary::find(
            &mut context,
            &mut lasting.memory,
            lasting.keys.some()?,
            place,
        )?;
        let mut algs = chip::algs(&mut context, place)?;
        if lasting.memory.pss(chip.firmware) == Pss::IsNotPs256 {
            algs.retain(|alg| *alg != Alg::PS256);
        }
        let slots = slots(&mut context, lasting.tcti.company(), primary, place)?;
        Ok(Connection {
            slots: crate::slots::Slots::new(slots),
            session: OwnSession::new(mode.sessions),
            primary,
            above_ak: None,
            chip,
            mode,
            algs,
            bonds: HashMap::new(),
            accepted: HashMap::new(),
            context,
        })
    }

    /// How many keys may be in the TPM at a time.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Makes a key and writes its file. It is not loaded yet.
    pub fn make(
        &mut self,
        lasting: &Lasting,
        object: ObjectId,
        label: &str,
        alg: Alg,
    ) -> Result<PublicKey, Failure> {
        let bond = self.bond_now(lasting)?;
        let made = self.create(lasting, object, alg, bond.as_ref())?;
        let failed = |error| Failure::of(&lasting.place, "writing a key file", &error);
        let file = KeyFile {
            label: label.to_owned(),
            bond: bond.as_ref().map(Bond::line),
            parent: self.primary.parent,
            public: template::marshalled(&made.public).map_err(failed)?,
            private: made.private.to_vec(),
        };
        lasting.keys.write(object, &file)?;
        Ok(made.public_key)
    }

    /// Brings in a key that was made elsewhere, encrypted to the primary, and writes its file.
    pub fn import(
        &mut self,
        lasting: &Lasting,
        object: ObjectId,
        label: &str,
        public: &Public,
        parts: &Parts<'_>,
    ) -> Result<(), Failure> {
        let place = &lasting.place;
        let failed = |error: tss_esapi::Error| Failure::of(place, "importing a key", &error);
        let parent = primary::point_now(&mut self.context, self.primary, &lasting.memory, place)?;
        let name = template::name(public).map_err(failed)?;
        let auth = lasting.secrets.of(object);
        let Duplicate { private, secret } = Duplicate::new(parts, &auth, &name, &parent)?;
        let duplicate = Private::try_from(private).map_err(failed)?;
        let secret = EncryptedSecret::try_from(secret).map_err(failed)?;
        let (handle, limit) = (self.primary.handle, self.slots.capacity());
        self.slots.make_room(&mut self.context, limit, place)?;
        let imported = self
            .context
            .execute_with_session(Some(AuthSession::Password), |c| {
                let no_inner_wrapper = SymmetricDefinitionObject::Null;
                let public = public.clone();
                c.import(
                    handle.into(),
                    None,
                    public,
                    duplicate,
                    secret,
                    no_inner_wrapper,
                )
            });
        let private = imported.map_err(|error| self.primary.refused(failed(error), place))?;
        let file = KeyFile {
            label: label.to_owned(),
            bond: None, // it can leave by a policy, and whoever approves states could approve that one
            parent: self.primary.parent,
            public: template::marshalled(public).map_err(failed)?,
            private: private.to_vec(),
        };
        Ok(lasting.keys.write(object, &file)?)
    }

    /// Makes a key that is nowhere but in what this returns.
    pub fn create(
        &mut self,
        lasting: &Lasting,
        object: ObjectId,
        alg: Alg,
        bond: Option<&Bond>,
    ) -> Result<StoredKey, Failure> {
        let place = &lasting.place;
        let doing = format!("making an {alg} key");
        let failed = |error: tss_esapi::Error| Failure::of(place, &doing, &error);
        let template = match bond {
            Some(bond) => template::bound_key(alg, &bond.digest()),
            None => template::signing_key(alg),
        };
        let template = template
            .ok_or_else(|| Error::new(Kind::Unsupported, format!("{place}: no TPM has {alg}")))?;
        let limit = self.slots.capacity();
        self.slots.make_room(&mut self.context, limit, place)?;
        let session = (self.session.next(&mut self.context, self.primary)).map_err(failed)?;
        let (parent, auth) = (self.primary.handle, lasting.secrets.of(object));
        let made = self.context.execute_with_session(Some(session), |c| {
            c.create(parent, template, Some(auth), None, None, None)
        });
        let CreateKeyResult {
            out_private: private,
            out_public: public,
            ..
        } = made.map_err(|error| self.primary.refused(failed(error), place))?;
        let wrong = |what: String| {
            let text = format!("{place}: was asked for an {alg} key, and what it made {what}");
            Error::new(Kind::Mismatch, text)
        };
        let read = match bond {
            Some(bond) => template::read_bound_key(&public, &bond.digest()),
            None => template::read_signing_key(&public),
        };
        match read.map_err(wrong)? {
            (made, public_key) if made == alg => Ok(StoredKey {
                public_key,
                public,
                private,
                bond: bond.cloned().map(Arc::new),
            }),
            (other, _) => Err(wrong(format!("is one for {other}")).into()),
        }
    }

    /// Loads a key anew from its file: whether it is one of this TPM's is the TPM's to say.
    pub fn look(&mut self, lasting: &Lasting, object: ObjectId) -> Result<PublicKey, Failure> {
        self.forget(lasting, object)?;
        let read = || lasting.keys.read(object);
        self.bring(lasting, object, &read).map(|(_, key)| key)
    }

    /// Signs with a key of ours.
    pub fn sign(&mut self, lasting: &Lasting, order: &Order<'_>) -> Result<Vec<u8>, Failure> {
        self.sign_with(lasting, order, &|| lasting.keys.read(order.object))
    }

    /// Signs with a key that `read` has, where it is not in the TPM.
    pub fn sign_with(
        &mut self,
        lasting: &Lasting,
        order: &Order<'_>,
        read: &dyn Fn() -> Result<StoredKey, Error>,
    ) -> Result<Vec<u8>, Failure> {
        let (object, alg, place) = (order.object, order.alg, &lasting.place);
        let digest = sign::digest_of(alg, order.message);
        let bond = match self.bonds.get(&object) {
            Some(bond) => bond.clone(),
            None => read()?.bond,
        };
        let signature = match bond {
            None => self.sign_by_auth(lasting, order, digest, read)?,
            Some(bond) => self.sign_by_policy(lasting, order, digest, read, &bond)?,
        };
        sign::jws_signature(alg, &signature).ok_or_else(|| {
            let text = format!(
                "{place}: signing with object {object}: what it gave is no {alg} signature"
            );
            Error::new(Kind::Mismatch, text).into()
        })
    }

    fn sign_by_auth(
        &mut self,
        lasting: &Lasting,
        order: &Order<'_>,
        digest: Digest,
        read: &dyn Fn() -> Result<StoredKey, Error>,
    ) -> Result<Signature, Failure> {
        let handle = self.bring_recorded(lasting, order, read)?;
        let doing = format!("signing with object {}", order.object);
        let failed = |error: tss_esapi::Error| Failure::of(&lasting.place, &doing, &error);
        let session = (self.session.next(&mut self.context, self.primary)).map_err(failed)?;
        self.context
            .execute_with_session(Some(session), |c| {
                c.sign(handle, digest, SignatureScheme::Null, sign::no_ticket())
            })
            .map_err(failed)
    }

    fn sign_by_policy(
        &mut self,
        lasting: &Lasting,
        order: &Order<'_>,
        digest: Digest,
        read: &dyn Fn() -> Result<StoredKey, Error>,
        bond: &Bond,
    ) -> Result<Signature, Failure> {
        let what = format!("object {}", order.object);
        for _ in 0..TRIES_MAX {
            // First: an approval that is new to the TPM takes the place of a key for a moment.
            let leave = self.leave(lasting, bond, &what)?;
            let handle = self.bring_recorded(lasting, order, read)?;
            let key = (handle, &leave, bond);
            if let Some(signature) = self.sign_in_state(lasting, key, digest.clone(), &what)? {
                return Ok(signature);
            }
        }
        let place = &lasting.place;
        let text = format!("{place}: {what}: the PCRs go on changing; do this again");
        Err(Error::new(Kind::Unavailable, text).into())
    }

    /// Brings a key, if it is the one that was recorded.
    fn bring_recorded(
        &mut self,
        lasting: &Lasting,
        order: &Order<'_>,
        read: &dyn Fn() -> Result<StoredKey, Error>,
    ) -> Result<KeyHandle, Failure> {
        let (object, public_key) = (order.object, order.public_key);
        let (handle, loaded) = self.bring(lasting, object, read)?;
        if loaded == *public_key {
            return Ok(handle);
        }
        let text = format!(
            "{}: object {object} has another public key (kid {}) than was recorded (kid {}); it is not \
             used; find out who put it there",
            lasting.place,
            loaded.kid(),
            public_key.kid()
        );
        Err(Error::new(Kind::Mismatch, text).into())
    }

    /// Flushes a key, if it is in the TPM.
    pub fn forget(&mut self, lasting: &Lasting, object: ObjectId) -> Result<(), Failure> {
        self.bonds.remove(&object);
        self.slots.forget(&mut self.context, object, &lasting.place)
    }

    /// Whether there is a session to give back.
    pub fn has_idle_session(&self) -> bool {
        self.session.is_idle()
    }

    /// Flushes idle sessions. Nothing of them is used again, whether or not that worked.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub fn give_back_session(&mut self) -> tss_esapi::Result<()> {
        self.session.give_back_idle(&mut self.context)
    }

    /// Brings a key into a slot, with its auth value set.
    pub fn bring(
        &mut self,
        lasting: &Lasting,
        object: ObjectId,
        read: &dyn Fn() -> Result<StoredKey, Error>,
    ) -> Result<(KeyHandle, PublicKey), Failure> {
        let (place, primary, bonds) = (&lasting.place, self.primary, &mut self.bonds);
        let mut load = |context: &mut Context| {
            let StoredKey {
                public,
                private,
                public_key,
                bond,
            } = read()?;
            bonds.insert(object, bond); // of the very halves that are loaded
            // No secret passes in this command: the private part is encrypted, the parent's auth
            // value is empty.
            let loaded = context.execute_with_session(Some(AuthSession::Password), |c| {
                c.load(primary.handle, private, public)
            });
            let doing = format!("loading object {object}");
            let failed = |error| primary.refused(Failure::of(place, &doing, &error), place);
            let handle = loaded.map_err(failed)?;
            Ok((handle, public_key))
        };
        let ready = |context: &mut Context, handle: KeyHandle| {
            let set = context.tr_set_auth(handle.into(), lasting.secrets.of(object));
            set.map_err(|error| Failure::of(place, "setting an auth value", &error))
        };
        self.slots
            .bring(&mut self.context, object, &mut load, &ready, place)
    }
}

/// How many keys may be in the TPM beside what commands need: a persistent primary is brought into
/// a slot for each command that uses it, and a key that is being made has one too.
fn slots(
    context: &mut Context,
    company: Company,
    primary: Primary,
    place: &str,
) -> Result<usize, Failure> {
    let free = context
        .get_tpm_property(PropertyTag::HrTransientAvail)
        .map_err(|error| Failure::of(place, "asking how many slots it has", &error))?;
    let free = free.map_or(MANAGED_SLOTS - 1, |free| free as usize);
    let is_transient = usize::from(primary.parent == OWNER);
    let free = match company {
        Company::Alone => free,
        Company::Shared => free.min(MANAGED_SLOTS - is_transient),
    };
    Ok(free - usize::from(is_transient == 0).min(free))
}
