//! Reads what others have put into NV: certificates of the TPM's maker. Writes nothing; our own counter is
//! [`crate::counter`]'s.

use crate::codes::Code;
use crate::failure::Failure;
use std::ops::RangeInclusive;
use tss_esapi::Context;
use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, ObjectHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::NvAuth;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::CapabilityData;

/// Most that is read by one command, if the TPM does not say: every one takes so much.
const CHUNK_LEN: usize = 512;

/// Most handles of a range that are looked at.
const INDICES_MAX: u32 = 64;

/// What an index holds; `None` if it is not there, holds nothing, has more than `len_max` bytes, or is
/// for others alone to read.
pub fn read(
    context: &mut Context,
    index: u32,
    len_max: usize,
    place: &str,
) -> Result<Option<Vec<u8>>, Failure> {
    let failed = |error: tss_esapi::Error| {
        Failure::of(place, &format!("reading NV index {index:#x}"), &error)
    };
    let handle = NvIndexTpmHandle::new(index).map_err(failed)?;
    let object =
        context.execute_without_session(|c| c.tr_from_tpm_public(TpmHandle::NvIndex(handle)));
    let mut object = match object {
        Ok(object) => object,
        Err(error) if Code::of(&error).is_some_and(Code::is_no_such_handle) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let read = read_object(context, object, len_max);
    let closed = context.tr_close(&mut object);
    let read = read.map_err(failed)?;
    closed.map_err(failed)?;
    Ok(read)
}

fn read_object(
    context: &mut Context,
    object: ObjectHandle,
    len_max: usize,
) -> tss_esapi::Result<Option<Vec<u8>>> {
    let handle = NvIndexHandle::from(object);
    let (public, _) = context.execute_without_session(|c| c.nv_read_public(handle))?;
    let (attributes, size) = (public.attributes(), public.data_size());
    let auth = match (attributes.auth_read(), attributes.owner_read()) {
        (true, _) => NvAuth::NvIndex(handle), // with its own auth value, which is empty
        (false, true) => NvAuth::Owner,
        (false, false) => return Ok(None),
    };
    if !attributes.written() || size == 0 || size > len_max {
        return Ok(None);
    }
    let most = context.get_tpm_property(PropertyTag::NvBufferMax)?;
    let most = most
        .map_or(CHUNK_LEN, |most| most as usize)
        .clamp(1, CHUNK_LEN);
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        let wanted = most.min(size - bytes.len());
        let (wanted, offset) = (wanted as u16, bytes.len() as u16); // both below `size`, which had 16 bits
        let part = context.execute_with_session(Some(AuthSession::Password), |c| {
            c.nv_read(auth, handle, wanted, offset)
        })?;
        if part.is_empty() {
            return Ok(None);
        }
        bytes.extend_from_slice(&part);
    }
    bytes.truncate(size);
    Ok(Some(bytes))
}

/// The indices of a range that are there, in their order.
pub fn indices(
    context: &mut Context,
    range: RangeInclusive<u32>,
    place: &str,
) -> Result<Vec<u32>, Failure> {
    let failed = |error: tss_esapi::Error| Failure::of(place, "listing NV indices", &error);
    let asked = context.get_capability(CapabilityType::Handles, *range.start(), INDICES_MAX);
    let (data, _) = asked.map_err(failed)?;
    let CapabilityData::Handles(handles) = data else {
        return Ok(Vec::new());
    };
    let mut found: Vec<u32> = handles.into_inner().into_iter().map(u32::from).collect();
    found.retain(|index| range.contains(index));
    found.sort_unstable();
    Ok(found)
}
