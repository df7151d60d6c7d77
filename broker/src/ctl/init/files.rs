//! Files that are written whole or not at all, and never in the place of another: the text goes to
//! a file beside, and gets its name by link(2), which fails where something has that name.

use crate::ctl::failure::{Exit, Failure};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Group, Uid, fchown};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Where.
    pub path: PathBuf,
    /// What for.
    pub about: String,
    /// Its text.
    pub text: String,
    /// Its permissions.
    pub mode: u32,
    /// Its group, if not root's; it may be made only later. Its owner is root, because we are.
    pub group: Option<&'static str>,
}

/// What is in its place now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// Nothing.
    Nothing,
    /// The same text.
    Same,
    /// Something else.
    Other,
}

impl Planned {
    /// Looks.
    pub fn there(&self) -> There {
        match fs::read(&self.path) {
            Ok(bytes) if bytes == self.text.as_bytes() => There::Same,
            Err(error) if error.kind() == ErrorKind::NotFound => match self.path.is_symlink() {
                true => There::Other, // one that leads nowhere
                false => There::Nothing,
            },
            Ok(_) | Err(_) => There::Other,
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// If something is there, or there is no room; nothing is left behind then.
    pub fn write(&self) -> Result<(), Failure> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        // Not `.toml` at its end: assertd reads every such file in conf.d.
        let beside = self.path.with_file_name(format!(".{name}.new"));
        let written = self.write_beside(&beside);
        let named = written.and_then(|()| fs::hard_link(&beside, &self.path));
        let _ = fs::remove_file(&beside); // it may not have come to be
        named.and_then(|()| self.sync_directory()).map_err(|error| {
            let path = self.path.display();
            match error.kind() {
                ErrorKind::AlreadyExists => in_the_way(&self.path),
                _ => Failure::new(Exit::Internal, format!("{path}: {error}")),
            }
        })
    }

    /// `beside` is ours: whatever an earlier run left there goes.
    fn write_beside(&self, beside: &Path) -> io::Result<()> {
        match fs::remove_file(beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(beside)?;
        file.write_all(self.text.as_bytes())?;
        if let Some(name) = self.group {
            let group = Group::from_name(name)?
                .ok_or_else(|| io::Error::other(format!("its group {name} does not exist")))?;
            fchown(&file, None::<Uid>, Some(group.gid))?;
        }
        fchmod(&file, Mode::from_bits_truncate(self.mode))?; // whatever the umask
        file.sync_all()
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

/// Something is where a file should go.
pub fn in_the_way(path: &Path) -> Failure {
    let path = path.display();
    let text = format!(
        "{path} is there already, and init replaces no file; if it is not needed, move it away: \
         mv {path} {path}.old"
    );
    Failure::new(Exit::Refused, text)
}

/// Makes a directory for root, unless it is there. The one above it must be.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), Failure> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            let text = format!("{}: cannot be made: {error}", path.display());
            Err(Failure::new(Exit::Internal, text))
        }
        _ => Ok(()),
    }
}

/// Refuses a path that a unit file or a configuration could not name as it is.
pub fn printable_path(path: &Path) -> Result<&str, Failure> {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@,=".contains(c);
    match path.to_str() {
        Some(text) if path.is_absolute() && text.chars().all(plain) => Ok(text),
        _ => {
            let text = format!(
                "{}: a path of a unit must be absolute, and of letters, digits and / . _ - + : @ \
                 , =",
                path.display()
            );
            Err(Failure::new(Exit::Refused, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::stat;
    use std::os::unix::fs::symlink;

    fn planned(path: PathBuf) -> Planned {
        Planned {
            path,
            about: String::new(),
            text: "text\n".into(),
            mode: 0o640,
            group: None,
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_is_there_whole_with_its_mode_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = planned(dir.path().join("a.toml"));
        assert_eq!(file.there(), There::Nothing);
        file.write().unwrap();
        assert_eq!(file.there(), There::Same);
        assert_eq!(stat(&file.path).unwrap().st_mode & 0o7777, 0o640);
        assert_eq!(names(dir.path()), ["a.toml"]);
    }

    #[test]
    fn what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = planned(dir.path().join("a"));
        file.write().unwrap();
        let other = Planned {
            text: "other\n".into(),
            ..file.clone()
        };
        assert_eq!(other.there(), There::Other);
        let failure = other.write().unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.message.contains("mv "), "{}", failure.message);
        assert_eq!(file.there(), There::Same);
        assert_eq!(names(dir.path()), ["a"]);

        let link = planned(dir.path().join("link"));
        symlink("/nonexistent/file", &link.path).unwrap();
        assert_eq!(link.there(), There::Other);
        assert_eq!(link.write().unwrap_err().exit, Exit::Refused);
        assert!(link.path.is_symlink());
    }

    #[test]
    fn what_a_crash_left_beside_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let file = planned(dir.path().join("a"));
        let left = Planned {
            path: dir.path().join(".a.new"),
            ..file.clone()
        };
        left.write().unwrap();
        file.write().unwrap();
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn a_path_that_a_unit_would_read_differently_is_refused() {
        for path in ["/var/lib/softhsm/tokens", "/srv/a_b-c.d/1"] {
            assert_eq!(printable_path(Path::new(path)).unwrap(), path);
        }
        for path in ["tokens", "/a b", "/a\nb", "/%i", "/a\"", "/a\\x", "/$HOME"] {
            assert!(printable_path(Path::new(path)).is_err(), "{path}");
        }
    }
}
