//! One segment file: preallocated, zeroed and durable before its first record, so that making a
//! record durable is one flush of data and no change of the file's extents. Also the directory and
//! its lock.
//!
//! Every call that can fail on a broken disk while records are in flight goes through `Disk`, the
//! seam to the world.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};

use super::chain::{PREPARED, segment_name};
use super::error::{Error, io_error};

/// Zeros are written in pieces and flushed often, so that the records' own flushes never wait
/// behind a whole segment's worth.
const ZERO_BYTES: usize = 1 << 20;
const ZEROS_PER_SYNC: u64 = 4;
const LOCK: &str = "lock";

/// The disk, as far as it can fail under the writer. Tests put a failing one in its place.
pub(super) trait Disk: Send + Sync {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn sync_data(&self, file: &File) -> io::Result<()>;
}

pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// An open segment and where its durable records end.
pub(super) struct Segment {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) end: u64,
}

impl Segment {
    /// Opens the segment that the log ended in, to go on at `end`.
    pub(super) fn reopen(path: &Path, end: u64) -> Result<Segment, Error> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)
            .map_err(io_error("open", path))?;
        let size = file.metadata().map_err(io_error("read", path))?.len();
        Ok(Segment {
            file,
            path: path.to_owned(),
            size,
            end,
        })
    }

    /// Makes the next segment under its provisional name. A failed attempt gives its space back at
    /// once.
    pub(super) fn prepare(dir: &Path, size: u64, disk: &dyn Disk) -> Result<Segment, Error> {
        let path = dir.join(PREPARED);
        remove_if_there(&path)?;
        let prepared = allocate(&path, size, disk).and_then(|file| {
            sync_dir(dir)?;
            Ok(file)
        });
        match prepared {
            Ok(file) => Ok(Segment {
                file,
                path,
                size,
                end: 0,
            }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    pub(super) fn free(&self) -> u64 {
        self.size.saturating_sub(self.end)
    }

    /// Puts zeros where a crash left `bytes` that are no record.
    pub(super) fn clear_tail(&self, bytes: u64) -> Result<(), Error> {
        let zeros = vec![0; bytes as usize];
        self.file
            .write_all_at(&zeros, self.end)
            .and_then(|()| self.file.sync_data())
            .map_err(io_error("clear the torn end of", &self.path))
    }
}

fn allocate(path: &Path, size: u64, disk: &dyn Disk) -> Result<File, Error> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(io_error("create", path))?;
    match fallocate(&file, FallocateFlags::empty(), 0, size as i64) {
        // Where the file system cannot allocate ahead, writing the zeros does.
        Ok(()) | Err(Errno::EOPNOTSUPP) => {}
        Err(errno) => return Err(io_error("allocate", path)(errno.into())),
    }
    let zeros = vec![0; ZERO_BYTES.min(size as usize)];
    let (mut offset, mut pieces) = (0, 0);
    while offset < size {
        let piece = &zeros[..zeros.len().min((size - offset) as usize)];
        disk.write_at(&file, piece, offset)
            .map_err(io_error("write", path))?;
        offset += piece.len() as u64;
        pieces += 1;
        if pieces % ZEROS_PER_SYNC == 0 || offset == size {
            disk.sync_data(&file).map_err(io_error("flush", path))?;
        }
    }
    file.sync_all().map_err(io_error("flush", path))?;
    Ok(file)
}

/// Gives a begun segment the name of its first record. Until then a restart finds it by its
/// provisional name.
pub(super) fn name_segment(dir: &Path, first_seq: u64) -> Result<PathBuf, Error> {
    let (from, to) = (dir.join(PREPARED), dir.join(segment_name(first_seq)));
    if from.exists() && to.exists() {
        // Renaming would replace records.
        let what = "another segment bears this number";
        return Err(Error::Unreadable { path: to, what });
    }
    match fs::rename(&from, &to) {
        Ok(()) => {}
        // Renamed by an earlier attempt that then failed to flush the directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound && to.exists() => {}
        Err(error) => return Err(io_error("rename", &from)(error)),
    }
    sync_dir(dir)?;
    Ok(to)
}

pub(super) fn discard_prepared(dir: &Path) -> Result<(), Error> {
    remove_if_there(&dir.join(PREPARED))
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("remove", path)(error)),
    }
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("flush", dir))
}

/// Makes the directory if need be, and refuses one that others could write to.
pub(super) fn open_dir(dir: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error("create", dir)(error)),
    }
    let metadata = fs::symlink_metadata(dir).map_err(io_error("read", dir))?;
    let refuse = |what| {
        Err(Error::Directory {
            path: dir.to_owned(),
            what,
        })
    };
    if !metadata.is_dir() {
        return refuse("is not a directory");
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return refuse("belongs to another user");
    }
    if metadata.mode() & 0o022 != 0 {
        return refuse("can be written by others");
    }
    Ok(())
}

/// Takes the lock of `dir`, for as long as the answer lives: one writer for one log (P7).
pub(super) fn lock(dir: &Path) -> Result<Flock<File>, Error> {
    let path = dir.join(LOCK);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // Whose lock it is, for a person who looks; nobody parses it.
            let _ = lock
                .set_len(0)
                .and_then(|()| writeln!(lock, "{}", std::process::id()));
            Ok(lock)
        }
        Err((_, Errno::EWOULDBLOCK)) => Err(Error::Locked { path }),
        Err((_, errno)) => Err(io_error("lock", &path)(errno.into())),
    }
}
