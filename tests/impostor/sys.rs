//! The one place of this attacker with `unsafe`: a child with a number and a cgroup of our choice, and
//! its end. Nothing safe offers either. It decides nothing.
#![allow(
    unsafe_code,
    reason = "clone3 with a chosen number is what the attack is made of"
)]

use nix::libc;
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// include/uapi/linux/sched.h; the binding's own constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child like fork(2)'s: `None` in the child. It gets this number if one is given, which takes
/// CAP_CHECKPOINT_RESTORE and a number that nobody has (`EEXIST`), and is born in this cgroup
/// (clone3(2), `set_tid` and CLONE_INTO_CGROUP).
pub fn fork(number: Option<Pid>, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Pid>> {
    let number = number.map(Pid::as_raw);
    // SAFETY: clone_args is integers alone, for which zeros are a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(number) = &number {
        args.set_tid = std::ptr::from_ref(number) as u64;
        args.set_tid_size = 1;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` and `number` outlive the call, which reads them and no more. Without CLONE_VM and
    // with no stack of its own the child goes on in a copy of our memory, as after fork(2); this
    // program has one thread, so no lock is held by one that the copy lacks.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_ref(&args),
            size_of::<libc::clone_args>(),
        )
    };
    match i32::try_from(result) {
        Ok(0) => Ok(None),
        Ok(pid) if pid > 0 => Ok(Some(Pid::from_raw(pid))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process at once: nothing of the parent's is run or flushed twice.
pub fn end(status: u8) -> ! {
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(status.into()) }
}
