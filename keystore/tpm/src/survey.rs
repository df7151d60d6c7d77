//! What an open TPM tells of itself, for `assertctl keystore check`: chip, primary, sessions, slots,
//! lockout, algorithms. Only asks; flushes, clears and repairs nothing. The binding remembers what it
//! was once told of a property, so that what changes is asked of the TPM here. Judgements are pure.

use crate::backend::{Proof, TpmBackend};
use crate::chip::{Chip, Make};
use crate::connection::{Connection, Lasting};
use crate::failure::Failure;
use crate::primary::{self, OWNER, PERSISTENT, Pss};
use crate::session::Mode;
use keystore::config::Sessions;
use keystore::survey::{Line, Subject};
use keystore::tcti::{Company, Tcti};
use keystore::{Alg, Kind};
use tss_esapi::constants::tss::{TPM2_LOADED_SESSION_FIRST, TPM2_TRANSIENT_FIRST};
use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::structures::CapabilityData;
use tss_esapi::{Context, WrapperErrorKind};

/// inLockout in TPMA_PERMANENT (TPM 2.0 Part 2 §8.6).
const IN_LOCKOUT: u32 = 1 << 9;

/// Most handles asked for at a time; a chip has three to ten slots.
const HANDLES_MAX: u32 = 64;

/// Most keys that are named where they are not bound.
const UNBOUND_SHOWN: usize = 8;

/// One step: what is asked and said about one thing.
type Step = fn(&mut Connection, &Lasting) -> Result<Line, Failure>;

/// Everything, from the chip upwards. Each step is a turn of its own at the TPM, so that signatures
/// come between them.
pub fn of(backend: &TpmBackend) -> Vec<Line> {
    let steps: [(Subject, Step); 8] = [
        (Subject::Tpm, chip),
        (Subject::Primary, primary),
        (Subject::Sessions, sessions),
        (Subject::Lockout, lockout),
        (Subject::Slots, slots),
        (Subject::Slots, session_slots),
        (Subject::Algs, algs),
        (Subject::Salt, salt),
    ];
    let of_health: [(Subject, Step); 2] = [(Subject::Tpm, health), (Subject::Tpm, bonds)];
    let binds = usize::from(backend.healthy.is_some());
    let steps = steps
        .into_iter()
        .chain(of_health.into_iter().take(2 * binds));
    let mut lines = Vec::new();
    for (subject, step) in steps {
        match backend.at_desk(step) {
            Ok(line) => lines.push(line),
            Err(error) => {
                let remedy = "do what it says, then look again";
                lines.push(Line::fail(subject, error.to_string(), remedy));
                if matches!(error.kind(), Kind::Unavailable | Kind::Absent) {
                    break; // the others would say the same
                }
            }
        }
    }
    lines.extend(proof(backend));
    lines
}

/// Whether the host is in a state that keys sign in.
fn health(connection: &mut Connection, lasting: &Lasting) -> Result<Line, Failure> {
    let Some(healthy) = &lasting.healthy else {
        return Ok(Line::ok(
            Subject::Tpm,
            "keys are bound to no state of the host",
        ));
    };
    match connection.bond_now(lasting) {
        Ok(bond) => {
            let state = bond.map(|bond| bond.state.to_string()).unwrap_or_default();
            let approved = match healthy.authority {
                Some(_) => ", which is approved",
                None => "",
            };
            let text =
                format!("the state of the host that new keys are bound to: PCR {state}{approved}");
            Ok(Line::ok(Subject::Tpm, text))
        }
        Err(failure) if matches!(failure.error.kind(), Kind::Unhealthy | Kind::Refused) => {
            let remedy =
                "do what it says; until then no key is made, and those that are bound do not sign";
            Ok(Line::warn(Subject::Tpm, failure.error.to_string(), remedy))
        }
        Err(failure) => Err(failure),
    }
}

/// How many keys are bound to a state of the host.
fn bonds(_: &mut Connection, lasting: &Lasting) -> Result<Line, Failure> {
    let (bound, unbound) = lasting.keys.bonds()?;
    let all = bound + unbound.len();
    if unbound.is_empty() {
        let text = format!("all {all} keys are bound to a state of the host");
        return Ok(Line::ok(Subject::Tpm, text));
    }
    let are = if bound == 1 { "is" } else { "are" };
    let text = format!(
        "{bound} of {all} keys {are} bound to a state of the host; the others sign in any: {}",
        unbound[..unbound.len().min(UNBOUND_SHOWN)].join(", ")
    );
    let remedy = "`assertctl keys rotate KEY` makes the next version, which is bound; an imported one never is";
    Ok(Line::warn(Subject::Tpm, text, remedy))
}

/// Of a TPM that cannot prove what its keys are.
fn proof(backend: &TpmBackend) -> Option<Line> {
    let Proof::None(why) = &backend.proof else {
        return None;
    };
    Some(Line::warn(
        Subject::Tpm,
        format!("cannot prove what its keys are: {why}"),
        "do what it says; until then targets that ask for evidence `tpm-certified` get nothing",
    ))
}

fn chip(connection: &mut Connection, lasting: &Lasting) -> Result<Line, Failure> {
    let revision = ask(connection, lasting, PropertyTag::Revision)?;
    Ok(of_chip(&connection.chip, &lasting.tcti, revision))
}

/// The revision has two decimals: 138 is 1.38 (TPM 2.0 Part 2 §6.13).
fn of_chip(chip: &Chip, tcti: &Tcti, revision: u32) -> Line {
    let make = match chip.make {
        Make::Discrete => "a chip of its own",
        Make::Firmware => "a part of the processor's firmware",
        Make::Software => "a program, of a hypervisor or for tests",
        Make::Unknown => "built by a maker that we do not know",
    };
    let company = match tcti.company() {
        Company::Alone => "ours alone",
        Company::Shared => "shared by the kernel's resource manager",
    };
    let (whole, decimals) = (revision / 100, revision % 100);
    let text = format!(
        "{chip} at {tcti}, {company}: {make}; TPM 2.0 revision {whole}.{decimals:02}; look up its \
         maker's advisories for this firmware"
    );
    Line::ok(Subject::Tpm, text)
}

fn primary(connection: &mut Connection, lasting: &Lasting) -> Result<Line, Failure> {
    let (primary, place) = (connection.primary, &lasting.place);
    let name = primary::name_now(&mut connection.context, primary, place)?;
    Ok(of_primary(primary.parent, &name, lasting.memory.primary()))
}

fn of_primary(parent: u32, name: &str, recorded: Option<&str>) -> Line {
    let what = match parent {
        OWNER => "made from the standard template in the owner hierarchy".to_owned(),
        PERSISTENT => format!("the storage root key at {PERSISTENT:#x}"),
        other => format!("the key at {other:#x}"),
    };
    match recorded {
        Some(recorded) if recorded == name => Line::ok(
            Subject::Primary,
            format!("{what}; its name is the recorded one: {name}"),
        ),
        _ => Line::fail(
            Subject::Primary,
            format!(
                "{what}; its name is {name}, and recorded is {}",
                recorded.unwrap_or("none")
            ),
            "bring back the TPM that our keys were made in, and restart the keystore",
        ),
    }
}

fn sessions(connection: &mut Connection, _: &Lasting) -> Result<Line, Failure> {
    Ok(of_sessions(connection.mode, connection.chip.make))
}

fn of_sessions(mode: Mode, make: Make) -> Line {
    let why = match (mode.sessions, make) {
        (Sessions::Encrypted, _) => "no auth value passes between processor and TPM",
        (Sessions::Password, Make::Firmware) => "no bus lies between processor and TPM",
        (Sessions::Password, Make::Software) => "a program has no bus that one could listen to",
        (Sessions::Password, Make::Discrete | Make::Unknown) => {
            return Line::warn(
                Subject::Sessions,
                format!("{mode}: whoever can listen to the TPM's bus reads our keys' auth values"),
                "write `sessions = \"encrypted\"` in the keystore's section, or leave `sessions` \
                 out, and restart the keystore",
            );
        }
    };
    Line::ok(Subject::Sessions, format!("{mode}: {why}"))
}

/// The defence against guessing (TPM 2.0 Part 1 §19.8).
struct Defence {
    is_locked: bool,
    counter: u32,
    most: u32,
    /// Seconds after which one failure is forgotten.
    interval_s: u32,
}

fn lockout(connection: &mut Connection, lasting: &Lasting) -> Result<Line, Failure> {
    let permanent = ask(connection, lasting, PropertyTag::Permanent)?;
    Ok(of_lockout(&Defence {
        is_locked: permanent & IN_LOCKOUT != 0,
        counter: ask(connection, lasting, PropertyTag::LockoutCounter)?,
        most: ask(connection, lasting, PropertyTag::MaxAuthFail)?,
        interval_s: ask(connection, lasting, PropertyTag::LockoutInterval)?,
    }))
}

fn of_lockout(defence: &Defence) -> Line {
    let Defence {
        is_locked,
        counter,
        most,
        interval_s,
    } = *defence;
    let count = format!("wrong auth values counted: {counter} of {most}");
    let forgotten = match interval_s {
        0 => "none is forgotten with time".to_owned(),
        s => format!("one is forgotten every {s} s"),
    };
    match is_locked {
        false => Line::ok(
            Subject::Lockout,
            format!("not locked: {count}, {forgotten}; our keys are not subject to it (noDA)"),
        ),
        true => Line::warn(
            Subject::Lockout,
            format!(
                "locked: {count}, {forgotten}. Our keys are not subject to it (noDA) and go on \
                 signing; what others keep in this TPM does not work"
            ),
            "find out who did it; wait, or run `tpm2_dictionarylockout --clear-lockout` with the \
             lockout hierarchy's auth value",
        ),
    }
}

/// Who has the places for objects.
struct Places {
    company: Company,
    capacity: usize,
    ours: usize,
    /// Handles that this program can see.
    seen: usize,
    free: u32,
}

fn slots(connection: &mut Connection, lasting: &Lasting) -> Result<Line, Failure> {
    let is_transient = connection.primary.parent == OWNER;
    let ours = connection.slots.loaded() + usize::from(is_transient);
    Ok(of_slots(&Places {
        company: lasting.tcti.company(),
        capacity: connection.capacity(),
        ours,
        seen: handles(connection, lasting, TPM2_TRANSIENT_FIRST, ours)?,
        free: ask(connection, lasting, PropertyTag::HrTransientAvail)?,
    }))
}

fn of_slots(places: &Places) -> Line {
    let Places {
        company,
        capacity,
        ours,
        seen,
        free,
    } = *places;
    let text = format!(
        "room for {capacity} of our keys at a time, others are saved and brought back; objects in \
         the TPM now: {ours} of ours; free places: {free}"
    );
    let strange = seen.saturating_sub(ours);
    match company {
        // There, what others have is not to be seen.
        Company::Alone if strange > 0 => Line::warn(
            Subject::Slots,
            format!("{text}; not ours: {strange}, and each takes the place of a key"),
            "end the program that uses the TPM beside us, or give both the resource manager: \
             `tcti = \"device:/dev/tpmrm0\"`; the keystore flushes what is left when it starts",
        ),
        _ => Line::ok(Subject::Slots, text),
    }
}

fn session_slots(connection: &mut Connection, lasting: &Lasting) -> Result<Line, Failure> {
    let ours = connection.session.open();
    Ok(of_session_slots(
        lasting.tcti.company(),
        ours,
        handles(connection, lasting, TPM2_LOADED_SESSION_FIRST, ours)?,
        ask(connection, lasting, PropertyTag::HrLoadedAvail)?,
    ))
}

fn of_session_slots(company: Company, ours: usize, seen: usize, free: u32) -> Line {
    let text = format!("sessions in the TPM now: {ours} of ours; free places: {free}");
    let strange = seen.saturating_sub(ours);
    match company {
        Company::Alone if strange > 0 => Line::warn(
            Subject::Slots,
            format!("{text}; not ours: {strange}"),
            "end the program that uses the TPM beside us; the keystore flushes what is left when \
             it starts",
        ),
        _ => Line::ok(Subject::Slots, text),
    }
}

fn algs(connection: &mut Connection, _: &Lasting) -> Result<Line, Failure> {
    Ok(of_algs(&connection.algs))
}

fn of_algs(has: &[Alg]) -> Line {
    let named = |wanted: bool| {
        let all = Alg::ALL.into_iter();
        let named = all.filter(|alg| has.contains(alg) == wanted);
        named.map(Alg::name).collect::<Vec<_>>().join(" ")
    };
    match (has.is_empty(), has.len() == Alg::ALL.len()) {
        (true, _) => Line::fail(
            Subject::Algs,
            "it has none of our algorithms",
            "use another TPM; every one of the TCG's PC profile has ES256",
        ),
        (_, true) => Line::ok(Subject::Algs, named(true)),
        _ => Line::ok(
            Subject::Algs,
            format!("{}; not {}", named(true), named(false)),
        ),
    }
}

fn salt(connection: &mut Connection, lasting: &Lasting) -> Result<Line, Failure> {
    let has_pss = connection.algs.contains(&Alg::PS256);
    let pss = lasting.memory.pss(connection.chip.firmware);
    Ok(of_salt(has_pss, pss))
}

/// Trying it costs an RSA key, which takes a chip seconds to minutes: it is done when the first key
/// for PS256 is made, and said here.
fn of_salt(has_pss: bool, pss: Pss) -> Line {
    let text = match (has_pss, pss) {
        (_, Pss::IsNotPs256) => {
            "PSS signatures do not have the salt of 32 bytes that PS256 has: it is not offered, \
             use RS256"
        }
        (true, Pss::IsPs256) => "PSS signatures have a salt of 32 bytes, as PS256 has: tried",
        (true, Pss::NotTried) => {
            "how long the salt of PSS signatures is has not been tried: the first key for PS256 \
             will show it, and is refused if it is not 32 bytes"
        }
        (false, Pss::IsPs256 | Pss::NotTried) => "no PSS signatures, so no PS256",
    };
    Line::ok(Subject::Salt, text)
}

/// A property as it is now; 0 where the TPM does not have it.
fn ask(
    connection: &mut Connection,
    lasting: &Lasting,
    property: PropertyTag,
) -> Result<u32, Failure> {
    let asked = property_now(&mut connection.context, property);
    asked.map_err(|error| Failure::of(&lasting.place, "asking it about itself", &error))
}

fn property_now(context: &mut Context, property: PropertyTag) -> tss_esapi::Result<u32> {
    let tpm = CapabilityType::TpmProperties;
    let (data, _) = context.get_capability(tpm, property.into(), 1)?;
    let CapabilityData::TpmProperties(told) = data else {
        let kind = WrapperErrorKind::WrongValueFromTpm;
        return Err(tss_esapi::Error::WrapperError(kind));
    };
    Ok(told.find(property).map_or(0, |told| told.value()))
}

/// How many handles of a kind the TPM has, of which `ours` are. Where the kernel's resource manager
/// stands before it nobody is shown those of others. And it numbers our own objects from 0x80ffffff
/// down (tpm2-space.c), which tss-esapi 7.7.0 takes for no handle: one lower is its last.
fn handles(
    connection: &mut Connection,
    lasting: &Lasting,
    first: u32,
    ours: usize,
) -> Result<usize, Failure> {
    if lasting.tcti.company() == Company::Shared {
        return Ok(ours);
    }
    let failed =
        |error: tss_esapi::Error| Failure::of(&lasting.place, "asking what is in it", &error);
    let context = &mut connection.context;
    let (data, _) = context
        .get_capability(CapabilityType::Handles, first, HANDLES_MAX)
        .map_err(failed)?;
    match data {
        CapabilityData::Handles(handles) => Ok(handles.into_inner().len()),
        _ => Err(failed(tss_esapi::Error::WrapperError(
            WrapperErrorKind::WrongValueFromTpm,
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystore::survey::Verdict;

    #[test]
    fn a_tpm_is_shown_with_the_way_to_it_and_who_shares_it() {
        let chip = Chip::of_make(Make::Software);
        for (tcti, company) in [
            ("device:/dev/tpmrm0", "shared by the kernel"),
            ("swtpm:host=127.0.0.1,port=1", "ours alone"),
        ] {
            let line = of_chip(&chip, &Tcti::parse(tcti).unwrap(), 138);
            for part in [tcti, company, "revision 1.38", "a program"] {
                assert!(line.text.contains(part), "{part}: {}", line.text);
            }
        }
    }

    #[test]
    fn another_primary_fails() {
        assert_eq!(of_primary(OWNER, "ab", Some("ab")).verdict, Verdict::Ok);
        for recorded in [Some("cd"), None] {
            let line = of_primary(PERSISTENT, "ab", recorded);
            assert_eq!(line.verdict, Verdict::Fail);
            assert!(line.text.contains("0x81000001"), "{}", line.text);
        }
    }

    #[test]
    fn auth_values_on_a_bus_are_a_warning() {
        let of = |sessions, make| {
            let mode = Mode::choose(Some(sessions), &Chip::of_make(make));
            of_sessions(mode, make).verdict
        };
        for make in [Make::Discrete, Make::Unknown] {
            assert_eq!(of(Sessions::Password, make), Verdict::Warn);
            assert_eq!(of(Sessions::Encrypted, make), Verdict::Ok);
        }
        for make in [Make::Firmware, Make::Software] {
            assert_eq!(of(Sessions::Password, make), Verdict::Ok);
        }
    }

    #[test]
    fn a_lockout_is_a_warning_that_says_that_our_keys_sign() {
        let of = |is_locked| {
            of_lockout(&Defence {
                is_locked,
                counter: 3,
                most: 32,
                interval_s: 7200,
            })
        };
        let open = of(false);
        assert_eq!(open.verdict, Verdict::Ok);
        assert!(open.text.contains("counted: 3 of 32"), "{}", open.text);
        let locked = of(true);
        assert_eq!(locked.verdict, Verdict::Warn);
        assert!(locked.text.contains("go on signing"), "{}", locked.text);
        assert!(locked.remedy.unwrap().contains("--clear-lockout"));
    }

    #[test]
    fn what_is_not_ours_is_told_only_where_it_can_be_seen() {
        let of = |company, ours, seen| {
            of_slots(&Places {
                company,
                capacity: 2,
                ours,
                seen,
                free: 1,
            })
            .verdict
        };
        assert_eq!(of(Company::Alone, 2, 2), Verdict::Ok);
        assert_eq!(of(Company::Alone, 2, 3), Verdict::Warn);
        assert_eq!(of(Company::Shared, 2, 3), Verdict::Ok);
        let sessions = |company, seen| of_session_slots(company, 1, seen, 2).verdict;
        assert_eq!(sessions(Company::Alone, 1), Verdict::Ok);
        assert_eq!(sessions(Company::Alone, 2), Verdict::Warn);
        assert_eq!(sessions(Company::Shared, 2), Verdict::Ok);
    }

    #[test]
    fn algorithms_that_are_missing_are_named_and_none_at_all_fails() {
        let line = of_algs(&[Alg::ES256, Alg::RS256]);
        assert_eq!(line.text, "ES256 RS256; not ES384 PS256 EdDSA");
        assert_eq!(of_algs(&[]).verdict, Verdict::Fail);
    }

    #[test]
    fn the_salt_is_told_as_far_as_it_is_known() {
        for (has_pss, pss, phrase) in [
            (true, Pss::NotTried, "has not been tried"),
            (true, Pss::IsPs256, "32 bytes, as PS256 has: tried"),
            (false, Pss::IsNotPs256, "use RS256"),
            (false, Pss::NotTried, "no PS256"),
        ] {
            let line = of_salt(has_pss, pss);
            assert!(line.text.contains(phrase), "{}", line.text);
        }
    }
}
