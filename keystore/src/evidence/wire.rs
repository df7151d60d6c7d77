//! Reading what others have laid out in bytes: a TPM's structures, which are big-endian, and logs of
//! firmware and kernel, which are little-endian. Nothing is allocated before its bytes are there, and
//! nothing may follow the end.

/// What is wrong with it, as the end of a sentence.
pub type Wrong = &'static str;

const EARLY: Wrong = "ends too early";

/// What is left.
#[derive(Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Over these bytes.
    pub fn of(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// So many bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Wrong> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(EARLY)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(EARLY)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A byte.
    pub fn byte(&mut self) -> Result<u8, Wrong> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, Wrong> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, Wrong> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, Wrong> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B: two bytes of size, and so many bytes, at most `most`.
    pub fn sized(&mut self, most: usize) -> Result<&'a [u8], Wrong> {
        match usize::from(self.u16()?) {
            length if length <= most => self.take(length),
            _ => Err("has a part that is too long"),
        }
    }

    /// Two bytes, little-endian.
    pub fn u16_le(&mut self) -> Result<u16, Wrong> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    pub fn u32_le(&mut self) -> Result<u32, Wrong> {
        self.array().map(u32::from_le_bytes)
    }

    /// Four bytes of size, little-endian, and so many bytes, at most `most`.
    pub fn sized_le(&mut self, most: usize) -> Result<&'a [u8], Wrong> {
        match usize::try_from(self.u32_le()?) {
            Ok(length) if length <= most => self.take(length),
            _ => Err("has a part that is too long"),
        }
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// How much is left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// Nothing may follow.
    pub fn end(self) -> Result<(), Wrong> {
        match self.0 {
            [] => Ok(()),
            _ => Err("goes on after its end"),
        }
    }
}
