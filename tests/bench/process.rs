//! What a process has used, as `/proc` says.

use std::fs;
use std::time::Duration;

/// Processor time of all threads of `pid` so far, ended ones included (proc_pid_stat(5): utime and
/// stime, in hundredths of a second).
pub fn cpu(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, after_name) = text.rsplit_once(')').expect("a name in parentheses");
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11) // state is the first after the name; utime is field 14, stime 15
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Resident memory of `pid` in MiB.
pub fn rss_mib(pid: u32) -> f64 {
    mib(pid, "VmRSS:")
}

/// The most that it ever was.
pub fn peak_rss_mib(pid: u32) -> f64 {
    mib(pid, "VmHWM:")
}

fn mib(pid: u32, name: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let kib: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|value| value.trim().strip_suffix(" kB"))
        .and_then(|value| value.parse().ok())
        .expect("a process has memory");
    kib / 1024.0
}

/// Processor time of the calling thread.
pub fn own_thread_cpu() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("the clock exists since Linux 2.6.12")
        .into()
}

/// Processor time of everything on all processors so far, the time that a hypervisor kept for
/// others included (proc_stat(5)).
pub fn machine_cpu() -> Duration {
    let text = fs::read_to_string("/proc/stat").expect("Linux has it");
    let line = text
        .lines()
        .next()
        .expect("its first line is the sum of all processors");
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().expect("a number"))
        .collect();
    let idle = ticks[3] + ticks[4]; // idle, and waiting for a disk
    let busy: u64 = ticks[..8].iter().sum::<u64>() - idle; // guests are in user already
    Duration::from_millis(busy * 10)
}

/// How many threads wanted to run in the last minute: far above our own three or four, the figures
/// tell more about the neighbours than about us.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").expect("Linux has it");
    let first = text.split_whitespace().next().expect("it has five fields");
    first.parse().expect("a number")
}
