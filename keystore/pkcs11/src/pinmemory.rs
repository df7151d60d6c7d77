//! What came of showing a PIN to a token, over restarts: neither a loop of restarts nor a module that
//! dies in its login may use up a token's tries.
//!
//! A try is on disk before the token sees the PIN, as one without a clear answer; what the token
//! says corrects that. Such tries become rarer and rarer ([`Unclear::due`]), and end when the
//! token counts a wrong PIN. Of a PIN it keeps twelve bits of a salted HMAC, so that who steals the
//! disk learns next to nothing of it, and one corrected PIN in 4,096 is taken for the wrong one; the
//! message says what to do then. What was accepted leaves nothing on disk. This never calls the token.

use crate::accepted::Accepted;
use aws_lc_rs::hmac;
use keystore::backend::ObjectId;
use keystore::clock::{Seconds, Time};
use keystore::statefile::{self, StateDir, StateFile};
use keystore::{Error, Kind};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The name of the state file, and of the one that replacing it leaves behind.
const FILE: &str = "pin.v1";
const PREVIOUS: &str = "pin.v1.prev";

/// Bits of a PIN's print: a compromise between what is given away and who is refused by accident.
const PRINT_MASK: u16 = 0x0fff;

/// Tries without a clear answer that are made as soon as they are asked for: a module that fails
/// may have counted each, and tokens lock at three to ten.
const QUICK_MAX: u32 = 3;

/// Seconds to wait after the last of those, after the next one, and so on: there is time to act
/// before a token is locked, and one that was only away is used again by itself.
const WAITS_S: [Seconds; 4] = [10, 60, 600, 3_600];

/// Most PINs that are remembered; somebody who tries more wrong ones does so by hand.
const REMEMBERED_MAX: usize = 16;

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// One for as long as the file is there: what remains of old files on the medium says no more
    /// about a PIN than the last one does.
    salt: Option<ObjectId>,
    pins: Vec<Entry>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Serial number of the token.
    serial: String,
    print: u16,
    answer: Answer,
}

/// What a token said to a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It is wrong.
    Refused,
    /// Nothing yet, or something else went wrong.
    Unclear(Unclear),
}

/// Tries in a row that ended without a clear answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unclear {
    /// Those that count.
    times: u32,
    /// When the last was made, by the wall clock.
    last_s: Seconds,
    past: Past,
}

/// Whether the token has accepted the PIN before these tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Past {
    /// Nobody knows.
    Unknown,
    /// It has: a token that answers nothing clear is away, and the PIN is not what is wrong.
    Accepted,
}

/// When a PIN may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Now,
    InSeconds(Seconds),
    /// The clock is before the last try: what has passed since is not known.
    ClockWentBack,
}

/// What the token says of wrong PINs since the last right one (CKF_USER_PIN_COUNT_LOW).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// There was none, or it does not say.
    Clear,
    /// There was one at least.
    Low,
}

/// A PIN that is to be shown to a token.
pub struct Shown<'a> {
    /// How messages name the token.
    pub place: &'a str,
    /// Its serial number.
    pub serial: &'a str,
    /// What it has counted.
    pub count: Count,
    /// The PIN.
    pub pin: &'a [u8],
    /// Now.
    pub now: Time,
}

/// What was remembered of a PIN before a try.
pub struct Before {
    answer: Option<Answer>,
    past: Past,
}

/// What is remembered.
pub struct PinMemory {
    path: PathBuf,
    file: StateFile<Stored>,
    stored: Stored,
    accepted: &'static Accepted,
}

impl PinMemory {
    /// Reads it.
    ///
    /// # Errors
    /// `Corrupt` if the file fails its check.
    pub fn open(dir: &StateDir) -> Result<PinMemory, Error> {
        PinMemory::beside(dir, Accepted::of_this_process())
    }

    fn beside(dir: &StateDir, accepted: &'static Accepted) -> Result<PinMemory, Error> {
        let path = dir.path().join(FILE);
        let (file, stored) = StateFile::open(dir, FILE).map_err(|error| match error.kind() {
            // Not worth a backup, and an older one knows of fewer tries.
            Kind::Corrupt => {
                let text = format!(
                    "{}: is damaged, so that nobody knows which PINs were refused, and none is \
                     tried; make sure that the keystore has the right PIN, then remove the file \
                     and restart the keystore",
                    path.display()
                );
                Error::new(Kind::Corrupt, text)
            }
            _ => error,
        })?;
        Ok(PinMemory {
            path,
            file,
            stored,
            accepted,
        })
    }

    /// Writes down that a PIN is tried, if it may be. When this returns `Ok` that survives a power
    /// cut; one of the others is to follow.
    ///
    /// # Errors
    /// `BadPin` with the remedy if the token has refused it before, or may have counted it;
    /// `Unavailable` if its next try is later, or if this cannot be written.
    pub fn begin(&mut self, shown: &Shown<'_>) -> Result<Before, Error> {
        let answer = self.find(shown).map(|entry| entry.answer);
        let unclear = match answer {
            Some(Answer::Refused) => {
                return Err(self.never(shown, "was refused before"));
            }
            Some(Answer::Unclear(_)) if shown.count == Count::Low => {
                let text =
                    "was tried without a clear answer, and the token has counted a wrong one";
                return Err(self.never(shown, text));
            }
            Some(Answer::Unclear(unclear)) => Some(unclear),
            None => None,
        };
        let mut past = unclear.map_or(Past::Unknown, |unclear| unclear.past);
        if self.accepted.has(shown.serial, shown.pin) {
            past = Past::Accepted;
        }
        if let Some(unclear) = unclear {
            self.wait(shown, unclear)?;
        }
        let times = unclear.map_or(0, |unclear| unclear.times);
        let tried = Unclear {
            times: times.saturating_add(1),
            last_s: shown.now.unix_s(),
            past,
        };
        self.note(shown, Some(Answer::Unclear(tried)))
            .map_err(|error| {
                let text = format!(
                    "{}: the PIN was not tried, since that could not be written down first: {error}",
                    shown.place
                );
                Error::new(Kind::Unavailable, text)
            })?;
        Ok(Before { answer, past })
    }

    /// The token has accepted it: all that it refused is forgotten.
    ///
    /// # Errors
    /// `Unavailable` if that cannot be written.
    pub fn accepted(&mut self, shown: &Shown<'_>) -> Result<(), Error> {
        self.accepted.note(shown.serial, shown.pin);
        let mut next = self.stored.clone();
        next.pins.retain(|entry| entry.serial != shown.serial);
        self.replace(next)
    }

    /// The token has refused it.
    ///
    /// # Errors
    /// `Unavailable` if that cannot be written: then it stays a try without a clear answer.
    pub fn refused(&mut self, shown: &Shown<'_>) -> Result<(), Error> {
        self.accepted.forget(shown.serial);
        self.note(shown, Some(Answer::Refused))
    }

    /// The token has not looked at it.
    ///
    /// # Errors
    /// As [`PinMemory::refused`].
    pub fn not_tried(&mut self, shown: &Shown<'_>, before: &Before) -> Result<(), Error> {
        self.note(shown, before.answer)
    }

    /// Nobody knows whether the token has looked at it. One that it has accepted before costs
    /// nothing, so that this does not count.
    ///
    /// # Errors
    /// As [`PinMemory::refused`].
    pub fn unclear(&mut self, shown: &Shown<'_>, before: &Before) -> Result<(), Error> {
        match before.past {
            Past::Unknown => Ok(()), // as it was begun
            Past::Accepted => {
                let times = match before.answer {
                    Some(Answer::Unclear(unclear)) => unclear.times,
                    Some(Answer::Refused) | None => 0,
                };
                let unclear = Unclear {
                    times,
                    last_s: shown.now.unix_s(),
                    past: Past::Accepted,
                };
                self.note(shown, Some(Answer::Unclear(unclear)))
            }
        }
    }

    /// Whether the next try is due.
    fn wait(&mut self, shown: &Shown<'_>, unclear: Unclear) -> Result<(), Error> {
        let now_s = shown.now.unix_s();
        let left_s = match unclear.due(now_s) {
            Due::Now => return Ok(()),
            Due::InSeconds(left_s) => left_s,
            Due::ClockWentBack => {
                // Waited for anew: neither over at once nor only when the clock has caught up.
                let again = Unclear {
                    last_s: now_s,
                    ..unclear
                };
                self.note(shown, Some(Answer::Unclear(again)))?;
                again.wait_s()
            }
        };
        let text = format!(
            "{}: this PIN was tried {} times without a clear answer, and each may have cost one of \
             its tries; the next is made in {}; check the token and the way to it; if you know \
             that the PIN is right, remove {}, and it is tried at once",
            shown.place,
            unclear.times,
            spoken(left_s),
            self.path.display()
        );
        Err(Error::new(Kind::Unavailable, text))
    }

    fn never(&self, shown: &Shown<'_>, what: &str) -> Error {
        let text = format!(
            "{}: this PIN {what}; it is not tried again; correct it, then restart the keystore; \
             if it is the right one now, remove {} first",
            shown.place,
            self.path.display()
        );
        Error::new(Kind::BadPin, text)
    }

    fn find(&self, shown: &Shown<'_>) -> Option<&Entry> {
        let print = print(self.stored.salt?, shown.pin);
        let mut entries = self.stored.pins.iter();
        entries.find(|entry| entry.serial == shown.serial && entry.print == print)
    }

    /// Replaces what is known of one PIN.
    fn note(&mut self, shown: &Shown<'_>, answer: Option<Answer>) -> Result<(), Error> {
        let mut next = self.stored.clone();
        let salt = match next.salt {
            Some(salt) => salt,
            None => *next.salt.insert(ObjectId::random()?),
        };
        let print = print(salt, shown.pin);
        next.pins
            .retain(|entry| entry.serial != shown.serial || entry.print != print);
        if let Some(answer) = answer {
            if next.pins.len() >= REMEMBERED_MAX {
                next.pins.remove(0);
            }
            next.pins.push(Entry {
                serial: shown.serial.to_owned(),
                print,
                answer,
            });
        }
        self.replace(next)
    }

    fn replace(&mut self, next: Stored) -> Result<(), Error> {
        self.file.replace(&next)?;
        self.stored = next;
        // It has a print of what was accepted just now. One that stays goes next time.
        let _ = statefile::remove(&self.path.with_file_name(PREVIOUS));
        Ok(())
    }
}

impl Unclear {
    /// Seconds between the last try and the next.
    fn wait_s(self) -> Seconds {
        match self.times.checked_sub(QUICK_MAX) {
            None => 0,
            Some(slow) => {
                let last = WAITS_S.len() - 1;
                WAITS_S[usize::try_from(slow).map_or(last, |slow| slow.min(last))]
            }
        }
    }

    fn due(self, now_s: Seconds) -> Due {
        let wait_s = self.wait_s();
        match now_s.checked_sub(self.last_s) {
            _ if wait_s == 0 => Due::Now,
            None => Due::ClockWentBack,
            Some(passed_s) if passed_s >= wait_s => Due::Now,
            Some(passed_s) => Due::InSeconds(wait_s - passed_s),
        }
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

/// `7 s`, or `12 min` from two minutes on.
fn spoken(seconds: Seconds) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        _ => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests;
