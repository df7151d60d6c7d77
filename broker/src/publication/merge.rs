//! One JWK set of several, for hosts that are one issuer or one client to the other side. Pure. What
//! others wrote is judged here: members that RFC 7517 and RFC 7518 know for public keys are kept as
//! they are, private ones are refused, and so is what nobody knows, which might be private.

use super::render::document;
use keystore::PublicKey;
use keystore::shown::unread;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Most keys of a merged set: AWS takes a hundred of a kind, Entra the first hundred (standards §2.2).
pub const MERGED_MAX: usize = 100;

/// Longest file in bytes: a hundred RSA keys of 8192 bits with a certificate each.
pub const SET_LEN_MAX: u64 = 1024 * 1024;

/// Longest `kid` in bytes; a thumbprint has 43.
const KID_LEN_MAX: usize = 256;

/// What makes the key (RFC 7518 §6), and is all of it that a public key has.
const OF_KEY: [&str; 6] = ["crv", "e", "kty", "n", "x", "y"];

/// What may stand beside it (RFC 7517 §4).
const BESIDE: [&str; 8] = [
    "alg", "key_ops", "kid", "use", "x5c", "x5t", "x5t#S256", "x5u",
];

/// RFC 7518 §6.2.2, §6.3.2 and §6.4; RFC 8037 §2; RFC 9964.
const PRIVATE: [&str; 9] = ["d", "dp", "dq", "k", "oth", "p", "priv", "q", "qi"];

/// A set that was read, and where.
#[derive(Debug)]
pub struct Set {
    name: String,
    keys: Vec<Element>,
}

/// Several as one.
#[derive(Debug, Serialize)]
pub struct Merged {
    keys: Vec<Element>,
}

/// One key, with its members in the order of their names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
struct Element {
    members: BTreeMap<String, Value>,
    #[serde(skip)]
    kid: String,
    #[serde(skip)]
    key: PublicKey,
}

#[derive(Deserialize)]
struct Written {
    keys: Vec<BTreeMap<String, Value>>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Set {
    /// A set from the bytes of a file of this name.
    ///
    /// # Errors
    /// A sentence without the name: it is no set, it is empty, or something of it is not public.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Set, String> {
        let written: Written = serde_json::from_slice(bytes)
            .map_err(|error| format!("is no JWK set (RFC 7517 §5): {}", unread(&error)))?;
        if let Some(other) = written.others.keys().next() {
            return Err(match other.starts_with("spiffe_") {
                true => "is a SPIFFE bundle; merge the hosts' jwks.json".to_owned(),
                false => format!("has `{other}` beside `keys`, which no JWK set of ours has"),
            });
        }
        if written.keys.is_empty() {
            let text = "holds no key; leave the host out if its keys are revoked, else see why it \
                        publishes none";
            return Err(text.to_owned());
        }
        let keys = (1..).zip(written.keys).map(|(number, members)| {
            Element::read(members).map_err(|why| format!("key {number}: {why}"))
        });
        Ok(Set {
            name: name.to_owned(),
            keys: keys.collect::<Result<_, _>>()?,
        })
    }
}

impl Element {
    fn read(members: BTreeMap<String, Value>) -> Result<Element, String> {
        let names = || members.keys().map(String::as_str);
        if let Some(private) = names().find(|name| PRIVATE.contains(name)) {
            return Err(format!(
                "has the private member `{private}`: whoever has read this file has the key; revoke it"
            ));
        }
        let is_known = |name: &str| OF_KEY.contains(&name) || BESIDE.contains(&name);
        if let Some(other) = names().find(|name| !is_known(name)) {
            return Err(format!(
                "has the member `{other}`, which RFC 7517 has not for a public key; take it out"
            ));
        }
        let kid = match members.get("kid") {
            Some(Value::String(kid)) if !kid.is_empty() && kid.len() <= KID_LEN_MAX => kid.clone(),
            Some(_) => return Err(format!("`kid` is no text of 1 to {KID_LEN_MAX} bytes")),
            None => return Err("has no `kid`, by which verifiers would find it".to_owned()),
        };
        match members.get("use") {
            None => {}
            Some(Value::String(of)) if of == "sig" => {}
            Some(other) => return Err(format!("is not for signatures: `use` is {other}")),
        }
        let of_key = members
            .iter()
            .filter(|(name, _)| OF_KEY.contains(&name.as_str()));
        let of_key = of_key.map(|(name, value)| (name.clone(), value.clone()));
        let key = serde_json::from_value(Value::Object(of_key.collect()))
            .map_err(|error| format!("(kid {kid:?}) {}", unread(&error)))?;
        Ok(Element { members, kid, key })
    }
}

/// Makes one set: the first key of each, then the others, both in the order in which the sets are
/// given. A key that several have in the same words is there once.
///
/// # Errors
/// A sentence: a `kid` stands for two keys, or the keys are more than [`MERGED_MAX`].
pub fn merge(sets: &[Set]) -> Result<Merged, String> {
    let heads = sets.iter().map(|set| (set, &set.keys[..1]));
    let tails = sets.iter().map(|set| (set, &set.keys[1..]));
    let mut by_kid: BTreeMap<&str, (&Set, &Element)> = BTreeMap::new();
    let mut keys = Vec::new();
    for (set, elements) in heads.chain(tails) {
        for element in elements {
            match by_kid.get(element.kid.as_str()) {
                None => {
                    by_kid.insert(&element.kid, (set, element));
                    keys.push(element.clone());
                }
                Some((_, known)) if *known == element => {}
                Some((other, known)) => {
                    let what = match known.key == element.key {
                        true => "is described in two ways",
                        false => "stands for two keys",
                    };
                    return Err(format!(
                        "kid {:?} {what}, in {} and in {}; nothing was merged",
                        element.kid, other.name, set.name
                    ));
                }
            }
        }
    }
    match keys.len() > MERGED_MAX {
        true => Err(format!(
            "{} keys are more than verifiers take ({MERGED_MAX}); give groups of hosts an issuer or a \
             client each",
            keys.len()
        )),
        false => Ok(Merged { keys }),
    }
}

impl Merged {
    /// How many keys it has; one at least.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// As a document.
    pub fn render(&self) -> Vec<u8> {
        document(self)
    }
}

#[cfg(test)]
mod tests;
