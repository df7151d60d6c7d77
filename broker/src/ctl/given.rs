//! A file that somebody has named to a command. Whatever lies there, reading it waits for nobody, and has an
//! end.

use super::failure::{Exit, Failure};
use keystore::config::reason;
use nix::libc::O_NONBLOCK;
use std::fmt::Display;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// One that was opened: what is asked of it is asked of what will be read.
pub struct Given<'a> {
    path: &'a Path,
    file: File,
    metadata: Metadata,
}

impl<'a> Given<'a> {
    /// Opens it: no pipe and no device, for which somebody else would have to be waited.
    ///
    /// # Errors
    /// `Refused`, with what lies there instead.
    pub fn open(path: &'a Path) -> Result<Given<'a>, Failure> {
        let failed = |error| refused(path, &reason(&error));
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(O_NONBLOCK);
        let file = options.open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(refused(path, &"is no file"));
        }
        Ok(Given {
            path,
            file,
            metadata,
        })
    }

    /// Who may do what with it.
    pub fn mode(&self) -> u32 {
        self.metadata.mode() & 0o7777
    }

    /// What is in it, whole.
    ///
    /// # Errors
    /// `Refused`, if that is more than so many bytes.
    pub fn read(self, most: usize) -> Result<Vec<u8>, Failure> {
        let Given {
            path,
            file,
            metadata,
        } = self;
        // At once, so that of a secret no copy is left where it has grown out of.
        let length = usize::try_from(metadata.len()).unwrap_or(most).min(most);
        let mut bytes = Vec::with_capacity(length + 1);
        let limited = file.take(most as u64 + 1).read_to_end(&mut bytes);
        limited.map_err(|error| refused(path, &reason(&error)))?;
        match bytes.len() <= most {
            true => Ok(bytes),
            false => Err(refused(path, &format!("is longer than {most} bytes"))),
        }
    }
}

/// Opens it, and reads it.
///
/// # Errors
/// As [`Given::open`] and [`Given::read`].
pub fn read(path: &Path, most: usize) -> Result<Vec<u8>, Failure> {
    Given::open(path)?.read(most)
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
    use nix::sys::stat::Mode;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o640);
        options.open(&path).unwrap().write_all(&[7; 10]).unwrap();
        assert_eq!(Given::open(&path).unwrap().mode() & 0o700, 0o600);
        for (most, fits) in [(9, false), (10, true), (11, true)] {
            let read = read(&path, most);
            assert_eq!(read.is_ok(), fits, "{most}");
            if let Err(failure) = read {
                let end = format!("file: is longer than {most} bytes");
                assert!(failure.message.ends_with(&end), "{}", failure.message);
                assert_eq!(failure.exit, Exit::Refused);
            }
        }
        let link = dir.path().join("link");
        symlink("file", &link).unwrap();
        assert_eq!(read(&link, 10).unwrap(), [7; 10]);
        assert!(!is_absent(&link) && is_absent(&dir.path().join("nothing")));
    }

    #[test]
    fn what_is_no_file_is_said_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let nowhere = dir.path().join("nowhere");
        symlink("nothing", &nowhere).unwrap();
        for (path, why) in [
            (pipe.as_path(), "is no file"),
            (dir.path(), "is no file"),
            (Path::new("/dev/zero"), "is no file"),
            (nowhere.as_path(), "No such file or directory"),
        ] {
            let failure = read(path, 10).unwrap_err();
            let text = format!("{}: {why}", path.display());
            assert_eq!((failure.exit, failure.message), (Exit::Refused, text));
        }
        assert!(!is_absent(&nowhere), "the link is there");
    }
}
