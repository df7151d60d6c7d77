//! How values are written in a record: texts with a limit, digests in hexadecimal, times.
//!
//! Never lets a text of unbounded length in, whoever chose it.

use aws_lc_rs::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Long texts: a cgroup path below nested slices stays well under this.
const LONG: usize = 512;
/// Names from our own tables: request ids, RFC 7638 thumbprints, profile names, reasons.
const SHORT: usize = 64;

pub type LongText = Text<LONG>;
pub type ShortText = Text<SHORT>;

/// A string of at most `N` bytes; a longer one is cut and ends in `…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Text<const N: usize>(String);

impl<const N: usize> Text<N> {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> From<&str> for Text<N> {
    fn from(text: &str) -> Text<N> {
        const MARK: char = '…';
        if text.len() <= N {
            return Text(text.to_owned());
        }
        let end = text.floor_char_boundary_of(N - MARK.len_utf8());
        let mut clipped = text[..end].to_owned();
        clipped.push(MARK);
        Text(clipped)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Text<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<N>, D::Error> {
        String::deserialize(deserializer).map(|text| Text::from(text.as_str()))
    }
}

/// `str::floor_char_boundary` is newer than our oldest supported compiler.
trait FloorCharBoundary {
    fn floor_char_boundary_of(&self, index: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_of(&self, index: usize) -> usize {
        (0..=index.min(self.len()))
            .rev()
            .find(|&at| self.is_char_boundary(at))
            .unwrap_or(0)
    }
}

/// A SHA-256 digest, in JSON 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    pub const ZERO: Sha256 = Sha256([0; 32]);

    /// The first of its bytes as a number.
    pub fn first_bytes(&self) -> u64 {
        let first = self.0.first_chunk().copied();
        u64::from_be_bytes(first.unwrap_or_default())
    }

    pub fn of(bytes: &[u8]) -> Sha256 {
        Sha256::from_digest(&digest::digest(&digest::SHA256, bytes))
    }

    /// Over several texts, each after its length in eight bytes: two cannot be told from one otherwise. One
    /// that is not there has length 2⁶⁴ − 1.
    pub fn of_texts<'a>(texts: impl IntoIterator<Item = Option<&'a str>>) -> Sha256 {
        let mut context = digest::Context::new(&digest::SHA256);
        for text in texts {
            let len = text.map_or(u64::MAX, |text| text.len() as u64);
            context.update(&len.to_be_bytes());
            context.update(text.unwrap_or_default().as_bytes());
        }
        Sha256::from_digest(&context.finish())
    }

    /// From 64 hexadecimal digits of either case.
    pub fn from_hex(text: &str) -> Option<Sha256> {
        unhex(&text.to_ascii_lowercase()).map(Sha256)
    }

    pub(crate) fn from_digest(digest: &digest::Digest) -> Sha256 {
        Sha256(
            digest
                .as_ref()
                .try_into()
                .expect("SHA-256 has 32 bytes (FIPS 180-4)"),
        )
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sha256, D::Error> {
        let text = String::deserialize(deserializer)?;
        unhex(&text).map(Sha256).ok_or_else(|| {
            serde::de::Error::custom("a SHA-256 digest is 64 lowercase hexadecimal digits")
        })
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = vec![0; bytes.len() * 2];
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    String::from_utf8(text).expect("the digits are ASCII")
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// RFC 3339 §5.6 in UTC with milliseconds; a clock beyond the year 9999 shows that year's last
/// moment.
pub(super) fn rfc3339(wall_ms: u64) -> String {
    const LAST_MS: u64 = 253_402_300_799_999;
    const DAY_MS: u64 = 86_400_000;
    let wall_ms = wall_ms.min(LAST_MS);
    let (days, ms) = (wall_ms / DAY_MS, wall_ms % DAY_MS);
    // Civil date from a day count, in years that begin in March so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1_000 % 60,
        ms % 1_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_763_758_255_123), "2025-11-21T20:50:55.123Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_says_so() {
        assert_eq!(Text::<8>::from("12345678").as_str(), "12345678");
        assert_eq!(Text::<8>::from("123456789").as_str(), "12345…");
        assert_eq!(Text::<8>::from("1234ééé").as_str(), "1234…");
    }
}
