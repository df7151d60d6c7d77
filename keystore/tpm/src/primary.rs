//! The key that our keys are made under: the P-256 storage root key at 0x81000001 if there is one,
//! else one made from the standard template in the owner hierarchy, which is the same at every
//! start. Its name is recorded when it is first used; under another one nothing of ours would load,
//! so another one is a mismatch that says what happened, never a new beginning by itself.

use crate::codes::{Code, explain};
use crate::failure::Failure;
use crate::template;
use keystore::statefile::{StateDir, StateFile};
use keystore::{Error, Kind};
use serde::{Deserialize, Serialize};
use tss_esapi::Context;
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;

/// Where the TCG wants a machine's storage root key (TPM v2.0 Provisioning Guidance §7.8).
pub const PERSISTENT: u32 = 0x8100_0001;

/// TPM_RH_OWNER: what a key file says of a parent that is made from the template.
pub const OWNER: u32 = 0x4000_0001;

/// The name of the state file.
const FILE: &str = "tpm.v1";

/// The parent of our keys, in the TPM.
#[derive(Clone, Copy)]
pub struct Primary {
    /// Its handle in this context.
    pub handle: KeyHandle,
    /// What key files say of it: [`PERSISTENT`] or [`OWNER`].
    pub parent: u32,
}

impl Primary {
    /// Of a command that needs its auth value alone, which is empty: a wrong one is not a key's.
    pub fn refused(self, failure: Failure, place: &str) -> Failure {
        match (failure.error.kind(), self.parent) {
            (Kind::BadPin, PERSISTENT) => {
                let text = format!(
                    "{place}: the storage root key at {PERSISTENT:#x} has an auth value, and we \
                     have none for it; make it one with an empty auth value (tpm2_evictcontrol(1)); \
                     where nobody uses it, `tpm2_evictcontrol -C o -c {PERSISTENT:#x}` is enough: \
                     then our keys are made under the owner hierarchy"
                );
                Failure {
                    error: Error::new(Kind::Refused, text),
                    cure: failure.cure,
                }
            }
            _ => failure,
        }
    }
}

/// Whether there are keys under it yet: before, it may become another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// At least one.
    Some,
    /// None.
    None,
}

/// What we remember of a TPM.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// The name of the primary, in hexadecimal.
    primary: Option<String>,
    /// What its PSS signatures were found to be, and with which firmware.
    #[serde(default)]
    pss: Pss,
    #[serde(default)]
    pss_firmware: (u32, u32),
}

/// What is known of a TPM's PSS signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pss {
    /// Nobody has tried.
    #[default]
    NotTried,
    /// They have the salt of PS256.
    IsPs256,
    /// They have another one.
    IsNotPs256,
}

/// The file in which we do.
pub struct Memory {
    file: StateFile<Stored>,
    stored: Stored,
}

impl Memory {
    /// Reads it.
    ///
    /// # Errors
    /// `Corrupt` if the file fails its check.
    pub fn open(dir: &StateDir) -> Result<Memory, Error> {
        let (file, stored) = StateFile::open(dir, FILE)?;
        Ok(Memory { file, stored })
    }

    /// What a trial of its PSS signatures showed; another firmware is tried anew.
    pub fn pss(&self, firmware: (u32, u32)) -> Pss {
        match self.stored.pss_firmware == firmware {
            true => self.stored.pss,
            false => Pss::NotTried,
        }
    }

    /// Remembers what it showed.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be written.
    pub fn note_pss(&mut self, pss: Pss, firmware: (u32, u32)) -> Result<(), Error> {
        if self.pss(firmware) == pss {
            return Ok(());
        }
        self.replace(Stored {
            pss,
            pss_firmware: firmware,
            ..self.stored.clone()
        })
    }

    /// The name of the primary that our keys were made under, in hexadecimal.
    pub fn primary(&self) -> Option<&str> {
        self.stored.primary.as_deref()
    }

    fn replace(&mut self, stored: Stored) -> Result<(), Error> {
        self.file.replace(&stored)?;
        self.stored = stored;
        Ok(())
    }
}

/// Finds or makes the primary that our keys are under. What was recorded binds while there are `keys`.
///
/// # Errors
/// `Mismatch` if it is not the one that was recorded.
pub fn find(
    context: &mut Context,
    memory: &mut Memory,
    keys: Keys,
    place: &str,
) -> Result<Primary, Failure> {
    let recorded = match keys {
        Keys::Some => memory.stored.primary.clone(),
        Keys::None => None,
    };
    let fits = |name: &str| recorded.as_deref().is_none_or(|recorded| recorded == name);
    let (primary, name) = match persistent(context, place)? {
        Some((primary, name)) if fits(&name) => (primary, name),
        _ => made(context, place)?,
    };
    if !fits(&name) {
        flush(context, primary, place)?;
        return Err(another(place).into());
    }
    if memory.primary() != Some(&name) {
        let stored = memory.stored.clone();
        memory.replace(Stored {
            primary: Some(name),
            ..stored
        })?;
    }
    Ok(primary)
}

fn another(place: &str) -> Error {
    let text = format!(
        "{place}: its storage primary is not the one that our keys were made under: it is another \
         TPM, or it was cleared; bring the first one back; or, if that is gone for good, give every \
         target and issuer with a key in this keystore another name in the configuration, stop the \
         keystore, move its state directory away, start it again, then run `assertctl reload` and \
         `assertctl apply`, which makes new keys under the new names and none in the place of a lost \
         one"
    );
    Error::new(Kind::Mismatch, text)
}

/// The storage root key at its place, with its name; `None` if there is none that we can use.
fn persistent(context: &mut Context, place: &str) -> Result<Option<(Primary, String)>, Failure> {
    let failed = |e: tss_esapi::Error| Failure::of(place, "looking for a storage root key", &e);
    let handle = PersistentTpmHandle::new(PERSISTENT).map_err(failed)?;
    let object =
        context.execute_without_session(|c| c.tr_from_tpm_public(TpmHandle::Persistent(handle)));
    let mut object = match object {
        Ok(object) => object,
        Err(error) if Code::of(&error).is_some_and(Code::is_no_such_handle) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let handle = KeyHandle::from(object);
    let (public, _, _) = context
        .execute_without_session(|c| c.read_public(handle))
        .map_err(failed)?;
    if !template::is_storage_primary(&public) {
        context.tr_close(&mut object).map_err(failed)?; // forgets it, and leaves it where it is
        return Ok(None);
    }
    // A session is salted to what the library was shown first, and this is what it was shown then: who
    // sits on the bus could answer the two questions differently.
    let name = template::name(&public).map_err(failed)?;
    let shown_first = context.tr_get_name(object).map_err(failed)?;
    if shown_first.value() != name {
        let text = format!(
            "{place}: shows two different storage root keys at {PERSISTENT:#x} one after the other; \
             find out what sits between it and this machine"
        );
        return Err(Error::new(Kind::Mismatch, text).into());
    }
    let primary = Primary {
        handle,
        parent: PERSISTENT,
    };
    Ok(Some((primary, hex(&name))))
}

/// One made from the template, with its name.
fn made(context: &mut Context, place: &str) -> Result<(Primary, String), Failure> {
    let doing = "making the storage primary in the owner hierarchy";
    let made = context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.create_primary(
                Hierarchy::Owner,
                template::storage_primary(),
                None,
                None,
                None,
                None,
            )
        })
        .map_err(|error| match explain(place, doing, &error) {
            wrong if wrong.kind() == Kind::BadPin => owner_has_auth(place).into(),
            _ => Failure::of(place, doing, &error),
        })?;
    let name = template::name(&made.out_public).map_err(|e| Failure::of(place, doing, &e))?;
    let primary = Primary {
        handle: made.key_handle,
        parent: OWNER,
    };
    Ok((primary, hex(&name)))
}

fn owner_has_auth(place: &str) -> Error {
    let text = format!(
        "{place}: its owner hierarchy has an auth value, and there is no P-256 storage root key at \
         {PERSISTENT:#x}; make one there: `tpm2_createprimary -C o -P AUTH -g sha256 \
         -G ecc256:aes128cfb -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|\
         restricted|decrypt' -c srk.ctx`, then `tpm2_evictcontrol -C o -P AUTH -c srk.ctx \
         {PERSISTENT:#x}`"
    );
    Error::new(Kind::Refused, text)
}

fn flush(context: &mut Context, primary: Primary, place: &str) -> Result<(), Failure> {
    let failed = |e: tss_esapi::Error| Failure::of(place, "flushing the primary", &e);
    match primary.parent {
        OWNER => context.flush_context(primary.handle.into()).map_err(failed),
        _ => Ok(()),
    }
}

/// Its name now, in hexadecimal.
pub fn name_now(context: &mut Context, primary: Primary, place: &str) -> Result<String, Failure> {
    let failed = |e: tss_esapi::Error| Failure::of(place, "reading the storage primary", &e);
    let (public, _, _) = context
        .execute_without_session(|c| c.read_public(primary.handle))
        .map_err(failed)?;
    Ok(hex(&template::name(&public).map_err(failed)?))
}

/// Its point (0x04 ‖ x ‖ y), for who encrypts to it: of the primary that was recorded and no other.
pub fn point_now(
    context: &mut Context,
    primary: Primary,
    memory: &Memory,
    place: &str,
) -> Result<Vec<u8>, Failure> {
    let failed = |e: tss_esapi::Error| Failure::of(place, "reading the storage primary", &e);
    let (public, _, _) = context
        .execute_without_session(|c| c.read_public(primary.handle))
        .map_err(failed)?;
    let is_it = memory.primary() == Some(&hex(&template::name(&public).map_err(failed)?));
    match template::storage_point(&public).filter(|_| is_it) {
        Some(point) => Ok(point),
        None => Err(another(place).into()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
