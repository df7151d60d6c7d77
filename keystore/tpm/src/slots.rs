//! The keys that are in the TPM now. It has few slots (a chip three to ten, swtpm three), and the
//! primary and the commands that make objects need one too: the key that was used longest ago makes
//! room, and comes back from its saved context, which costs a fifth of loading it.
//!
//! Owns which key is in which slot and nothing else: what a key is, is read by whoever asks for it.

use crate::codes::Cure;
use crate::failure::Failure;
use keystore::PublicKey;
use keystore::backend::ObjectId;
use std::collections::HashMap;
use tss_esapi::Context;
use tss_esapi::handles::KeyHandle;
use tss_esapi::utils::TpmsContext;

/// Most saved contexts that are kept, of 1 KiB each: as many as a keystore has keys.
const SAVED_MAX: usize = keystore::records::KEYS_MAX;

/// The keys we know in one context.
pub struct Slots {
    /// How many keys may be in the TPM at a time; at least 1.
    capacity: usize,
    keys: HashMap<ObjectId, Key>,
    /// Counts uses, to know what was used longest ago.
    clock: u64,
}

struct Key {
    public_key: PublicKey,
    place: Place,
}

enum Place {
    /// In the TPM.
    Loaded {
        handle: KeyHandle,
        used: u64,
        /// What brings it back; an object's saved context can be loaded any number of times.
        saved: Option<Box<TpmsContext>>,
    },
    /// Outside, encrypted by the TPM.
    Saved(Box<TpmsContext>),
}

/// A key in the TPM: its handle, and the public half it had when it was loaded.
pub type Found = (KeyHandle, PublicKey);

impl Slots {
    /// None in use yet.
    pub fn new(capacity: usize) -> Slots {
        Slots {
            capacity: capacity.max(1),
            keys: HashMap::new(),
            clock: 0,
        }
    }

    /// Brings a key into the TPM, if it is not there; the handle is valid until the next one is
    /// brought. `load` loads one that has no saved context; `ready` makes a handle usable, which a
    /// new one is not.
    ///
    /// # Errors
    /// Theirs, and those of saving and flushing.
    pub fn bring(
        &mut self,
        context: &mut Context,
        object: ObjectId,
        load: &mut dyn FnMut(&mut Context) -> Result<Found, Failure>,
        ready: &dyn Fn(&mut Context, KeyHandle) -> Result<(), Failure>,
        place: &str,
    ) -> Result<Found, Failure> {
        self.clock += 1;
        if let Some(Key {
            public_key,
            place: Place::Loaded { handle, used, .. },
        }) = self.keys.get_mut(&object)
        {
            *used = self.clock;
            return Ok((*handle, public_key.clone()));
        }
        let (handle, public_key, saved) = loop {
            self.make_room(context, self.capacity, place)?;
            match self.enter(context, object, load, place) {
                // Others have slots too. Each round evicts one of ours, so there is a last one.
                Err(failure) if failure.cure == Cure::Room && self.loaded() > 0 => {
                    self.capacity = self.loaded();
                }
                entered => break entered?,
            }
        };
        if let Err(failure) = ready(context, handle) {
            let _ = context.flush_context(handle.into()); // the first failure is the one to show
            return Err(failure);
        }
        let key = Key {
            public_key: public_key.clone(),
            place: Place::Loaded {
                handle,
                used: self.clock,
                saved,
            },
        };
        self.keys.insert(object, key);
        Ok((handle, public_key))
    }

    /// One try: from its saved context, if it has one that is still good, else from its file.
    fn enter(
        &self,
        context: &mut Context,
        object: ObjectId,
        load: &mut dyn FnMut(&mut Context) -> Result<Found, Failure>,
        place: &str,
    ) -> Result<(KeyHandle, PublicKey, Option<Box<TpmsContext>>), Failure> {
        if let Some(Key {
            public_key,
            place: Place::Saved(saved),
        }) = self.keys.get(&object)
            && let Some(handle) = restore(context, saved, place)?
        {
            return Ok((handle, public_key.clone(), Some(saved.clone())));
        }
        let (handle, public_key) = load(context)?;
        Ok((handle, public_key, None))
    }

    /// Flushes and saves keys until fewer than `limit` are in the TPM.
    pub fn make_room(
        &mut self,
        context: &mut Context,
        limit: usize,
        place: &str,
    ) -> Result<(), Failure> {
        while self.loaded() >= limit.max(1) {
            let oldest = self
                .keys
                .iter()
                .filter_map(|(object, key)| match &key.place {
                    Place::Loaded { used, .. } => Some((*used, *object)),
                    Place::Saved(_) => None,
                });
            let Some((_, object)) = oldest.min() else {
                return Ok(());
            };
            self.evict(context, object, place)?;
        }
        Ok(())
    }

    fn evict(
        &mut self,
        context: &mut Context,
        object: ObjectId,
        place: &str,
    ) -> Result<(), Failure> {
        let is_full = self.keys.len() > SAVED_MAX;
        let Some(Key {
            place: Place::Loaded { handle, saved, .. },
            ..
        }) = self.keys.get_mut(&object)
        else {
            return Ok(());
        };
        // Without a context it is loaded from its file the next time.
        let context_of = match saved.take() {
            None if !is_full => save(context, *handle, place)?,
            other => other,
        };
        flush(context, *handle, place, "flushing a key to make room")?;
        match (context_of, self.keys.get_mut(&object)) {
            (Some(saved), Some(key)) => key.place = Place::Saved(saved),
            _ => drop(self.keys.remove(&object)),
        }
        Ok(())
    }

    /// Forgets a key, and flushes it if it is in the TPM.
    pub fn forget(
        &mut self,
        context: &mut Context,
        object: ObjectId,
        place: &str,
    ) -> Result<(), Failure> {
        if let Some(Key {
            place: Place::Loaded { handle, .. },
            ..
        }) = self.keys.get(&object)
        {
            flush(context, *handle, place, "flushing a key")?;
        }
        self.keys.remove(&object);
        Ok(())
    }

    /// Whether it is in the TPM, or can come back from its saved context.
    pub fn knows(&self, object: ObjectId) -> bool {
        self.keys.contains_key(&object)
    }

    /// The handle of a key that is in the TPM now.
    pub fn loaded_handle(&self, object: ObjectId) -> Option<KeyHandle> {
        match self.keys.get(&object)?.place {
            Place::Loaded { handle, .. } => Some(handle),
            Place::Saved(_) => None,
        }
    }

    /// Has a key make room before all others: it was needed once, among those that are needed all the time.
    pub fn first_to_go(&mut self, object: ObjectId) {
        if let Some(Key {
            place: Place::Loaded { used, .. },
            ..
        }) = self.keys.get_mut(&object)
        {
            *used = 0;
        }
    }

    /// Takes a key out of the TPM before its place is needed.
    pub fn put_away(
        &mut self,
        context: &mut Context,
        object: ObjectId,
        place: &str,
    ) -> Result<(), Failure> {
        self.evict(context, object, place)
    }

    /// How many keys may be in the TPM at a time.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many are in it now.
    pub fn loaded(&self) -> usize {
        let is_loaded = |key: &&Key| matches!(key.place, Place::Loaded { .. });
        self.keys.values().filter(is_loaded).count()
    }
}

/// Until it is done the key has its slot, and is known to have it.
fn flush(
    context: &mut Context,
    handle: KeyHandle,
    place: &str,
    doing: &str,
) -> Result<(), Failure> {
    let flushed = context.flush_context(handle.into());
    flushed.map_err(|error| Failure::of(place, doing, &error))
}

/// What brings it back; `None` if the TPM does not want to, and then its file does.
fn save(
    context: &mut Context,
    handle: KeyHandle,
    place: &str,
) -> Result<Option<Box<TpmsContext>>, Failure> {
    match context.context_save(handle.into()) {
        Ok(saved) => Ok(Some(Box::new(saved.clone()))), // as long as it is: the binding's has 5 KiB
        Err(error) => match Failure::of(place, "saving a key to make room", &error) {
            failure if failure.cure == Cure::Reconnect => Err(failure),
            _ => Ok(None),
        },
    }
}

/// The handle; `None` if the TPM does not take this context any more.
fn restore(
    context: &mut Context,
    saved: &TpmsContext,
    place: &str,
) -> Result<Option<KeyHandle>, Failure> {
    match context.context_load(saved.clone()) {
        Ok(object) => Ok(Some(KeyHandle::from(object))),
        Err(error) => match Failure::of(place, "bringing a key back", &error) {
            Failure {
                cure: Cure::Forget, ..
            } => Ok(None),
            failure => Err(failure),
        },
    }
}
