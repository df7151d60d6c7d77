//! Puts documents into the directory of `[publication]`, from where a site's own command ships them
//! and `assertd-publish` serves them. Owns the order: documents first, each replaced whole; then the
//! stamp, which whoever ships waits for. A crash at any point leaves old or new documents, and the
//! next publication finishes it.
//!
//! Deletes nothing but its own copies and what a crash left of its own writing. What is there and is
//! not published any more is reported: others may still read it.

use super::documents::{
    BUNDLE, CLIENTS, COPIES, Content, Document, Documents, ISSUERS, directory_of,
};
use super::render::DOCUMENT_LEN_MAX;
use super::tree::{Dir, Found};
use crate::audit::Sha256;
use keystore::statefile::NEW;
use keystore::{Error, KeyName, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Changes with everything that is published: a path unit watches it.
pub const STAMP: &str = "published";

/// Copies by content that are kept of one key's documents: those of several rotations.
pub const COPIES_MAX: usize = 16;

/// Most names that are reported as left over; more are a mistake of another kind.
pub const LEFT_OVER_MAX: usize = 100;

/// What came of a publication.
#[derive(Debug)]
pub struct Outcome {
    /// Whether anything is another than before.
    pub change: Change,
    /// Keys whose documents could not be written for certain: of these verifiers may know the old
    /// set still.
    pub failed: BTreeMap<KeyName, Error>,
    /// What is in the directory and is not published any more, by its path below it.
    pub left_over: Vec<String>,
}

/// Whether there is something to ship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Every document was there as it is.
    Unchanged,
    /// Some document is new, or the stamp was not yet that of what is there.
    Changed,
}

/// Makes the directory say what `documents` say. Blocks: one fsync or two for each document that
/// changed.
///
/// # Errors
/// The directory or the stamp cannot be used, and then nothing counts as published. What fails with
/// one key's documents is in the [`Outcome`], and keeps no other from being published.
pub fn publish(dir: &Path, documents: &Documents) -> Result<Outcome, Error> {
    let root = Dir::open_own(dir)?;
    let mut change = Change::Unchanged;
    let mut failed = BTreeMap::new();
    let mut stamp: Vec<String> = Vec::new();
    for (key, of_key) in documents.of_keys() {
        match publish_key(&root, key, of_key, &mut stamp) {
            Ok(Change::Unchanged) => {}
            Ok(Change::Changed) => change = Change::Changed,
            Err(error) => {
                change = Change::Changed; // some of its documents may be new
                failed.insert(key.clone(), error);
            }
        }
    }
    if put_stamp(&root, &stamp)? == Change::Changed {
        change = Change::Changed;
    }
    Ok(Outcome {
        change,
        failed,
        left_over: left_over(&root, documents),
    })
}

/// Adds a line for each document that is there now to `stamp`.
fn publish_key(
    root: &Dir,
    key: &KeyName,
    documents: &[Document],
    stamp: &mut Vec<String>,
) -> Result<Change, Error> {
    let parts = directory_of(key);
    let (first, rest) = parts.split_first().expect("a key's directory has a name");
    let top = root.make_sub(first)?;
    let home = rest.iter().try_fold(top, |dir, part| dir.make_sub(part))?;
    let mut change = Change::Unchanged;
    let mut current = BTreeSet::new();
    for document in documents {
        let below = document.below.map(|name| home.make_sub(name)).transpose()?;
        let place = below.as_ref().unwrap_or(&home);
        let (sha256, put) = put(&home, place, document)?;
        if put == Change::Changed {
            change = Change::Changed;
        }
        current.insert(copy_name(&sha256));
        let names = parts.iter().chain(&document.below);
        let names: Vec<&str> = names.copied().chain([document.name]).collect();
        stamp.push(format!("{sha256} {}", names.join("/")));
    }
    if change == Change::Changed {
        prune(&home.make_sub(COPIES)?, &current)?;
    }
    Ok(change)
}

/// Makes one document what it is to be: its copy first, so that each one that was ever read is there.
fn put(home: &Dir, place: &Dir, document: &Document) -> Result<(Sha256, Change), Error> {
    let old = match place.read(document.name)? {
        Found::File(bytes) => Some(bytes),
        Found::Nothing | Found::Strange(_) => None,
    };
    let bytes = match &document.content {
        Content::Fixed(bytes) => bytes.clone(),
        Content::Bundle(bundle) => bundle.after(old.as_deref()),
    };
    let path = place.path().join(document.name);
    if bytes.len() > DOCUMENT_LEN_MAX {
        let text = format!(
            "{}: would have {} bytes, and {DOCUMENT_LEN_MAX} is the most; the old one stands",
            path.display(),
            bytes.len()
        );
        return Err(Error::new(Kind::Refused, text));
    }
    let sha256 = Sha256::of(&bytes);
    if old.as_ref() == Some(&bytes) {
        place.remove(&format!("{}{NEW}", document.name))?; // what a crash has left
        return Ok((sha256, Change::Unchanged));
    }
    home.make_sub(COPIES)?
        .replace(&copy_name(&sha256), &bytes)?;
    place.replace(document.name, &bytes)?;
    Ok((sha256, Change::Changed))
}

fn copy_name(sha256: &Sha256) -> String {
    format!("{sha256}.json")
}

/// Keeps the newest copies, and what a crash has left of one goes away.
fn prune(copies: &Dir, current: &BTreeSet<String>) -> Result<(), Error> {
    let (half, whole): (Vec<String>, Vec<String>) = copies
        .names()?
        .into_iter()
        .partition(|name| name.ends_with(NEW));
    let mut old: Vec<String> = whole
        .into_iter()
        .filter(|name| name.ends_with(".json") && !current.contains(name))
        .collect();
    old.sort_by_key(|name| copies.written_at(name));
    let kept = COPIES_MAX.saturating_sub(current.len());
    old.truncate(old.len().saturating_sub(kept)); // the oldest, which come first
    half.iter()
        .chain(&old)
        .try_for_each(|name| copies.remove(name))
}

/// The digest of everything, and a line's end for people.
fn put_stamp(root: &Dir, lines: &[String]) -> Result<Change, Error> {
    let digest = Sha256::of_texts(lines.iter().map(|line| Some(line.as_str())));
    let stamp = format!("{digest}\n").into_bytes();
    if root.read(STAMP)? == Found::File(stamp.clone()) {
        root.remove(&format!("{STAMP}{NEW}"))?;
        return Ok(Change::Unchanged);
    }
    root.replace(STAMP, &stamp)?;
    Ok(Change::Changed)
}

/// What is in the directories of keys and is of none that is published: keys that went, bundles of
/// issuers that have no trust domain any more, whatever somebody put there.
fn left_over(root: &Dir, documents: &Documents) -> Vec<String> {
    let mut left: Vec<String> = Vec::new();
    for name in names_below(root, ISSUERS) {
        let path = format!("{ISSUERS}/{name}");
        match KeyName::issuer(&name) {
            Ok(key) if documents.is_of(&key) => {
                let has_bundle = || names_below(root, &path).iter().any(|name| name == BUNDLE);
                if !documents.has(&key, BUNDLE) && has_bundle() {
                    left.push(format!("{path}/{BUNDLE}"));
                }
            }
            Ok(_) | Err(_) => left.push(path),
        }
    }
    for workload in names_below(root, CLIENTS) {
        let path = format!("{CLIENTS}/{workload}");
        for target in names_below(root, &path) {
            let key = KeyName::client(&workload, &target);
            if key.is_ok_and(|key| documents.is_of(&key)) {
                continue;
            }
            left.push(format!("{path}/{target}"));
        }
    }
    left.truncate(LEFT_OVER_MAX);
    left
}

/// The names in a directory at a path of ours; none if there is none, or no directory.
fn names_below(root: &Dir, path: &str) -> Vec<String> {
    let mut parts = path.split('/');
    let first = parts.next().and_then(|name| root.sub(name).ok()?);
    let dir = parts.try_fold(first, |dir, name| dir?.sub(name).ok());
    let dir = dir.flatten();
    dir.and_then(|dir| dir.names().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
