//! Directories and small files by descriptor: every name is one component, opened below the
//! directory that is open already, and no symbolic link is followed. So whatever somebody puts into
//! the directory, nothing outside of it is read or written.
//!
//! Owns how a file is replaced (new file, fsync, rename, fsync of the directory) and the modes of
//! what everybody may read. What is written is [`super::files`]'.

use super::render::DOCUMENT_LEN_MAX;
use keystore::statefile::NEW;
use keystore::{Error, Kind};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Of directories and files that everybody may read.
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);

/// Most names of one directory that are looked at: ten thousand workloads, and room.
const NAMES_MAX: usize = 100_000;

/// An open directory.
pub struct Dir {
    file: File,
    path: PathBuf,
}

/// What there is under a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A file, whole.
    File(Vec<u8>),
    /// Something that is no document, and what.
    Strange(&'static str),
}

impl Dir {
    /// Opens a directory to be read.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn open(path: &Path) -> Result<Dir, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty())
            .map_err(|errno| failed(path, "cannot be opened", errno))?;
        Ok(Dir {
            file: fd.into(),
            path: path.to_owned(),
        })
    }

    /// The directory that everything is published in, made if it is missing.
    ///
    /// # Errors
    /// `Unavailable`; `Corrupt` if others could change what is in it.
    pub fn open_own(path: &Path) -> Result<Dir, Error> {
        match nix::unistd::mkdir(path, DIRECTORY_MODE) {
            Ok(()) => {
                let dir = Dir::open(path)?;
                dir.let_be_read()?;
                Ok(dir)
            }
            Err(Errno::EEXIST) => Dir::open(path)?.if_own(),
            Err(errno) => Err(failed(path, "cannot be made", errno)),
        }
    }

    /// A directory in it.
    ///
    /// # Errors
    /// `Unavailable`; `Corrupt` if it is a link, or no directory.
    pub fn sub(&self, name: &str) -> Result<Option<Dir>, Error> {
        let path = self.path.join(name);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.file, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Dir {
                file: fd.into(),
                path,
            })),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ENOTDIR | Errno::ELOOP) => Err(Error::new(
                Kind::Corrupt,
                format!(
                    "{}: is a symbolic link, or no directory; remove it: it was neither followed nor \
                     changed",
                    path.display()
                ),
            )),
            Err(errno) => Err(failed(&path, "cannot be opened", errno)),
        }
    }

    /// A directory in it, which is made if it is missing, and can be changed by its owner alone.
    ///
    /// # Errors
    /// As [`Dir::sub`].
    pub fn make_sub(&self, name: &str) -> Result<Dir, Error> {
        if let Some(dir) = self.sub(name)? {
            return dir.if_own();
        }
        let path = self.path.join(name);
        match mkdirat(&self.file, name, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(&path, "cannot be made", errno)),
        }
        let dir = self.sub(name)?;
        let dir = dir.ok_or_else(|| failed(&path, "cannot be made", Errno::ENOENT))?;
        dir.let_be_read()?;
        self.sync()?;
        Ok(dir)
    }

    /// Reads a file of a document's size.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn read(&self, name: &str) -> Result<Found, Error> {
        let path = self.path.join(name);
        let cannot = |errno| failed(&path, "cannot be read", errno);
        // O_NONBLOCK: opening a FIFO that somebody put there would wait for a writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file: File = match openat(&self.file, name, flags, Mode::empty()) {
            Ok(fd) => fd.into(),
            Err(Errno::ENOENT) => return Ok(Found::Nothing),
            Err(Errno::ELOOP) => return Ok(Found::Strange("a symbolic link")),
            Err(errno) => return Err(cannot(errno)),
        };
        let kind = SFlag::from_bits_truncate(fstat(&file).map_err(cannot)?.st_mode);
        if kind & SFlag::S_IFMT != SFlag::S_IFREG {
            return Ok(Found::Strange("no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(DOCUMENT_LEN_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(&path, "cannot be read", error))?;
        match bytes.len() > DOCUMENT_LEN_MAX {
            true => Ok(Found::Strange("longer than a document")),
            false => Ok(Found::File(bytes)),
        }
    }

    /// Replaces a file, as a whole or not at all; a link that is there is replaced itself. When this
    /// returns `Ok` the new content survives a power cut.
    ///
    /// # Errors
    /// `Unavailable`: a crash now leaves the old or the new content.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let new = format!("{name}{NEW}");
        let path = self.path.join(name);
        let text = "cannot be replaced for certain; free space or mend the disk";
        self.remove(&new)?; // what a crash has left
        let written = self.write_new(&new, bytes);
        let placed = written.and_then(|()| {
            renameat(&self.file, new.as_str(), &self.file, name).map_err(std::io::Error::from)
        });
        if let Err(error) = placed {
            let _ = self.remove(&new); // what has not taken its place is of no use to anyone
            return Err(failed(&path, text, error));
        }
        self.sync()
    }

    fn write_new(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file: File = openat(&self.file, name, flags, FILE_MODE)?.into();
        // Our umask (hardening::close_off) has taken away what others may. It is the whole process's,
        // so it stays as it is; the file gets its mode before it has content or its name.
        fchmod(&file, FILE_MODE)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Takes a file away. One that is not there is success.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        match unlinkat(&self.file, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(failed(
                &self.path.join(name),
                "cannot be removed; remove it by hand",
                errno,
            )),
        }
    }

    /// The names in it, sorted.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let cannot = |errno| failed(&self.path, "cannot be listed", errno);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let listed = nix::dir::Dir::openat(&self.file, ".", flags, Mode::empty());
        let mut names = Vec::new();
        for entry in listed.map_err(cannot)?.iter().take(NAMES_MAX) {
            let entry = entry.map_err(cannot)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// When a file's content was written, in nanoseconds since 1970; `None` if it is not there.
    pub fn written_at(&self, name: &str) -> Option<(i64, i64)> {
        let stat = fstatat(&self.file, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_mtime, stat.st_mtime_nsec))
    }

    /// As it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn sync(&self) -> Result<(), Error> {
        self.file
            .sync_all()
            .map_err(|error| failed(&self.path, "cannot be made durable; mend the disk", error))
    }

    /// As in [`Dir::write_new`]: the umask has narrowed what it was made with.
    fn let_be_read(&self) -> Result<(), Error> {
        fchmod(&self.file, DIRECTORY_MODE)
            .map_err(|errno| failed(&self.path, "cannot be made readable", errno))
    }

    /// Whoever can write here says which keys are ours.
    fn if_own(self) -> Result<Dir, Error> {
        let stat =
            fstat(&self.file).map_err(|errno| failed(&self.path, "cannot be read", errno))?;
        let wrong = if stat.st_uid != nix::unistd::geteuid().as_raw() {
            "belongs to another user; chown it to the user that assertd runs as"
        } else if stat.st_mode & 0o022 != 0 {
            "is writable by others, who could publish keys of their own; chmod it to 0755"
        } else {
            return Ok(self);
        };
        let text = format!(
            "{}: {wrong}; nothing is published there",
            self.path.display()
        );
        Err(Error::new(Kind::Corrupt, text))
    }
}

fn failed(path: &Path, what: &str, why: impl std::error::Error + Send + Sync + 'static) -> Error {
    let text = format!("{}: {what}", path.display());
    Error::new(Kind::Unavailable, text).because(why)
}
