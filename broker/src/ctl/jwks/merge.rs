//! `assertctl jwks merge`: reads sets from files, and prints or writes the one that is made of them.
//! What may be merged is [`crate::publication::merge`]'s.

use crate::ctl::failure::{Exit, Failure};
use crate::ctl::out::{Out, clean};
use crate::publication::KEYS_MAX;
use crate::publication::merge::{self, SET_LEN_MAX, Set};
use crate::publication::tree::Dir;
use keystore::config::reason;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Merges them in the order in which they are named.
pub fn run(files: &[PathBuf], output: Option<&Path>, out: &mut Out) -> Result<Exit, Failure> {
    let sets = files.iter().map(|path| read(path));
    let sets = sets.collect::<Result<Vec<Set>, Failure>>()?;
    let merged = merge::merge(&sets).map_err(|why| Failure::new(Exit::Refused, why))?;
    if merged.len() > KEYS_MAX {
        let text = format!(
            "warning: {} keys: some verifiers take {KEYS_MAX}; hosts that verifiers need not tell \
             apart can share an issuer, others can have one each",
            merged.len()
        );
        eprintln!("assertctl: {text}");
    }
    match output {
        None => out.line(String::from_utf8_lossy(&merged.render()).trim_end()),
        Some(path) => write(path, &merged.render())?,
    }
    Ok(Exit::Done)
}

fn read(path: &Path) -> Result<Set, Failure> {
    let refused = |why: &dyn std::fmt::Display| {
        let text = format!("{}: {why}", path.display());
        Failure::new(Exit::Refused, clean(&text))
    };
    let file = File::open(path).map_err(|error| refused(&reason(&error)))?;
    let mut bytes = Vec::new();
    let limited = file.take(SET_LEN_MAX + 1).read_to_end(&mut bytes);
    limited.map_err(|error| refused(&reason(&error)))?;
    if bytes.len() as u64 > SET_LEN_MAX {
        let text = format!(
            "is longer than {SET_LEN_MAX} bytes, and no JWK set of {}",
            merge::MERGED_MAX
        );
        return Err(refused(&text));
    }
    Set::read(&path.display().to_string(), &bytes).map_err(|why| refused(&why))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let wrong = |why: &str| Failure::new(Exit::Usage, format!("{}: {why}", path.display()));
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| wrong("names no file"))?;
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let dir = Dir::open(parent.unwrap_or(Path::new(".")));
    let written = dir.and_then(|dir| dir.replace(name, bytes));
    written.map_err(|error| Failure::new(Exit::Refused, error.to_string()))
}
