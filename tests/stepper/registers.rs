//! A call as it stands in the registers of a thread that is stopped at it.

use nix::Result;
use nix::libc::c_long;
use nix::sys::ptrace::{getregs, setregs};
use nix::unistd::Pid;

/// Number and arguments of the call that a thread is about to make.
#[cfg(target_arch = "x86_64")]
pub fn call(thread: Pid) -> Result<(c_long, [u64; 6])> {
    let it = getregs(thread)?;
    let arguments = [it.rdi, it.rsi, it.rdx, it.r10, it.r8, it.r9];
    Ok((it.orig_rax.cast_signed(), arguments))
}

/// Has the call not be made: there is none of this number.
#[cfg(target_arch = "x86_64")]
pub fn skip(thread: Pid) -> Result<()> {
    let mut registers = getregs(thread)?;
    registers.orig_rax = u64::MAX;
    setregs(thread, registers)
}

/// Has the call that was not made answer so.
#[cfg(target_arch = "x86_64")]
pub fn answer(thread: Pid, errno: i32) -> Result<()> {
    let mut registers = getregs(thread)?;
    registers.rax = i64::from(-errno).cast_unsigned();
    setregs(thread, registers)
}

#[cfg(target_arch = "aarch64")]
pub fn call(thread: Pid) -> Result<(c_long, [u64; 6])> {
    let it = getregs(thread)?;
    let arguments = [0, 1, 2, 3, 4, 5].map(|at| it.regs[at]);
    Ok((it.regs[8].cast_signed(), arguments))
}

/// The number cannot be changed by the registers there are here; arguments that mean nothing do as well.
#[cfg(target_arch = "aarch64")]
pub fn skip(thread: Pid) -> Result<()> {
    let mut registers = getregs(thread)?;
    registers.regs[..6].fill(u64::MAX);
    setregs(thread, registers)
}

#[cfg(target_arch = "aarch64")]
pub fn answer(thread: Pid, errno: i32) -> Result<()> {
    let mut registers = getregs(thread)?;
    registers.regs[0] = i64::from(-errno).cast_unsigned();
    setregs(thread, registers)
}
