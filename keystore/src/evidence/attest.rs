//! TPMS_ATTEST (TPM 2.0 Part 2 §10.12): what a TPM states about a key, or about its PCRs. A restricted key
//! signs such bytes only where the TPM itself has made them.

use super::bundle::{Bank, NAME_LEN_MAX, PcrIndex};
use super::hash::Hash;
use super::wire::{Reader, Wrong};
use std::collections::BTreeSet;

/// TPM_GENERATED_VALUE: `\xffTCG`
const MAGIC: u32 = 0xff54_4347;

const CERTIFY: u16 = 0x8017;
const QUOTE: u16 = 0x8018;

/// Longest extraData: a digest, or a Name.
const EXTRA_LEN_MAX: usize = 66;

/// Most banks of a TPM, and so of a selection.
const BANKS_MAX: u32 = 16;

/// Most bytes of a bitmap; a PC has 3.
const SELECT_LEN_MAX: u8 = 4;

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    /// Qualified Name of the key that signs it.
    pub qualified_signer: Vec<u8>,
    /// What whoever asked for it wanted in it.
    pub extra_data: Vec<u8>,
    /// When.
    pub clock: ClockInfo,
    /// Of the TPM's firmware.
    pub firmware_version: u64,
    /// About what.
    pub attested: Attested,
}

/// TPMS_CLOCK_INFO (Part 2 §10.11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds that the TPM had power.
    pub clock_ms: u64,
    /// How often it was reset (the host booted).
    pub reset_count: u32,
    /// How often it was restarted or resumed since.
    pub restart_count: u32,
    /// Whether the clock has certainly not gone back.
    pub safe: bool,
}

/// What a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attested {
    /// An object that is loaded.
    Certify {
        /// Its Name.
        name: Vec<u8>,
        /// Its Qualified Name.
        qualified_name: Vec<u8>,
    },
    /// PCRs.
    Quote {
        /// Which, in the order that their values are hashed in.
        selection: Selected,
        /// The digest of the values.
        digest: Vec<u8>,
    },
}

/// TPML_PCR_SELECTION: banks in the TPM's order, each once, and without those of which nothing is
/// selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected(pub Vec<(Bank, BTreeSet<PcrIndex>)>);

impl Attest {
    /// Reads one; nothing may follow it.
    ///
    /// # Errors
    /// What is wrong with it: not made by a TPM, or another type of statement too.
    pub fn parse(bytes: &[u8]) -> Result<Attest, Wrong> {
        let mut reader = Reader::of(bytes);
        if reader.u32()? != MAGIC {
            return Err("does not begin as what a TPM makes");
        }
        let kind = reader.u16()?;
        if ![CERTIFY, QUOTE].contains(&kind) {
            return Err("is neither of TPM2_Certify nor of TPM2_Quote");
        }
        let qualified_signer = name(&mut reader)?;
        let extra_data = reader.sized(EXTRA_LEN_MAX)?.to_vec();
        let clock = ClockInfo {
            clock_ms: reader.u64()?,
            reset_count: reader.u32()?,
            restart_count: reader.u32()?,
            safe: match reader.byte()? {
                0 => false,
                1 => true,
                _ => return Err("has a truth value that is neither true nor false"),
            },
        };
        let firmware_version = reader.u64()?;
        let attested = match kind {
            CERTIFY => Attested::Certify {
                name: name(&mut reader)?,
                qualified_name: name(&mut reader)?,
            },
            _ => Attested::Quote {
                selection: Selected::read(&mut reader)?,
                digest: reader.sized(64)?.to_vec(),
            },
        };
        reader.end()?;
        Ok(Attest {
            qualified_signer,
            extra_data,
            clock,
            firmware_version,
            attested,
        })
    }
}

impl Selected {
    /// Reads one; nothing may follow it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Selected, Wrong> {
        let mut reader = Reader::of(bytes);
        let selected = Selected::read(&mut reader)?;
        reader.end()?;
        Ok(selected)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Selected, Wrong> {
        let banks = reader.u32()?;
        if banks > BANKS_MAX {
            return Err("selects from too many banks");
        }
        let mut selected: Vec<(Bank, BTreeSet<PcrIndex>)> = Vec::new();
        for _ in 0..banks {
            let bank = reader.u16()?;
            let length = reader.byte()?;
            if length > SELECT_LEN_MAX {
                return Err("has a selection that is too long");
            }
            let bitmap = reader.take(usize::from(length))?;
            let mut indices = BTreeSet::new();
            for bit in 0..length * 8 {
                if bitmap[usize::from(bit / 8)] >> (bit % 8) & 1 == 1 {
                    let index =
                        PcrIndex::new(bit).ok_or("selects a PCR that a PC does not have")?;
                    indices.insert(index);
                }
            }
            if indices.is_empty() {
                continue; // of a bank that need not be known
            }
            let bank = Hash::of_id(bank).ok_or("selects from a bank of an unknown hash")?;
            if selected.iter().any(|(other, _)| *other == bank) {
                return Err("selects from a bank twice");
            }
            selected.push((bank, indices));
        }
        Ok(Selected(selected))
    }
}

/// TPM2B_NAME: empty, a handle, or a hash's id and a digest.
fn name(reader: &mut Reader<'_>) -> Result<Vec<u8>, Wrong> {
    reader.sized(NAME_LEN_MAX).map(<[u8]>::to_vec)
}
