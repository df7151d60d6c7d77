//! `assertctl jwks merge`: reads sets from files, and prints or writes the one that is made of them.
//! What may be merged is [`crate::publication::merge`]'s.

use crate::ctl::failure::{Exit, Failure};
use crate::ctl::out::{Out, clean};
use crate::ctl::place::put;
use crate::publication::KEYS_MAX;
use crate::publication::merge::{self, SET_LEN_MAX, Set};
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
        Some(path) => put(path, &merged.render())?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publication::fixtures::set;
    use crate::publication::render::jwks;
    use crate::publication::tree::Dir;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_written_is_whole_and_for_everybody_and_a_refusal_leaves_what_was_there() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name);
        let dir = Dir::open(tmp.path()).unwrap();
        dir.replace("a.json", &jwks(&set(&[1, 2]))).unwrap();
        dir.replace("b.json", &jwks(&set(&[1]))).unwrap();
        dir.replace("empty.json", b"{\"keys\":[]}").unwrap();
        let merged = at("merged.json");
        let merge = |names: &[&str]| {
            let files: Vec<PathBuf> = names.iter().map(|name| at(name)).collect();
            let mut out = Vec::new();
            let done = run(&files, Some(&merged), &mut Out::new(&mut out));
            done.map(|_| out)
        };
        assert!(merge(&["a.json", "b.json"]).unwrap().is_empty());
        let written = fs::read(&merged).unwrap();
        let read = Set::read("merged", &written).unwrap();
        assert_eq!(merge::merge(&[read]).unwrap().len(), 3);
        assert_eq!(fs::metadata(&merged).unwrap().mode() & 0o777, 0o644);
        assert_eq!(
            merge(&["a.json", "empty.json"]).unwrap_err().exit,
            Exit::Refused
        );
        assert_eq!(fs::read(&merged).unwrap(), written);
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let failure = read(Path::new("/dev/zero")).unwrap_err();
        assert!(
            failure.message.contains("is longer than"),
            "{}",
            failure.message
        );
    }
}
