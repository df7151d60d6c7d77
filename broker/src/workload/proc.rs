//! What `/proc` says about one process, read below one directory descriptor and parsed without
//! trust: process names may hold spaces, parentheses and newlines, cgroup names anything.

use super::session::Terminal;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Longest `/proc/PID/status` or `cgroup` we read, in bytes. Names are limited by the kernel; a
/// cgroup path may be 4 KiB for each hierarchy.
const PROC_LEN_MAX: usize = 64 * 1024;

/// The lines of `/proc/PID/status` that matter.
#[derive(Debug, PartialEq, Eq)]
pub struct Status {
    /// Real, effective, saved, file-system user id.
    pub uids: [u32; 4],
    /// The same for groups.
    pub gids: [u32; 4],
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// In how many pid namespaces it has a pid, ours included.
    pub pid_namespaces: usize,
}

/// The files of one process that every request reads, opened once for its connection: reading one
/// from its start shows it as it is then, and fails once the process is reaped (seq_file.rst;
/// both are single records, fs/proc/base.c).
pub struct Files {
    status: OwnedFd,
    cgroup: OwnedFd,
}

impl Files {
    /// Opens them below a process's directory.
    pub fn open(dir: BorrowedFd<'_>) -> Result<Files, Errno> {
        Ok(Files {
            status: open(dir, "status")?,
            cgroup: open(dir, "cgroup")?,
        })
    }

    /// The status now.
    pub fn status(&self) -> Result<Status, String> {
        let text = read(&self.status, "status")?;
        parse_status(&text).ok_or_else(|| "status: not understood".to_owned())
    }

    /// The path in the unified hierarchy now.
    pub fn cgroup(&self) -> Result<String, String> {
        let text = read(&self.cgroup, "cgroup")?;
        parse_cgroup(&text).map(str::to_owned).ok_or_else(|| {
            "cgroup: no unified hierarchy; assertd needs cgroup v2 (or hybrid)".to_owned()
        })
    }
}

/// systemd keeps the invocation id of every system unit as a symbolic link.
pub fn invocation(unit: &str) -> Option<String> {
    let path = format!("/run/systemd/units/invocation:{unit}");
    let target = readlinkat(nix::fcntl::AT_FDCWD, path.as_str()).ok()?;
    let id = target.to_str()?.to_owned();
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// Line by line. `comm` alone may hold newlines, and the kernel escapes them in status, so that
/// lines are lines.
pub fn parse_status(text: &str) -> Option<Status> {
    let (mut uids, mut gids, mut groups, mut pid_namespaces) = (None, None, None, None);
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        match name {
            "Uid" if uids.is_none() => uids = Some(four(value)?),
            "Gid" if gids.is_none() => gids = Some(four(value)?),
            "Groups" if groups.is_none() => groups = Some(numbers(value)?),
            "NSpid" if pid_namespaces.is_none() => {
                pid_namespaces = Some(value.split_ascii_whitespace().count());
                break; // it comes last; two thirds of the file follow, and every request reads it
            }
            _ => continue,
        }
    }
    Some(Status {
        uids: uids?,
        gids: gids?,
        groups: groups?,
        pid_namespaces: pid_namespaces?,
    })
}

fn numbers(value: &str) -> Option<Vec<u32>> {
    let numbers = value.split_ascii_whitespace().map(|text| text.parse().ok());
    numbers.collect()
}

fn four(value: &str) -> Option<[u32; 4]> {
    numbers(value)?.try_into().ok()
}

/// The path in the unified hierarchy: the line that starts with `0::` (cgroups(7)).
pub fn parse_cgroup(text: &str) -> Option<&str> {
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .filter(|path| path.starts_with('/'))
}

/// Field 22 of `/proc/PID/stat`: start time in clock ticks since boot. The command's name in field 2 may
/// hold anything; the last `)` ends it.
pub fn start_time(dir: BorrowedFd<'_>) -> Result<u64, String> {
    let file = open(dir, "stat").map_err(|errno| format!("stat: {errno}"))?;
    let text = read(&file, "stat")?;
    parse_start_time(&text).ok_or_else(|| "stat: not understood".to_owned())
}

pub fn parse_start_time(text: &str) -> Option<u64> {
    field(text, 22)?.parse().ok()
}

/// Whether a process has a terminal. By its number: the caller asks afterwards whether the process
/// still lives, and only then was it that one.
pub fn terminal(pid: u32) -> Result<Terminal, String> {
    let path = format!("/proc/{pid}/stat");
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = nix::fcntl::open(path.as_str(), flags, Mode::empty());
    let text = read(&file.map_err(|errno| format!("stat: {errno}"))?, "stat")?;
    parse_terminal(&text).ok_or_else(|| "stat: not understood".to_owned())
}

/// Field 7, `tty_nr`: the device of its controlling terminal, 0 for none.
pub fn parse_terminal(text: &str) -> Option<Terminal> {
    match field(text, 7)?.parse::<i32>().ok()? {
        0 => Some(Terminal::None),
        _ => Some(Terminal::Controlling),
    }
}

/// A field of `/proc/PID/stat` after the command's name, as proc_pid_stat(5) numbers them.
fn field(text: &str, number: usize) -> Option<&str> {
    let (_, after_name) = text.rsplit_once(')')?;
    after_name
        .split_ascii_whitespace()
        .nth(number.checked_sub(3)?)
}

fn open(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// The whole of a single-record file, from its start: such a file comes in one piece, so that a
/// read that leaves room has read all.
fn read(file: &OwnedFd, name: &str) -> Result<String, String> {
    let mut bytes = vec![0; 4096];
    let length = loop {
        match pread(file, &mut bytes, 0) {
            Ok(n) if n < bytes.len() => break n,
            Ok(n) if n >= PROC_LEN_MAX => {
                return Err(format!("{name}: longer than {PROC_LEN_MAX} bytes"));
            }
            Ok(n) => bytes.resize((n * 4).min(PROC_LEN_MAX), 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(format!("{name}: {errno}")),
        }
    };
    bytes.truncate(length);
    // A cgroup name that is not UTF-8 cannot be a unit's; it must not make the read fail.
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
