//! Other clocks for the processes that preload this (ld.so(8), LD_PRELOAD): clock_gettime(2) answers
//! with the kernel's time and what a test adds to it. The wall clock and the boot clock are moved
//! apart from each other, because that is what tells a step from a suspend; CLOCK_MONOTONIC, by which
//! everybody waits, stays as it is, as it does over a suspend.
//!
//! The file `CLOCK_SHIM` holds three native-endian words, mapped by the test (`harness::clock`) and by
//! every process: nanoseconds added to CLOCK_REALTIME, nanoseconds added to CLOCK_BOOTTIME, and how
//! often either was asked for, without which a test would not know that it moved anything. It is
//! mapped before main, since a sandbox may hide it later. Without the variable nothing is changed.
#![allow(unsafe_code, reason = "it takes the place of a function of libc")]

use nix::libc::{
    CLOCK_BOOTTIME, CLOCK_REALTIME, CLOCK_REALTIME_COARSE, SYS_clock_gettime, c_int, clockid_t,
    syscall, timespec,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::fs::OpenOptions;
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

const WORDS: usize = 3;
const REALTIME: usize = 0;
const BOOTTIME: usize = 1;
const ASKED: usize = 2;

const NS_PER_S: i64 = 1_000_000_000;

static MOVES: OnceLock<&'static [AtomicI64]> = OnceLock::new();

/// Run by ld.so before main, when the environment is there and no thread is.
#[used]
#[unsafe(link_section = ".init_array")]
static MAP: extern "C" fn() = map;

extern "C" fn map() {
    let Some(path) = std::env::var_os("CLOCK_SHIM") else {
        return;
    };
    let file = OpenOptions::new().read(true).write(true).open(path);
    let len = NonZeroUsize::new(WORDS * size_of::<AtomicI64>()).expect("there are words");
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let Ok(file) = file else {
        return; // the test sees that nobody asked
    };
    // SAFETY: a new mapping of a file, placed by the kernel; nothing else is touched.
    let start = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, &file, 0) };
    let Ok(start) = start else {
        return;
    };
    // SAFETY: the mapping has that length, is page-aligned, never unmapped, and used by atomic
    // operations alone, in this and in other processes.
    let words = unsafe { std::slice::from_raw_parts(start.as_ptr().cast::<AtomicI64>(), WORDS) };
    let _ = MOVES.set(words); // run once
}

/// clock_gettime(2) with the test's moves.
///
/// # Safety
/// `time` must be valid for writing, as the call demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the arguments are the caller's, handed on as they are.
    let answer = unsafe { syscall(SYS_clock_gettime, clock, time) } as c_int;
    let word = match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE => REALTIME,
        CLOCK_BOOTTIME => BOOTTIME,
        _ => return answer,
    };
    if let (0, Some(moves)) = (answer, MOVES.get()) {
        moves[ASKED].fetch_add(1, Ordering::Relaxed);
        let added = moves[word].load(Ordering::Relaxed);
        // SAFETY: the kernel has just written there.
        let time = unsafe { &mut *time };
        let ns = time.tv_nsec + added.rem_euclid(NS_PER_S);
        time.tv_sec += added.div_euclid(NS_PER_S) + ns / NS_PER_S;
        time.tv_nsec = ns % NS_PER_S;
    }
    answer
}
