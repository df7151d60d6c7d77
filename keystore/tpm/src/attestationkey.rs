//! The attestation key: with it the TPM signs what it says of our keys and of the host, and nothing that
//! it has not made itself (it is restricted). Owns the key's template, its file and its place in the TPM.
//!
//! It lives below the standard P-256 storage primary of the *endorsement* hierarchy, so that the counters
//! in what it signs are the true ones (TPM 2.0 Part 1, obfuscated only elsewhere), and has an auth value of
//! its own, made of `tpm.auth`: a primary key could be made again by everybody who may use the TPM, who
//! would then have it say whatever fits. It is a file like our other keys' and not to be had back without
//! it: who enrolled it has to enrol another.

use crate::connection::{Connection, Lasting};
use crate::failure::Failure;
use crate::keydir::read_bounded;
use crate::keyfile::KeyFile;
use crate::template;
use keystore::backend::ObjectId;
use keystore::statefile::{self, StateDir};
use keystore::{Error, Kind, PublicKey};
use std::io::ErrorKind;
use std::path::PathBuf;
use tss_esapi::Context;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{CreateKeyResult, Private, Public};

/// What it is called among the keys in the TPM; those of our keys are random.
pub const OBJECT: ObjectId = ObjectId(*b"attestation key\0");

/// The name of its file in the state directory.
const FILE: &str = "ak.pem";

/// What its file begins with.
const LABEL: &str = "assertd attestation key";

/// TPM_RH_ENDORSEMENT: what the file says of its parent.
const ENDORSEMENT: u32 = 0x4000_000b;

/// Where it lies.
#[derive(Clone)]
pub struct AkFile(PathBuf);

/// It, as it lies there.
pub struct StoredAk {
    /// Both halves as the TPM loads them.
    pub public: Public,
    private: Private,
    /// Its public half.
    pub public_key: PublicKey,
}

impl AkFile {
    /// In this directory.
    pub fn of(state: &StateDir) -> AkFile {
        AkFile(state.path().join(FILE))
    }

    /// Reads it; `None` if there is none.
    ///
    /// # Errors
    /// `Corrupt` if it is not as we wrote it; `Mismatch` if it is no attestation key.
    pub fn read(&self) -> Result<Option<StoredAk>, Error> {
        let text = match read_bounded(&self.0) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            read => read?,
        };
        let wrong = |kind: Kind, what: &str| {
            let text = format!(
                "attestation key {}: {what}; restore it from a backup; or move it away and restart the \
                 keystore, which makes another one, to be enrolled anew",
                self.0.display()
            );
            Error::new(kind, text)
        };
        let corrupt = |what: &str| wrong(Kind::Corrupt, what);
        let file = KeyFile::parse(&text).map_err(corrupt)?;
        let public = template::unmarshalled(&file.public).map_err(corrupt)?;
        let private = Private::try_from(file.private)
            .map_err(|_| corrupt("has a private part that is too long"))?;
        let public_key = template::read_attestation_key(&public)
            .map_err(|what| wrong(Kind::Mismatch, &format!("the key {what}")))?;
        Ok(Some(StoredAk {
            public,
            private,
            public_key,
        }))
    }

    fn write(&self, ak: &StoredAk, public: Vec<u8>) -> Result<(), Error> {
        let file = KeyFile {
            label: LABEL.to_owned(),
            bond: None,
            parent: ENDORSEMENT,
            public,
            private: ak.private.to_vec(),
        };
        statefile::place(&self.0, file.encode().as_bytes()).map_err(|error| {
            let text = match error.kind() {
                ErrorKind::AlreadyExists => "is there already",
                _ => "cannot be written for certain; free space or mend the disk",
            };
            let text = format!("attestation key {}: {text}", self.0.display());
            Error::new(Kind::Unavailable, text).because(error)
        })
    }
}

impl Connection {
    /// The attestation key, in the TPM and ready; it is made if there is none. Of two keys that are
    /// brought one after the other both stay, if there is room for two.
    pub fn bring_ak(&mut self, lasting: &Lasting) -> Result<(KeyHandle, StoredAk), Failure> {
        let place = &lasting.place;
        let stored = match lasting.ak.read()? {
            Some(stored) => stored,
            None => self.make_ak(lasting)?,
        };
        if !self.slots.knows(OBJECT) {
            // Its parent needs a place beside it while it is loaded.
            let limit = self.slots.capacity().saturating_sub(1);
            self.slots.make_room(&mut self.context, limit, place)?;
        }
        let above_ak = &mut self.above_ak;
        let mut load = |context: &mut Context| {
            let template = template::storage_primary();
            let (parent, above) = primary_of_endorsement(context, template, place)?;
            *above_ak = Some(above);
            let loaded = context.execute_with_session(Some(AuthSession::Password), |c| {
                c.load(parent, stored.private.clone(), stored.public.clone())
            });
            let flushed = context.flush_context(parent.into());
            let doing = "loading the attestation key";
            let handle = loaded.map_err(|error| Failure::of(place, doing, &error))?;
            flushed.map_err(|error| Failure::of(place, doing, &error))?;
            Ok((handle, stored.public_key.clone()))
        };
        let ready = |context: &mut Context, handle: KeyHandle| {
            let set = context.tr_set_auth(handle.into(), lasting.secrets.attestation());
            set.map_err(|error| Failure::of(place, "setting an auth value", &error))
        };
        let brought = self
            .slots
            .bring(&mut self.context, OBJECT, &mut load, &ready, place);
        let (handle, _) = brought.map_err(another_tpm)?;
        Ok((handle, stored))
    }

    fn make_ak(&mut self, lasting: &Lasting) -> Result<StoredAk, Failure> {
        let place = &lasting.place;
        let failed =
            |error: tss_esapi::Error| Failure::of(place, "making the attestation key", &error);
        // For its parent, and for itself while it is made.
        self.slots.make_room(&mut self.context, 1, place)?;
        let session = (self.session.next(&mut self.context, self.primary)).map_err(failed)?;
        let parent = parent(&mut self.context, place)?;
        let auth = lasting.secrets.attestation();
        let made = self.context.execute_with_session(Some(session), |c| {
            let template = template::attestation_key();
            c.create(parent, template, Some(auth), None, None, None)
        });
        let flushed = self.context.flush_context(parent.into());
        let CreateKeyResult {
            out_private: private,
            out_public: public,
            ..
        } = made.map_err(failed)?;
        flushed.map_err(failed)?;
        let public_key = template::read_attestation_key(&public).map_err(|what| {
            let text =
                format!("{place}: was asked for an attestation key, and what it made {what}");
            Error::new(Kind::Mismatch, text)
        })?;
        let bytes = template::marshalled(&public).map_err(failed)?;
        let made = StoredAk {
            public,
            private,
            public_key,
        };
        lasting.ak.write(&made, bytes)?;
        Ok(made)
    }
}

/// The parent, for a moment.
fn parent(context: &mut Context, place: &str) -> Result<KeyHandle, Failure> {
    let template = template::storage_primary();
    primary_of_endorsement(context, template, place).map(|(handle, _)| handle)
}

/// A primary key of the endorsement hierarchy.
pub fn primary_of_endorsement(
    context: &mut Context,
    template: Public,
    place: &str,
) -> Result<(KeyHandle, Public), Failure> {
    let made = context.execute_with_session(Some(AuthSession::Password), |c| {
        c.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
    });
    let made = made.map_err(|error| {
        let failure = Failure::of(place, "making a key of the endorsement hierarchy", &error);
        match failure.error.kind() {
            Kind::BadPin | Kind::Refused => {
                let text = format!(
                    "{place}: its endorsement hierarchy is disabled or has an auth value, and we have \
                     none for it; make that empty (`tpm2_changeauth -c e`) and restart the keystore"
                );
                Failure {
                    error: Error::new(Kind::Refused, text),
                    cure: failure.cure,
                }
            }
            _ => failure,
        }
    })?;
    Ok((made.key_handle, made.out_public))
}

/// What stands in a slot was loaded, so that a mismatch is about the file.
fn another_tpm(failure: Failure) -> Failure {
    match failure.error.kind() {
        Kind::Mismatch => {
            let text = format!(
                "{}; move it away and restart the keystore, which makes another one, to be enrolled anew",
                failure.error
            );
            Failure {
                error: Error::new(Kind::Mismatch, text),
                cure: failure.cure,
            }
        }
        _ => failure,
    }
}
