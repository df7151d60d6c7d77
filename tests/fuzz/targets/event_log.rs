//! A firmware's event log.
//!
//! Asserted: what is read takes no more room than the log; each PCR has the value that its digests give, one
//! after the other, as computed here; what an event says is believed only if it is what was measured; a log that
//! was handed over in good order has a separator for each PCR of the firmware.

use keystore::evidence::bundle::{Bank, PcrIndex, PcrValue};
use keystore::evidence::eventlog::{EventLog, kind};

/// The shortest event: PCR, type, no digest, no data.
const EVENT_LEN_MIN: usize = 16;

/// Runs one input.
pub fn check(data: &[u8]) {
    let Ok(log) = EventLog::parse(data) else {
        return;
    };
    assert!(log.events.len() * EVENT_LEN_MIN <= data.len());
    for (bank, _) in Bank::ALL {
        let Ok(values) = log.replay(bank) else {
            assert!(log.events.iter().any(|event| event.digest(bank).is_none()));
            continue;
        };
        for index in 0..24 {
            let pcr = PcrIndex::new(index).expect("a PC has it");
            let mut expected = log.beginning(pcr, bank);
            assert_eq!(expected.len(), bank.digest_len());
            let mut extended = false;
            for event in log.events.iter().filter(|event| event.pcr == pcr) {
                let digest = event.digest(bank).expect("it was replayed");
                assert_eq!(digest.len(), bank.digest_len());
                expected = bank.of(&[&expected, digest]);
                extended = true;
            }
            let expected = extended.then(|| PcrValue::new(&expected));
            assert_eq!(values.get(&pcr), expected.as_ref());
        }
        let separators = |pcr| {
            let of = |event: &&_| is_separator(event, pcr);
            log.events.iter().filter(of).count()
        };
        if log.handover(bank).is_ok() {
            assert!((0..8).all(|pcr| separators(pcr) == 1));
        }
        if log.secure_boot(bank).is_some() {
            let known = [None, Some(0), Some(1)].map(|value| bank.of(&[&variable(value)]));
            let shown = log.events.iter().any(|event| {
                let digest = event.digest(bank).unwrap_or_default();
                let is_it = digest == bank.of(&[event.data]) || known.iter().any(|it| it == digest);
                event.pcr.number() == 7 && is_it
            });
            assert!(shown, "an event is believed that is not what was measured");
        }
    }
}

/// UEFI_VARIABLE_DATA of SecureBoot.
fn variable(value: Option<u8>) -> Vec<u8> {
    let mut variable = super::fixture::logs::variable(value.unwrap_or_default());
    if value.is_none() {
        variable.pop();
        variable[24] = 0; // of its length
    }
    variable
}

fn is_separator(event: &keystore::evidence::eventlog::Event<'_>, pcr: u8) -> bool {
    event.kind == kind::SEPARATOR && event.pcr.number() == pcr
}
