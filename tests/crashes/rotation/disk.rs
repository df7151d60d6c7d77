//! What lies on the disk and in the token, at any moment: state that is whole, one active version of
//! each key, documents that verifiers can read.

use super::world::{OTHER, ROTATED, World};
use harness::wait_for;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file takes its place sooner.
const MOMENT: Duration = Duration::from_secs(5);

/// The broker's records.
pub fn keyring(world: &World) -> Value {
    state(&world.site().state_dir().join("keyring.v1"))
}

/// A state file's value, by the product's own reading, of which its unit tests say that it refuses
/// every prefix and every flipped bit.
fn state(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let decoded = keystore::statefile::decode::<Value>(&bytes);
    let (_, value) = decoded.unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    value
}

/// Holds at every moment, whatever has just been cut off.
pub fn is_whole(world: &World) {
    let records = keyring(world);
    for name in [ROTATED, OTHER] {
        let versions = records["lineages"][name]["versions"].as_object();
        let versions = versions.unwrap_or_else(|| panic!("{name}: {records:#}"));
        let active: Vec<&String> = versions
            .iter()
            .filter(|(_, version)| !version["phase"]["active"].is_null())
            .map(|(number, _)| number)
            .collect();
        assert_eq!(
            active.len(),
            1,
            "{name}: active: {active:?} of {versions:#?}"
        );
        // Every version whose public key was once known is known for ever.
        for (number, version) in versions {
            let is_recorded = !records["keys"][format!("{name}.{number}")].is_null();
            let is_made = version["phase"]["making"].is_null();
            assert!(is_recorded || !is_made, "{name}.{number}: no record of it");
        }
    }
    state(&world.keystore_state().join("keys.v1"));
    documents_are_whole(world);
}

/// Each document can be read, and says what may be said now.
fn documents_are_whole(world: &World) {
    for path in files(world.published.path()) {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.ends_with(".new") || name == "published" {
            continue; // nobody ships what is being written
        }
        let Ok(bytes) = std::fs::read(&path) else {
            continue; // an old copy, which has just been taken away
        };
        let value: Value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|e| panic!("{}: {e}: {bytes:?}", path.display()));
        if let Some(keys) = value["keys"].as_array() {
            assert!(!keys.is_empty(), "{}: no key", path.display());
        } else {
            assert_eq!(
                value["issuer"],
                "https://id.example/prod",
                "{}",
                path.display()
            );
        }
    }
}

/// Kids of the set that verifiers of a key are given, in its order.
pub fn published(world: &World, document: &str) -> Vec<Value> {
    let path = world.published.path().join(document);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let set: Value = serde_json::from_slice(&bytes).unwrap();
    set["keys"].as_array().expect("a set").clone()
}

/// Files that were to take another's place and have not: of no use to anyone. What is being written just
/// now is gone in a moment.
pub fn half_written(world: &World) -> BTreeSet<PathBuf> {
    let gone = || half_written_now(world).is_empty().then(BTreeSet::new);
    wait_for(MOMENT, gone).unwrap_or_else(|| half_written_now(world))
}

fn half_written_now(world: &World) -> BTreeSet<PathBuf> {
    let dirs = world.directories();
    let all = dirs.iter().flat_map(|dir| files(dir));
    all.filter(|path| path.extension().is_some_and(|end| end == "new"))
        .collect()
}

/// All files below a directory.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        // One that goes away while we look.
        let Ok(path) = entry.map(|entry| entry.path()) else {
            continue;
        };
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}
