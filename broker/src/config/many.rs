//! A value, or a list of them: who has one does not write brackets.

use super::spanned::Spanned;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{
    Deserialize, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use std::fmt;
use std::marker::PhantomData;

/// What one key holds, each with its place.
#[derive(Debug)]
pub struct OneOrMany<T>(pub Vec<Spanned<T>>);

impl<T> Default for OneOrMany<T> {
    fn default() -> OneOrMany<T> {
        OneOrMany(Vec::new())
    }
}

/// What may be one or many.
pub trait Value {
    /// What is needed where something else stands.
    const NEEDED: &str;
}

impl Value for String {
    const NEEDED: &str = "a text in quotation marks, or a list of such texts,";
}

impl<'de, T: Value + Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMany<T>, D::Error> {
        let written = Spanned::<Either<T>>::deserialize(deserializer)?;
        let span = written.span();
        Ok(OneOrMany(match written.into_inner() {
            Either::One(one) => vec![Spanned::new(span, one)],
            Either::Many(many) => many,
        }))
    }
}

/// Serde's own way to say "this or that" (untagged) would lose places and names of keys.
enum Either<T> {
    One(T),
    Many(Vec<Spanned<T>>),
}

impl<'de, T: Value + Deserialize<'de>> Deserialize<'de> for Either<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Either<T>, D::Error> {
        deserializer.deserialize_any(OneOf(PhantomData))
    }
}

struct OneOf<T>(PhantomData<T>);

impl<'de, T: Value + Deserialize<'de>> Visitor<'de> for OneOf<T> {
    type Value = Either<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::NEEDED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Either<T>, E> {
        T::deserialize(text.into_deserializer()).map(Either::One)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Either<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Either::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Either<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Either::Many)
    }
}
