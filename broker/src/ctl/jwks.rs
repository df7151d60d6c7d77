//! What of assertd's keys is to be published: `assertctl jwks`, which asks assertd, and [`merge`],
//! which asks nobody. How a set looks is [`crate::publication::render`]'s.

pub mod merge;

use super::admin::{connect, failed, names_key};
use super::args::Args;
use super::failure::{Exit, Failure};
use super::out::Out;
use crate::publication::render::JwkSet;
use crate::publication::{Key, KeySet};
use assertd_client::api::KeyStatus;
use keystore::{KeyId, KeyName, PublicKey};
use serde::Serialize;
use std::collections::BTreeMap;

/// Prints what the other side must know about one key, or about all.
pub fn print(args: &Args, key: Option<&KeyName>, out: &mut Out) -> Result<Exit, Failure> {
    let answer = connect(args)?.keys().map_err(|error| failed(&error))?;
    match key {
        Some(name) => out.json(&one_set(&answer.keys, name)?)?,
        None => out.json(&all_sets(&answer.keys)?)?,
    }
    Ok(Exit::Done)
}

/// The same, with what is known about where each key lives, beside the keys: a member of a key that nobody
/// expects breaks verifiers, one of the set does not (RFC 7517 §5).
pub fn print_with_evidence(
    args: &Args,
    key: Option<&KeyName>,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let answer = connect(args)?.keys().map_err(|error| failed(&error))?;
    match key {
        Some(name) => out.json(&with_evidence(&answer.keys, one_set(&answer.keys, name)?))?,
        None => {
            let sets = all_sets(&answer.keys)?.into_iter();
            let sets = sets.map(|(name, set)| (name, with_evidence(&answer.keys, set)));
            out.json(&sets.collect::<BTreeMap<&str, Known>>())?;
        }
    }
    Ok(Exit::Done)
}

/// A set, and what is known of its keys.
#[derive(Serialize)]
struct Known {
    #[serde(flatten)]
    set: JwkSet,
    /// By kid.
    assertd_evidence: BTreeMap<String, KeyEvidence>,
}

#[derive(Serialize)]
struct KeyEvidence {
    level: String,
    imported: bool,
}

fn with_evidence(keys: &[KeyStatus], set: JwkSet) -> Known {
    let members = serde_json::to_value(&set).unwrap_or_default();
    let is_in = |kid: &str| {
        let listed = members["keys"].as_array().into_iter().flatten();
        listed.into_iter().any(|key| key["kid"] == kid)
    };
    let known = keys.iter().filter(|key| is_in(&key.kid)).map(|key| {
        let (level, imported) = (key.evidence.clone(), key.imported);
        (key.kid.clone(), KeyEvidence { level, imported })
    });
    Known {
        assertd_evidence: known.collect(),
        set,
    }
}

/// The set of one key's versions. Never empty.
fn one_set(keys: &[KeyStatus], name: &KeyName) -> Result<JwkSet, Failure> {
    let versions: Vec<&KeyStatus> = keys
        .iter()
        .filter(|key| name_of(key) == name.as_str())
        .collect();
    if let Some(set) = set(&versions)? {
        return Ok(set);
    }
    let text = match versions.last() {
        Some(key) => {
            let why = key.why.as_deref().unwrap_or("assertd does not say why");
            match names_key(why, key) {
                true => format!("nothing to publish: {why}"),
                false => format!("nothing to publish: {} is {}: {why}", key.key, key.state),
            }
        }
        None => format!(
            "there is no key `{name}`: `assertctl keys` lists them, `assertctl apply` makes those \
             the configuration asks for; a federation target has its issuer's key (--issuer NAME)"
        ),
    };
    Err(Failure::new(Exit::Refused, text))
}

/// The sets of all keys, by their names. Never empty.
fn all_sets(keys: &[KeyStatus]) -> Result<BTreeMap<&str, JwkSet>, Failure> {
    let mut by_name: BTreeMap<&str, Vec<&KeyStatus>> = BTreeMap::new();
    for key in keys {
        by_name.entry(name_of(key)).or_default().push(key);
    }
    let mut sets = BTreeMap::new();
    for (name, versions) in by_name {
        if let Some(set) = set(&versions)? {
            sets.insert(name, set);
        }
    }
    if sets.is_empty() {
        let text = "there is no key to publish: `assertctl apply` makes those the configuration \
                    asks for, `assertctl keys` says what is wrong with those there are";
        return Err(Failure::new(Exit::Refused, text));
    }
    Ok(sets)
}

/// Of the versions of one key those that are published, the one that signs first.
fn set(versions: &[&KeyStatus]) -> Result<Option<JwkSet>, Failure> {
    let mut published: Vec<&&KeyStatus> = versions.iter().filter(|it| is_published(it)).collect();
    if published.is_empty() {
        return Ok(None);
    }
    let signs = |key: &&&KeyStatus| matches!(key.phase.as_str(), "active" | "held");
    let active = published.iter().position(signs);
    let signs = published.remove(active.unwrap_or_default());
    let others = published.into_iter().map(|key| read(key));
    let others = others.collect::<Result<Vec<Key>, Failure>>()?;
    let set = KeySet::new(read(signs)?, others);
    let set = set.map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
    Ok(Some(JwkSet::of(&set)))
}

/// The key as assertd has said it.
fn read(status: &KeyStatus) -> Result<Key, Failure> {
    let garbled = |why: &dyn std::fmt::Display| {
        let text = format!(
            "key {}: what assertd says of it is garbled: {why}",
            status.key
        );
        Failure::new(Exit::Internal, text)
    };
    let id: KeyId = status.key.parse().map_err(|error| garbled(&error))?;
    let mut members = status.jwk.clone();
    let mut alg = serde_json::Value::Null;
    if let Some(members) = members.as_object_mut() {
        alg = members.remove("alg").unwrap_or_default();
        members.retain(|name, _| !["kid", "use"].contains(&name.as_str()));
    }
    let public_key: PublicKey = serde_json::from_value(members).map_err(|error| garbled(&error))?;
    let alg = serde_json::from_value(alg).map_err(|error| garbled(&error))?;
    Key::new(id.version, public_key, alg).map_err(|error| garbled(&error))
}

/// Whether it belongs to the set. A key that cannot sign, or whose signatures were wrong, must not be
/// registered anywhere. One whose keystore is only silent right now stays in its set: a set that
/// shrinks breaks verifiers.
fn is_published(key: &KeyStatus) -> bool {
    let phases = ["published", "active", "held", "retiring"];
    let is_sound = !matches!(key.state.as_str(), "failed" | "suspended");
    phases.contains(&key.phase.as_str()) && (is_sound || key.phase != "active")
}

/// `payments/bank` of `payments/bank.1`.
fn name_of(key: &KeyStatus) -> &str {
    key.key
        .rsplit_once('.')
        .map_or(key.key.as_str(), |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::fixtures::key;
    use serde_json::{Value, json, to_value};

    #[test]
    fn a_set_is_never_empty_and_says_why_it_would_be() {
        let keys = [key("a/x.1", "suspended"), key("a/y.1", "failed")];
        let why = |name: &str| one_set(&keys, &name.parse().unwrap()).unwrap_err().message;
        assert!(why("a/x").contains("a/x.1 is suspended"), "{}", why("a/x"));
        assert!(why("a/y").contains("unplugged"), "{}", why("a/y"));
        assert!(why("a/z").contains("`assertctl apply`"), "{}", why("a/z"));
        assert_eq!(all_sets(&keys).unwrap_err().exit, Exit::Refused);
        assert_eq!(all_sets(&[]).unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn a_set_holds_the_versions_of_one_key_alone_and_the_one_that_signs_first() {
        let keys = [
            key("a/x.1", "published"),
            key("a/x.2", "active"),
            key("a/x.10", "retired"),
            key("a/xx.1", "active"),
            key("issuer/a.1", "active"),
        ];
        let set = one_set(&keys, &"a/x".parse().unwrap()).unwrap();
        let jwks: [&Value; 2] = [&keys[1].jwk, &keys[0].jwk];
        assert_eq!(to_value(&set).unwrap(), json!({ "keys": jwks }));
        let all = all_sets(&keys).unwrap();
        assert_eq!(
            all.into_keys().collect::<Vec<_>>(),
            ["a/x", "a/xx", "issuer/a"]
        );
    }

    #[test]
    fn what_is_no_public_key_is_never_printed() {
        let mut private = key("a/x.1", "active");
        private.jwk["d"] = json!("AAAA");
        let failure = one_set(&[private], &"a/x".parse().unwrap()).unwrap_err();
        assert_eq!(failure.exit, Exit::Internal);
        assert!(failure.message.contains("a/x.1"), "{}", failure.message);
    }
}
