//! Counters in a file that all processes with the shim map: one native-endian u64 per function,
//! in the order of [`Function::ALL`]. Counting is one atomic addition in memory.

use crate::functions::Function;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::fs::OpenOptions;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// The mapped counters.
pub struct Counts(&'static [AtomicU64]);

impl Counts {
    /// Maps the file, making it if it is missing. It stays mapped for the life of the process.
    pub fn open(path: &Path) -> std::io::Result<Counts> {
        let functions = Function::ALL.len();
        let len = functions * size_of::<AtomicU64>();
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
            unsafe { std::slice::from_raw_parts(start.as_ptr().cast::<AtomicU64>(), functions) };
        Ok(Counts(counters))
    }

    /// Counts one call.
    pub fn add(&self, function: Function) {
        self.0[function as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Calls so far, of all processes.
    pub fn of(&self, function: Function) -> u64 {
        self.0[function as usize].load(Ordering::Relaxed)
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
        assert_eq!(one.of(Function::C_Sign), 2);
        assert_eq!(Counts::open(&path).unwrap().of(Function::C_Login), 1);
        assert_eq!(one.of(Function::C_SignInit), 0);
    }
}
