//! A value with its place in the file. The parser's own kind, in a type of ours: what a key may hold
//! is described by implementing a trait for it ([`super::schema`]), which a foreign type cannot get.

use serde::Deserialize;
use std::ops::Range;

/// A value, and the bytes of the file that it was read from. Compared by the value alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Spanned<T>(toml::Spanned<T>);

impl<T> Spanned<T> {
    pub fn new(span: Range<usize>, value: T) -> Spanned<T> {
        Spanned(toml::Spanned::new(span, value))
    }

    pub fn span(&self) -> Range<usize> {
        self.0.span()
    }

    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T> AsRef<T> for Spanned<T> {
    fn as_ref(&self) -> &T {
        self.0.as_ref()
    }
}
