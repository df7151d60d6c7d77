//! A look at an open keystore, for the verb `check`: what its backend tells of itself, every recorded
//! key beside what the token shows of it now, objects that nobody knows, and a trial of how fast it
//! signs. Reports and changes nothing: a strange object stays, a missing key is not made again.
//!
//! Bounded in time as in words, and never in anybody's way: it holds no lock over two signatures.

use crate::backend::{Backend, Trial};
use crate::charter::Purpose;
use crate::jws::SigningInput;
use crate::livekey::{LiveKey, compare};
use crate::protocol::{Condition, Evidence, EvidenceLevel};
use crate::publickey::WrongSignature;
use crate::records::Keys;
use crate::survey::{Line, Subject};
use crate::{Alg, Error, KeyId, Kind};
use std::thread;
use std::time::{Duration, Instant};

/// How long keys are looked at; a chip loads ten a second. The rest is counted.
const KEYS_TIME_MAX: Duration = Duration::from_secs(10);

/// How long signatures are tried, and how many at least: one says little, and a chip that needs a
/// second for each is known after three.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(1);
const SIGNATURES_MIN: u32 = 3;

/// Longest pause after a signature. One as long as the signature gives everybody else a turn.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// How long a whole look may take beside the one call that may hang: what whoever asks waits for.
pub const LOOK_TIME_MAX: Duration = Duration::from_secs(30);

/// What a trial's key signs; no verifier may accept it ([`SigningInput::probe`]).
const PROBE: &str = "assertctl keystore check";

/// Most labels of strange objects in one line.
const STRANGE_SHOWN: usize = 8;

/// Looks at everything.
pub fn look<B: Backend>(keys: &Keys<B>) -> Vec<Line> {
    let mut lines = keys.backend().survey();
    let (of_keys, token) = recorded(keys);
    lines.extend(of_keys);
    lines.push(strange(keys.strange()));
    if token == Token::Answers {
        lines.push(rate(keys.backend()));
    }
    lines
}

/// Whether there is any use in asking on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Answers,
    Away,
}

fn recorded<B: Backend>(keys: &Keys<B>) -> (Vec<Line>, Token) {
    let recorded = keys.recorded();
    if recorded.is_empty() {
        let text =
            "none is recorded; `assertctl apply` makes those that the configuration asks for";
        return (vec![Line::ok(Subject::Key, text)], Token::Answers);
    }
    let start = Instant::now();
    let mut lines = Vec::new();
    for (looked_at, (key, live)) in recorded.iter().enumerate() {
        if start.elapsed() > KEYS_TIME_MAX {
            let text = format!(
                "{} of {} keys were looked at: {} s were over",
                looked_at,
                recorded.len(),
                KEYS_TIME_MAX.as_secs()
            );
            let remedy = "nothing need be wrong: the token is slow, or busy; every key is looked \
                          at when the keystore starts, and `assertctl keys` shows what it found";
            lines.push(Line::warn(Subject::Key, text, remedy));
            break;
        }
        let Some(live) = live else {
            let text = format!("{key}: was begun to be made, and that was not finished");
            let remedy = "run `assertctl apply`, which goes on with it";
            lines.push(Line::warn(Subject::Key, text, remedy));
            continue;
        };
        match compare(keys.backend(), key, live) {
            Ok(evidence) => lines.push(as_recorded(key, live, evidence)),
            Err(error) if error.kind() == Kind::Unavailable => {
                let all = recorded.len();
                let text = format!("{looked_at} of {all} keys were looked at: {error}");
                let remedy = "do what it says, then look again";
                lines.push(Line::fail(Subject::Key, text, remedy));
                return (lines, Token::Away);
            }
            Err(error) => {
                let remedy = "do what it says, then restart the keystore: it takes its keys up \
                              when it starts";
                lines.push(Line::fail(Subject::Key, error.to_string(), remedy));
            }
        }
    }
    (lines, Token::Answers)
}

fn as_recorded(key: &KeyId, live: &LiveKey, evidence: Evidence) -> Line {
    let (alg, kid, purpose) = (live.charter.alg, &live.kid, purpose(&live.charter.purpose));
    if let Condition::Failed { why, .. } = &live.condition
        && live.is_unhealthy()
    {
        let text = format!("{key}: {alg}, kid {kid}: is as recorded, and does not sign now: {why}");
        let remedy = "do what it says; it is tried again every few seconds";
        return Line::fail(Subject::Key, text, remedy);
    }
    if let Condition::Failed { why, .. } = &live.condition {
        let text =
            format!("{key}: {alg}, kid {kid}: is as recorded now, and was not before: {why}");
        return Line::fail(
            Subject::Key,
            text,
            "restart the keystore, which takes it up again",
        );
    }
    let imported = match evidence.imported {
        true => ", may have been elsewhere",
        false => "",
    };
    let text = format!(
        "{key}: {alg}, kid {kid}: there with the recorded public key, can only sign (evidence \
         {}{imported}); {purpose}",
        level(evidence.level)
    );
    Line::ok(Subject::Key, text)
}

fn purpose(purpose: &Purpose) -> String {
    match purpose {
        Purpose::ClientAuthentication { sub, aud, .. } => format!("for client {sub} at {aud}"),
        Purpose::Account { iss, aud, .. } => match aud {
            Some(aud) => format!("for account {} at {aud}", iss.as_str()),
            None => format!("for account {}", iss.as_str()),
        },
        Purpose::Federation { iss, subjects } => match subjects.len() {
            1 => format!("for issuer {iss}, 1 subject"),
            subjects => format!("for issuer {iss}, {subjects} subjects"),
        },
    }
}

fn level(level: EvidenceLevel) -> &'static str {
    match level {
        EvidenceLevel::None => "none",
        EvidenceLevel::Asserted => "asserted",
        EvidenceLevel::DeviceAttested => "device-attested",
        EvidenceLevel::TpmCertified => "tpm-certified",
    }
}

fn strange(found: Result<Vec<String>, Error>) -> Line {
    let labels = match found {
        Ok(labels) => labels,
        Err(error) => {
            let remedy = "wait until the token answers, then look again";
            return Line::fail(Subject::Strange, error.to_string(), remedy);
        }
    };
    if labels.is_empty() {
        return Line::ok(
            Subject::Strange,
            "nothing looks like ours and is not recorded",
        );
    }
    let mut shown = labels[..labels.len().min(STRANGE_SHOWN)].join(", ");
    if labels.len() > STRANGE_SHOWN {
        shown += &format!(" and {} more", labels.len() - STRANGE_SHOWN);
    }
    let text = format!("look like ours and are not recorded: {shown}");
    let remedy = "find out who put them there: another host that shares the token, or a keystore's \
                  state that is lost; they are never used and never destroyed by us";
    Line::warn(Subject::Strange, text, remedy)
}

/// An algorithm whose keys any token makes in well under a second. A chip looks for the primes of an
/// RSA key for up to a minute.
fn quick(algs: &[Alg]) -> Option<Alg> {
    [Alg::ES256, Alg::ES384, Alg::EdDSA]
        .into_iter()
        .find(|alg| algs.contains(alg))
}

fn rate<B: Backend>(backend: &B) -> Line {
    let Some(alg) = quick(&backend.algs()) else {
        let text = "not measured: making a key for the trial would take this token, which has RSA \
                    alone, up to a minute";
        return Line::ok(Subject::Rate, text);
    };
    let mut trial = match backend.trial(alg) {
        Ok(trial) => trial,
        Err(error) => return no_trial(&error),
    };
    let tried = measure(alg, &mut *trial);
    // Whatever came of it, the key goes.
    let ended = trial.end();
    match (tried, ended) {
        (Err(error), _) => {
            let remedy = "see the lines about token and keys above";
            Line::fail(Subject::Rate, error.to_string(), remedy)
        }
        (Ok(_), Err(error)) => {
            let text = format!("the trial's key could not be destroyed: {error}");
            let remedy = "restart the keystore: the token forgets the key with its session";
            Line::warn(Subject::Rate, text, remedy)
        }
        (Ok(pace), Ok(())) => Line::ok(Subject::Rate, pace.text(alg, backend.parallelism())),
    }
}

/// A token need not make keys that it does not keep.
fn no_trial(error: &Error) -> Line {
    let text = format!("not measured, no key for a trial: {error}");
    match error.kind() {
        Kind::Unavailable => {
            let remedy = "look again when the token answers, or others use it less";
            Line::warn(Subject::Rate, text, remedy)
        }
        _ => Line::ok(Subject::Rate, text),
    }
}

/// What a trial showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    signatures: u32,
    /// Time inside signatures, without the pauses.
    busy: Duration,
    slowest: Duration,
}

impl Pace {
    fn text(self, alg: Alg, parallelism: usize) -> String {
        let Pace {
            signatures,
            busy,
            slowest,
        } = self;
        let each = busy / signatures.max(1);
        let rate = f64::from(signatures) / busy.as_secs_f64().max(f64::EPSILON);
        let at_a_time = match parallelism {
            1 => "one at a time".to_owned(),
            many => format!("one after the other, and it makes {many} at a time"),
        };
        format!(
            "{alg}: {} signatures a second, {at_a_time}; {} each, the slowest of {signatures} {}",
            rounded(rate),
            millis(each),
            millis(slowest)
        )
    }
}

/// Two digits are enough for what changes from one second to the next.
fn rounded(rate: f64) -> String {
    match rate {
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Signs for a while. The first signature is verified: a rate of wrong ones is none.
fn measure(alg: Alg, trial: &mut dyn Trial) -> Result<Pace, Error> {
    let input = SigningInput::probe(alg, PROBE);
    let first = trial.sign(input.as_bytes())?; // brings the key in: not counted
    let verifier = trial.public_key().verifier(alg)?;
    let _valid = verifier
        .verify(input.as_bytes(), &first)
        .map_err(|WrongSignature| {
            let text = format!(
                "a key that was made for a trial signs {alg} wrongly; check the version of the \
                 token's library"
            );
            Error::new(Kind::Mismatch, text)
        })?;
    let mut pace = Pace {
        signatures: 0,
        busy: Duration::ZERO,
        slowest: Duration::ZERO,
    };
    let start = Instant::now();
    while pace.signatures < SIGNATURES_MIN || start.elapsed() < TRIAL_TIME_MAX {
        let begun = Instant::now();
        trial.sign(input.as_bytes())?;
        let took = begun.elapsed();
        pace.signatures += 1;
        pace.busy += took;
        pace.slowest = pace.slowest.max(took);
        thread::sleep(took.min(PAUSE_MAX));
    }
    Ok(pace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::Verdict;

    #[test]
    fn a_rate_says_how_it_was_measured() {
        let pace = |signatures, busy| Pace {
            signatures,
            busy: Duration::from_micros(busy),
            slowest: Duration::from_millis(4),
        };
        assert_eq!(
            pace(600, 500_000).text(Alg::ES256, 1),
            "ES256: 1200 signatures a second, one at a time; 0.83 ms each, the slowest of 600 4.00 \
             ms"
        );
        assert_eq!(
            pace(3, 900_000).text(Alg::ES384, 4),
            "ES384: 3.3 signatures a second, one after the other, and it makes 4 at a time; \
             300.00 ms each, the slowest of 3 4.00 ms"
        );
    }

    #[test]
    fn no_rsa_key_is_made_for_a_trial() {
        assert_eq!(quick(&[Alg::RS256, Alg::PS256]), None);
        assert_eq!(quick(&[Alg::ES384, Alg::RS256]), Some(Alg::ES384));
        assert_eq!(quick(&Alg::ALL), Some(Alg::ES256));
    }

    #[test]
    fn a_token_that_keeps_every_key_is_no_fault_and_a_busy_one_is_a_warning() {
        let verdict = |kind| no_trial(&Error::new(kind, "token: no")).verdict;
        assert_eq!(verdict(Kind::Unsupported), Verdict::Ok);
        assert_eq!(verdict(Kind::Unavailable), Verdict::Warn);
    }

    #[test]
    fn strange_objects_are_named_up_to_a_number() {
        let labels = |n: usize| (0..n).map(|n| format!("assertd/{n}")).collect::<Vec<_>>();
        assert_eq!(strange(Ok(labels(0))).verdict, Verdict::Ok);
        let some = strange(Ok(labels(STRANGE_SHOWN)));
        assert_eq!(some.verdict, Verdict::Warn);
        assert!(some.text.ends_with("assertd/7"), "{}", some.text);
        let many = strange(Ok(labels(STRANGE_SHOWN + 2)));
        assert!(many.text.ends_with("assertd/7 and 2 more"), "{}", many.text);
    }

    #[test]
    fn a_key_is_shown_with_the_party_it_is_for() {
        let client = Purpose::ClientAuthentication {
            iss: "payments-prod".into(),
            sub: "payments-prod".into(),
            aud: "https://as.bank.example".into(),
        };
        let shown = "for client payments-prod at https://as.bank.example";
        assert_eq!(purpose(&client), shown);
    }
}
