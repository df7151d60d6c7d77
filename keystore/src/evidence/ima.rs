//! The list of the Integrity Measurement Architecture (`binary_runtime_measurements`): which files the kernel saw being
//! used. It counts as far as replaying it gives the PCR that was quoted; it says what ran, not what is in memory.
//! It grows while it is read, so that it may be longer than what the quote is about.

use super::bundle::{Bank, PcrIndex, PcrValue};
use super::hash::Hash;
use super::wire::{Reader, Wrong};

/// The PCR it extends, unless the kernel was told otherwise.
pub const PCR: u8 = 10;

/// Most entries: one has 60 bytes at least.
const ENTRIES_MAX: usize = 256 * 1024;

/// Longest name of a template (`IMA_TEMPLATE_NAME_FIELD…`: the kernel has 15 bytes and a zero).
const TEMPLATE_LEN_MAX: usize = 64;

/// Longest data of an entry: a path (4096 bytes), a digest, a signature.
const DATA_LEN_MAX: usize = 16 * 1024;

/// SHA-1 of the template's data, which each entry begins with.
const DIGEST_LEN: usize = 20;

/// A list, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<'a> {
    /// In their order.
    pub entries: Vec<Entry<'a>>,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// SHA-1 of `data`; zero in place of what could not be measured.
    digest: &'a [u8],
    /// What was extended is the digest of this.
    data: &'a [u8],
}

/// What comes of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// So many entries give the value; the rest came after it.
    Entries(usize),
    /// An entry among them is a violation: a file was changed while it was measured, or measured while
    /// it was open for writing.
    Violation(usize),
    /// None do.
    None,
}

impl<'a> List<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it; templates that have their digest otherwise (`ima`) are wrong as well.
    pub fn parse(bytes: &'a [u8]) -> Result<List<'a>, Wrong> {
        let mut reader = Reader::of(bytes);
        let mut entries = Vec::new();
        while !reader.is_over() {
            if entries.len() == ENTRIES_MAX {
                return Err("has too many entries");
            }
            if reader.u32_le()? != u32::from(PCR) {
                return Err("extends another PCR than 10");
            }
            let digest = reader.take(DIGEST_LEN)?;
            match reader.sized_le(TEMPLATE_LEN_MAX)? {
                b"ima-ng" | b"ima-sig" | b"ima-ngv2" | b"ima-sigv2" | b"ima-buf"
                | b"ima-modsig" | b"evm-sig" => {}
                _ => return Err("has a template that is not known"),
            }
            let data = reader.sized_le(DATA_LEN_MAX)?;
            entries.push(Entry { digest, data });
        }
        Ok(List { entries })
    }

    /// How much of the list gives this value of the PCR, which the kernel began to extend at `begin`.
    /// Whether an entry's SHA-1 is right matters in no other bank: it is the data that is extended.
    pub fn replay(&self, bank: Bank, begin: &[u8], quoted: &PcrValue) -> Replay {
        let mut value = begin.to_vec();
        let mut violation = None;
        for (index, entry) in self.entries.iter().enumerate() {
            if value == quoted.as_slice() {
                return found(index, violation);
            }
            let digest = match entry.is_violation() {
                true => {
                    violation.get_or_insert(index);
                    vec![0xff; bank.digest_len()]
                }
                false => bank.of(&[entry.data]),
            };
            value = bank.of(&[&value, &digest]);
        }
        match value == quoted.as_slice() {
            true => found(self.entries.len(), violation),
            false => Replay::None,
        }
    }

    /// The digest that the first entry, `boot_aggregate`, has of the PCRs at the time the kernel began.
    pub fn boot_aggregate(&self) -> Option<(Hash, &'a [u8])> {
        self.entries.first()?.file(b"boot_aggregate")
    }
}

impl<'a> Entry<'a> {
    /// Whether the kernel could not say what it measured.
    fn is_violation(&self) -> bool {
        self.digest.iter().all(|byte| *byte == 0)
    }

    /// The digest of the file, if it is the one of this name: `d-ng` and `n-ng`, the first two fields.
    fn file(&self, name: &[u8]) -> Option<(Hash, &'a [u8])> {
        let mut reader = Reader::of(self.data);
        let digest = reader.sized_le(DATA_LEN_MAX).ok()?;
        let found = reader.sized_le(DATA_LEN_MAX).ok()?;
        if found.strip_suffix(&[0]) != Some(name) {
            return None;
        }
        // `sha256:`, a zero, the digest.
        let colon = digest.iter().position(|byte| *byte == b':')?;
        let (algorithm, rest) = digest.split_at(colon);
        let digest = rest.strip_prefix(b":\0")?;
        let hash = Bank::ALL.into_iter().map(|(bank, _)| bank);
        let hash = hash
            .into_iter()
            .find(|hash| hash.name().as_bytes() == algorithm)?;
        (digest.len() == hash.digest_len()).then_some((hash, digest))
    }
}

fn found(entries: usize, violation: Option<usize>) -> Replay {
    match violation {
        Some(index) => Replay::Violation(index),
        None => Replay::Entries(entries),
    }
}

/// What `boot_aggregate` is a digest of: PCR 0 to 9, or of the SHA-1 bank 0 to 7 (Linux 5.8 on).
pub fn aggregated(bank: Bank) -> impl Iterator<Item = PcrIndex> {
    let last = if bank == Bank::Sha1 { 7 } else { 9 };
    (0..=last).filter_map(PcrIndex::new)
}

#[cfg(test)]
mod tests;
