//! Keeps a file's assertion fresh: a new one at half of the life of the one that is there, so that an SDK
//! that holds what it read for ten minutes never holds a dead one. Ends with the unit (SIGTERM), or when
//! the directory is removed, should the unit's KillMode= spare it.
//!
//! A failure is tried again for ever, ever more slowly; it is said once when it begins, once more when
//! what is in the file has expired, and once when it is over.

use super::super::args::Args;
use super::Question;
use super::place::Place;
use crate::ctl::failure::{Asker, Exit, Failure};
use crate::ctl::out::clean;
use crate::id;
use assertd_client::Error;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keystore::Clock;
use serde::Deserialize;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// How long nobody looks at the clock: a machine that was suspended, or whose clock was set, is that
/// late, and so is the end after the directory has gone. A thread that sleeps does not count a suspend.
const LOOK: Duration = Duration::from_secs(15);

/// Between two tries, at first and at most; the longer, up to half as much again by chance.
const PAUSE_MIN_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 30_000;

/// By up to this part of its life a refresh is later than half: a host's services start together.
const JITTER_PART: u64 = 20;

/// How far ahead of the clock its `iat` may be before the clock is taken to have been set back.
const AHEAD_MAX_MS: u64 = 60_000;

/// When an assertion was made and when it ends, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Claims")]
struct Life {
    made_ms: u64,
    over_ms: u64,
}

#[derive(Deserialize)]
struct Claims {
    iat: u64,
    exp: u64,
}

impl From<Claims> for Life {
    fn from(claims: Claims) -> Life {
        Life {
            made_ms: claims.iat.saturating_mul(1000),
            over_ms: claims.exp.saturating_mul(1000),
        }
    }
}

/// Starts this program anew in the background, in the same unit, and is done: ExecStartPost= ends.
pub fn start(args: &Args, question: &Question, path: &Path) -> Result<Exit, Failure> {
    let mut command = Command::new("/proc/self/exe"); // ours, also if it was replaced on disk meanwhile
    command.arg0("assertctl");
    command.arg("--socket").arg(&question.socket);
    if let Some(config) = &args.config {
        command.arg("--config").arg(config);
    }
    command.args(["assertion", "--target", question.target]);
    if let Some(lifetime_s) = question.lifetime_s {
        command.args(["--lifetime", &lifetime_s.to_string()]);
    }
    command.arg("--output").arg(path);
    command.args(["--keep", "--foreground"]);
    // What it has to say goes to the unit's journal. Of its own group, so that ^C in a shell is not its.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.process_group(0);
    let started = command.spawn();
    started.map_err(|error| {
        let text = format!("cannot go on in the background: {error}");
        Failure::new(Exit::Internal, text)
    })?;
    Ok(Exit::Done)
}

/// Keeps it fresh, beginning with what is there.
pub fn run(question: &Question, place: &Place) -> Result<Exit, Failure> {
    let clock = Clock::new();
    let now_ms = || clock.read().unix_ms();
    let mut life = place.read().as_deref().and_then(life);
    let mut due_ms = life.map_or(0, |life| life.due_ms(jitter()));
    let mut trouble = Trouble::default();
    loop {
        while now_ms() < due_ms && !life.is_some_and(|life| life.is_ahead(now_ms())) {
            let left = Duration::from_millis(due_ms - now_ms().min(due_ms));
            thread::sleep(left.min(LOOK));
            if place.is_gone() {
                return Ok(Exit::Done);
            }
        }
        let refreshed = match question.try_ask() {
            Ok(answer) => place.put(&answer.assertion).map(|()| answer.assertion),
            Err(error) => {
                trouble.retry_after_s = retry_after_s(&error);
                Err(Failure::from_client(&error, Asker::Workload))
            }
        };
        match refreshed {
            Ok(assertion) => {
                life = self::life(&assertion);
                let unknown = now_ms() + PAUSE_MAX_MS; // no claims that we know: assertd's matter, not ours
                due_ms = life.map_or(unknown, |life| life.due_ms(jitter()));
                // Handed out again just before its half: not to be asked for without a pause.
                due_ms = due_ms.max(now_ms() + trouble.over(question.target));
            }
            Err(_) if place.is_gone() => return Ok(Exit::Done),
            Err(failure) => {
                let expired = life.is_none_or(|life| life.over_ms <= now_ms());
                trouble.say(question.target, &failure, expired);
                due_ms = now_ms() + trouble.pause_ms(jitter());
                life = life.filter(|life| !life.is_ahead(now_ms()));
            }
        }
    }
}

/// What fails at present, and what has been said of it.
#[derive(Default)]
struct Trouble {
    tries: u32,
    said: Said,
    retry_after_s: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    #[default]
    Nothing,
    Failing,
    Expired,
}

impl Trouble {
    fn say(&mut self, target: &str, failure: &Failure, expired: bool) {
        self.tries = self.tries.saturating_add(1);
        let now = if expired {
            Said::Expired
        } else {
            Said::Failing
        };
        if self.said >= now {
            return;
        }
        self.said = now;
        let state = match now {
            Said::Expired => "the assertion in the file has expired and there is no new one",
            Said::Nothing | Said::Failing => {
                "the assertion in the file still holds, a new one is not to be had"
            }
        };
        let text = format!(
            "target `{target}`: {state}: {}; it is tried again",
            failure.message
        );
        eprintln!("assertctl: {}", clean(&text));
    }

    /// It went well: how long to wait at least, in milliseconds.
    fn over(&mut self, target: &str) -> u64 {
        if self.said != Said::Nothing {
            eprintln!(
                "assertctl: target `{}`: the file is fresh again",
                clean(target)
            );
        }
        *self = Trouble::default();
        PAUSE_MIN_MS / 2
    }

    /// Milliseconds until the next try. `chance` is of 65,536.
    fn pause_ms(&mut self, chance: u64) -> u64 {
        let doubled = PAUSE_MIN_MS << self.tries.saturating_sub(1).min(6);
        let told = self.retry_after_s.take().unwrap_or(0).saturating_mul(1000);
        let pause = doubled.max(told).min(PAUSE_MAX_MS);
        pause + pause / 2 * chance / 65_536
    }
}

impl Life {
    /// When a new one is to be had. `chance` is of 65,536.
    fn due_ms(self, chance: u64) -> u64 {
        let lives = self.over_ms.saturating_sub(self.made_ms);
        self.made_ms + lives / 2 + lives / JITTER_PART * chance / 65_536
    }

    /// Whether the clock was set back since: nobody knows what it is worth.
    fn is_ahead(self, now_ms: u64) -> bool {
        self.made_ms > now_ms + AHEAD_MAX_MS
    }
}

/// What an assertion says of its life. Verifies nothing: assertd has, and this is a time to wake up at.
fn life(assertion: &str) -> Option<Life> {
    let payload = assertion.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn retry_after_s(error: &Error) -> Option<u64> {
    match error {
        Error::Refused { retry_after_s, .. } => *retry_after_s,
        Error::Unreachable { .. } | Error::Garbled(_) => None,
    }
}

/// Of 65,536. Without chance it is none: too early matters to nobody.
fn jitter() -> u64 {
    id::random::<2>().map_or(0, |bytes| u64::from(u16::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life {
        made_ms: 1_000_000,
        over_ms: 4_600_000,
    };

    #[test]
    fn a_new_one_is_asked_for_at_half_of_its_life_and_hardly_later() {
        assert_eq!(
            LIFE.due_ms(0),
            2_800_000,
            "assertd hands out no old one from then on"
        );
        assert!((2_979_000..2_980_001).contains(&LIFE.due_ms(65_535)));
        assert!(!LIFE.is_ahead(LIFE.made_ms));
        assert!(LIFE.is_ahead(0), "the clock was set back");
    }

    #[test]
    fn its_life_is_read_from_its_claims_and_nonsense_has_none() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"iss":"i","iat":1000,"exp":4600}"#);
        assert_eq!(life(&format!("e30.{payload}.c2ln")), Some(LIFE));
        for nonsense in [
            "",
            "a.b",
            "e30.e30.",
            "e30.AAAA.x",
            &format!("e30.{}.", "A".repeat(70_000)),
        ] {
            assert_eq!(life(nonsense), None);
        }
    }

    #[test]
    fn tries_are_ever_further_apart_up_to_three_quarters_of_a_minute() {
        let mut trouble = Trouble::default();
        let failure = Failure::new(Exit::Unavailable, "no");
        let mut last = 0;
        for _ in 0..100 {
            trouble.say("aws", &failure, false);
            let pause = trouble.pause_ms(0);
            assert!(pause >= last && pause <= PAUSE_MAX_MS);
            last = pause;
        }
        assert_eq!(last, PAUSE_MAX_MS);
        assert!(trouble.pause_ms(65_535) < 45_000);
        trouble.retry_after_s = Some(u64::MAX);
        assert_eq!(trouble.pause_ms(0), PAUSE_MAX_MS);
        trouble.over("aws");
        trouble.say("aws", &failure, false);
        trouble.retry_after_s = Some(5);
        assert_eq!(trouble.pause_ms(0), 5_000, "as it was told");
    }
}
