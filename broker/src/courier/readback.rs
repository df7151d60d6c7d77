//! The read-back judgement: does a document that was found at an issuer's public URL show the keys that
//! it should? Pure: bytes in, a [`ReadBack`] out. Decides nothing about keys; whoever does takes `Seen`
//! as one of its reasons (standards §5.2: publish before use).
//!
//! The document comes from the network: it may be an error page, another's, or made to break readers.
//! It is read strictly ([`set`]), because verifiers differ in what they forgive, and a key counts as
//! seen only in a form that every verifier reads.

mod set;
#[cfg(test)]
mod tests;

use super::BODY_LEN_MAX;
use keystore::{Alg, Kid, PublicKey};
use set::{Jwk, Text};
use std::collections::BTreeMap;
use std::fmt;

/// The members that make a key what it is (RFC 7638 §3.2).
const IDENTITY: [&str; 6] = ["kty", "crv", "x", "y", "n", "e"];

/// What should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    keys: BTreeMap<Kid, Key>,
    active: Option<Kid>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    members: BTreeMap<String, String>,
    alg: Alg,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum ReadBack {
    /// A set of keys, and which of the expected ones are among them. What else it holds is others'
    /// affair: several hosts may be one issuer.
    Set(BTreeMap<Kid, Sight>),
    /// A set of so many keys, none of which is expected, not even the one that signs.
    AnothersSet {
        /// How many it has.
        keys: usize,
    },
    /// Under the id of one of our keys stands another: verifiers refuse what ours signs, and accept
    /// what somebody else's does. An alert.
    WrongKey {
        /// Whose id it is.
        kid: Kid,
        /// Which member of it is not ours.
        member: &'static str,
    },
    /// It is no set of public keys that everybody reads in one way.
    Unreadable(Unreadable),
}

/// Whether one key is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sight {
    /// Once, and exactly as it is to be published.
    Seen,
    /// It is missing.
    NotYet,
}

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It has more bytes than are looked at.
    TooLong,
    /// It is not JSON, from this place on.
    NotJson {
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
    },
    /// Lists and objects in each other, deeper than any set of keys.
    TooDeep,
    /// It is JSON, and no set of keys (RFC 7517 §5).
    NoSet,
    /// Some object has a name twice, of which readers take the first, the last or none.
    NameTwice,
    /// One of our keys is there twice, of which some verifiers take neither.
    KidTwice(Kid),
    /// A private or secret key is in it. An alert.
    Private {
        /// The member that gives it away.
        member: &'static str,
    },
}

impl Expected {
    /// Keys that are published, each with the algorithm it is published for, and which of them signs
    /// now; none does before an issuer's first key is seen.
    pub fn new(keys: impl IntoIterator<Item = (PublicKey, Alg)>, active: Option<Kid>) -> Expected {
        let keys = keys.into_iter().map(|(public_key, alg)| {
            let members = serde_json::to_value(&public_key).and_then(serde_json::from_value);
            let members = members.expect("a public key is an object of texts");
            (public_key.kid(), Key { members, alg })
        });
        Expected {
            keys: keys.collect(),
            active,
        }
    }

    fn named(&self, kid: &Text) -> Option<(&Kid, &Key)> {
        let kid = kid.as_str()?;
        self.keys.iter().find(|(ours, _)| ours.as_str() == kid)
    }
}

impl ReadBack {
    /// Whether this key is there.
    pub fn sight(&self, kid: &Kid) -> Sight {
        match self {
            ReadBack::Set(sights) => sights.get(kid).copied().unwrap_or(Sight::NotYet),
            _ => Sight::NotYet,
        }
    }

    /// Whether somebody should be told at once: it is not for lack of time that it is as it is.
    pub fn is_alarming(&self) -> bool {
        let private = |why: &Unreadable| matches!(why, Unreadable::Private { .. });
        match self {
            ReadBack::WrongKey { .. } => true,
            ReadBack::Unreadable(why) => private(why),
            ReadBack::Set(_) | ReadBack::AnothersSet { .. } => false,
        }
    }
}

/// Reads a document. Its time and memory are those of its length, of which [`BODY_LEN_MAX`] bytes are
/// looked at.
pub fn judge(body: &[u8], expected: &Expected) -> ReadBack {
    if body.len() > BODY_LEN_MAX {
        return ReadBack::Unreadable(Unreadable::TooLong);
    }
    let mut found = Found::default();
    let read = set::read(body, |jwk| found.take(&jwk, expected));
    if let Err(why) = read {
        return ReadBack::Unreadable(why);
    }
    if let Some((kid, member)) = found.wrong {
        return ReadBack::WrongKey { kid, member };
    }
    let times = |kid: &Kid| found.times.get(kid).copied().unwrap_or(0);
    if let Some(kid) = expected.keys.keys().find(|kid| times(kid) > 1) {
        return ReadBack::Unreadable(Unreadable::KidTwice(kid.clone()));
    }
    if found.times.is_empty() && expected.active.is_some() {
        return ReadBack::AnothersSet { keys: found.all };
    }
    let sight = |kid: &Kid| match times(kid) {
        0 => Sight::NotYet,
        _ => Sight::Seen,
    };
    let sights = expected.keys.keys().map(|kid| (kid.clone(), sight(kid)));
    ReadBack::Set(sights.collect())
}

/// What has been found of what is expected.
#[derive(Default)]
struct Found {
    all: usize,
    times: BTreeMap<Kid, usize>,
    wrong: Option<(Kid, &'static str)>,
}

impl Found {
    fn take(&mut self, jwk: &Jwk, expected: &Expected) {
        self.all += 1;
        let Some((kid, key)) = expected.named(jwk.text("kid")) else {
            return;
        };
        match difference(jwk, key) {
            None => *self.times.entry(kid.clone()).or_default() += 1,
            Some(member) => self.wrong = Some((kid.clone(), member)),
        }
    }
}

/// The first member that keeps a verifier from using a key as ours is to be used. Texts are compared
/// as they are: another spelling of the same number is none that we have published. A member that says
/// what the key is for may be missing (RFC 7517 §4), but not say something else.
fn difference(jwk: &Jwk, ours: &Key) -> Option<&'static str> {
    let of_ours = |name: &str| ours.members.get(name).map(String::as_str);
    let differs = |name: &&&str| match jwk.text(name) {
        Text::Missing => of_ours(name).is_some(),
        there => there.as_str() != of_ours(name) || of_ours(name).is_none(),
    };
    if let Some(name) = IDENTITY.iter().find(differs) {
        return Some(*name);
    }
    let says = |name, allowed: &[&str]| match jwk.text(name) {
        Text::Missing => true,
        there => there.as_str().is_some_and(|text| allowed.contains(&text)),
    };
    if !says("alg", &[ours.alg.name()]) {
        return Some("alg");
    }
    if !says("use", &["sig", "jwt-svid"]) {
        return Some("use"); // the second in a SPIFFE bundle
    }
    (*jwk.text("key_ops") != Text::Missing).then_some("key_ops") // we publish none, for it contradicts `use` to some
}

impl fmt::Display for ReadBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadBack::Set(sights) => {
                let missing = |(kid, sight): (&Kid, &Sight)| match sight {
                    Sight::NotYet => Some(kid.to_string()),
                    Sight::Seen => None,
                };
                let missing: Vec<String> = sights.iter().filter_map(missing).collect();
                match &missing[..] {
                    [] => f.write_str("shows every key that it should"),
                    [kid] => write!(f, "does not show key {kid} yet"),
                    kids => write!(f, "does not show keys {} yet", kids.join(" and ")),
                }
            }
            ReadBack::AnothersSet { keys: 0 } => {
                f.write_str("is a set without keys; publish the issuer's jwks.json there")
            }
            ReadBack::AnothersSet { keys } => write!(
                f,
                "is another's set: of its {keys} keys none is this issuer's, not even the one that \
                 signs; compare `verify_url` with where jwks.json is published"
            ),
            ReadBack::WrongKey { kid, member } => write!(
                f,
                "shows another key under the id {kid}: its `{member}` is not what was published; find \
                 out who has changed it"
            ),
            ReadBack::Unreadable(why) => why.fmt(f),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::TooLong => write!(f, "is longer than {BODY_LEN_MAX} bytes"),
            Unreadable::NotJson { line, column } => {
                write!(f, "is not JSON (line {line}, column {column})")
            }
            Unreadable::TooDeep => f.write_str("is nested deeper than a set of keys"),
            Unreadable::NoSet => f.write_str("is JSON, but no set of keys (RFC 7517 §5)"),
            Unreadable::NameTwice => {
                f.write_str("has an object with a name twice, which verifiers read in several ways")
            }
            Unreadable::KidTwice(kid) => write!(
                f,
                "shows key {kid} twice, of which some verifiers take neither; publish it once"
            ),
            Unreadable::Private { member } => write!(
                f,
                "shows a private or secret key to everybody (`{member}`); remove it there, and take \
                 it for compromised"
            ),
        }
    }
}
