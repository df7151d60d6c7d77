//! The event log of the firmware, crypto-agile (TCG PC Client Platform Firmware Profile §10): what was measured
//! before the kernel. A list that anybody may have written; it counts as far as replaying it gives the PCRs
//! that a TPM has quoted, and what an event says of itself counts where its digest is that of what it
//! says.

use super::bundle::{Bank, PcrIndex, PcrValue};
use super::hash::Hash;
use super::wire::{Reader, Wrong};
use std::collections::BTreeMap;

/// Most events: the longest logs have a few hundred.
const EVENTS_MAX: usize = 16 * 1024;

/// Most hashes of one log; a TPM has two or three.
const HASHES_MAX: u32 = 8;

/// Longest digest of any hash.
const DIGEST_LEN_MAX: u16 = 64;

/// The last PCR that the firmware answers for, from 0 on.
pub const FIRMWARE_PCR_MAX: u8 = 7;

/// The last PCR that a log has to explain: from 10 on the running system extends as well.
pub const EXPLAINED_MAX: u8 = 9;

/// The PCR that the firmware measures Secure Boot's state and keys into.
pub const SECURE_BOOT_PCR: u8 = 7;

/// What an event is (§10.4.1), as far as it matters here.
pub mod kind {
    pub const POST_CODE: u32 = 0x1;
    pub const NO_ACTION: u32 = 0x3;
    pub const SEPARATOR: u32 = 0x4;
    pub const S_CRTM_CONTENTS: u32 = 0x7;
    pub const S_CRTM_VERSION: u32 = 0x8;
    pub const CPU_MICROCODE: u32 = 0x9;
    pub const PLATFORM_CONFIG_FLAGS: u32 = 0xa;
    pub const POST_CODE_2: u32 = 0x13;
    pub const EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
    pub const EFI_PLATFORM_FIRMWARE_BLOB: u32 = 0x8000_0008;
    pub const EFI_PLATFORM_FIRMWARE_BLOB_2: u32 = 0x8000_000a;
    pub const EFI_HCRTM: u32 = 0x8000_0010;
}

/// Kinds that the firmware measures before it hands over, and nobody after that.
const BEFORE_HANDOVER: [u32; 9] = [
    kind::POST_CODE,
    kind::POST_CODE_2,
    kind::S_CRTM_CONTENTS,
    kind::S_CRTM_VERSION,
    kind::CPU_MICROCODE,
    kind::PLATFORM_CONFIG_FLAGS,
    kind::EFI_PLATFORM_FIRMWARE_BLOB,
    kind::EFI_PLATFORM_FIRMWARE_BLOB_2,
    kind::EFI_HCRTM,
];

/// What a separator says where the firmware has failed (§10.4.2).
const FAILED: [u8; 4] = 1u32.to_le_bytes();

const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";

/// EFI_GLOBAL_VARIABLE, 8be4df61-93ca-11d2-aa0d-00e098032b8c.
const GLOBAL_VARIABLE: [u8; 16] = [
    0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
];

/// The variable that says whether it is on.
const SECURE_BOOT: &str = "SecureBoot";

/// A log, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLog<'a> {
    /// In their order.
    pub events: Vec<Event<'a>>,
    /// Hashes of the log and how long their digests are.
    hashes: Vec<(u16, u16)>,
    /// From which locality PCR 0 was begun.
    startup_locality: u8,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Which PCR was extended.
    pub pcr: PcrIndex,
    /// One of [`kind`], or another.
    pub kind: u32,
    /// By bank; those of unknown hashes are left out.
    digests: Vec<(Bank, &'a [u8])>,
    /// What it says of itself.
    pub data: &'a [u8],
}

impl<'a> EventLog<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &'a [u8]) -> Result<EventLog<'a>, Wrong> {
        let mut reader = Reader::of(bytes);
        let mut log = EventLog {
            events: Vec::new(),
            hashes: header(&mut reader)?,
            startup_locality: 0,
        };
        while !reader.is_over() {
            if log.events.len() == EVENTS_MAX {
                return Err("has too many events");
            }
            log.event(&mut reader)?;
        }
        Ok(log)
    }

    /// TCG_PCR_EVENT2
    fn event(&mut self, reader: &mut Reader<'a>) -> Result<(), Wrong> {
        let (pcr, kind) = (reader.u32_le()?, reader.u32_le()?);
        let count = reader.u32_le()?;
        if count > HASHES_MAX {
            return Err("has an event with too many digests");
        }
        let mut digests: Vec<(Bank, &[u8])> = Vec::new();
        for _ in 0..count {
            let id = reader.u16_le()?;
            let known = self.hashes.iter().find(|(known, _)| *known == id);
            let (_, length) = known.ok_or("has a digest of a hash that it did not begin with")?;
            let digest = reader.take(usize::from(*length))?;
            let Some(bank) = Hash::of_id(id) else {
                continue;
            };
            if digests.iter().any(|(other, _)| *other == bank) {
                return Err("has an event with two digests of one hash");
            }
            digests.push((bank, digest));
        }
        let data = reader.sized_le(usize::MAX)?;
        if kind == kind::NO_ACTION {
            return self.no_action(pcr, data);
        }
        let pcr = u8::try_from(pcr).ok().and_then(PcrIndex::new);
        let pcr = pcr.ok_or("extends a PCR that a PC does not have")?;
        self.events.push(Event {
            pcr,
            kind,
            digests,
            data,
        });
        Ok(())
    }

    /// What extends nothing. Of it, only how PCR 0 began matters, which is said before it is extended.
    fn no_action(&mut self, pcr: u32, data: &[u8]) -> Result<(), Wrong> {
        let Some(rest) = data.strip_prefix(STARTUP_LOCALITY) else {
            return Ok(());
        };
        let begun = |event: &Event<'_>| event.pcr.number() == 0;
        match (pcr, rest, self.startup_locality) {
            (0, [locality @ (0 | 3 | 4)], 0) if !self.events.iter().any(begun) => {
                self.startup_locality = *locality;
                Ok(())
            }
            _ => Err("says something strange about the locality that it began in"),
        }
    }

    /// What the PCRs of a bank are when these events have extended them, those that none has
    /// extended left out.
    ///
    /// # Errors
    /// An event has no digest of this bank.
    pub fn replay(&self, bank: Bank) -> Result<BTreeMap<PcrIndex, PcrValue>, Wrong> {
        let mut values: BTreeMap<PcrIndex, Vec<u8>> = BTreeMap::new();
        for event in &self.events {
            let digest = event.digest(bank).ok_or("has an event without this bank")?;
            let begin = || self.beginning(event.pcr, bank);
            let value = values.entry(event.pcr).or_insert_with(begin);
            *value = bank.of(&[value, digest]);
        }
        let value = |(pcr, value): (PcrIndex, Vec<u8>)| (pcr, PcrValue::new(&value));
        Ok(values.into_iter().map(value).collect())
    }

    /// The value of a PCR after the TPM was started (PC Client Platform TPM Profile §4.6.2).
    pub fn beginning(&self, pcr: PcrIndex, bank: Bank) -> Vec<u8> {
        let mut value = match pcr.number() {
            17..=22 => vec![0xff; bank.digest_len()],
            _ => vec![0; bank.digest_len()],
        };
        if let (0, Some(last)) = (pcr.number(), value.last_mut()) {
            *last = self.startup_locality;
        }
        value
    }

    /// Whether the firmware has closed each of its PCRs once, and nobody has acted as the firmware
    /// after that.
    ///
    /// # Errors
    /// Where not.
    pub fn handover(&self, bank: Bank) -> Result<(), String> {
        let mut closed = [false; FIRMWARE_PCR_MAX as usize + 1];
        for event in &self.events {
            let Some(closed) = closed.get_mut(usize::from(event.pcr.number())) else {
                continue;
            };
            let pcr = event.pcr;
            // The type of an event is in nothing that is measured: what has a separator's digest is one, and what
            // has another is none, whatever they are said to be.
            let separates = event.separates(bank);
            if (event.kind == kind::SEPARATOR) != separates.is_some() {
                let kind = event.kind;
                return Err(format!(
                    "an event of PCR {pcr} is said to be of type {kind:#x}, and was measured as another"
                ));
            }
            if let Some(separator) = separates {
                if std::mem::replace(closed, true) {
                    return Err(format!("PCR {pcr} has two separators"));
                }
                if separator == FAILED {
                    return Err(format!(
                        "the separator of PCR {pcr} says that something failed"
                    ));
                }
            } else if *closed && event.is_firmwares() {
                let kind = event.kind;
                return Err(format!(
                    "an event of type {kind:#x} extends PCR {pcr} after its separator"
                ));
            }
        }
        match closed.iter().position(|closed| !closed) {
            None => Ok(()),
            Some(pcr) => Err(format!("PCR {pcr} has no separator")),
        }
    }

    /// Whether Secure Boot was on: what the firmware measured of the variable, once, and before it closed the PCR.
    pub fn secure_boot(&self, bank: Bank) -> Option<bool> {
        let is_its = |event: &&Event<'_>| event.pcr.number() == SECURE_BOOT_PCR;
        let (mut found, mut is_closed) = (None, false);
        for event in self.events.iter().filter(is_its) {
            is_closed |= event.separates(bank).is_some();
            match (event.secure_boot(bank), found) {
                (None, _) => {}
                (Some(on), None) if !is_closed => found = Some(on),
                (Some(_), _) => return None,
            }
        }
        found
    }
}

impl<'a> Event<'a> {
    /// What extended the PCR of this bank.
    pub fn digest(&self, bank: Bank) -> Option<&'a [u8]> {
        let found = self.digests.iter().find(|(other, _)| *other == bank);
        found.map(|(_, digest)| *digest)
    }

    /// Whether its data is what was measured: then, and only then, it may be believed.
    pub fn says_what_was_measured(&self, bank: Bank) -> bool {
        self.digest(bank) == Some(&bank.of(&[self.data]))
    }

    /// What it says as a separator, if it was measured as one.
    fn separates(&self, bank: Bank) -> Option<[u8; 4]> {
        let digest = self.digest(bank)?;
        let mut known = [[0; 4], [0xff; 4], FAILED].into_iter();
        known.find(|it| bank.of(&[it]) == digest)
    }

    /// Whether Secure Boot was on, if this is where the variable was measured: by its digest, whatever the event is called
    /// and says; or by what it says, where a firmware lays the variable out in its own way.
    fn secure_boot(&self, bank: Bank) -> Option<bool> {
        let digest = self.digest(bank)?;
        let values: [&[u8]; 3] = [&[], &[0], &[1]];
        let is_it = |value: &&[u8]| bank.of(&[&global_variable(SECURE_BOOT, value)]) == digest;
        let known = values.into_iter().find(is_it);
        let said = variable(self.data, SECURE_BOOT).filter(|_| {
            self.kind == kind::EFI_VARIABLE_DRIVER_CONFIG && self.says_what_was_measured(bank)
        });
        known.or(said).map(|value| value == [1])
    }

    fn is_firmwares(&self) -> bool {
        let is_its = self.pcr.number() == SECURE_BOOT_PCR;
        let config = self.kind == kind::EFI_VARIABLE_DRIVER_CONFIG && is_its;
        config || BEFORE_HANDOVER.contains(&self.kind)
    }
}

/// The first record, which has the older form: its hashes.
fn header(reader: &mut Reader<'_>) -> Result<Vec<(u16, u16)>, Wrong> {
    const OTHER: Wrong = "does not begin as a crypto-agile log";
    let (pcr, kind) = (reader.u32_le()?, reader.u32_le()?);
    let digest = reader.take(20)?;
    if (pcr, kind) != (0, kind::NO_ACTION) || digest.iter().any(|byte| *byte != 0) {
        return Err(OTHER);
    }
    let mut reader = Reader::of(reader.sized_le(1024)?);
    if reader.take(SIGNATURE.len())? != SIGNATURE {
        return Err(OTHER);
    }
    reader.take(8)?; // class of platform, version, width of a UINTN
    let count = reader.u32_le()?;
    if count == 0 || count > HASHES_MAX {
        return Err("has no hashes, or too many");
    }
    let mut hashes: Vec<(u16, u16)> = Vec::new();
    for _ in 0..count {
        let (id, length) = (reader.u16_le()?, reader.u16_le()?);
        let is_its = Hash::of_id(id).is_none_or(|hash| hash.digest_len() == usize::from(length));
        let is_new = hashes.iter().all(|(other, _)| *other != id);
        if !is_its || !is_new || length > DIGEST_LEN_MAX {
            return Err("has a hash with another length, or twice");
        }
        hashes.push((id, length));
    }
    let vendor = reader.byte()?;
    reader.take(usize::from(vendor))?;
    reader.end()?;
    Ok(hashes)
}

/// UEFI_VARIABLE_DATA (§10.2.6) of a global variable of this name, as the firmware measures it.
fn global_variable(name: &str, value: &[u8]) -> Vec<u8> {
    let name: Vec<u16> = name.encode_utf16().collect();
    let lengths = [name.len(), value.len()].map(|it| (it as u64).to_le_bytes());
    let name: Vec<u8> = name.into_iter().flat_map(u16::to_le_bytes).collect();
    [&GLOBAL_VARIABLE[..], &lengths.concat(), &name, value].concat()
}

/// The value of a global variable of this name in such data.
fn variable<'a>(data: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (guid, rest) = data.split_first_chunk::<16>()?;
    let (name_len, rest) = rest.split_first_chunk::<8>()?;
    let (value_len, rest) = rest.split_first_chunk::<8>()?;
    let name_len = usize::try_from(u64::from_le_bytes(*name_len)).ok()?;
    let value_len = usize::try_from(u64::from_le_bytes(*value_len)).ok()?;
    let expected: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (found, value) = rest.split_at_checked(name_len.checked_mul(2)?)?;
    (*guid == GLOBAL_VARIABLE && found == expected && value.len() == value_len).then_some(value)
}

#[cfg(test)]
mod tests;
