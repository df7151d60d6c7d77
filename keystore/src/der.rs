//! As much of DER (X.690) as certificates, private keys and a TPM's key files need: a few types, definite
//! and minimal lengths, no element longer than [`LEN_MAX`]. Reading is strict, so that one key has
//! one file; it allocates nothing and never panics. Our own, because what we write has few shapes
//! and what we read has to be exactly one of them.

/// Longest content in bytes: an RSA-4096 key has about 1.5 KiB public and private.
pub const LEN_MAX: usize = 8 * 1024;

/// BOOLEAN
pub const BOOLEAN: u8 = 0x01;
/// INTEGER
pub const INTEGER: u8 = 0x02;
/// BIT STRING
pub const BIT_STRING: u8 = 0x03;
/// OCTET STRING
pub const OCTET_STRING: u8 = 0x04;
/// OBJECT IDENTIFIER
pub const OBJECT_IDENTIFIER: u8 = 0x06;
/// UTF8String
pub const UTF8_STRING: u8 = 0x0c;
/// UTCTime
pub const UTC_TIME: u8 = 0x17;
/// GeneralizedTime
pub const GENERALIZED_TIME: u8 = 0x18;
/// SEQUENCE
pub const SEQUENCE: u8 = 0x30;
/// SET
pub const SET: u8 = 0x31;
/// `[0]`, constructed.
pub const CONTEXT_0: u8 = 0xa0;
/// `[1]`, constructed.
pub const CONTEXT_1: u8 = 0xa1;
/// `[3]`, constructed.
pub const CONTEXT_3: u8 = 0xa3;

/// What is wrong with it, as the end of a sentence.
pub type Wrong = &'static str;

/// Elements one after the other.
#[derive(Clone, Copy)]
pub struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// Over these bytes.
    pub fn of(bytes: &'a [u8]) -> Elements<'a> {
        Elements(bytes)
    }

    /// The content of the next element, which must have this tag.
    pub fn take(&mut self, tag: u8) -> Result<&'a [u8], Wrong> {
        let (found, rest) = self.0.split_first().ok_or("ends too early")?;
        if *found != tag {
            return Err("has an element of another type than it must");
        }
        let (first, rest) = rest.split_first().ok_or("ends too early")?;
        let (length, rest) = match *first {
            short @ 0..=0x7f => (usize::from(short), rest),
            0x81 => match rest.split_first() {
                Some((byte @ 0x80..=0xff, rest)) => (usize::from(*byte), rest),
                Some(_) => return Err("has a length that is not minimal"),
                None => return Err("ends too early"),
            },
            0x82 => match rest.split_first_chunk::<2>() {
                Some((bytes, rest)) => match usize::from(u16::from_be_bytes(*bytes)) {
                    length @ 0x100.. => (length, rest),
                    _ => return Err("has a length that is not minimal"),
                },
                None => return Err("ends too early"),
            },
            _ => return Err("has a length that is too long or not definite"),
        };
        if length > LEN_MAX {
            return Err("has an element that is too long");
        }
        let (content, rest) = rest.split_at_checked(length).ok_or("ends too early")?;
        self.0 = rest;
        Ok(content)
    }

    /// The same, if the next element has this tag.
    pub fn take_optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Wrong> {
        match self.0.first() {
            Some(found) if *found == tag => self.take(tag).map(Some),
            _ => Ok(None),
        }
    }

    /// Nothing may follow.
    pub fn end(self) -> Result<(), Wrong> {
        match self.0 {
            [] => Ok(()),
            _ => Err("goes on after its end"),
        }
    }
}

/// The SEQUENCE that the bytes begin with, and what follows it: makers of TPMs fill the place of a certificate up
/// with anything.
pub fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut elements = Elements::of(bytes);
    elements.take(SEQUENCE).ok()?;
    let Elements(rest) = elements;
    Some(bytes.split_at(bytes.len() - rest.len()))
}

/// A non-negative INTEGER of at most 32 bits.
pub fn unsigned(content: &[u8]) -> Result<u32, Wrong> {
    let digits = match content {
        [] => return Err("has an empty number"),
        [0] => return Ok(0),
        [0, next, ..] if *next < 0x80 => return Err("has a number that is not minimal"),
        [0, digits @ ..] => digits,
        [0x80..=0xff, ..] => return Err("has a negative number"),
        digits => digits,
    };
    if digits.len() > 4 {
        return Err("has a number that is too large");
    }
    Ok(digits.iter().fold(0, |n, byte| n << 8 | u32::from(*byte)))
}

/// An INTEGER that is positive, of any size, without the zero that may stand before its first bit.
pub fn magnitude(content: &[u8]) -> Result<&[u8], Wrong> {
    match content {
        [] | [0] => Err("has an empty number"),
        [0, next, ..] if *next < 0x80 => Err("has a number that is not minimal"),
        [0, digits @ ..] => Ok(digits),
        [0x80..=0xff, ..] => Err("has a negative number"),
        digits => Ok(digits),
    }
}

/// A BOOLEAN.
pub fn boolean(content: &[u8]) -> Result<bool, Wrong> {
    match content {
        [0x00] => Ok(false),
        [0xff] => Ok(true),
        _ => Err("has a truth value that is neither true nor false"),
    }
}

/// One element. `content` has at most 65,535 bytes.
pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("keys and certificates have a few KiB");
    let mut bytes = vec![tag];
    match length {
        0..=0x7f => bytes.push(length.to_be_bytes()[1]),
        0x80..=0xff => bytes.extend([0x81, length.to_be_bytes()[1]]),
        _ => {
            bytes.push(0x82);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}

/// An INTEGER of a big-endian number that is not negative (X.690 §8.3): without the zeros it begins
/// with, but for one before a first bit of 1.
pub fn positive(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = &number[zeros..];
    match digits.first() {
        Some(..0x80) => element(INTEGER, digits),
        _ => element(INTEGER, &[&[0], digits].concat()),
    }
}

/// A non-negative INTEGER.
pub fn unsigned_element(number: u32) -> Vec<u8> {
    positive(&number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_shortest_form_is_read() {
        let read = |bytes: &[u8]| Elements::of(bytes).take(OCTET_STRING).map(<[u8]>::to_vec);
        assert_eq!(read(&[4, 1, 7]), Ok(vec![7]));
        for bytes in [
            &[][..],
            &[4],
            &[2, 1, 7],
            &[4, 2, 7],
            &[4, 0x80, 7, 0, 0],
            &[4, 0x81, 1, 7],
            &[4, 0x81],
            &[4, 0x82, 0, 1, 7],
            &[4, 0x82, 0],
            &[4, 0x83, 0, 0, 1, 7],
            &[4, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(read(bytes).is_err(), "{bytes:x?}");
        }
        for (len, fits) in [(LEN_MAX, true), (LEN_MAX + 1, false)] {
            let bytes = element(OCTET_STRING, &vec![0; len]);
            assert_eq!(read(&bytes).is_ok(), fits, "{len}");
        }
    }

    #[test]
    fn what_follows_the_first_is_no_part_of_it() {
        for len in [0, 1, 0x7f, 0x80, 0xff, 0x100, 2000] {
            let whole = element(SEQUENCE, &vec![7; len]);
            for tail in [&[][..], &[0, 0, 0], &[0xff; 9]] {
                let bytes = [&whole, tail].concat();
                assert_eq!(first(&bytes), Some((&whole[..], tail)));
            }
            for cut in 0..whole.len() {
                assert_eq!(first(&whole[..cut]), None, "{len} {cut}");
            }
        }
        for other in [
            &[SET, 0][..],
            &[SEQUENCE, 0x81, 1, 7],
            &[SEQUENCE, 0x83, 0, 0, 1, 7],
        ] {
            assert_eq!(first(other), None, "{other:x?}");
        }
    }

    #[test]
    fn numbers_have_one_form() {
        for (number, bytes) in [
            (0, &[2, 1, 0][..]),
            (127, &[2, 1, 0x7f]),
            (128, &[2, 2, 0, 0x80]),
            (0x4000_0001, &[2, 4, 0x40, 0, 0, 1]),
            (0x8100_0001, &[2, 5, 0, 0x81, 0, 0, 1]),
        ] {
            assert_eq!(unsigned_element(number), bytes);
            assert_eq!(unsigned(&bytes[2..]), Ok(number));
        }
        for content in [
            &[][..],
            &[0, 1],
            &[0x80],
            &[0, 0x80, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0],
        ] {
            assert!(unsigned(content).is_err(), "{content:x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(content in proptest::collection::vec(any::<u8>(), 0..600)) {
            let bytes = element(SEQUENCE, &content);
            let mut elements = Elements::of(&bytes);
            prop_assert_eq!(elements.take(SEQUENCE), Ok(&content[..]));
            prop_assert_eq!(elements.end(), Ok(()));
        }

        #[test]
        fn what_is_read_is_written_so(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let tag = bytes.first().copied().unwrap_or_default();
            let mut elements = Elements::of(&bytes);
            if let Ok(content) = elements.take(tag) {
                let again = element(tag, content);
                prop_assert_eq!(&bytes[..again.len()], &again[..]);
            }
        }

        #[test]
        fn a_number_is_read_as_it_was_written(number: u32) {
            let bytes = unsigned_element(number);
            let mut elements = Elements::of(&bytes);
            prop_assert_eq!(elements.take(INTEGER).and_then(unsigned), Ok(number));
        }

        #[test]
        fn a_long_number_is_read_as_it_was_written(mut number in proptest::collection::vec(any::<u8>(), 1..40)) {
            number[0] |= 1;
            let bytes = positive(&[&[0, 0], &number[..]].concat());
            let mut elements = Elements::of(&bytes);
            prop_assert_eq!(elements.take(INTEGER).and_then(magnitude), Ok(&number[..]));
        }
    }
}
