//! What the machine gives: a flush of the disk and a check of a signature, each alone. The rest of
//! the floor is `raw` (the token) and `echo` (HTTP).

use crate::load::Times;
use keystore::publickey::Verifier;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// As large as an audit segment.
const FILE_BYTES: usize = 32 << 20;

/// One page: an audit group of a few records.
const WRITE_BYTES: usize = 4096;

/// A file as the audit log has it: all its blocks written before, so that a flush writes data and
/// no file-system journal.
pub struct Flushes {
    file: File,
    offset: usize,
}

impl Flushes {
    /// Makes the file in `dir`, which must be on the audit log's file system.
    pub fn prepare(dir: &Path) -> Flushes {
        let file = tempfile::tempfile_in(dir).expect("the directory is ours");
        let zeros = vec![0; FILE_BYTES];
        file.write_all_at(&zeros, 0).expect("there is room");
        file.sync_all().expect("the disk works");
        Flushes { file, offset: 0 }
    }

    /// Writes a page and flushes it, again and again.
    pub fn run(&mut self, duration: Duration) -> Vec<Duration> {
        let (started, mut times) = (Instant::now(), Vec::new());
        while started.elapsed() < duration {
            let before = Instant::now();
            self.file
                .write_all_at(&[b'x'; WRITE_BYTES], self.offset as u64)
                .expect("the page is there already");
            self.file.sync_data().expect("the disk works");
            times.push(before.elapsed());
            self.offset = (self.offset + WRITE_BYTES) % FILE_BYTES;
        }
        times
    }
}

/// Median time of one check in microseconds.
pub fn verify_us(check: impl Fn() -> bool, duration: Duration) -> f64 {
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < duration {
        let before = Instant::now();
        assert!(check(), "a signature that was released does not verify");
        times.push(before.elapsed());
    }
    Times::new(times).percentile_us(50.0)
}

/// Splits a compact JWS into what is signed and the signature.
pub fn parts(jws: &str) -> (&[u8], Vec<u8>) {
    use base64::Engine;
    let (message, signature) = jws.rsplit_once('.').expect("a compact JWS has two dots");
    let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(signature)
        .expect("base64url");
    (message.as_bytes(), signature)
}

/// Whether a signature is right.
pub fn verifies(verifier: &Verifier, jws: &str) -> bool {
    let (message, signature) = parts(jws);
    verifier.verify(message, &signature).is_ok()
}
