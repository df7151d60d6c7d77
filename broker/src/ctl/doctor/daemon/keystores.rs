//! What keeps a keystore from serving, and what to do. The kind is the keystore's own word; where
//! one kind has several remedies its sentence tells them apart.

use super::super::access::quoted;
use super::super::credentials::{make, place};
use super::super::finding::{
    Check, Finding, KEYSTORE, PIN_LOCKED, PIN_MISSING, PIN_WRONG, TOKEN_AMBIGUOUS, TOKEN_MISSING,
};
use super::super::site::{Runner, Site};
use crate::ctl::out::duration;
use assertd_client::api::KeystoreStatus;
use keystore::Kind;
use keystore::config::{BackendKind, PinSource, Section, TokenSelector};
use keystore::protocol::Standing;
use std::path::Path;

/// What a keystore that cannot serve says can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It tries by itself.
    Tries(Kind),
    /// A person acts, and it tries nothing until then.
    NeedsPerson(Kind),
}

impl Word {
    /// What it says of itself; nothing if it serves.
    pub fn of(standing: &Standing) -> Option<Word> {
        match standing {
            Standing::Usable {} => None,
            Standing::Degraded { kind, .. } => Some(Word::Tries(*kind)),
            Standing::Failed { kind, .. } => Some(Word::NeedsPerson(*kind)),
        }
    }
}

/// One keystore's finding.
pub fn finding(
    site: &Site,
    keystore: &KeystoreStatus,
    section: &Section,
    word: Option<Word>,
) -> Finding {
    let name = &keystore.name;
    if keystore.state == "usable" {
        let algs = keystore.algs.join(" ");
        return KEYSTORE.ok(format!("{name}: {}, {algs}", keystore.token));
    }
    let why = keystore.why.as_deref().unwrap_or("no answer yet");
    let text = format!(
        "{name} is {} for {}: {why}",
        keystore.state,
        duration(keystore.since_s)
    );
    if keystore.state == "starting" {
        let remedy = "wait for it: a token may take a minute to open; then look again";
        return KEYSTORE.warn(text, remedy);
    }
    let (check, remedy) = remedy(site, (name, keystore.pid), section, word, why);
    check.fail(text, remedy)
}

/// What helps against `why` one cannot serve, and the check that this answers. A keystore is told by
/// its name and, where that is known, its process id; without a `word` of its own nobody answers.
pub fn remedy(
    site: &Site,
    (name, pid): (&str, Option<u32>),
    section: &Section,
    word: Option<Word>,
    why: &str,
) -> (Check, String) {
    // Handed over at its start, so that trying does not help.
    let wants_pin = section.backend == BackendKind::Pkcs11
        && (why.contains("no PIN:") || why.contains("PIN file"));
    let kind = match word {
        Some(Word::Tries(kind)) if wants_pin => Some(kind),
        Some(Word::Tries(_)) => return by_itself(site, name, section, why),
        Some(Word::NeedsPerson(kind)) => Some(kind),
        // Of the process that assertd itself starts, again and again.
        None if why.contains("started again by itself") => {
            return by_itself(site, name, section, why);
        }
        None => None,
    };
    let again = site.restart_keystore(name, pid);
    if section.backend == BackendKind::Tpm {
        return (KEYSTORE, as_it_says(site, name, &again));
    }
    if wants_pin {
        return (
            PIN_MISSING,
            format!("{}, then {again}", give_pin(name, section)),
        );
    }
    if kind == Some(Kind::BadPin) {
        return (
            PIN_WRONG,
            format!(
                "{} with the right PIN, then {again}",
                give_pin(name, section)
            ),
        );
    }
    if kind == Some(Kind::Locked) {
        return (
            PIN_LOCKED,
            format!("{}, then {again}", unlock(section, why)),
        );
    }
    if why.contains(" tokens have ") {
        return (TOKEN_AMBIGUOUS, say_serial(site, name, section, why));
    }
    if why.contains(NO_TOKEN) {
        let remedy = format!("put the token back; {}", or_another(site, name, section));
        return (TOKEN_MISSING, remedy);
    }
    (KEYSTORE, as_it_says(site, name, &again))
}

/// How a keystore begins to say that its token is not there.
const NO_TOKEN: &str = "no token has ";

/// For one that comes back without us: a restart would not make that sooner.
fn by_itself(site: &Site, name: &str, section: &Section, why: &str) -> (Check, String) {
    if why.contains(NO_TOKEN) {
        let remedy = format!(
            "put the token back, which it notices by itself; {}",
            or_another(site, name, section)
        );
        return (TOKEN_MISSING, remedy);
    }
    let what = match section.backend {
        BackendKind::Pkcs11 => "the token or what its library needs",
        BackendKind::Tpm => "the TPM or what is in its way",
    };
    let remedy = format!(
        "mend what it names, {what}: it tries by itself and then serves, without a restart; {}",
        log(site, name)
    );
    (KEYSTORE, remedy)
}

/// A section may name a token that nobody has.
fn or_another(site: &Site, name: &str, section: &Section) -> String {
    format!(
        "or correct `token` in [keystore.{name}] (`{}` lists what there is) and {}",
        tool(section, "--list-token-slots"),
        restart_both(site, name)
    )
}

/// For a sentence that ends with its own remedy, as all of a TPM's do.
fn as_it_says(site: &Site, name: &str, again: &str) -> String {
    format!("do what it says; {}; then {again}", log(site, name))
}

fn log(site: &Site, name: &str) -> String {
    match site.runner {
        Runner::Units => {
            let unit = site.keystore_unit(name);
            format!("`journalctl -u {unit} -n 20 --no-pager` says more")
        }
        Runner::Somebody(_) => "what assertd said on its standard error says more".to_owned(),
    }
}

/// How the PIN gets to where the configuration says.
fn give_pin(name: &str, section: &Section) -> String {
    match &section.pin {
        Some(PinSource::File(path)) => {
            format!(
                "write the PIN to {} (owner: the keystore's user, mode 0400)",
                path.display()
            )
        }
        Some(PinSource::Credential(id)) => format!("run {}", make(id, &place(id))),
        None => format!(
            "run {}",
            make(&format!("{name}.pin"), &place(&format!("{name}.pin")))
        ),
    }
}

/// A PIN that is locked, was never set, or has one try left, which a right one gives back.
fn unlock(section: &Section, why: &str) -> String {
    let label = section.token.as_ref().and_then(|it| it.label.as_deref());
    let label = quoted(Path::new(label.unwrap_or("LABEL")));
    let of_token = |what: &str| tool(section, &format!("--token-label {label} {what}"));
    if why.contains("one try left") {
        let log_in = of_token("--login --list-objects");
        return format!("log in once with the right PIN, which clears the counter: `{log_in}`");
    }
    let set = of_token("--login --login-type so --init-pin");
    format!("set the user PIN by the SO PIN: `{set}`")
}

/// A command that asks the module as the keystore does.
fn tool(section: &Section, what: &str) -> String {
    let module = section.module.as_deref().unwrap_or(Path::new("MODULE"));
    let module = quoted(module);
    let variables = section.environment.iter();
    let variables: String = variables
        .map(|(name, value)| format!("{name}={} ", quoted(Path::new(value))))
        .collect();
    format!("{variables}pkcs11-tool --module {module} {what}")
}

/// The line to write, with the serials that the keystore has seen.
fn say_serial(site: &Site, name: &str, section: &Section, why: &str) -> String {
    // A token's maker chose it, and it comes by way of assertd.
    let plain = |c: char| c.is_ascii_alphanumeric() || " ._:-".contains(c);
    let serials: Vec<&str> = why
        .split("(serial ")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|serial| serial.chars().all(plain))
        .collect();
    let label = match &section.token {
        Some(TokenSelector {
            label: Some(label), ..
        }) => format!("label = {label:?}, "),
        _ => String::new(),
    };
    let first = serials.first().copied().unwrap_or("…");
    let others: String = serials
        .iter()
        .skip(1)
        .map(|serial| format!(" or \"{serial}\""))
        .collect();
    format!(
        "write `token = {{ {label}serial = \"{first}\" }}`{others} in [keystore.{name}], then {}",
        restart_both(site, name)
    )
}

/// A changed section is read at the start of either process.
fn restart_both(site: &Site, name: &str) -> String {
    match site.runner {
        Runner::Units => {
            format!(
                "run `systemctl restart {} assertd`",
                site.keystore_unit(name)
            )
        }
        Runner::Somebody(_) => site.restart(),
    }
}
