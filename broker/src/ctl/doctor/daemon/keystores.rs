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
use std::path::Path;

/// One keystore's finding.
pub fn finding(
    site: &Site,
    keystore: &KeystoreStatus,
    section: &Section,
    kind: Option<Kind>,
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
    let (check, remedy) = remedy(site, (name, keystore.pid), section, kind, why);
    check.fail(text, remedy)
}

/// What helps against `why` one has failed, and the check that this answers. A keystore is told by
/// its name and, where that is known, its process id.
pub fn remedy(
    site: &Site,
    (name, pid): (&str, Option<u32>),
    section: &Section,
    kind: Option<Kind>,
    why: &str,
) -> (Check, String) {
    let again = site.restart_keystore(name, pid);
    if section.backend == BackendKind::Tpm {
        return (KEYSTORE, as_it_says(site, name, &again));
    }
    if why.contains("no PIN:") || why.contains("PIN file") {
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
    if why.contains("no token has ") {
        let remedy = format!(
            "put the token back; or correct `token` in [keystore.{name}] (`{}` lists what there \
             is) and {}",
            tool(section, "--list-token-slots"),
            restart_both(site, name)
        );
        return (TOKEN_MISSING, remedy);
    }
    (KEYSTORE, as_it_says(site, name, &again))
}

/// For a sentence that ends with its own remedy, as all of a TPM's do.
fn as_it_says(site: &Site, name: &str, again: &str) -> String {
    let log = match site.runner {
        Runner::Units => {
            let unit = site.keystore_unit(name);
            format!("`journalctl -u {unit} -n 20 --no-pager` says more")
        }
        Runner::Somebody(_) => "what assertd said on its standard error says more".to_owned(),
    };
    format!("do what it says; {log}; then {again}")
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
