//! Writes the first inputs of the fuzz targets (tests/fuzz/corpus): frames of the keystore's
//! protocol, points, keys and signatures, published sets, key files of a TPM, evidence; and records what a TPM answers a
//! keystore that opens, makes, reads and signs, for the target that plays it back
//! (tests/fuzz/recorded). By hand, when one of these changes:
//!
//! ```console
//! $ cargo run -p tests --example seeds -- tests/fuzz
//! ```
#![allow(
    clippy::unwrap_used,
    reason = "run by hand: what goes wrong ends it, and is seen"
)]

mod evidence;
mod messages;
mod points;
mod readback;
mod tpm;

use std::path::{Path, PathBuf};

/// Where inputs go.
struct Corpus {
    fuzz: PathBuf,
}

impl Corpus {
    /// Writes one input under a name of ours, which a run of the fuzzer does not give.
    fn put(&self, target: &str, name: &str, input: &[u8]) {
        let dir = self.fuzz.join("corpus").join(target);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("seed-{name}")), input).unwrap();
    }
}

fn main() {
    let fuzz = std::env::args_os().nth(1).expect("usage: seeds DIRECTORY");
    assert!(Path::new(&fuzz).is_dir(), "{fuzz:?} is no directory");
    let corpus = Corpus { fuzz: fuzz.into() };
    evidence::write(&corpus);
    messages::write(&corpus);
    points::write(&corpus);
    readback::write(&corpus);
    tpm::write(&corpus);
}

/// A length and so many bytes, as the targets take them from an input.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_le_bytes(), bytes].concat()
}
