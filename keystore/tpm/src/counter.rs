//! The counter in the TPM: an NV index of the owner that can only be incremented and that nothing takes
//! back (TPM 2.0 Part 1, NV counters). Its handle and auth value are made of `tpm.auth`, so that two
//! assertd that share a TPM have one each, and whoever has the disks alone moves neither. Whoever owns the
//! TPM can take it out: a new one begins above every value that one had
//! that was taken out, so that this is noticed.

use crate::auth::CounterSecret;
use crate::codes::Code;
use crate::connection::{Connection, Lasting};
use crate::failure::Failure;
use keystore::{Error, Kind};
use tss_esapi::attributes::{NvIndexAttributes, NvIndexAttributesBuilder};
use tss_esapi::constants::NvIndexType;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, ObjectHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::structures::{Auth, NvPublic, NvPublicBuilder};

/// Handles that an owner may define (TCG Registry of Reserved TPM 2.0 Handles, NV indices).
const OWNERS: (u32, u32) = (0x0180_0000, 0x01bf_ffff);

/// Bytes of a counter.
const LEN: u16 = 8;

impl Connection {
    /// How far it has come; `None`: it is not there, or was never incremented.
    pub fn counted(&mut self, lasting: &Lasting) -> Result<Option<u64>, Failure> {
        let Some(mut index) = self.counter(lasting)? else {
            return Ok(None);
        };
        let read = match index.state {
            State::New => Ok(None),
            State::Written => self.read_counter(lasting, index.handle).map(Some),
        };
        let closed = self.context.tr_close(&mut index.object);
        closed.map_err(|error| Failure::of(&lasting.place, "letting a counter go", &error))?;
        read
    }

    /// Has it come to `to`, and makes it if it is not there. Read anew before each step: one whose answer was
    /// lost was made, and one too many would be a rollback to whoever compares.
    pub fn count(&mut self, lasting: &Lasting, to: u64) -> Result<u64, Failure> {
        loop {
            match self.counted(lasting)? {
                Some(value) if value >= to => return Ok(value),
                Some(_) | None => self.step(lasting)?,
            }
        }
    }

    fn step(&mut self, lasting: &Lasting) -> Result<(), Failure> {
        let mut index = match self.counter(lasting)? {
            Some(index) => index,
            None => {
                self.define_counter(lasting)?;
                let made = self.counter(lasting)?;
                made.ok_or_else(|| wrong(lasting, "was made, and is not there"))?
            }
        };
        let stepped = self.increment(lasting, index.handle);
        let closed = self.context.tr_close(&mut index.object);
        stepped?;
        closed.map_err(|error| Failure::of(&lasting.place, "letting a counter go", &error))
    }

    fn increment(&mut self, lasting: &Lasting, handle: NvIndexHandle) -> Result<(), Failure> {
        let failed = |error| Failure::of(&lasting.place, "incrementing the counter", &error);
        let session = (self.session.next(&mut self.context, self.primary)).map_err(failed)?;
        let incremented = self.context.execute_with_session(Some(session), |c| {
            c.nv_increment(NvAuth::NvIndex(handle), handle)
        });
        incremented.map_err(failed)
    }

    fn read_counter(&mut self, lasting: &Lasting, handle: NvIndexHandle) -> Result<u64, Failure> {
        let failed = |error| Failure::of(&lasting.place, "reading the counter", &error);
        let session = (self.session.next(&mut self.context, self.primary)).map_err(failed)?;
        let read = self.context.execute_with_session(Some(session), |c| {
            c.nv_read(NvAuth::NvIndex(handle), handle, LEN, 0)
        });
        let bytes = <[u8; LEN as usize]>::try_from(read.map_err(failed)?.as_slice());
        let bytes = bytes.map_err(|_| wrong(lasting, "has another length than a counter"))?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// The index, if there is one, ready to be used.
    fn counter(&mut self, lasting: &Lasting) -> Result<Option<Index>, Failure> {
        let failed = |error| Failure::of(&lasting.place, "looking for the counter", &error);
        let CounterSecret { place, auth } = lasting.secrets.counter();
        let wanted = public(index_of(place)).map_err(failed)?;
        let found = self.context.execute_without_session(|c| {
            c.tr_from_tpm_public(TpmHandle::NvIndex(wanted.nv_index()))
        });
        let object = match found {
            Ok(object) => object,
            Err(error) if Code::of(&error).is_some_and(Code::is_no_such_handle) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let usable = self.make_usable(lasting, object, auth);
        if usable.is_err() {
            let mut object = object;
            let _ = self.context.tr_close(&mut object); // what went wrong before is what is said
        }
        usable.map(Some)
    }

    /// What was found is ours, with its auth value set.
    fn make_usable(
        &mut self,
        lasting: &Lasting,
        object: ObjectHandle,
        auth: Auth,
    ) -> Result<Index, Failure> {
        let failed = |error| Failure::of(&lasting.place, "looking at the counter", &error);
        let handle = NvIndexHandle::from(object);
        let shown = self
            .context
            .execute_without_session(|c| c.nv_read_public(handle));
        let (shown, _) = shown.map_err(failed)?;
        let state = match shown.attributes() {
            new if new == attributes(State::New).map_err(failed)? => Some(State::New),
            old if old == attributes(State::Written).map_err(failed)? => Some(State::Written),
            _ => None,
        };
        let is_plain = shown.data_size() == usize::from(LEN)
            && shown.name_algorithm() == HashingAlgorithm::Sha256
            && shown.authorization_policy().is_empty();
        let Some(state) = state.filter(|_| is_plain) else {
            return Err(wrong(lasting, "is no counter of assertd's"));
        };
        self.context.tr_set_auth(object, auth).map_err(failed)?;
        Ok(Index {
            object,
            handle,
            state,
        })
    }

    fn define_counter(&mut self, lasting: &Lasting) -> Result<(), Failure> {
        let failed = |error| Failure::of(&lasting.place, "making the counter", &error);
        let CounterSecret { place, auth } = lasting.secrets.counter();
        let wanted = public(index_of(place)).map_err(failed)?;
        let session = (self.session.next(&mut self.context, self.primary)).map_err(failed)?;
        let defined = self.context.execute_with_session(Some(session), |c| {
            c.nv_define_space(Provision::Owner, Some(auth), wanted)
        });
        let mut object = ObjectHandle::from(defined.map_err(failed)?);
        self.context.tr_close(&mut object).map_err(failed)
    }
}

/// One that was found.
struct Index {
    object: ObjectHandle,
    handle: NvIndexHandle,
    state: State,
}

/// Whether it has been incremented once (TPMA_NV_WRITTEN, TPM 2.0 Part 2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Written,
}

/// One of the owner's handles for each place.
fn index_of(place: u32) -> u32 {
    let (first, last) = OWNERS;
    first + place % (last - first + 1)
}

fn public(index: u32) -> tss_esapi::Result<NvPublic> {
    NvPublicBuilder::new()
        .with_nv_index(NvIndexTpmHandle::new(index)?)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes(State::New)?)
        .with_data_area_size(usize::from(LEN))
        .build()
}

/// Counts up with its own auth value alone, which is not worth guessing and locks nobody out.
fn attributes(state: State) -> tss_esapi::Result<NvIndexAttributes> {
    NvIndexAttributesBuilder::new()
        .with_nv_index_type(NvIndexType::Counter)
        .with_auth_read(true)
        .with_auth_write(true)
        .with_no_da(true)
        .with_written(state == State::Written)
        .build()
}

fn wrong(lasting: &Lasting, what: &str) -> Failure {
    let index = index_of(lasting.secrets.counter().place);
    let text = format!(
        "{}: NV index {index:#010x} {what}; find out who put it there (tpm2_nvreadpublic)",
        lasting.place
    );
    Error::new(Kind::Mismatch, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_one_of_the_owners() {
        for place in [0, 1, 0x3f_ffff, 0x40_0000, u32::MAX] {
            let index = index_of(place);
            assert!((OWNERS.0..=OWNERS.1).contains(&index), "{index:#x}");
            public(index).unwrap();
        }
        assert_ne!(index_of(1), index_of(2));
    }
}
