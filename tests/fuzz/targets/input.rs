//! An input taken apart into choices, numbers and text. What is not there reads as zero and empty,
//! so that every input is one.

/// What is left of an input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of it.
    pub fn of(data: &'a [u8]) -> Input<'a> {
        Input(data)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// One of so many.
    pub fn choice(&mut self, of: u8) -> u8 {
        self.byte() % of
    }

    /// Up to `most` bytes: a length, then they.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()) | usize::from(self.byte()) << 8;
        self.take(length % (most + 1))
    }

    /// Exactly so many, or what is left.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A number of so many bytes, at most eight, big-endian.
    pub fn number(&mut self, width: usize) -> u64 {
        let fold = |number, byte: &u8| number << 8 | u64::from(*byte);
        self.take(width).iter().fold(0, fold)
    }

    /// Text of up to `most` bytes.
    pub fn text(&mut self, most: usize) -> String {
        String::from_utf8_lossy(self.bytes(most)).into_owned()
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
