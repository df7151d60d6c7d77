//! What firmware and kernel write.

use super::{Bank, Hash};

/// A firmware that handed over in good order, with Secure Boot on or off.
pub fn event_log(secure_boot: u8) -> Vec<u8> {
    let mut log = begun();
    log.extend(event(0, 8, b"version"));
    log.extend(event(7, 0x8000_0001, &variable(secure_boot)));
    for pcr in 0..8 {
        log.extend(event(pcr, 4, &[0; 4]));
    }
    log.extend(event(4, 0x8000_0003, b"kernel"));
    log
}

/// The first record: SHA-1 and SHA-256.
pub fn begun() -> Vec<u8> {
    let mut spec = b"Spec ID Event03\0".to_vec();
    spec.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    spec.extend(2u32.to_le_bytes());
    for (id, length) in [(4u16, 20u16), (0xb, 32)] {
        spec.extend([id.to_le_bytes(), length.to_le_bytes()].concat());
    }
    spec.push(0);
    let mut log = [0u32, 3].map(u32::to_le_bytes).concat();
    log.extend([0; 20]);
    log.extend((spec.len() as u32).to_le_bytes());
    log.extend(spec);
    log
}

/// An event that says what was measured.
pub fn event(pcr: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut event = [pcr, kind, 2].map(u32::to_le_bytes).concat();
    for bank in [Bank::Sha1, Bank::Sha256] {
        event.extend(bank.id().to_le_bytes());
        event.extend(bank.of(&[data]));
    }
    event.extend((data.len() as u32).to_le_bytes());
    event.extend(data);
    event
}

pub fn variable(value: u8) -> Vec<u8> {
    let guid = [
        0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b,
        0x8c,
    ];
    let name: Vec<u8> = "SecureBoot"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let lengths = [10u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
    [&guid[..], &lengths, &name, &[value]].concat()
}

/// A list that begins with this aggregate and has entries after what was quoted; and PCR 10.
pub fn ima(aggregate: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let quoted = ("/usr/bin/assertd", "sha256", &[1; 32][..]);
    let (mut list, value) = ima_of(&[("boot_aggregate", "sha256", aggregate), quoted]);
    list.extend(ima_of(&[("/usr/bin/later", "sha256", &[2; 32])]).0);
    (list, value)
}

/// A list of these files, each with a hash and its digest; and PCR 10.
pub fn ima_of(files: &[(&str, &str, &[u8])]) -> (Vec<u8>, Vec<u8>) {
    let mut list = Vec::new();
    let mut value = vec![0; 32];
    for (name, hash, digest) in files {
        let sized = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
        let digest = sized(&[hash.as_bytes(), b":\0", digest].concat());
        let data = [digest, sized(&[name.as_bytes(), b"\0"].concat())].concat();
        list.extend(10u32.to_le_bytes());
        list.extend(Hash::Sha1.of(&[&data]));
        list.extend(sized(b"ima-ng"));
        list.extend(sized(&data));
        value = Hash::Sha256.of(&[&value, &Hash::Sha256.of(&[&data])]);
    }
    (list, value)
}
