//! The one place with `unsafe`: system calls that no crate wraps safely. Each block says why it
//! is sound. Nothing here decides anything.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A descriptor for a process by its number (pidfd_open(2), Linux 5.3).
///
/// # Errors
/// `ESRCH` if there is no such process.
pub fn pidfd_open(pid: u32) -> Result<OwnedFd, Errno> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns; it fits an
    // int as every descriptor does.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What the kernel says of a process in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Real, effective, saved, file-system user id, in our user namespace.
    pub uids: [u32; 4],
    /// The same for groups.
    pub gids: [u32; 4],
    /// Of its cgroup in the unified hierarchy.
    pub cgroup_id: u64,
}

/// Asks about a process by its pidfd (PIDFD_GET_INFO, Linux 6.13; include/uapi/linux/pidfd.h).
///
/// # Errors
/// `ESRCH` once it has exited, `ENOTTY` or `EINVAL` from older kernels; `ENODATA` if it does not say
/// all of it.
pub fn process_info(pidfd: BorrowedFd<'_>) -> Result<ProcessInfo, Errno> {
    let wanted = u64::from(libc::PIDFD_INFO_CREDS | libc::PIDFD_INFO_CGROUPID);
    // SAFETY: pidfd_info is integers alone, for which zeros are a value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = wanted;
    // SAFETY: the kernel writes no more than the size that the request's number holds, which is this
    // struct's, and it is ours for the call.
    let answer = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    Errno::result(answer)?;
    if info.mask & wanted != wanted || info.cgroupid == 0 {
        return Err(Errno::ENODATA);
    }
    Ok(ProcessInfo {
        uids: [info.ruid, info.euid, info.suid, info.fsuid],
        gids: [info.rgid, info.egid, info.sgid, info.fsgid],
        cgroup_id: info.cgroupid,
    })
}

/// Memory at the end of a heap that is kept though it is free, in bytes: enough that no request gives
/// any back and asks for it again.
#[cfg(target_env = "gnu")]
const KEPT_FREE: libc::c_int = 1024 * 1024;

/// Has memory that is free at a heap's end given back, to be called before there are threads. glibc
/// would keep up to 64 MiB in each heap once something large was freed, which the audit log's last
/// segment is at the start (mallopt(3), M_MMAP_THRESHOLD: the dynamic threshold).
pub fn keep_little_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers; no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE); // a hint: without it there is more in use
    }
}

/// Gives memory that was allocated and is free again back to the system (malloc_trim(3)); where the C
/// library is another than glibc, that is its own affair.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number, locks what it works on, and touches free memory alone.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Whether the kernel says that somebody keeps the wall clock right (adjtimex(2)). A sandbox that lets
/// nobody near the clocks says no.
pub fn clock_is_synchronised() -> bool {
    // SAFETY: timex is integers alone, for which zeros are a value; modes 0 asks and sets nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes into this struct, which is ours for the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state != -1 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}

/// Clock ticks since boot, the unit of `/proc/PID/stat` start times (100 per second on Linux).
pub fn boot_ticks() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or(0, |now| {
        let hundredths = now.tv_nsec() / 10_000_000;
        u64::try_from(now.tv_sec() * 100 + hundredths).unwrap_or(0)
    })
}

/// What the system calls itself; nothing if it calls itself nothing that is text.
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().ok();
    let name = name.and_then(|name| name.into_string().ok());
    name.unwrap_or_default()
}

/// Milliseconds since boot, suspend included.
pub fn boot_ms() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or(0, |now| {
        u64::try_from(now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000).unwrap_or(0)
    })
}

/// What the kernel says of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockState {
    /// Something keeps it right (chrony, systemd-timesyncd, a hypervisor).
    Synchronised,
    /// Nothing has for a while, or ever (STA_UNSYNC).
    Unsynchronised,
    /// The kernel may not be asked here, as in some containers.
    Unknown,
}

/// Whether the wall clock is kept right (adjtimex(2), asked without setting anything).
pub fn clock_state() -> ClockState {
    // SAFETY: timex is integers alone, for which zeros are a value; `modes` 0 sets nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the one argument points to a timex that is ours for the call.
    let answer = unsafe { libc::adjtimex(&mut timex) };
    match answer {
        -1 => ClockState::Unknown,
        _ if timex.status & libc::STA_UNSYNC != 0 => ClockState::Unsynchronised,
        _ => ClockState::Synchronised,
    }
}

/// The version of Landlock this kernel has (landlock_create_ruleset(2)).
///
/// # Errors
/// `ENOSYS` or `EOPNOTSUPP` without Landlock; `EPERM` where a filter forbids to ask.
pub fn landlock_version() -> Result<u32, Errno> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no pointer and makes no descriptor; it answers a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    let version = Errno::result(version)?;
    Ok(u32::try_from(version).unwrap_or(u32::MAX))
}

/// Takes over a listening descriptor that systemd passed (sd_listen_fds(3)).
///
/// # Safety argument
/// Called once per descriptor number, at start, for numbers the service manager passed to this
/// process and nothing else has opened.
pub fn take_passed_fd(number: i32) -> OwnedFd {
    assert!(
        number >= 3,
        "passed descriptors start at 3 (sd_listen_fds(3))"
    );
    // SAFETY: see above; the caller is `daemon::Listeners` alone.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Takes over a descriptor that came with a message (SCM_RIGHTS of unix(7)).
///
/// # Safety argument
/// Called once per number, for numbers that recvmsg(2) has just put into its control message: the
/// kernel made the descriptor for this process, and nothing else knows of it yet.
pub fn take_received_fd(number: i32) -> OwnedFd {
    assert!(number >= 0, "the kernel puts descriptors there (unix(7))");
    // SAFETY: see above; the caller is `witness::serve` alone.
    unsafe { OwnedFd::from_raw_fd(number) }
}
