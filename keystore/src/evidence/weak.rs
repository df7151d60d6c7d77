//! TPMs whose private keys others can have, whatever a policy says.
//!
//! RSA keys that Infineon's library made until 2017 (ROCA, CVE-2017-15361) can be computed from the public
//! half. Their primes are of a form that shows in the modulus: modulo each small prime, it is a power of
//! 65537 (Nemec et al., CCS 2017, §2.3).
//!
//! ECDSA keys of some STMicroelectronics firmware can be computed from how long signatures take (TPM-FAIL,
//! CVE-2019-16863). Of Intel's firmware TPM (CVE-2019-11090) the TPM's own version does not say it: whether
//! the management engine was updated is for a policy's `[[firmware.deny]]`.

use super::bundle::Firmware;
use crate::PublicKey;

/// Small primes modulo which few numbers are powers of 65537; a modulus at random passes all of them
/// once in 2^27.
const PRIMES: [u16; 17] = [
    11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
];

/// Whether a modulus (big-endian) looks like one of those.
pub fn is_roca(modulus: &[u8]) -> bool {
    PRIMES
        .iter()
        .all(|prime| is_power(*prime, remainder(modulus, *prime)))
}

/// Whether a key is none of those whose private half can be computed.
///
/// # Errors
/// A sentence: why it can.
pub fn check(key: &PublicKey) -> Result<(), &'static str> {
    match key {
        PublicKey::Rsa { e, .. } if *e != [1, 0, 1] => Err("its exponent is not 65537"),
        PublicKey::Rsa { n, .. } if is_roca(n) => {
            Err("its private half can be computed (ROCA, CVE-2017-15361)")
        }
        _ => Ok(()),
    }
}

/// Major and minor version of the firmware of ST33TPHF2… and ST33TPHF20… that is affected
/// (st.com/content/st_com/en/campaigns/tpm-update.html).
const ST_TPM_FAIL: [(u16, u16); 14] = [
    (71, 0),
    (71, 4),
    (71, 12),
    (73, 0),
    (73, 4),
    (73, 5),
    (73, 8),
    (73, 9),
    (74, 0),
    (74, 4),
    (74, 5),
    (74, 8),
    (74, 9),
    (74, 16),
];

/// Why firmware is denied that every policy denies: whose it is, if a certificate says so, and TPM_PT_FIRMWARE_VERSION_1
/// and 2, the first of which has the major version in its upper half.
pub fn known_hole(manufacturer: Option<&str>, firmware: Firmware) -> Option<&'static str> {
    let version = ((firmware.0 >> 48) as u16, (firmware.0 >> 32) as u16);
    let is_affected = ST_TPM_FAIL.contains(&version);
    (manufacturer.is_none_or(|it| it == "STM") && is_affected).then_some(
        "its ECDSA keys can be computed from how long signatures take (TPM-FAIL, CVE-2019-16863): update \
         its firmware, and make its keys anew",
    )
}

fn remainder(number: &[u8], prime: u16) -> u16 {
    number.iter().fold(0, |rest, byte| {
        let next = u32::from(rest) << 8 | u32::from(*byte);
        u16::try_from(next % u32::from(prime)).expect("it is less than the prime")
    })
}

/// Whether it is a power of 65537 modulo the prime.
fn is_power(prime: u16, number: u16) -> bool {
    let generator = 65537 % u32::from(prime);
    let mut power = 1;
    for _ in 0..prime {
        if power == u32::from(number) {
            return true;
        }
        power = power * generator % u32::from(prime);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::{Elements, INTEGER, SEQUENCE, magnitude};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};

    #[test]
    fn firmware_that_is_affected_is_known() {
        let hole = |maker, major: u64, minor: u64| {
            known_hole(maker, Firmware(major << 48 | minor << 32 | 7)).is_some()
        };
        let (st, other) = (Some("STM"), Some("IFX"));
        assert!(hole(st, 71, 12) && hole(st, 73, 8) && hole(st, 74, 16));
        assert!(!hole(st, 71, 16) && !hole(st, 73, 64) && !hole(st, 1, 512));
        assert!(!hole(other, 71, 12));
        assert!(hole(None, 71, 12) && !hole(None, 7, 85));
    }

    /// 65537^a times 65537^b, with room for 2048 bits: of the form that the primes have.
    #[test]
    fn a_modulus_of_that_form_is_found_and_others_are_not() {
        let mut product = vec![1u8];
        for _ in 0..120 {
            // times 65537, little-endian
            let mut next = vec![0; product.len() + 3];
            let mut carry = 0u32;
            for (index, out) in next.iter_mut().enumerate() {
                let low = product.get(index).copied().unwrap_or_default();
                let high = index.checked_sub(2).and_then(|it| product.get(it)).copied();
                let sum = u32::from(low) + u32::from(high.unwrap_or_default()) + carry;
                (*out, carry) = (sum as u8, sum >> 8);
            }
            product = next;
        }
        product.reverse();
        assert!(is_roca(&product));
        for _ in 0..3 {
            let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let mut whole = Elements::of(key.public_key().as_ref());
            let mut numbers = Elements::of(whole.take(SEQUENCE).unwrap());
            let n = numbers.take(INTEGER).and_then(magnitude).unwrap();
            assert!(!is_roca(n));
        }
    }
}
