//! PCRs: read, selected, hashed. Nothing here changes one.

use crate::failure::Failure;
use aws_lc_rs::digest::{self, SHA256};
use keystore::evidence::bundle::{Bank, PcrIndex, PcrValue, Pcrs, Selection};
use keystore::{Error, Kind};
use tss_esapi::Context;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{PcrSelectionList, PcrSlot};

/// TPM2_PCR_Read answers with eight values at most; four banks have twelve times as many.
const READS_MAX: usize = 16;

/// As the TPM has it.
pub fn list(selection: &Selection) -> tss_esapi::Result<PcrSelectionList> {
    let mut list = PcrSelectionList::builder();
    for (bank, indices) in selection {
        let slots: Vec<PcrSlot> = indices
            .iter()
            .map(|index| PcrSlot::try_from(1u32 << index.number()))
            .collect::<Result<_, _>>()?;
        list = list.with_selection(algorithm(*bank), &slots);
    }
    list.build()
}

/// Their values.
///
/// # Errors
/// `Unsupported` if one is not there, such as those of a bank that is not active.
pub fn read(context: &mut Context, selection: &Selection, place: &str) -> Result<Pcrs, Failure> {
    let failed = |error: tss_esapi::Error| Failure::of(place, "reading PCRs", &error);
    let (mut left, mut values) = (selection.clone(), Pcrs::new());
    for _ in 0..READS_MAX {
        left.retain(|_, indices| !indices.is_empty());
        if left.is_empty() {
            return Ok(values);
        }
        let wanted = list(&left).map_err(failed)?;
        let (_, read, digests) = context
            .execute_without_session(|c| c.pcr_read(wanted))
            .map_err(failed)?;
        let read = which(&read);
        if read.is_empty() || read.len() != digests.value().len() {
            break;
        }
        for ((bank, index), digest) in read.into_iter().zip(digests.value()) {
            let is_wanted = left.get_mut(&bank).is_some_and(|left| left.remove(&index));
            if !is_wanted || digest.value().len() != bank.digest_len() {
                let text = format!("{place}: reading PCRs: it answered with others");
                return Err(Error::new(Kind::Mismatch, text).into());
            }
            let value = PcrValue::new(digest.value());
            values.entry(bank).or_default().insert(index, value);
        }
    }
    let missing = left.keys().next().map_or("", |bank| bank.name());
    let text = format!(
        "{place}: does not show all of the PCRs that are asked for of bank {missing}; `tpm2_getcap pcrs` \
         lists those it has; choose `bank` and `pcrs` in [attest] by that"
    );
    Err(Error::new(Kind::Unsupported, text).into())
}

/// The banks and indices of a list, in its order.
fn which(list: &PcrSelectionList) -> Vec<(Bank, PcrIndex)> {
    let mut which = Vec::new();
    for selection in list.get_selections() {
        let bank = Bank::ALL
            .into_iter()
            .map(|(bank, _)| bank)
            .find(|bank| algorithm(*bank) == selection.hashing_algorithm());
        let slots = selection.selected();
        let selected = slots.iter().fold(0, |all, slot| all | u32::from(*slot));
        let indices = (0..32u8).filter(|bit| selected & (1 << bit) != 0);
        which.extend(indices.filter_map(|index| Some((bank?, PcrIndex::new(index)?))));
    }
    which
}

/// What TPM2_Quote signs of the values: their SHA-256, one after the other in the order of the selection
/// (the attestation key's hash).
pub fn digest_of(values: &Pcrs) -> Vec<u8> {
    let mut context = digest::Context::new(&SHA256);
    for value in values.values().flat_map(|bank| bank.values()) {
        context.update(value.as_slice());
    }
    context.finish().as_ref().to_vec()
}

fn algorithm(bank: Bank) -> HashingAlgorithm {
    match bank {
        Bank::Sha1 => HashingAlgorithm::Sha1,
        Bank::Sha256 => HashingAlgorithm::Sha256,
        Bank::Sha384 => HashingAlgorithm::Sha384,
        Bank::Sha512 => HashingAlgorithm::Sha512,
    }
}
