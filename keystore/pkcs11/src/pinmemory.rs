//! Which PINs a token has refused, over restarts: a loop of restarts must not use up its tries.
//!
//! Of a PIN it keeps twelve bits of a salted HMAC, so that who steals the disk learns next to
//! nothing of it, and one corrected PIN in 4,096 is taken for the wrong one; the message says what to
//! do then. What was accepted leaves nothing here.

use aws_lc_rs::hmac;
use keystore::backend::ObjectId;
use keystore::statefile::{StateDir, StateFile};
use keystore::{Error, Kind};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The name of the state file.
const FILE: &str = "pin.v1";

/// Bits of a PIN's print: a compromise between what is given away and who is refused by accident.
const PRINT_MASK: u16 = 0x0fff;

/// Logins without a clear answer that are made with one PIN: a module that fails with a general
/// error may have counted a try, and tokens lock at three to ten.
const UNCLEAR_MAX: u8 = 3;

/// Most PINs that are remembered; somebody who tries more wrong ones does so by hand.
const REMEMBERED_MAX: usize = 16;

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    pins: Vec<Entry>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Serial number of the token.
    serial: String,
    salt: ObjectId,
    print: u16,
    answer: Answer,
}

/// What a token said to a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// It is wrong.
    Refused,
    /// Something else went wrong, so often.
    Unclear {
        /// Times in a row.
        times: u8,
    },
}

/// What is remembered.
pub struct PinMemory {
    path: PathBuf,
    file: StateFile<Stored>,
    stored: Stored,
}

impl PinMemory {
    /// Reads it.
    ///
    /// # Errors
    /// `Corrupt` if the file fails its check.
    pub fn open(dir: &StateDir) -> Result<PinMemory, Error> {
        let (file, stored) = StateFile::open(dir, FILE)?;
        Ok(PinMemory {
            path: dir.path().join(FILE),
            file,
            stored,
        })
    }

    /// Whether the token with this serial number may be given this PIN.
    ///
    /// # Errors
    /// `BadPin` with the remedy if it has refused it before.
    pub fn may_try(&self, place: &str, serial: &str, pin: &[u8]) -> Result<(), Error> {
        match self.find(serial, pin).map(|entry| entry.answer) {
            Some(Answer::Refused) => Err(known(place, "was refused before", &self.path)),
            Some(Answer::Unclear { times }) if times >= UNCLEAR_MAX => {
                let text = format!("was tried {times} times without a clear answer");
                Err(known(place, &text, &self.path))
            }
            Some(Answer::Unclear { .. }) | None => Ok(()),
        }
    }

    /// Remembers what came of a try. When this returns `Ok` it survives a power cut.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be written.
    pub fn note(&mut self, serial: &str, pin: &[u8], answer: Answer) -> Result<(), Error> {
        let answer = match (self.find(serial, pin).map(|entry| entry.answer), answer) {
            (Some(Answer::Refused), _) | (_, Answer::Refused) => Answer::Refused,
            (Some(Answer::Unclear { times }), Answer::Unclear { .. }) => Answer::Unclear {
                times: times.saturating_add(1),
            },
            (None, unclear) => unclear,
        };
        let mut next = self.stored.clone();
        match next.pins.iter_mut().find(|entry| entry.is_of(serial, pin)) {
            Some(entry) => entry.answer = answer,
            None => {
                if next.pins.len() >= REMEMBERED_MAX {
                    next.pins.remove(0);
                }
                next.pins.push(Entry::new(serial, pin, answer)?);
            }
        }
        self.replace(next)
    }

    /// Forgets what a token has refused, once it has accepted one.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be written.
    pub fn forget(&mut self, serial: &str) -> Result<(), Error> {
        let mut next = self.stored.clone();
        next.pins.retain(|entry| entry.serial != serial);
        match next.pins.len() == self.stored.pins.len() {
            true => Ok(()),
            false => self.replace(next),
        }
    }

    fn find(&self, serial: &str, pin: &[u8]) -> Option<&Entry> {
        let mut entries = self.stored.pins.iter();
        entries.find(|entry| entry.is_of(serial, pin))
    }

    fn replace(&mut self, next: Stored) -> Result<(), Error> {
        self.file.replace(&next)?;
        self.stored = next;
        Ok(())
    }
}

impl Entry {
    fn new(serial: &str, pin: &[u8], answer: Answer) -> Result<Entry, Error> {
        let salt = ObjectId::random()?;
        Ok(Entry {
            serial: serial.to_owned(),
            print: print(salt, pin),
            salt,
            answer,
        })
    }

    fn is_of(&self, serial: &str, pin: &[u8]) -> bool {
        self.serial == serial && self.print == print(self.salt, pin)
    }
}

fn print(salt: ObjectId, pin: &[u8]) -> u16 {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salt.0);
    let tag = hmac::sign(&key, pin);
    let [high, low, ..] = tag.as_ref() else {
        return 0; // HMAC-SHA-256 has 32 bytes
    };
    u16::from_be_bytes([*high, *low]) & PRINT_MASK
}

fn known(place: &str, what: &str, path: &Path) -> Error {
    let text = format!(
        "{place}: this PIN {what} and is not tried again; correct it, then restart the keystore; if \
         it is the right one now, remove {} first",
        path.display()
    );
    Error::new(Kind::BadPin, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        dir: tempfile::TempDir,
    }

    impl World {
        fn memory(&self) -> PinMemory {
            PinMemory::open(&StateDir::lock(&self.dir.path().join("state")).unwrap()).unwrap()
        }
    }

    fn world() -> World {
        World {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn kind(memory: &PinMemory, serial: &str, pin: &[u8]) -> Option<Kind> {
        memory.may_try("token", serial, pin).err().map(|e| e.kind())
    }

    #[test]
    fn a_refused_pin_is_known_after_a_restart_and_another_is_not() {
        let world = world();
        let mut memory = world.memory();
        assert_eq!(kind(&memory, "1", b"1234"), None);
        memory.note("1", b"1234", Answer::Refused).unwrap();
        drop(memory);
        let memory = world.memory();
        assert_eq!(kind(&memory, "1", b"1234"), Some(Kind::BadPin));
        assert_eq!(kind(&memory, "2", b"1234"), None, "another token");
        // One in 4,096 may be taken for it; of eight at most one, or the test has found a defect.
        let others = (0..8).filter(|n| kind(&memory, "1", format!("{n}").as_bytes()).is_some());
        assert!(others.count() <= 1);
    }

    #[test]
    fn an_unclear_answer_may_come_a_few_times() {
        let world = world();
        let mut memory = world.memory();
        for _ in 0..UNCLEAR_MAX {
            assert_eq!(kind(&memory, "1", b"1234"), None);
            let unclear = Answer::Unclear { times: 1 };
            memory.note("1", b"1234", unclear).unwrap();
        }
        assert_eq!(kind(&memory, "1", b"1234"), Some(Kind::BadPin));
        memory.forget("1").unwrap();
        assert_eq!(kind(&world.memory_after(memory), "1", b"1234"), None);
    }

    impl World {
        fn memory_after(&self, before: PinMemory) -> PinMemory {
            drop(before);
            self.memory()
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_holds_no_pin() {
        let world = world();
        let mut memory = world.memory();
        for n in 0..REMEMBERED_MAX * 2 {
            let pin = format!("secret{n}");
            memory.note("1", pin.as_bytes(), Answer::Refused).unwrap();
        }
        assert!(memory.stored.pins.len() <= REMEMBERED_MAX);
        let text = std::fs::read_to_string(&memory.path).unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert!(memory.stored.pins.iter().all(|pin| pin.print <= PRINT_MASK));
    }
}
