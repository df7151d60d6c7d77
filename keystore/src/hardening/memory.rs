//! Keeps secrets out of swap, as far as the limits allow. Owns how much is locked; never fails a
//! start: a machine without swap, or with an encrypted one, loses nothing.

use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use std::fmt;

/// Least limit in bytes with which a secret can be locked: it may lie across two pages.
const LIMIT_MIN: u64 = 2 * 4096;

/// How much of our memory stays out of swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// All of it, the module's too, now and in the future.
    All,
    /// What we lock ourselves, page by page: the PIN.
    Secrets {
        /// RLIMIT_MEMLOCK.
        limit_bytes: u64,
    },
    /// Nothing.
    Nothing,
}

/// Locks as much as may be: all, if there is no limit. With a limit later allocations of the module
/// would fail once it is reached (mlockall(2), ENOMEM), so then only secrets are to be locked.
pub fn lock() -> Locked {
    let limit = raised_limit();
    match judge(limit, may_ignore_limits()) {
        // Pages are locked when they are first used: stacks of threads are large and mostly empty.
        Locked::All => match mlockall(
            MlockAllFlags::MCL_CURRENT
                | MlockAllFlags::MCL_FUTURE
                | MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT),
        ) {
            Ok(()) => Locked::All,
            Err(_) => judge(limit, false).without_all(),
        },
        less => less,
    }
}

/// The same for a program that locks no pages by itself: all, or nothing.
pub fn lock_all() -> Locked {
    match lock() {
        Locked::Secrets { .. } => Locked::Nothing,
        other => other,
    }
}

impl Locked {
    /// What is left to try when locking all has failed, limit or not (a seccomp filter).
    fn without_all(self) -> Locked {
        match self {
            Locked::All => Locked::Secrets {
                limit_bytes: RLIM_INFINITY,
            },
            less => less,
        }
    }
}

/// The soft limit in bytes, after raising it to the hard one.
fn raised_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else {
        return 0;
    };
    match setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

fn judge(limit_bytes: u64, ignored: bool) -> Locked {
    match limit_bytes {
        RLIM_INFINITY => Locked::All,
        _ if ignored => Locked::All,
        LIMIT_MIN.. => Locked::Secrets { limit_bytes },
        _ => Locked::Nothing,
    }
}

/// Whether the limit does not hold for us: CAP_IPC_LOCK in the machine's own user namespace. The
/// capability of another one is worth nothing here (mm/mlock.c asks the first).
fn may_ignore_limits() -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    has_ipc_lock(&read("/proc/self/status")) && is_first_namespace(&read("/proc/self/uid_map"))
}

/// Bit 14 of the effective set (capability.h).
fn has_ipc_lock(status: &str) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << 14) != 0)
}

/// It alone maps every uid to itself (user_namespaces(7)).
fn is_first_namespace(uid_map: &str) -> bool {
    uid_map
        .split_ascii_whitespace()
        .eq(["0", "0", "4294967295"])
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Locked::All => f.write_str("all of it is locked, so that nothing goes to swap"),
            Locked::Secrets { limit_bytes } => write!(
                f,
                "only the PIN is locked, because RLIMIT_MEMLOCK is {limit_bytes} bytes; what the \
                 module keeps may go to swap; to lock all, set LimitMEMLOCK=infinity"
            ),
            Locked::Nothing => f.write_str(
                "warning: nothing is locked, because RLIMIT_MEMLOCK is too low; secrets may go \
                 to swap; set LimitMEMLOCK=infinity",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_locked_only_where_no_limit_can_be_reached() {
        let secrets = |limit_bytes| Locked::Secrets { limit_bytes };
        for (limit, ignored, locked) in [
            (RLIM_INFINITY, false, Locked::All),
            (RLIM_INFINITY, true, Locked::All),
            (RLIM_INFINITY - 1, false, secrets(RLIM_INFINITY - 1)),
            (8 << 20, false, secrets(8 << 20)),
            (8 << 20, true, Locked::All),
            (LIMIT_MIN, false, secrets(LIMIT_MIN)),
            (LIMIT_MIN - 1, false, Locked::Nothing),
            (0, false, Locked::Nothing),
            (0, true, Locked::All),
        ] {
            assert_eq!(judge(limit, ignored), locked, "{limit} {ignored}");
        }
    }

    #[test]
    fn a_capability_counts_in_the_first_user_namespace_alone() {
        assert!(has_ipc_lock("Name:\tx\nCapEff:\t0000000000004000\n"));
        assert!(has_ipc_lock("CapEff:\t000001ffffffffff\n"));
        assert!(!has_ipc_lock(
            "CapEff:\t0000000000003fff\nCapBnd:\t0000000000004000\n"
        ));
        assert!(!has_ipc_lock(""));
        assert!(is_first_namespace("         0          0 4294967295\n"));
        assert!(!is_first_namespace("         0     100000      65536\n"));
        assert!(!is_first_namespace("0 0 4294967295\n1 1 1\n"));
        assert!(!is_first_namespace(""));
    }
}
