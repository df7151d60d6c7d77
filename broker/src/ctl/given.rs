//! A file that somebody has named to a command. Whatever lies there, reading it waits for nobody, and has an end.

use super::failure::{Exit, Failure};
use keystore::bounded;
use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;

/// What is in it, whole.
///
/// # Errors
/// `Refused`: it is no file, cannot be read, or has more than so many bytes.
pub fn read(path: &Path, most: usize) -> Result<Vec<u8>, Failure> {
    let read = bounded::read(path, most);
    read.map(|(bytes, _)| bytes)
        .map_err(|why| refused(path, &why))
}

/// Whether there certainly is nothing: what cannot be looked at must not pass for an empty file.
pub fn is_absent(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// What is wrong with a file, or with what is in it.
pub fn refused(path: &Path, why: &dyn Display) -> Failure {
    Failure::new(Exit::Refused, format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_no_file_is_said_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("nowhere");
        symlink("nothing", &nowhere).unwrap();
        for (path, why) in [
            (dir.path(), "is no file"),
            (Path::new("/dev/zero"), "is no file"),
            (
                nowhere.as_path(),
                "cannot be read: No such file or directory",
            ),
        ] {
            let failure = read(path, 10).unwrap_err();
            let text = format!("{}: {why}", path.display());
            assert_eq!((failure.exit, failure.message), (Exit::Refused, text));
        }
        assert!(!is_absent(&nowhere), "the link is there");
        assert!(is_absent(&dir.path().join("nothing")));
    }
}
