//! The state file of a keystore (`keystore::statefile`), which says which object is which key.
//!
//! Asserted: what was written is read back, with the number of its generation; a file that differs
//! from one that was written, in whatever way, is refused and left as it is; whatever bytes are
//! taken for a state file stand there in the one form that is written.

use super::input::Input;
use keystore::Kind;
use keystore::statefile::{StateDir, StateFile, decode};
use serde_json::Value;
use std::fs;
use tempfile::TempDir;

/// Most replacements in an input: each is half a dozen system calls.
const REPLACED_MAX: u8 = 3;

/// Longest value made up, in bytes of JSON text.
const VALUE_LEN_MAX: usize = 400;

const NAME: &str = "state.v1";

thread_local! {
    /// Its directory goes with the thread, which a static would never do.
    static PLACE: Place = Place::new();
}

struct Place {
    /// Before the directory, so that the lock goes first.
    state: StateDir,
    dir: TempDir,
}

/// Runs one input.
pub fn check(data: &[u8]) {
    let mut input = Input::of(data);
    match input.choice(2) {
        0 => bytes(input.rest()),
        _ => PLACE.with(|place| place.written(&mut input)),
    }
}

/// Bytes that are taken for a state file are one.
fn bytes(bytes: &[u8]) {
    let Ok((generation, _)) = decode::<Value>(bytes) else {
        return;
    };
    let text = std::str::from_utf8(bytes).expect("a header and JSON are text");
    let (header, payload) = text.split_once('\n').expect("a header is a line");
    let payload = payload.strip_suffix('\n').expect("it ends with its line");
    let start = format!("assertd-state 1 {generation} {} ", payload.len());
    let sum = header
        .strip_prefix(&start)
        .expect("the header is in its one form");
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    assert!(sum.len() == 64 && sum.bytes().all(hex) && generation > 0);
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::lock(&dir.path().join("state")).expect("it is new");
        Place { state, dir }
    }

    /// Some values, one after the other; then the file is damaged.
    fn written(&self, input: &mut Input<'_>) {
        let path = self.state.path().join(NAME);
        let open = || StateFile::<Value>::open(&self.state, NAME);
        let (mut file, empty) = open().expect("there is none");
        assert_eq!((file.generation(), empty), (0, Value::Null));
        let mut last = Value::Null;
        let replaced = 1 + input.choice(REPLACED_MAX);
        for _ in 0..replaced {
            let text = input.bytes(VALUE_LEN_MAX);
            last = value(text).unwrap_or_else(|| String::from_utf8_lossy(text).into());
            file.replace(&last).expect("there is room");
        }
        let (file, read) = open().expect("it was written");
        assert_eq!((file.generation(), &read), (u64::from(replaced), &last));

        let right = fs::read(&path).expect("it was written");
        bytes(&right);
        let wrong = damaged(&right, input);
        fs::write(&path, &wrong).expect("there is room");
        match open() {
            Ok(_) => assert!(wrong == right, "a damaged file was read"),
            Err(error) => {
                assert!(wrong != right, "{error}");
                assert_eq!(error.kind(), Kind::Corrupt);
                assert!(decode::<Value>(&wrong).is_err());
            }
        }
        assert!(
            fs::read(&path).expect("it is there") == wrong,
            "it was left as it is"
        );
        for entry in fs::read_dir(self.dir.path().join("state")).expect("it is ours") {
            let path = entry.expect("it is ours").path();
            if !path.ends_with("lock") {
                fs::remove_file(path).expect("it is ours");
            }
        }
    }
}

/// The value of a JSON text; none for one with a fraction that serde_json reads a little differently
/// when it has written it, which no state of ours has.
fn value(text: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let again: Value = serde_json::from_str(&value.to_string()).ok()?;
    (again == value).then_some(value)
}

fn damaged(right: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = right.to_vec();
    let at = input.number(2) as usize % bytes.len();
    match input.choice(5) {
        0 => bytes.truncate(at),
        1 => drop(bytes.splice(at..at, input.bytes(20).iter().copied())),
        2 => drop(bytes.drain(at..(at + usize::from(input.byte())).min(right.len()))),
        3 => bytes.extend(input.bytes(20)),
        _ => {
            bytes[at] ^= input.byte();
            let other = input.number(2) as usize % bytes.len();
            bytes[other] ^= input.byte();
        }
    }
    bytes
}
