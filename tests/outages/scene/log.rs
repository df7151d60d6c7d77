//! The client's log of one run, and what it says: how long there was no service. Pure.
//!
//! *Trouble* is every time between two assertions, one after the other, in which a request failed, or
//! which is longer than [`PAUSE_MAX`]. Troubles with less than [`STEADY`] of service between them are
//! one: a service that flaps is not there. The outage is from the assertion before the first trouble
//! to the assertion after the last, less the time in which the token itself was not there. Without
//! trouble it is the longest time between two assertions, which is never less than [`super::client::EVERY`].

use std::fmt::Write;
use std::time::Duration;

/// Longer than a machine with two cores and other work keeps a request waiting by itself.
pub const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Service is back when this long nothing fails.
pub const STEADY: Duration = Duration::from_secs(1);

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An assertion, under a signature that verifies.
    Released,
    /// An assertion, and its signature does not verify, or what came is none.
    Wrong,
    /// 503 that says when to come back, with this code.
    Refused(String),
    /// Any other answer, or none.
    Strange(String),
}

/// One request, in time since the client began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was due, and handed to somebody who sends it.
    pub sent: Duration,
    /// When its answer was whole, or it was given up.
    pub ended: Duration,
    pub outcome: Outcome,
}

/// When the token was not there, by the same clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absence {
    pub from: Duration,
    pub until: Duration,
}

/// What a log says of one fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    /// Without service, the token's own absence not counted.
    pub outage: Duration,
    /// Requests that got no assertion.
    pub failed: usize,
    /// The longest time between a request and its answer, whatever it was.
    pub longest: Duration,
}

impl Absence {
    pub fn length(self) -> Duration {
        self.until.saturating_sub(self.from)
    }
}

impl Outcome {
    fn is_success(&self) -> bool {
        *self == Outcome::Released
    }
}

impl Entry {
    /// Its line in the log: due, ended (ms), outcome.
    fn line(&self) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let outcome = match &self.outcome {
            Outcome::Released => "released",
            Outcome::Wrong => "WRONG",
            Outcome::Refused(code) => code,
            Outcome::Strange(what) => what,
        };
        format!("{:10.1} {:10.1} {outcome}", ms(self.sent), ms(self.ended))
    }
}

/// The log as it is written to a file.
pub fn text(entries: &[Entry], absence: Absence) -> String {
    let mut text = String::new();
    let mark = |at: Duration, what: &str| format!("# {:10.1} {what}", at.as_secs_f64() * 1e3);
    let mut marks = [
        (absence.from, "the fault"),
        (absence.until, "the token could be used again"),
    ]
    .into_iter()
    .peekable();
    for entry in entries {
        while let Some((at, what)) = marks.next_if(|(at, _)| *at <= entry.sent) {
            writeln!(text, "{}", mark(at, what)).expect("text takes text");
        }
        writeln!(text, "{}", entry.line()).expect("text takes text");
    }
    text
}

/// A time without service, from one assertion to another; open if none came any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub begin: Duration,
    pub end: Option<Duration>,
}

/// When assertions came after `since`, and the last one before.
fn releases(entries: &[Entry], since: Duration) -> Vec<Duration> {
    let released = entries.iter().filter(|entry| entry.outcome.is_success());
    let mut ends: Vec<Duration> = released.map(|entry| entry.ended).collect();
    ends.sort_unstable();
    let first = ends.iter().rposition(|end| *end <= since).unwrap_or(0);
    ends.split_off(first)
}

/// The troubles since then.
pub fn troubles(entries: &[Entry], since: Duration) -> Vec<Trouble> {
    let good = releases(entries, since);
    let failed = entries.iter().filter(|entry| !entry.outcome.is_success());
    let bad: Vec<Duration> = failed.map(|entry| entry.ended).collect();
    let last = entries.iter().map(|entry| entry.sent).max();
    let mut found: Vec<Trouble> = Vec::new();
    for (at, begin) in good.iter().copied().enumerate() {
        let end = good.get(at + 1).copied();
        // Behind the last assertion everything counts that was asked.
        let until = end.unwrap_or(Duration::MAX);
        let fails = bad.iter().any(|bad| *bad > begin && *bad <= until);
        let pauses = end
            .or(last)
            .is_some_and(|end| end.saturating_sub(begin) > PAUSE_MAX);
        if !fails && !pauses {
            continue;
        }
        match found.last_mut() {
            Some(before) if before.end.is_some_and(|end| begin < end + STEADY) => before.end = end,
            _ => found.push(Trouble { begin, end }),
        }
    }
    found
}

/// What the log says of one fault at `absence.from`.
///
/// # Errors
/// A sentence, if service did not come back, or went away again after that.
pub fn outage(entries: &[Entry], absence: Absence) -> Result<Outage, String> {
    let after = entries.iter().filter(|entry| entry.ended > absence.from);
    let failed = after.clone().filter(|entry| !entry.outcome.is_success());
    let longest = after
        .map(|entry| entry.ended.saturating_sub(entry.sent))
        .max();
    let troubles = troubles(entries, absence.from);
    if let Some(again) = troubles.get(1) {
        let at = again.begin.as_secs_f64();
        return Err(format!("service was back, and gone again at {at:.3} s"));
    }
    let gap = match troubles.first() {
        None => {
            let came = releases(entries, absence.from);
            let gaps = came.windows(2).map(|two| two[1] - two[0]);
            gaps.max().ok_or("no service at all")?
        }
        Some(Trouble { begin, end }) => {
            let at = begin.as_secs_f64();
            end.ok_or_else(|| format!("no service any more after {at:.3} s"))? - *begin
        }
    };
    Ok(Outage {
        outage: gap.saturating_sub(absence.length()),
        failed: failed.count(),
        longest: longest.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A request every 20 ms for five seconds, answered after 2 ms, but as `of` says.
    fn log(of: impl Fn(u64) -> Option<(u64, bool)>) -> Vec<Entry> {
        let entry = |sent: u64| {
            let (took, good) = of(sent).unwrap_or((2, true));
            let outcome = match good {
                true => Outcome::Released,
                false => Outcome::Refused("keystore_unavailable".to_owned()),
            };
            Entry {
                sent: ms(sent),
                ended: ms(sent + took),
                outcome,
            }
        };
        (0..250).map(|number| entry(number * 20)).collect()
    }

    fn at(from: u64, until: u64) -> Absence {
        Absence {
            from: ms(from),
            until: ms(until),
        }
    }

    #[test]
    fn without_trouble_there_is_no_more_than_the_time_between_two_assertions() {
        let found = outage(&log(|_| None), at(1_000, 1_000)).unwrap();
        assert_eq!((found.outage, found.failed), (ms(20), 0));
        assert_eq!(found.longest, ms(2));
        let slow = |sent| (sent == 2_000).then_some((302, true));
        let found = outage(&log(slow), at(1_000, 1_000)).unwrap();
        assert_eq!((found.outage, found.longest), (ms(40), ms(302)));
        let all_slow = |sent| (2_000..2_300).contains(&sent).then(|| (2_302 - sent, true));
        let found = outage(&log(all_slow), at(1_000, 1_000)).unwrap();
        assert_eq!(found.outage, ms(2_302 - 1_982));
    }

    #[test]
    fn an_outage_is_from_assertion_to_assertion_less_the_tokens_absence() {
        let down = |sent| (1_000..2_500).contains(&sent).then_some((5, false));
        let found = outage(&log(down), at(1_000, 1_000)).unwrap();
        assert_eq!((found.outage, found.failed), (ms(2_502 - 982), 75));
        let found = outage(&log(down), at(1_000, 2_000)).unwrap();
        assert_eq!(found.outage, ms(2_502 - 982 - 1_000));
    }

    #[test]
    fn what_is_answered_late_is_an_outage_too() {
        let late = |sent| (1_000..3_000).contains(&sent).then(|| (3_000 - sent, true));
        let found = outage(&log(late), at(1_000, 1_000)).unwrap();
        assert_eq!((found.outage, found.failed), (ms(3_000 - 982), 0));
        assert_eq!(found.longest, ms(2_000));
    }

    #[test]
    fn a_service_that_flaps_is_not_there() {
        let flaps =
            |sent| ((1_000..3_000).contains(&sent) && sent % 500 == 0).then_some((2, false));
        let found = outage(&log(flaps), at(1_000, 1_000)).unwrap();
        assert_eq!((found.outage, found.failed), (ms(2_522 - 982), 4));
    }

    #[test]
    fn a_service_that_goes_again_or_stays_away_is_said_so() {
        let again = |sent| (sent == 1_000 || sent == 3_000).then_some((2, false));
        let said = outage(&log(again), at(1_000, 1_000)).unwrap_err();
        assert!(said.contains("gone again at 2.982 s"), "{said}");
        let gone = |sent| (sent >= 1_000).then_some((2, false));
        let said = outage(&log(gone), at(1_000, 1_000)).unwrap_err();
        assert!(said.contains("no service any more after 0.982 s"), "{said}");
        let silent = |sent| (sent >= 1_000).then(|| (60_000, false));
        assert!(outage(&log(silent), at(1_000, 1_000)).is_err());
    }

    #[test]
    fn the_log_says_when_the_token_went_and_came() {
        let text = text(&log(|_| None)[..4], at(20, 41));
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "0.0        2.0 released");
        assert_eq!(lines[1], "#       20.0 the fault");
        assert_eq!(lines[4], "#       41.0 the token could be used again");
        assert_eq!(lines.len(), 6);
    }
}
