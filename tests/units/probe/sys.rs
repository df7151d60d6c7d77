//! The one place of the probe with `unsafe`: system calls that no safe binding offers, made the way
//! an attacker inside the sandbox would make them. It decides nothing; each function makes one call
//! that harms nobody where it is allowed.
#![allow(
    unsafe_code,
    reason = "system calls without a safe binding are what is probed"
)]

use nix::libc;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One system call; as many arguments as it takes, all of them numbers or addresses.
fn syscall(number: libc::c_long, arguments: [usize; 6]) -> io::Result<usize> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: every caller below passes plain numbers, or addresses of memory that it owns, that
    // outlives the call and that has at least the size the call reads or writes; a mapping is only
    // ever a new one that nothing else refers to.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

const PAGE: usize = 4096;

/// Memory that may be written and executed at once (mmap(2)).
pub fn map_writable_and_executable() -> io::Result<()> {
    map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).map(drop)
}

/// Memory that was writable made executable (mprotect(2)).
pub fn make_executable() -> io::Result<()> {
    let address = map(libc::PROT_READ | libc::PROT_WRITE)?;
    let protection = (libc::PROT_READ | libc::PROT_EXEC) as usize;
    syscall(libc::SYS_mprotect, [address, PAGE, protection, 0, 0, 0]).map(drop)
}

fn map(protection: i32) -> io::Result<usize> {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let anonymous = usize::MAX;
    syscall(
        libc::SYS_mmap,
        [0, PAGE, protection as usize, flags, anonymous, 0],
    )
}

/// A page locked in memory (mlock(2)).
pub fn lock_memory() -> io::Result<()> {
    let page = vec![0_u8; PAGE];
    let address = page.as_ptr() as usize;
    syscall(libc::SYS_mlock, [address, page.len(), 0, 0, 0, 0]).map(drop)
}

/// The session keyring's id (keyctl(2), KEYCTL_GET_KEYRING_ID).
pub fn ask_keyring() -> io::Result<()> {
    let session = (-3_isize).cast_unsigned();
    syscall(libc::SYS_keyctl, [0, session, 1, 0, 0, 0]).map(drop)
}

/// A ring for calls that seccomp never sees (io_uring_setup(2)).
pub fn make_io_uring() -> io::Result<()> {
    // struct io_uring_params: 120 bytes, zero where nothing special is wanted.
    let mut parameters = [0_u64; 15];
    let address = parameters.as_mut_ptr() as usize;
    syscall(libc::SYS_io_uring_setup, [1, address, 0, 0, 0, 0]).map(drop)
}

/// Whether two processes share memory (kcmp(2), KCMP_VM).
pub fn compare_processes() -> io::Result<()> {
    let pid = std::process::id() as usize;
    syscall(libc::SYS_kcmp, [pid, pid, 1, 0, 0, 0]).map(drop)
}

/// A descriptor taken out of a process (pidfd_getfd(2)): here, our own standard output.
pub fn take_descriptor() -> io::Result<()> {
    let own = std::process::id() as usize;
    let pidfd = syscall(libc::SYS_pidfd_open, [own, 0, 0, 0, 0, 0])?;
    syscall(libc::SYS_pidfd_getfd, [pidfd, 1, 0, 0, 0, 0]).map(drop)
}

/// A descriptor for a process (pidfd_open(2)).
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let fd = syscall(libc::SYS_pidfd_open, [pid as usize, 0, 0, 0, 0, 0])?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns; it fits an int
    // as every descriptor does.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Real-time scheduling (sched_setscheduler(2), SCHED_RR at the lowest priority).
pub fn schedule_in_real_time() -> io::Result<()> {
    let priority = 1_i32;
    let address = std::ptr::from_ref(&priority) as usize;
    let policy = libc::SCHED_RR as usize;
    syscall(libc::SYS_sched_setscheduler, [0, policy, address, 0, 0, 0]).map(drop)
}

/// The worst priority for ourselves, which everybody may take (setpriority(2)).
pub fn change_priority() -> io::Result<()> {
    syscall(libc::SYS_setpriority, [0, 0, 19, 0, 0, 0]).map(drop)
}

/// The clock's state, changing nothing (adjtimex(2) with no mode).
pub fn ask_clock() -> io::Result<()> {
    // struct timex: 208 bytes on 64-bit machines.
    let mut timex = [0_u64; 32];
    let address = timex.as_mut_ptr() as usize;
    syscall(libc::SYS_adjtimex, [address, 0, 0, 0, 0, 0]).map(drop)
}

/// A BPF map with room for one number (bpf(2), BPF_MAP_CREATE).
pub fn make_bpf_map() -> io::Result<()> {
    // union bpf_attr: type BPF_MAP_TYPE_ARRAY, key, value and map size; the rest zero.
    let mut attributes = [0_u32; 36];
    attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
    let address = attributes.as_mut_ptr() as usize;
    let size = size_of_val(&attributes);
    syscall(libc::SYS_bpf, [0, address, size, 0, 0, 0]).map(drop)
}

/// Page faults handled in user space (userfaultfd(2)), which makes kernel races easy to win.
pub fn handle_page_faults() -> io::Result<()> {
    let user_mode_only = 1;
    syscall(libc::SYS_userfaultfd, [user_mode_only, 0, 0, 0, 0, 0]).map(drop)
}

/// A file system over a directory that is only in the box (mount(2)).
pub fn mount_a_file_system() -> io::Result<()> {
    let (kind, target) = (c"tmpfs", c"/mnt/assertd-probe");
    let (kind, target) = (kind.as_ptr() as usize, target.as_ptr() as usize);
    syscall(libc::SYS_mount, [kind, target, kind, 0, 0, 0]).map(drop)
}

/// To be traced by our parent (ptrace(2), PTRACE_TRACEME).
pub fn trace() -> io::Result<()> {
    syscall(libc::SYS_ptrace, [0; 6]).map(drop)
}

/// A user namespace, in which one is root (unshare(2)).
pub fn make_user_namespace() -> io::Result<()> {
    let flag = libc::CLONE_NEWUSER as usize;
    syscall(libc::SYS_unshare, [flag, 0, 0, 0, 0, 0]).map(drop)
}

/// A mount namespace (unshare(2)).
pub fn make_mount_namespace() -> io::Result<()> {
    let flag = libc::CLONE_NEWNS as usize;
    syscall(libc::SYS_unshare, [flag, 0, 0, 0, 0, 0]).map(drop)
}

/// Another execution domain: addresses that can be guessed (personality(2)).
pub fn change_personality() -> io::Result<()> {
    let domain = libc::ADDR_NO_RANDOMIZE as usize;
    syscall(libc::SYS_personality, [domain, 0, 0, 0, 0, 0]).map(drop)
}

/// The version of Landlock that this kernel has (landlock_create_ruleset(2)): the first thing a process
/// asks that is about to close itself off.
pub fn ask_landlock() -> io::Result<usize> {
    let ask_version = 1;
    syscall(
        libc::SYS_landlock_create_ruleset,
        [0, 0, ask_version, 0, 0, 0],
    )
}

/// A file that is nowhere but in memory (memfd_create(2)); its descriptor.
pub fn make_file_in_memory() -> io::Result<usize> {
    let name = c"assertd-probe";
    let address = name.as_ptr() as usize;
    syscall(libc::SYS_memfd_create, [address, 0, 0, 0, 0, 0])
}

/// Two of our pages exchanged (remap_file_pages(2)); here, none.
pub fn remap_pages() -> io::Result<()> {
    let address = map(libc::PROT_READ)?;
    syscall(libc::SYS_remap_file_pages, [address, 0, 0, 0, 0, 0]).map(drop)
}

/// A queue for asynchronous reads and writes (io_setup(2)).
pub fn make_aio_queue() -> io::Result<()> {
    let mut context = 0_usize;
    let address = std::ptr::from_mut(&mut context) as usize;
    syscall(libc::SYS_io_setup, [1, address, 0, 0, 0, 0]).map(drop)
}
