//! What an administrator asks assertd: keys and what of them is to be published. `status` has a
//! file of its own.

mod status;

pub use status::status;

use super::args::{Args, Format};
use super::failure::{Asker, Exit, Failure};
use super::out::{Out, rfc3339};
use assertd_client::api::KeyStatus;
use assertd_client::{Client, Error};
use keystore::KeyName;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// An RFC 7517 §5 JWK set.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct JwkSet<'a> {
    keys: Vec<&'a Value>,
}

/// Lists every key that assertd has recorded.
pub fn keys(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let answer = connect(args)?.keys().map_err(|error| failed(&error))?;
    match args.format {
        Format::Json => out.json(&answer)?,
        Format::Text if answer.keys.is_empty() => {
            out.line(&format!(
                "no keys yet: `assertctl{} apply` makes them",
                args.same_place()
            ));
        }
        Format::Text => out.table(&key_rows(&answer.keys)),
    }
    Ok(Exit::Done)
}

/// Prints what the other side must know about one key, or about all.
pub fn jwks(args: &Args, key: Option<&KeyName>, out: &mut Out) -> Result<Exit, Failure> {
    let answer = connect(args)?.keys().map_err(|error| failed(&error))?;
    match key {
        Some(name) => out.json(&one_set(&answer.keys, name)?)?,
        None => out.json(&all_sets(&answer.keys)?)?,
    }
    Ok(Exit::Done)
}

fn connect(args: &Args) -> Result<Client, Failure> {
    Client::connect(&args.admin_socket()?).map_err(|error| failed(&error))
}

fn failed(error: &Error) -> Failure {
    Failure::from_client(error, Asker::Administrator)
}

pub fn key_rows(keys: &[KeyStatus]) -> Vec<Vec<String>> {
    let head = [
        "KEY", "STATE", "ALG", "KEYSTORE", "KID", "EVIDENCE", "RECORDED",
    ];
    let row = |key: &KeyStatus| {
        let imported = if key.imported { " imported" } else { "" };
        vec![
            key.key.clone(),
            key.state.clone(),
            key.alg.clone(),
            key.keystore.clone(),
            key.kid.clone(),
            format!("{}{imported}", key.evidence),
            rfc3339(key.made_at),
        ]
    };
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
    let shown = || keys.iter().filter(|key| key.state != "destroyed");
    rows.extend(shown().map(row));
    let mut remarks: Vec<Vec<String>> = shown().flat_map(remarks).collect();
    if !remarks.is_empty() {
        rows.push(Vec::new());
        rows.append(&mut remarks);
    }
    rows
}

/// Lines of one cell, which widen no column.
fn remarks(key: &KeyStatus) -> Vec<Vec<String>> {
    let mut remarks = Vec::new();
    if let Some(why) = &key.why {
        let text = match names_key(why, key) {
            true => format!("{}: {why}", sign(key)),
            false => format!("{}: {} is {}: {why}", sign(key), key.key, key.state),
        };
        remarks.push(vec![text]);
    }
    if let Some(next) = &key.next {
        let when = key.next_at.map(|at| format!(", {}", rfc3339(at)));
        let text = format!("next: {}: {next}{}", key.key, when.unwrap_or_default());
        remarks.push(vec![text]);
    }
    if !key.used {
        let text = "the configuration in force does not use it; it is kept";
        remarks.push(vec![format!("note: {}: {text}", key.key)]);
    }
    remarks
}

/// A keystore's sentence names the key already.
fn names_key(why: &str, key: &KeyStatus) -> bool {
    why.strip_prefix("key ")
        .is_some_and(|rest| rest.starts_with(&key.key))
}

fn sign(key: &KeyStatus) -> &'static str {
    if key.state == "unknown" {
        "warn"
    } else {
        "FAIL"
    }
}

/// The set of one key's versions. Never empty.
fn one_set<'a>(keys: &'a [KeyStatus], name: &KeyName) -> Result<JwkSet<'a>, Failure> {
    let versions: Vec<&KeyStatus> = keys
        .iter()
        .filter(|key| name_of(key) == name.as_str())
        .collect();
    let set = in_order(versions.iter().copied());
    let set: Vec<&Value> = set.into_iter().map(|key| &key.jwk).collect();
    if !set.is_empty() {
        return Ok(JwkSet { keys: set });
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
fn all_sets(keys: &[KeyStatus]) -> Result<BTreeMap<&str, JwkSet<'_>>, Failure> {
    let mut sets: BTreeMap<&str, JwkSet> = BTreeMap::new();
    for key in in_order(keys.iter()) {
        sets.entry(name_of(key))
            .or_insert(JwkSet { keys: Vec::new() })
            .keys
            .push(&key.jwk);
    }
    if sets.is_empty() {
        let text = "there is no key to publish: `assertctl apply` makes those the configuration \
                    asks for, `assertctl keys` says what is wrong with those there are";
        return Err(Failure::new(Exit::Refused, text));
    }
    Ok(sets)
}

/// Whether it belongs to the set. A key that cannot sign, or whose signatures were wrong, must not be
/// registered anywhere. One whose keystore is only silent right now stays in its set: a set that
/// shrinks breaks verifiers.
fn is_published(key: &KeyStatus) -> bool {
    let is_listed = matches!(
        key.phase.as_str(),
        "published" | "active" | "held" | "retiring"
    );
    let is_sound = !matches!(key.state.as_str(), "failed" | "suspended");
    is_listed && (is_sound || key.phase != "active")
}

/// The one that signs first, because some verifiers take the first; the others by version.
fn in_order<'a>(keys: impl Iterator<Item = &'a KeyStatus>) -> Vec<&'a KeyStatus> {
    let listed = keys.filter(|key| is_published(key));
    let (mut set, others): (Vec<_>, Vec<_>) = listed.partition(|key| key.phase == "active");
    set.extend(others);
    set
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
    fn a_set_holds_the_versions_of_one_key_alone() {
        let keys = [
            key("a/x.1", "active"),
            key("a/x.2", "published"),
            key("a/x.3", "retired"),
            key("a/xx.1", "active"),
            key("issuer/a.1", "active"),
        ];
        let set = one_set(&keys, &"a/x".parse().unwrap()).unwrap();
        assert_eq!(
            serde_json::to_string(&set).unwrap(),
            r#"{"keys":[{"kid":"a/x.1"},{"kid":"a/x.2"}]}"#
        );
        assert_eq!(
            all_sets(&keys).unwrap().into_keys().collect::<Vec<_>>(),
            ["a/x", "a/xx", "issuer/a"]
        );
    }

    #[test]
    fn a_key_that_is_not_active_says_why() {
        let rows = key_rows(&[key("a/x.1", "failed"), key("a/y.1", "active")]);
        assert_eq!(rows.last().unwrap(), &["FAIL: a/x.1 is failed: unplugged"]);
    }
}
