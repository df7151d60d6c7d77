use super::*;

/// A log of the SHA-1 and SHA-256 banks.
pub fn begun() -> Vec<u8> {
    let mut spec = SIGNATURE.to_vec();
    spec.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    spec.extend(2u32.to_le_bytes());
    for (id, length) in [(4u16, 20u16), (0xb, 32)] {
        spec.extend([id.to_le_bytes(), length.to_le_bytes()].concat());
    }
    spec.push(0);
    let mut log = [[0; 4], kind::NO_ACTION.to_le_bytes()].concat();
    log.extend([0; 20]);
    log.extend((spec.len() as u32).to_le_bytes());
    log.extend(spec);
    log
}

/// An event whose digests are of `measured`, and which says `data`.
pub fn event(pcr: u32, kind: u32, measured: &[u8], data: &[u8]) -> Vec<u8> {
    let mut event = [pcr, kind, 2].map(u32::to_le_bytes).concat();
    for bank in [Bank::Sha1, Bank::Sha256] {
        event.extend(bank.id().to_le_bytes());
        event.extend(bank.of(&[measured]));
    }
    event.extend((data.len() as u32).to_le_bytes());
    event.extend(data);
    event
}

fn separator(pcr: u32) -> Vec<u8> {
    event(pcr, kind::SEPARATOR, &[0; 4], &[0; 4])
}

fn closed(pcrs: impl IntoIterator<Item = u32>) -> Vec<u8> {
    pcrs.into_iter().flat_map(separator).collect()
}

fn secure_boot(value: u8) -> Vec<u8> {
    let name: Vec<u8> = "SecureBoot"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let lengths = [10u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
    [&GLOBAL_VARIABLE[..], &lengths, &name, &[value]].concat()
}

fn pcr(index: u8) -> PcrIndex {
    PcrIndex::new(index).unwrap()
}

#[test]
fn events_extend_what_the_tpm_began_with() {
    let locality = event(0, kind::NO_ACTION, b"", b"StartupLocality\0\x03");
    let log = [
        begun(),
        locality,
        event(0, 8, b"version", b"version"),
        separator(17),
    ]
    .concat();
    let log = EventLog::parse(&log).unwrap();
    let values = log.replay(Bank::Sha256).unwrap();
    let hash = |parts: &[&[u8]]| Bank::Sha256.of(parts);
    let mut begin = vec![0; 32];
    begin[31] = 3;
    let expected = hash(&[&begin, &hash(&[b"version"])]);
    assert_eq!(values[&pcr(0)].as_slice(), expected);
    let expected = hash(&[&[0xff; 32], &hash(&[&[0; 4]])]);
    assert_eq!(values[&pcr(17)].as_slice(), expected);
    assert_eq!(values.len(), 2);
    assert_eq!(
        log.replay(Bank::Sha384),
        Err("has an event without this bank")
    );
}

#[test]
fn the_firmware_closes_each_of_its_pcrs_once() {
    let judged = |events: &[Vec<u8>]| {
        let log = [begun(), events.concat()].concat();
        EventLog::parse(&log).unwrap().handover(Bank::Sha256)
    };
    let version = || event(0, kind::S_CRTM_VERSION, b"v", b"v");
    assert_eq!(judged(&[version(), closed(0..8)]), Ok(()));
    assert_eq!(
        judged(&[closed(0..8), event(4, 0x8000_0003, b"kernel", b"path")]),
        Ok(())
    );
    for (events, wrong) in [
        (vec![closed(0..7)], "PCR 7 has no separator"),
        (vec![closed(0..8), separator(3)], "PCR 3 has two separators"),
        (
            vec![closed(0..7), event(7, 5, &[0; 4], &[0; 4]), separator(7)],
            "an event of PCR 7 is said to be of type 0x5, and was measured as another",
        ),
        (
            vec![closed(0..7), event(7, kind::SEPARATOR, b"x", &[0; 4])],
            "an event of PCR 7 is said to be of type 0x4, and was measured as another",
        ),
        (
            vec![closed(0..8), version()],
            "an event of type 0x8 extends PCR 0 after its separator",
        ),
        (
            vec![
                closed(1..8),
                event(0, kind::SEPARATOR, &[1, 0, 0, 0], &[1, 0, 0, 0]),
            ],
            "the separator of PCR 0 says that something failed",
        ),
        (
            vec![
                closed(1..8),
                event(0, kind::SEPARATOR, &[1, 0, 0, 0], &[0; 4]),
            ],
            "the separator of PCR 0 says that something failed",
        ),
    ] {
        assert_eq!(judged(&events), Err(wrong.into()));
    }
}

#[test]
fn an_event_is_believed_only_where_it_says_what_was_measured() {
    let (on, off) = (secure_boot(1), secure_boot(0));
    let none = global_variable(SECURE_BOOT, &[]);
    assert_eq!(global_variable(SECURE_BOOT, &[1]), on);
    let of =
        |measured: &[u8], data: &[u8]| event(7, kind::EFI_VARIABLE_DRIVER_CONFIG, measured, data);
    for (events, expected) in [
        (vec![of(&on, &on)], Some(true)),
        (vec![of(&off, &off)], Some(false)),
        // Of what the variable can be, the digest is enough.
        (vec![of(&off, &on)], Some(false)),
        (vec![of(&secure_boot(2), &on)], None),
        (vec![of(&secure_boot(2), &secure_boot(2))], Some(false)),
        (vec![event(7, 5, &off, b"x")], Some(false)),
        (vec![event(7, 5, &off, b"x"), of(&on, &on)], None),
        (vec![of(&none, &none), of(&on, &on)], None),
        (vec![separator(7), event(7, 5, &on, &on)], None),
        (vec![of(&on, &on), separator(7), of(&on, &on)], None),
        (vec![of(&on, &on), of(&off, &off)], None),
        (
            vec![event(1, kind::EFI_VARIABLE_DRIVER_CONFIG, &on, &on)],
            None,
        ),
        (vec![], None),
    ] {
        let log = [begun(), events.concat()].concat();
        let log = EventLog::parse(&log).unwrap();
        assert_eq!(log.secure_boot(Bank::Sha256), expected);
    }
}

#[test]
fn a_strange_log_is_refused() {
    let whole = [begun(), separator(0)].concat();
    assert!(EventLog::parse(&whole).is_ok());
    for length in 0..whole.len() {
        let is_end = length == begun().len();
        assert_eq!(
            EventLog::parse(&whole[..length]).is_ok(),
            is_end,
            "{length}"
        );
    }
    let locality = |last: u8| {
        event(
            0,
            kind::NO_ACTION,
            b"",
            &[STARTUP_LOCALITY, &[last][..]].concat(),
        )
    };
    for events in [
        separator(24),
        locality(2),
        [locality(3), locality(3)].concat(),
        [separator(0), locality(3)].concat(),
    ] {
        assert!(EventLog::parse(&[begun(), events].concat()).is_err());
    }
}
