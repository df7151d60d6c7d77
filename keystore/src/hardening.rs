//! What our processes give up before they do anything, whoever started them: under systemd the
//! unit says much of it once more, in a quickstart nobody else does. Owns what is given up and in
//! which order; never decides who may ask for what. docs/decisions/0007 has the reasons.
//!
//! [`close_off`] comes first in main. [`sandbox`] is entered once everything is open that needs
//! more; [`reach`] says what of the file system a keystore's process keeps. [`memory`] keeps
//! secrets from being written to swap.

pub mod memory;
pub mod reach;
pub mod sandbox;

use crate::{Error, Kind};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};

/// Secrets and assertions pass through our memory: no core dump may hold them, no other process of
/// our user may read them (ptrace(2), /proc/PID/mem), no program we start gets more rights than we
/// have, and no file we make is for others. First of all, while there is one thread: the third
/// binds a thread and those it starts (PR_SET_NO_NEW_PRIVS(2const)). Anew after every exec, which
/// undoes the second (PR_SET_DUMPABLE(2const)).
///
/// # Errors
/// `Internal`, and then nothing may go on; none of these calls fails on a kernel that runs us.
pub fn close_off() -> Result<(), Error> {
    let failed = |what: &'static str| {
        move |errno: Errno| {
            Error::new(Kind::Internal, format!("{what} cannot be set")).because(errno)
        }
    };
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("RLIMIT_CORE"))?;
    prctl::set_dumpable(false).map_err(failed("PR_SET_DUMPABLE"))?;
    prctl::set_no_new_privs().map_err(failed("PR_SET_NO_NEW_PRIVS"))?;
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    Ok(())
}
