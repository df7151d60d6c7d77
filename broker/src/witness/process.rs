//! Reading one process: which file it executes, that file's digest, and what its path is worth. What
//! is read is believed only after the pidfd has shown that the process still lives: until then its
//! number was its own, and what was opened by that number was its file.
//!
//! Opens one file of the process, its executable, and reads nothing else of it but its uid and, for an
//! overlay, its mounts. The executable is opened once; digest and path are the descriptor's, so that they are of one file even
//! if the process executes another one meanwhile.

use super::digest::Digests;
use super::filesystem;
use super::turns::Turns;
use super::{Attestation, Doubt, Executable, Inode, PATH_LEN_MAX, Place, Unproven};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstat};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// How long a question may wait for its turn, and for a hash that another has begun: less than the
/// broker waits, so that it learns why.
const PATIENCE: Duration = Duration::from_millis(800);

/// Processes that are read at a time, and of one uid. Opening a file may hang for as long as its file
/// system does, and nothing but the file system can end that.
const READ_MAX: usize = super::serve::CONNECTIONS_MAX;
const READ_OF_ONE_UID_MAX: usize = READ_MAX / 4;

/// Reads processes.
pub struct Reader {
    digests: Digests,
    turns: Turns,
}

/// The descriptor is no pidfd.
#[derive(Debug, PartialEq, Eq)]
pub struct NoPidfd;

impl Default for Reader {
    fn default() -> Reader {
        Reader {
            digests: Digests::default(),
            turns: Turns::new(READ_MAX, READ_OF_ONE_UID_MAX),
        }
    }
}

impl Reader {
    /// What the process of a pidfd executes.
    ///
    /// # Errors
    /// If the descriptor is of something else.
    pub fn attest(&self, pidfd: &OwnedFd) -> Result<Attestation, NoPidfd> {
        let executable = match number(pidfd.as_fd())? {
            Number::Here(pid) => self.read(pid, pidfd.as_fd()),
            Number::Elsewhere => lasting("it is outside the witness's pid namespace"),
            Number::Gone => lasting(ENDED),
        };
        Ok(match executable {
            Ok(executable) => Attestation::Executable(executable),
            Err(doubt) => doubt.into(),
        })
    }

    fn read(&self, pid: u32, pidfd: BorrowedFd<'_>) -> Result<Executable, Doubt> {
        let deadline = Instant::now() + PATIENCE;
        let uid = real_uid(pid);
        living(pidfd)?;
        let uid = uid.map_err(|error| hidden(pid, &error))?;
        let Some(_turn) = self.turns.enter(uid, deadline) else {
            return passing("too many processes of its user are looked at now; ask again");
        };
        let opened = open_executable(pid);
        living(pidfd)?;
        let file = opened.map_err(|errno| why_not(pid, errno))?;
        let (identity, metadata) = identity(&file)?;
        let memory = filesystem::judge(pid, &file, &metadata)?;
        let digest = self.digests.of(&file, &identity, memory, uid, deadline);
        let sha256 = digest?;
        let place = place(&file, &identity);
        // A long hash may outlive the program it is of.
        let now = fs::metadata(executable(pid));
        living(pidfd)?;
        match now {
            Ok(now) if (now.dev(), now.ino()) == (identity.dev, identity.ino) => Ok(Executable {
                place,
                sha256,
                identity,
            }),
            _ => passing("it executes another program by now; ask again"),
        }
    }
}

/// Of a process.
const ENDED: &str = "it has ended";

fn lasting<T>(why: &str) -> Result<T, Doubt> {
    Err(Doubt::Lasting(why.to_owned()))
}

fn passing<T>(why: &str) -> Result<T, Doubt> {
    Err(Doubt::Passing(why.to_owned()))
}

/// The number a pidfd stands for in the `/proc` we see.
enum Number {
    Here(u32),
    /// It has none in our pid namespace.
    Elsewhere,
    /// It was waited for.
    Gone,
}

/// From the line `Pid:` that only a pidfd has (pidfd_open(2); 0 and -1 as in the kernel's
/// fs/pidfs.c).
fn number(pidfd: BorrowedFd<'_>) -> Result<Number, NoPidfd> {
    let info = record(&format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).map_err(|_| NoPidfd)?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    match line.map(str::trim) {
        Some("-1") => Ok(Number::Gone),
        Some("0") => Ok(Number::Elsewhere),
        Some(pid) => pid.parse().map(Number::Here).map_err(|_| NoPidfd),
        None => Err(NoPidfd),
    }
}

/// A pidfd polls readable once its process has ended, waited for or not. What cannot be asked has
/// ended too: a doubt is no attestation.
fn living(pidfd: BorrowedFd<'_>) -> Result<(), Doubt> {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(0) => Ok(()),
        Ok(_) | Err(_) => lasting(ENDED),
    }
}

/// For whose share of the work it counts; no part of the answer.
fn real_uid(pid: u32) -> io::Result<u32> {
    let status = record(&format!("/proc/{pid}/status"))?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = uids.and_then(|uids| uids.split_ascii_whitespace().next()?.parse().ok());
    uid.ok_or_else(|| ErrorKind::InvalidData.into())
}

/// A file of `/proc` that comes in one piece, or its first page, where what we look for is. A name of a
/// process is any bytes.
fn record(path: &str) -> io::Result<String> {
    let mut bytes = [0; 4096];
    let length = File::open(path)?.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// Why `/proc` does not show a process that lives.
fn hidden(pid: u32, error: &io::Error) -> Doubt {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) if is_want(errno) => short_of(errno),
        _ => Doubt::Lasting(format!(
            "/proc/{pid} is hidden from the witness (hidepid=, ProtectProc=)"
        )),
    }
}

/// Whether it was for want of something that others have now, which says nothing of the process.
fn is_want(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
}

fn short_of(errno: Errno) -> Doubt {
    Doubt::Passing(format!(
        "the witness is short of something: {errno}; ask again"
    ))
}

fn executable(pid: u32) -> String {
    format!("/proc/{pid}/exe")
}

/// What the kernel executes is a regular file; the flags are for the day when it is not.
fn open_executable(pid: u32) -> Result<File, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    open(executable(pid).as_str(), flags, Mode::empty()).map(File::from)
}

/// Why the executable of a living process cannot be opened. The link itself takes the right to trace
/// the process, what it leads to takes the file's (proc_pid_exe(5)).
fn why_not(pid: u32, errno: Errno) -> Doubt {
    let why = match (errno, readlink(executable(pid).as_str())) {
        (errno, _) if is_want(errno) => return short_of(errno),
        (Errno::ENOENT, _) => {
            "it executes no file: it is a kernel thread, or about to end".to_owned()
        }
        (Errno::EACCES | Errno::EPERM, Err(_)) => {
            "the witness may not look at it: that takes CAP_SYS_PTRACE for another user's process, \
             and for one that made itself unreadable (PR_SET_DUMPABLE)"
                .to_owned()
        }
        (Errno::EACCES, Ok(_)) => {
            "its executable may not be read by the witness; make it readable for everybody"
                .to_owned()
        }
        (other, _) => format!("its executable cannot be opened: {other}"),
    };
    Doubt::Lasting(why)
}

fn identity(file: &File) -> Result<(Inode, Metadata), Doubt> {
    let unclear = |why: &str| Doubt::Lasting(format!("its executable cannot be looked at: {why}"));
    let metadata = file
        .metadata()
        .map_err(|error| unclear(&error.to_string()))?;
    if !metadata.is_file() {
        return lasting("its executable is no regular file");
    }
    let inode = Inode::of(&metadata).ok_or_else(|| unclear("its times are out of range"))?;
    Ok((inode, metadata))
}

/// The path the kernel has for the descriptor, if in this host's files it leads to the very same
/// file. The text alone proves nothing: in a mount namespace of one's own, which every user can make,
/// any file can be put at any path, and executed from outside through `/proc/PID/root`.
fn place(file: &File, identity: &Inode) -> Place {
    let link = readlink(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str());
    let text = link.ok().and_then(|link| link.into_string().ok());
    let Some(path) = text.filter(|text| text.len() <= PATH_LEN_MAX) else {
        return Place::Unproven(Unproven::NotText);
    };
    match names(&path, identity) {
        Ok(true) => Place::At(path),
        Err(Errno::EACCES | Errno::EPERM) => Place::Unproven(Unproven::Unsearchable),
        // A file may really be called so; then it was found above.
        _ if path.ends_with(" (deleted)") => Place::Unproven(Unproven::Deleted),
        _ => Place::Unproven(Unproven::ForeignMountNamespace),
    }
}

/// Whether a path leads to a file of this host. Step by step, because openat2(2), which could refuse
/// links by itself, is refused by `RestrictSUIDSGID=`: the kernel's paths have none.
fn names(path: &str, identity: &Inode) -> Result<bool, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let directory = flags | OFlag::O_DIRECTORY;
    let mut at = root(directory)?;
    let Some((above, name)) = path
        .strip_prefix('/')
        .map(|path| match path.rsplit_once('/') {
            Some((above, name)) => (above.split('/').collect(), name),
            None => (Vec::new(), path),
        })
    else {
        return Ok(false);
    };
    if above
        .iter()
        .chain([&name])
        .any(|part| matches!(*part, "" | "." | ".."))
    {
        return Ok(false);
    }
    for part in above {
        at = openat(at, part, directory | OFlag::O_NOFOLLOW, Mode::empty())?;
    }
    let found = openat(at, name, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    Ok(which(&found)? == (identity.dev, identity.ino))
}

/// The root of this host's files: as the first process sees them, because a unit's sandbox shows the
/// witness itself less. Our own where we may not look at that, or have another root (chroot(2), an
/// image): to that the kernel's paths are relative.
fn root(directory: OFlag) -> Result<OwnedFd, Errno> {
    let own = open("/", directory, Mode::empty())?;
    match open("/proc/1/root", directory, Mode::empty()) {
        Ok(first) if which(&first)? == which(&own)? => Ok(first),
        _ => Ok(own),
    }
}

fn which(file: &OwnedFd) -> Result<(u64, u64), Errno> {
    let status = fstat(file)?;
    Ok((status.st_dev, status.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Sha256;
    use crate::sys::pidfd_open;
    use std::process::{Child, Command};

    fn sleeping() -> Child {
        Command::new("/bin/sleep").arg("60").spawn().unwrap()
    }

    fn attested(pid: u32) -> Result<Executable, String> {
        let pidfd = pidfd_open(pid).unwrap();
        match Reader::default().attest(&pidfd).unwrap() {
            Attestation::Executable(executable) => Ok(executable),
            Attestation::NotAttestable(why) | Attestation::NotNow(why) => Err(why),
        }
    }

    #[test]
    fn a_process_is_attested_by_its_path_and_its_content() {
        let ours = attested(std::process::id()).unwrap();
        let path = std::env::current_exe().unwrap();
        assert_eq!(ours.path(), path.to_str());
        assert_eq!(ours.sha256, Sha256::of(&fs::read(path).unwrap()));
    }

    #[test]
    fn a_process_that_has_ended_is_not() {
        let mut child = sleeping();
        let pidfd = pidfd_open(child.id()).unwrap();
        assert!(attested(child.id()).is_ok());
        child.kill().unwrap();
        let reader = Reader::default();
        let why = |attestation| match attestation {
            Ok(Attestation::NotAttestable(why)) => why,
            other => panic!("{other:?}"),
        };
        // First without being waited for: its number is still its own.
        let ended = || living(pidfd.as_fd()).is_err();
        while !ended() {
            std::thread::yield_now();
        }
        assert_eq!(why(reader.attest(&pidfd)), ENDED);
        child.wait().unwrap();
        assert_eq!(why(reader.attest(&pidfd)), ENDED);
    }

    #[test]
    fn what_is_no_pidfd_is_no_question() {
        let file = OwnedFd::from(File::open("/proc/self/status").unwrap());
        let directory = OwnedFd::from(File::open("/proc/self").unwrap());
        let (pipe, _) = std::io::pipe().unwrap();
        for descriptor in [file, directory, pipe.into()] {
            let attested = Reader::default().attest(&descriptor);
            assert_eq!(attested, Err(NoPidfd));
        }
    }

    #[test]
    fn a_path_that_leads_to_another_file_names_nothing() {
        let path = std::env::current_exe().unwrap();
        let file = File::open(&path).unwrap();
        let (inode, _) = identity(&file).unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(names(path, &inode), Ok(true));
        assert_eq!(names(path, &Inode { ino: 1, ..inode }), Ok(false));
        assert_eq!(names(path, &Inode { dev: 1, ..inode }), Ok(false));
        assert_eq!(names(&path[1..], &inode), Ok(false));
        assert_eq!(names("/nowhere/at/all", &inode), Err(Errno::ENOENT));
        for none in ["/..", "//", "/", "", "/a/../b", "/./a"] {
            assert_eq!(names(none, &inode), Ok(false), "{none:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let (link, above) = (dir.path().join("link"), dir.path().join("above"));
        std::os::unix::fs::symlink(path, &link).unwrap();
        assert_eq!(names(link.to_str().unwrap(), &inode), Ok(false));
        let (holding, name) = path.rsplit_once('/').unwrap();
        std::os::unix::fs::symlink(holding, &above).unwrap();
        let through = above.join(name);
        assert!(through.exists());
        let through = names(through.to_str().unwrap(), &inode);
        assert_eq!(through, Err(Errno::ENOTDIR));
    }
}
