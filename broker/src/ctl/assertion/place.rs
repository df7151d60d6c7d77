//! Where an assertion is put for SDKs that read files: a name in a directory that was opened once. Who
//! reads sees the old text or the new one, whole; nobody but the owner may; no link is followed, and
//! nothing but a plain file is ever replaced.

use crate::ctl::failure::{Exit, Failure};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Its owner's alone: it is a credential.
const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// Longest assertion that is read back, in bytes: one of RS4096 with long names has 2 KiB.
const LEN_MAX: u64 = 64 * 1024;

/// A file to be, or that is.
pub struct Place {
    directory: File,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// Opens the directory. It must be there: systemd's RuntimeDirectory= makes one that goes with the
    /// service.
    pub fn open(path: &Path) -> Result<Place, Failure> {
        let wrong = |why: &str| Failure::new(Exit::Usage, format!("{}: {why}", path.display()));
        let name = path.file_name().ok_or_else(|| wrong("names no file"))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlag::O_DIRECTORY.bits());
        let directory = options.open(parent).map_err(|error| {
            let text = format!(
                "{}: {error}; the directory must be there (RuntimeDirectory= of the unit makes one)",
                parent.display()
            );
            Failure::new(Exit::Refused, text)
        })?;
        let place = Place {
            directory,
            name: name.to_owned(),
            path: path.to_owned(),
        };
        match fstatat(&place.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(there)
                if SFlag::from_bits_truncate(there.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG =>
            {
                let text = format!(
                    "{}: is there and is no plain file; name another one",
                    path.display()
                );
                Err(Failure::new(Exit::Refused, text))
            }
            Ok(_) | Err(Errno::ENOENT) => Ok(place),
            Err(errno) => Err(place.failure(&errno.into())),
        }
    }

    /// Replaces what is there. No newline follows: SDKs send what they read.
    pub fn put(&self, text: &str) -> Result<(), Failure> {
        // Our own alone, so that two who write never mix.
        let mut temporary = OsString::from(".");
        temporary.push(&self.name);
        temporary.push(format!(".{}", std::process::id()));
        let written = self.write(&temporary, text).and_then(|()| {
            renameat(
                &self.directory,
                temporary.as_os_str(),
                &self.directory,
                self.name.as_os_str(),
            )?;
            self.directory.sync_all()
        });
        written.map_err(|error| {
            let _ = unlinkat(
                &self.directory,
                temporary.as_os_str(),
                UnlinkatFlags::NoRemoveDir,
            ); // may not be there
            self.failure(&error)
        })
    }

    fn write(&self, temporary: &OsString, text: &str) -> io::Result<()> {
        match unlinkat(
            &self.directory,
            temporary.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        ) {
            Ok(()) | Err(Errno::ENOENT) => {} // of a process that was killed and had our number
            Err(errno) => return Err(errno.into()),
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.directory, temporary.as_os_str(), flags, MODE)?);
        fchmod(&file, MODE)?; // whatever the umask
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    /// What was put there.
    pub fn read(&self) -> Option<String> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, self.name.as_os_str(), flags, Mode::empty()).ok()?;
        let mut text = String::new();
        File::from(file)
            .take(LEN_MAX)
            .read_to_string(&mut text)
            .ok()?;
        Some(text)
    }

    /// Whether the directory has been removed: the service it was made for has stopped.
    pub fn is_gone(&self) -> bool {
        fstat(&self.directory).is_ok_and(|directory| directory.st_nlink == 0)
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let text = format!(
            "{}: cannot be written: {error}; uid {} needs a directory that it may write to (RuntimeDirectory= \
             of the unit makes one)",
            self.path.display(),
            geteuid()
        );
        Failure::new(Exit::Refused, text)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests play who was there before")]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_reader_has_the_old_text_or_the_new_one_and_nobody_else_has_any() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aws.jwt");
        let place = Place::open(&path).unwrap();
        place.put("old").unwrap();
        let mut reader = File::open(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        place.put("new").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(
            (text.as_str(), place.read().as_deref()),
            ("old", Some("new"))
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn no_link_is_followed_and_nothing_but_a_plain_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "mine").unwrap();
        symlink(&target, &link).unwrap();
        for path in [&link, &dir.path().join("."), Path::new("/dev/null")] {
            let failure = Place::open(path).map(|_| ()).unwrap_err();
            let shown = path.display().to_string();
            assert!(failure.message.starts_with(&shown) || failure.exit == Exit::Refused);
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
        // A link that comes later is replaced itself.
        let place = Place::open(&dir.path().join("later")).unwrap();
        symlink(&target, dir.path().join("later")).unwrap();
        place.put("new").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
        assert!(!dir.path().join("later").is_symlink());
    }

    #[test]
    fn a_directory_that_was_removed_is_gone_even_if_there_is_another_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        let place = Place::open(&run.join("aws.jwt")).unwrap();
        assert!(!place.is_gone());
        fs::remove_dir(&run).unwrap();
        fs::create_dir(&run).unwrap();
        assert!(place.is_gone());
        assert!(place.put("late").is_err());
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
    }
}
