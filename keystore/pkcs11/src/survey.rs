//! What an open token tells of itself, for `assertctl keystore check`: module, token, PIN, sessions,
//! memory, algorithms. Asks only for information: no session is opened and no PIN goes out. What is
//! said here is the token's own word; the judgements are pure.

use crate::errors::explain;
use crate::mechanism::{Scheme, algs, key_pair_mechanism};
use crate::token::{LoginNeed, Token, pin_state};
use cryptoki::mechanism::{MechanismInfo, MechanismType};
use cryptoki::slot::{Limit, TokenInfo};
use keystore::inventory::PinState;
use keystore::shown::printable;
use keystore::survey::{Line, Subject};
use keystore::{Alg, Error};

/// Below this part of a token's memory there is soon no room for a key.
const MEMORY_LOW_PERCENT: usize = 5;

/// Everything, in the order in which one thing needs the other.
pub fn of(token: &Token, signers: usize) -> Vec<Line> {
    let mut lines = vec![module(token)];
    match token.context.get_token_info(token.slot) {
        Err(error) => {
            let error = explain(&token.place, "asking the token about itself", &error);
            lines.push(unanswered(Subject::Token, &error)); // and so would say everything below
        }
        Ok(info) => {
            lines.extend(token_itself(token, &info));
            lines.push(pin(pin_state(&info), token.login));
            lines.push(sessions(
                info.session_count(),
                info.max_session_count(),
                signers,
            ));
            lines.push(memory(&[
                (info.free_public_memory(), info.total_public_memory()),
                (info.free_private_memory(), info.total_private_memory()),
            ]));
            lines.extend(algorithms(token));
        }
    }
    lines
}

fn unanswered(subject: Subject, error: &Error) -> Line {
    let remedy = "do what it says; if the token has been away, restart the keystore";
    Line::fail(subject, error.to_string(), remedy)
}

fn module(token: &Token) -> Line {
    let path = token.module.display();
    match token.context.get_library_info() {
        Ok(info) => {
            let text = format!(
                "{path}: {}, {}, version {}, PKCS#11 {}",
                printable(info.manufacturer_id()),
                printable(info.library_description()),
                info.library_version(),
                info.cryptoki_version()
            );
            Line::ok(Subject::Module, text)
        }
        Err(error) => {
            let place = format!("module {path}");
            unanswered(
                Subject::Module,
                &explain(&place, "asking who made it", &error),
            )
        }
    }
}

fn token_itself(token: &Token, info: &TokenInfo) -> Vec<Line> {
    let text = format!(
        "{}: serial {}, {} {}, hardware {}, firmware {}",
        token.place,
        printable(info.serial_number()),
        printable(info.manufacturer_id()),
        printable(info.model()),
        info.hardware_version(),
        info.firmware_version()
    );
    let mut lines = vec![Line::ok(Subject::Token, text)];
    if info.write_protected() {
        let text = format!(
            "{} is write-protected: what it has signs, and no key can be made",
            token.place
        );
        let remedy = "take the protection away by the vendor's tool, then restart the keystore";
        lines.push(Line::warn(Subject::Token, text, remedy));
    }
    if info.error_state() {
        let text = format!("{} says that it is in its error state", token.place);
        let remedy = "power it off and on, or ask its vendor's tool why; then restart the keystore";
        lines.push(Line::fail(Subject::Token, text, remedy));
    }
    lines
}

/// We are logged in, so that nothing here is broken yet: it is about the next start.
fn pin(state: PinState, login: LoginNeed) -> Line {
    let warn = |text: &str, remedy: &str| Line::warn(Subject::Pin, text, remedy);
    if login == LoginNeed::NotNeeded {
        return warn(
            "the token asks for no login: whoever may use the module can sign with our keys",
            "set a user PIN by the vendor's tool, and give it to the keystore",
        );
    }
    match state {
        PinState::Ready => Line::ok(
            Subject::Pin,
            "logged in; no wrong user PIN since the last right one",
        ),
        PinState::CountLow => warn(
            "logged in, but somebody has given a wrong user PIN since",
            "find out who else uses the token; restart the keystore: its right PIN clears the \
             counter",
        ),
        PinState::FinalTry => warn(
            "logged in, but the user PIN has one try left: somebody has given wrong ones. The \
             keystore would not spend it at its next start",
            "find out who else uses the token; log in once by the vendor's tool with the right PIN",
        ),
        PinState::Locked => warn(
            "logged in, but the user PIN has been locked since: this keystore signs until it ends, \
             and the next one cannot start",
            "unlock the user PIN with the SO PIN before the keystore is restarted",
        ),
        PinState::NotSet => warn(
            "logged in, but the token says that its user PIN is not set any more",
            "set the user PIN with the SO PIN before the keystore is restarted",
        ),
        PinState::ToBeChanged => warn(
            "logged in, but the user PIN has expired, or is the one it came with",
            "set a new user PIN by the vendor's tool, give it to the keystore and restart that",
        ),
    }
}

fn sessions(open: Option<u64>, most: Limit, signers: usize) -> Line {
    let shown = match open {
        Some(open) => format!("{open} open"),
        None => "how many are open is not told".to_owned(),
    };
    let allowed = match most {
        Limit::Max(most) => format!("{most} allowed"),
        Limit::Infinite => "any number allowed".to_owned(),
        Limit::Unavailable => "how many are allowed is not told".to_owned(),
    };
    let text = format!("{signers} of ours sign; in the whole token {shown}, {allowed}");
    match (open, most) {
        (Some(open), Limit::Max(most)) if open >= most => Line::warn(
            Subject::Sessions,
            text,
            "close other programs that use the token, or lower `signers`: looking at keys and \
             making them needs a session more",
        ),
        _ => Line::ok(Subject::Sessions, text),
    }
}

/// Free and total bytes, public and private; tokens with one memory tell it twice.
fn memory(parts: &[(Option<usize>, Option<usize>); 2]) -> Line {
    let names = ["public", "private"];
    let told: Vec<(String, bool)> = names
        .iter()
        .zip(parts)
        .filter_map(|(name, part)| match *part {
            (Some(free), Some(total)) => {
                let low = free < total / 100 * MEMORY_LOW_PERCENT;
                Some((
                    format!("{name} memory: {free} of {total} bytes are free"),
                    low,
                ))
            }
            (Some(free), None) => {
                Some((format!("{name} memory: {free} bytes are free"), free == 0))
            }
            (None, _) => None,
        })
        .collect();
    if told.is_empty() {
        return Line::ok(
            Subject::Memory,
            "the token does not tell how much room it has",
        );
    }
    let texts: Vec<&str> = told.iter().map(|(text, _)| text.as_str()).collect();
    let text = texts.join("; ");
    match told.iter().any(|(_, low)| *low) {
        true => Line::warn(
            Subject::Memory,
            text,
            "destroy objects that nobody needs: `assertctl keystore check` names strange ones",
        ),
        false => Line::ok(Subject::Memory, text),
    }
}

/// How each algorithm is signed with, and what is missing for the others.
fn algorithms(token: &Token) -> Vec<Line> {
    let can = algs(&token.mechanisms);
    let mut lines = Vec::new();
    for alg in Alg::ALL {
        if !can.contains(&alg) {
            lines.push(Line::ok(
                Subject::Algs,
                format!("no {alg}: {}", missing(alg, &token.mechanisms)),
            ));
            continue;
        }
        let scheme = Scheme::choose(alg, &token.mechanisms);
        let mechanisms: Vec<MechanismType> = [key_pair_mechanism(alg).mechanism_type()]
            .into_iter()
            .chain(scheme.map(Scheme::mechanism_type))
            .collect();
        let sizes: Result<Vec<Size>, Error> = mechanisms
            .iter()
            .map(|mechanism| {
                let info = token.context.get_mechanism_info(token.slot, *mechanism);
                info.map(|info| Size::of(&info)).map_err(|error| {
                    explain(&token.place, &format!("asking about {mechanism}"), &error)
                })
            })
            .collect();
        lines.push(match sizes {
            Ok(sizes) => of_algorithm(alg, &mechanisms, &sizes),
            Err(error) => unanswered(Subject::Algs, &error),
        });
    }
    lines
}

fn missing(alg: Alg, listed: &[MechanismType]) -> String {
    let maker = key_pair_mechanism(alg).mechanism_type();
    match (listed.contains(&maker), Scheme::choose(alg, listed)) {
        (false, Some(_)) => format!("the token does not list {maker}"),
        (true, _) => "the token lists no mechanism that signs so".to_owned(),
        (false, None) => format!("the token lists neither {maker} nor one that signs so"),
    }
}

/// Sizes of keys that a mechanism takes, as the token tells; 0 and 0 where it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    min: usize,
    max: usize,
}

impl Size {
    fn of(info: &MechanismInfo) -> Size {
        Size {
            min: info.min_key_size(),
            max: info.max_key_size(),
        }
    }

    /// Some tokens count in bytes, an Edwards key has 255 bits or 256, and some tokens say nothing: a
    /// range that has the size in any of these ways is no reason for a warning.
    fn has(self, alg: Alg) -> bool {
        let within = |size: usize| (self.min..=self.max).contains(&size);
        let bits = bits(alg);
        self == Size { min: 0, max: 0 }
            || within(bits)
            || within(bits.next_multiple_of(8))
            || within(bits.div_ceil(8))
    }
}

fn bits(alg: Alg) -> usize {
    match alg {
        Alg::ES256 => 256,
        Alg::ES384 => 384,
        Alg::EdDSA => 255,
        Alg::RS256 | Alg::PS256 => 2048,
    }
}

fn of_algorithm(alg: Alg, mechanisms: &[MechanismType], sizes: &[Size]) -> Line {
    let told = mechanisms.iter().zip(sizes).map(|(mechanism, size)| {
        let Size { min, max } = size;
        match (min, max) {
            (0, 0) => mechanism.to_string(),
            _ => format!("{mechanism} ({min} to {max} bits)"),
        }
    });
    let text = format!("{alg} by {}", told.collect::<Vec<_>>().join(" and "));
    match sizes.iter().all(|size| size.has(alg)) {
        true => Line::ok(Subject::Algs, text),
        false => Line::warn(
            Subject::Algs,
            format!("{text}, which leaves out the {} bits of ours", bits(alg)),
            format!("choose another algorithm than {alg} for keys in this token"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystore::survey::Verdict;

    #[test]
    fn each_state_of_the_pin_but_the_good_one_has_a_remedy() {
        let good = pin(PinState::Ready, LoginNeed::Needed);
        assert_eq!(good.verdict, Verdict::Ok);
        for (state, phrase) in [
            (PinState::CountLow, "clears the counter"),
            (PinState::FinalTry, "log in once by the vendor's tool"),
            (PinState::Locked, "unlock the user PIN with the SO PIN"),
            (PinState::NotSet, "set the user PIN with the SO PIN"),
            (PinState::ToBeChanged, "set a new user PIN"),
        ] {
            let line = pin(state, LoginNeed::Needed);
            assert_eq!(line.verdict, Verdict::Warn, "{state:?}");
            assert!(line.remedy.unwrap().contains(phrase), "{state:?}");
        }
        let open = pin(PinState::Ready, LoginNeed::NotNeeded);
        assert!(open.text.contains("no login"), "{}", open.text);
        assert_eq!(open.verdict, Verdict::Warn);
    }

    #[test]
    fn sessions_warn_at_the_limit_and_not_before() {
        let of = |open, most| sessions(open, most, 4);
        assert_eq!(
            of(Some(6), Limit::Max(7)).text,
            "4 of ours sign; in the whole token 6 open, 7 allowed"
        );
        assert_eq!(of(Some(6), Limit::Max(7)).verdict, Verdict::Ok);
        assert_eq!(of(Some(7), Limit::Max(7)).verdict, Verdict::Warn);
        for most in [Limit::Infinite, Limit::Unavailable] {
            assert_eq!(of(Some(70_000), most).verdict, Verdict::Ok);
        }
        assert_eq!(of(None, Limit::Max(1)).verdict, Verdict::Ok);
    }

    #[test]
    fn memory_is_low_below_a_twentieth_and_may_be_unknown() {
        let of = |free, total| memory(&[(None, None), (free, total)]);
        assert_eq!(
            of(Some(5_000), Some(100_000)).verdict,
            Verdict::Ok,
            "exactly a twentieth"
        );
        assert_eq!(of(Some(4_800), Some(100_000)).verdict, Verdict::Warn);
        assert_eq!(of(Some(0), None).verdict, Verdict::Warn);
        assert_eq!(of(Some(0), Some(0)).verdict, Verdict::Ok, "not counted");
        assert!(of(None, Some(9)).text.contains("does not tell"));
    }

    #[test]
    fn a_range_of_sizes_without_ours_is_a_warning_whatever_the_unit() {
        let of = |alg, min, max| {
            let ecdsa = [MechanismType::ECDSA];
            of_algorithm(alg, &ecdsa, &[Size { min, max }])
        };
        assert_eq!(
            of(Alg::ES256, 112, 521).text,
            "ES256 by CKM_ECDSA (112 to 521 bits)"
        );
        for (alg, min, max) in [
            (Alg::ES256, 112, 521),
            (Alg::ES256, 0, 0),
            (Alg::RS256, 128, 512), // bytes
            (Alg::EdDSA, 255, 448),
            (Alg::EdDSA, 256, 456), // SoftHSM
            (Alg::EdDSA, 32, 57),   // bytes
        ] {
            assert_eq!(of(alg, min, max).verdict, Verdict::Ok, "{alg} {min} {max}");
        }
        let narrow = of(Alg::ES384, 256, 256);
        assert_eq!(narrow.verdict, Verdict::Warn);
        assert!(narrow.text.contains("384 bits"), "{}", narrow.text);
    }

    #[test]
    fn what_is_missing_for_an_algorithm_is_named() {
        let maker = MechanismType::ECC_EDWARDS_KEY_PAIR_GEN;
        for (listed, phrase) in [
            (vec![], "neither CKM_EC_EDWARDS_KEY_PAIR_GEN"),
            (vec![maker], "no mechanism that signs so"),
            (vec![MechanismType::EDDSA], "does not list CKM_EC_EDWARDS"),
        ] {
            let text = missing(Alg::EdDSA, &listed);
            assert!(text.contains(phrase), "{text}");
        }
    }
}
