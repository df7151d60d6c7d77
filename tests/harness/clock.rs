//! The clocks of a daemon and its keystores, moved while they run. Nobody else's are: the machine's
//! stay as they are. What moves them is `tests/clock-shim`, preloaded.

use crate::daemon::Site;
use crate::programs::built;
use crate::{public_dir, wait_until};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const SHIM: &str = "libclock_shim.so";

/// Where each word of the file is, in bytes.
const REALTIME: u64 = 0;
const BOOTTIME: u64 = 8;
const ASKED: u64 = 16;
const LEN: u64 = 24;

/// How far they are moved. As far as a test says and no further: they go on meanwhile.
pub struct Clocks {
    file: File,
    dir: TempDir,
}

impl Clocks {
    /// Not moved yet.
    pub fn new() -> Clocks {
        let dir = public_dir();
        let mut options = OpenOptions::new();
        let path = dir.path().join("clocks");
        let file = options.read(true).write(true).create_new(true).open(path);
        let file = file.unwrap();
        file.set_len(LEN).unwrap();
        Clocks { file, dir }
    }

    /// The command that starts assertd at a site, with these clocks. Its keystores inherit them.
    pub fn command(&self, site: &Site) -> Command {
        let mut command = site.command();
        command.env("LD_PRELOAD", shim());
        command.env("CLOCK_SHIM", self.dir.path().join("clocks"));
        command
    }

    /// Sets the wall clock so many seconds ahead of the machine's, or behind.
    pub fn set_wall(&self, seconds: i64) {
        self.write(REALTIME, seconds);
    }

    /// Has so many seconds more go by in a suspend than the machine knows: both clocks count them.
    pub fn set_suspended(&self, seconds: i64) {
        self.write(BOOTTIME, seconds);
        self.write(REALTIME, seconds);
    }

    /// The same with a wall clock that is so much ahead besides.
    pub fn set_suspended_and_wall(&self, suspended: i64, wall: i64) {
        self.write(BOOTTIME, suspended);
        self.write(REALTIME, suspended + wall);
    }

    /// Waits until somebody has asked for the time `times` times more: it was seen by then.
    pub fn wait_asked(&self, times: u64) {
        let before = self.asked();
        let asked = wait_until(crate::DEADLINE, || self.asked() >= before + times);
        assert!(asked, "nobody asks for the time: is {SHIM} preloaded?");
    }

    /// How often anybody has asked for a clock that can be moved.
    pub fn asked(&self) -> u64 {
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, ASKED).unwrap();
        u64::from_ne_bytes(word)
    }

    fn write(&self, at: u64, seconds: i64) {
        let ns = Duration::from_secs(seconds.unsigned_abs()).as_nanos();
        let ns = i64::try_from(ns).expect("moved by less than 292 years") * seconds.signum();
        self.file.write_all_at(&ns.to_ne_bytes(), at).unwrap();
    }
}

impl Default for Clocks {
    fn default() -> Clocks {
        Clocks::new()
    }
}

fn shim() -> PathBuf {
    let path = built().join(SHIM);
    let there = path.is_file();
    assert!(
        there,
        "{}: missing; run `cargo build --workspace`",
        path.display()
    );
    path
}
