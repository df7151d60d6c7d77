//! Counters in a file that all processes with the shim map, as native-endian u64: for each function
//! in the order of [`Function::ALL`] its calls, then those of them that a rule spoilt, then the
//! calls since the rules were replaced. Counting is one atomic addition in memory.

use crate::functions::Function;
use crate::which::Stamp;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::fs::{File, OpenOptions};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const FUNCTIONS: usize = Function::ALL.len();

/// Where each part begins.
const CALLS: usize = 0;
const FIRED: usize = FUNCTIONS;
const SINCE: usize = 2 * FUNCTIONS;
/// Calls since the rules were replaced, of all functions that need the device.
const SINCE_DEVICE: usize = 3 * FUNCTIONS;
/// Which rules [`SINCE`] is of.
const STAMP: usize = SINCE_DEVICE + 1;
const LEN: usize = STAMP + 1;

/// The mapped counters.
pub struct Counts {
    counters: &'static [AtomicU64],
    file: File,
}

/// Calls since the rules were read or replaced, this one among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Of the function.
    pub function: u64,
    /// Of all functions that need the device.
    pub device: u64,
}

impl Counts {
    /// Maps the file, making it if it is missing. It stays mapped for the life of the process.
    pub fn open(path: &Path) -> std::io::Result<Counts> {
        let len = LEN * size_of::<AtomicU64>();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.set_len(len as u64)?;
        let len = NonZeroUsize::new(len).expect("there are functions");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping of a file, placed by the kernel; nothing else is touched.
        let start = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, &file, 0) }?;
        // SAFETY: the mapping has that length, is page-aligned, never unmapped, and used by
        // atomic operations alone, in this and in other processes.
        let counters =
            unsafe { std::slice::from_raw_parts(start.as_ptr().cast::<AtomicU64>(), LEN) };
        Ok(Counts { counters, file })
    }

    /// Counts one call.
    pub fn add(&self, function: Function) {
        self.counters[CALLS + function as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Calls so far, of all processes.
    pub fn of(&self, function: Function) -> u64 {
        self.counters[CALLS + function as usize].load(Ordering::Relaxed)
    }

    /// Counts one call that a rule spoils. It is counted before the process may die of it.
    pub fn add_fired(&self, function: Function) {
        self.counters[FIRED + function as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Calls of this function that a rule has spoilt so far, in all processes: the evidence that a
    /// fault was really there.
    pub fn fired(&self, function: Function) -> u64 {
        self.counters[FIRED + function as usize].load(Ordering::Relaxed)
    }

    /// The same of all functions.
    pub fn fired_any(&self) -> u64 {
        Function::ALL.iter().map(|one| self.fired(*one)).sum()
    }

    /// Calls so far that make, change or destroy something.
    pub fn changes(&self) -> u64 {
        Function::CHANGING.iter().map(|one| self.of(*one)).sum()
    }

    /// Counts a call of this function for the rules with this stamp, over all processes; `None` if
    /// the rules are others by now, as `still` says while nobody else counts.
    pub(crate) fn add_since(
        &self,
        function: Function,
        stamp: Stamp,
        still: impl FnOnce() -> bool,
    ) -> std::io::Result<Option<Tally>> {
        // A process that dies gives the lock back, and a thread of ours holds our rules.
        let lock = Flock::lock(self.file.try_clone()?, FlockArg::LockExclusive);
        let _lock = lock.map_err(|(_, errno)| std::io::Error::from(errno))?;
        if !still() {
            return Ok(None);
        }
        if self.counters[STAMP].load(Ordering::Relaxed) != stamp.digest() {
            for counter in &self.counters[SINCE..=SINCE_DEVICE] {
                counter.store(0, Ordering::Relaxed);
            }
            self.counters[STAMP].store(stamp.digest(), Ordering::Relaxed);
        }
        let count = |at: usize, more: u64| {
            let before = self.counters[at].fetch_add(more, Ordering::Relaxed);
            before + more
        };
        Ok(Some(Tally {
            function: count(SINCE + function as usize, 1),
            device: count(SINCE_DEVICE, u64::from(function.needs_device())),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shared_by_all_who_open_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("counts");
        let (one, two) = (Counts::open(&path).unwrap(), Counts::open(&path).unwrap());
        one.add(Function::C_Sign);
        two.add(Function::C_Sign);
        two.add(Function::C_Login);
        one.add_fired(Function::C_Sign);
        assert_eq!(one.of(Function::C_Sign), 2);
        assert_eq!(two.fired(Function::C_Sign), 1);
        assert_eq!(Counts::open(&path).unwrap().of(Function::C_Login), 1);
        assert_eq!(one.of(Function::C_SignInit), 0);
        assert_eq!((two.fired_any(), two.changes()), (1, 0));
        one.add(Function::C_DestroyObject);
        assert_eq!((two.fired_any(), two.changes()), (1, 1));
    }

    #[test]
    fn calls_since_the_rules_were_replaced_are_those_of_all_processes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, rules) = (dir.path().join("counts"), dir.path().join("rules"));
        let (one, two) = (Counts::open(&path).unwrap(), Counts::open(&path).unwrap());
        let replaced = |text: &str| {
            let next = dir.path().join("rules.new");
            std::fs::write(&next, text).unwrap();
            std::fs::rename(&next, &rules).unwrap();
            Stamp::of(&rules).unwrap()
        };
        let tally = |function, device| Some(Tally { function, device });
        let first = replaced("first");
        let add = |counts: &Counts, function, stamp| {
            let still = || Stamp::of(&rules) == Some(stamp);
            counts.add_since(function, stamp, still).unwrap()
        };
        assert_eq!(add(&one, Function::C_Initialize, first), tally(1, 0));
        assert_eq!(add(&one, Function::C_Sign, first), tally(1, 1));
        assert_eq!(add(&two, Function::C_Sign, first), tally(2, 2));
        let second = replaced("the second");
        assert_eq!(add(&one, Function::C_Sign, first), None);
        assert_eq!(add(&two, Function::C_Sign, second), tally(1, 1));
        assert_eq!(add(&one, Function::C_Login, second), tally(1, 2));
    }
}
