//! A JSON Web Key Set (RFC 7517 §5), read strictly and one key at a time: what is not needed is not
//! kept, so that a document of a hundred thousand keys costs as much memory as one of two. Owns what
//! makes a document unreadable; which keys are ours is `readback`'s.

use super::Unreadable;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

/// Lists and objects in each other: a set has three (`keys`, a key, its `x5c`), a private RSA key of
/// many primes, which none should be, five.
const DEPTH_MAX: usize = 16;

/// Members of which the text counts.
const TEXTS: [&str; 10] = [
    "kid", "kty", "crv", "x", "y", "n", "e", "alg", "use", "key_ops",
];

/// Members that no public key has (RFC 7518 §6.2.2, §6.3.2, §6.4.1; RFC 9964 for `priv`).
const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// What is of use of one key.
#[derive(Debug, Default)]
pub struct Jwk {
    texts: [Text; TEXTS.len()],
}

/// A member whose value should be a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Text {
    /// It is not there.
    #[default]
    Missing,
    /// It is one.
    Is(String),
    /// It is there, and something else.
    IsNot,
}

impl Text {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Text::Is(text) => Some(text),
            Text::Missing | Text::IsNot => None,
        }
    }
}

impl Jwk {
    /// A member.
    pub fn text(&self, name: &str) -> &Text {
        let at = TEXTS.iter().position(|known| *known == name);
        &self.texts[at.expect("only members of TEXTS are asked for")]
    }
}

/// Reads a whole document, and hands over each key.
///
/// # Errors
/// The first reason why it cannot be read. Keys that were handed over before count for nothing then.
pub fn read(body: &[u8], each: impl FnMut(Jwk)) -> Result<(), Unreadable> {
    // What is passed over is not looked at for that, and JSON is UTF-8 (RFC 8259 §8.1).
    let text = std::str::from_utf8(body).map_err(|error| {
        let before = &body[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let last = before.iter().rposition(|byte| *byte == b'\n');
        let column = before.len() - last.map_or(0, |at| at + 1) + 1;
        Unreadable::NotJson { line, column }
    })?;
    if depth(body) > DEPTH_MAX {
        return Err(Unreadable::TooDeep);
    }
    let why = RefCell::new(None);
    let each = RefCell::new(each);
    let each = |jwk| (each.borrow_mut())(jwk);
    let mut reader = serde_json::Deserializer::from_str(text);
    let seed = Part::Set(&why, &each);
    let read = seed.deserialize(&mut reader).and_then(|()| reader.end());
    read.map_err(|error| match why.take() {
        Some(why) => why,
        None if error.is_data() => Unreadable::NoSet,
        None => Unreadable::NotJson {
            line: error.line(),
            column: error.column(),
        },
    })
}

/// How deep lists and objects lie in each other. What is no JSON has some depth too.
fn depth(body: &[u8]) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in body {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'[' | b'{') => now += 1,
            (false, b']' | b'}') => now = now.saturating_sub(1),
            _ => {}
        }
        most = most.max(now);
    }
    most
}

/// Where a reader says why it has stopped, for serde's errors are texts.
type Cause = RefCell<Option<Unreadable>>;

/// A part of the document, as a reader that expects it.
#[derive(Clone, Copy)]
enum Part<'a> {
    Set(&'a Cause, &'a dyn Fn(Jwk)),
    Keys(&'a Cause, &'a dyn Fn(Jwk)),
    Key(&'a Cause, &'a dyn Fn(Jwk)),
}

impl Part<'_> {
    fn stop<E: serde::de::Error>(self, why: Unreadable) -> E {
        let (Part::Set(cause, _) | Part::Keys(cause, _) | Part::Key(cause, _)) = self;
        *cause.borrow_mut() = Some(why);
        E::custom("see the cause")
    }

    fn unlike<E: serde::de::Error>(self, names: &mut HashSet<String>, name: &str) -> Result<(), E> {
        match names.insert(name.to_owned()) {
            true => Ok(()),
            false => Err(self.stop(Unreadable::NameTwice)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self {
            Part::Keys(..) => deserializer.deserialize_seq(self),
            Part::Set(..) | Part::Key(..) => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set of keys")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Part::Keys(why, each) = self else {
            return Err(A::Error::custom("a list")); // one is asked for in `keys` alone
        };
        while list.next_element_seed(Part::Key(why, each))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        match self {
            Part::Set(why, each) => {
                while let Some(name) = map.next_key::<String>()? {
                    self.unlike(&mut names, &name)?;
                    match name.as_str() {
                        "keys" => map.next_value_seed(Part::Keys(why, each))?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                match names.contains("keys") {
                    true => Ok(()),
                    false => Err(self.stop(Unreadable::NoSet)),
                }
            }
            Part::Key(_, each) => {
                let mut jwk = Jwk::default();
                while let Some(name) = map.next_key::<String>()? {
                    self.unlike(&mut names, &name)?;
                    if let Some(member) = PRIVATE.iter().find(|it| **it == name) {
                        return Err(self.stop(Unreadable::Private { member }));
                    }
                    match TEXTS.iter().position(|it| *it == name) {
                        Some(at) => jwk.texts[at] = map.next_value_seed(Member)?,
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                each(jwk);
                Ok(())
            }
            Part::Keys(..) => Err(A::Error::custom("an object")),
        }
    }
}

/// A value that should be a text, and may be anything.
struct Member;

impl<'de> DeserializeSeed<'de> for Member {
    type Value = Text;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text::Is(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
        Ok(Text::IsNot)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
        Ok(Text::IsNot)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Text, E> {
        Ok(Text::IsNot)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
        Ok(Text::IsNot)
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text::IsNot)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text::IsNot)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text::IsNot)
    }
}
