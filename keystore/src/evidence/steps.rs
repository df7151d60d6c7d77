//! What a policy of a key comes to (TPM 2.0 Part 3, enhanced authorization): the digest that a session must
//! have come to before the TPM uses the key. The keystore makes keys by it, and the verifier computes it again.

use super::bundle::{PolicyStep, Selection};
use super::hash::Hash;
use super::public::PublicArea;

const POLICY_PCR: u32 = 0x17f;
const POLICY_AUTHORIZE: u32 = 0x16a;
const POLICY_AUTH_VALUE: u32 = 0x16b;

/// authPolicy of these steps (TPM 2.0 Part 3 §23.7, §23.16, §23.17).
///
/// # Errors
/// A sentence: one of them is unusable.
pub fn policy_digest(steps: &[PolicyStep], hash: Hash) -> Result<Vec<u8>, String> {
    let mut digest = vec![0; hash.digest_len()];
    for (index, step) in steps.iter().enumerate() {
        digest = match step {
            PolicyStep::AuthValue {} => hash.of(&[&digest, &POLICY_AUTH_VALUE.to_be_bytes()]),
            PolicyStep::Pcr {
                selection,
                digest: of,
            } => {
                let selection = marshalled(selection);
                let command = POLICY_PCR.to_be_bytes();
                hash.of(&[&digest, &command, &selection, of.as_slice()])
            }
            // It begins anew: what stands before it is proven by nothing.
            PolicyStep::Authorize { .. } if index > 0 => {
                return Err("it shows steps in front of an approval, which prove nothing".into());
            }
            PolicyStep::Authorize {
                authority,
                reference,
            } => {
                let authority = PublicArea::parse(authority.as_slice());
                let authority = authority.map_err(|it| format!("who approves its policy {it}"))?;
                let zero = vec![0; hash.digest_len()];
                let command = POLICY_AUTHORIZE.to_be_bytes();
                let named = hash.of(&[&zero, &command, authority.name()]);
                hash.of(&[&named, reference.as_slice()])
            }
        };
    }
    Ok(digest)
}

/// TPML_PCR_SELECTION, three bytes of bitmap each.
fn marshalled(selection: &Selection) -> Vec<u8> {
    let count = u32::try_from(selection.len()).expect("there are four banks");
    let mut bytes = count.to_be_bytes().to_vec();
    for (bank, indices) in selection {
        bytes.extend(bank.id().to_be_bytes());
        let mut bitmap = [0u8; 3];
        for index in indices {
            bitmap[usize::from(index.number() / 8)] |= 1 << (index.number() % 8);
        }
        bytes.push(3);
        bytes.extend(bitmap);
    }
    bytes
}
