//! A kernel's list of measurements.
//!
//! Asserted: what is read takes no more room than the list; for the value that each of its beginnings gives, the
//! list is found to lead there by that many entries or fewer; and it leads to no value that none of them
//! gives.

use keystore::evidence::bundle::{Bank, PcrValue};
use keystore::evidence::ima::{List, Replay};

/// The shortest entry: PCR, digest, a name, no data.
const ENTRY_LEN_MIN: usize = 34;

/// Runs one input.
pub fn check(data: &[u8]) {
    let Ok(list) = List::parse(data) else {
        return;
    };
    assert!(list.entries.len() * ENTRY_LEN_MIN <= data.len());
    let bank = Bank::Sha256;
    let begin = vec![0; bank.digest_len()];
    let nowhere = PcrValue::new(&[0x5a; 32]);
    assert_eq!(list.replay(bank, &begin, &nowhere), Replay::None);
    assert_eq!(
        list.replay(bank, &begin, &PcrValue::new(&begin)),
        Replay::Entries(0)
    );
    // Read once more here, to know what is extended.
    let mut rest = data;
    let mut value = begin.clone();
    let mut violated = false;
    for index in 1..=list.entries.len() {
        let (digest, after) = rest[4..].split_at(20);
        let sized = |bytes: &'_ [u8]| {
            let length = u32::from_le_bytes(bytes[..4].try_into().expect("there are four"));
            4 + length as usize
        };
        let after = &after[sized(after)..];
        let end = sized(after);
        let content = &after[4..end];
        rest = &after[end..];
        let is_violation = digest == [0; 20];
        violated |= is_violation;
        let extended = match is_violation {
            true => vec![0xff; 32],
            false => bank.of(&[content]),
        };
        value = bank.of(&[&value, &extended]);
        match list.replay(bank, &begin, &PcrValue::new(&value)) {
            Replay::Entries(count) => assert!(count == index && !violated),
            Replay::Violation(at) => assert!(at < index && violated),
            Replay::None => panic!("{index} entries lead to a value that is not found"),
        }
        if index > 64 {
            break; // each costs as many hashes
        }
    }
    if let Some((hash, digest)) = list.boot_aggregate() {
        assert_eq!(digest.len(), hash.digest_len());
    }
}
