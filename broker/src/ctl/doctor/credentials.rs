//! Where the PINs come from: encrypted credentials that systemd hands over to the keystores' units,
//! or files. A credential is opened to see whether it can be, and its content goes to /dev/null:
//! no PIN ever reaches this process.

use super::access::quoted;
use super::finding::{
    CREDENTIAL_HANDED_OVER, CREDENTIAL_OPENS, CREDENTIAL_THERE, Finding, PIN_FILE,
};
use super::host::{self, Entry, EntryKind, Output};
use super::site::{Runner, Site, Users};
use super::units::{Unit, Units};
use crate::ctl::account::Account;
use keystore::config::{BackendKind, PinSource};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where systemd looks for an encrypted credential that a unit names without a path
/// (systemd.exec(5), LoadCredentialEncrypted=).
const STORES: [&str; 3] = [
    "/etc/credstore.encrypted",
    "/run/credstore.encrypted",
    "/usr/lib/credstore.encrypted",
];

/// One keystore's PIN.
pub struct Facts {
    keystore: String,
    pin: Pin,
}

enum Pin {
    /// A credential by its id.
    Credential {
        id: String,
        /// The encrypted file, if the unit loads one of this id.
        file: HandedOver,
    },
    /// A file by its path.
    File {
        path: PathBuf,
        entry: Result<Entry, ErrorKind>,
    },
}

enum HandedOver {
    /// No unit runs the keystore.
    NoUnit,
    /// Its unit loads nothing of this id.
    Not,
    /// Its unit loads it, unencrypted.
    Plain,
    /// Its unit would load it from here, and there is nothing.
    Missing(PathBuf),
    /// Its unit loads this file; why it cannot be opened under this id.
    From(PathBuf, Result<(), String>),
}

/// Looks, and opens every credential once.
pub fn look(site: &Site, units: &Units) -> Vec<Facts> {
    let with_pin = site.keystores.iter().filter_map(|(name, section)| {
        let pin = match section.pin.clone()? {
            PinSource::File(path) => Pin::File {
                entry: host::entry(&path),
                path,
            },
            PinSource::Credential(id) => {
                let unit = units.unit(&section.backend.unit(name, "service"));
                let unit = unit.filter(|_| section.socket.is_some());
                Pin::Credential {
                    file: handed_over(unit, &id),
                    id,
                }
            }
        };
        Some(Facts {
            keystore: name.clone(),
            pin,
        })
    });
    with_pin.collect()
}

fn handed_over(unit: Option<&Unit>, id: &str) -> HandedOver {
    let Some(unit) = unit else {
        return HandedOver::NoUnit;
    };
    let Some(source) = unit.credential("LoadCredentialEncrypted", id) else {
        return match unit.credential("LoadCredential", id) {
            Some(_) => HandedOver::Plain,
            None => HandedOver::Not,
        };
    };
    let places: Vec<PathBuf> = match Path::new(&source) {
        path if path.is_absolute() => vec![path.to_owned()],
        name => STORES.iter().map(|dir| Path::new(dir).join(name)).collect(),
    };
    match places.iter().find(|path| path.exists()) {
        Some(path) => HandedOver::From(path.clone(), opens(path, id)),
        None => HandedOver::Missing(places[0].clone()),
    }
}

/// As systemd does at the unit's start; what it says if it cannot.
fn opens(path: &Path, id: &str) -> Result<(), String> {
    let (name, path) = (format!("--name={id}"), path.display().to_string());
    let said = host::command(
        "systemd-creds",
        &["decrypt", &name, &path, "-"],
        Output::Discarded,
    )?;
    match said.succeeded() {
        true => Ok(()),
        false => Err(said.reason()),
    }
}

/// What makes the credential, as a phrase without its end; asks for the PIN.
pub fn make(id: &str, path: &Path) -> String {
    format!(
        "`systemd-ask-password -n 'user PIN:' | systemd-creds encrypt --with-key=host --name={id} - {}`",
        quoted(path)
    )
}

/// Where a keystore's credential belongs.
pub fn place(id: &str) -> PathBuf {
    Path::new(STORES[0]).join(format!("assertd.{id}"))
}

/// Judges.
pub fn findings(site: &Site, facts: &[Facts], users: &Result<Users, String>) -> Vec<Finding> {
    let keystore_user = users
        .as_ref()
        .ok()
        .and_then(|users| users.keystore(BackendKind::Pkcs11));
    let judge = |facts: &Facts| match &facts.pin {
        Pin::Credential { id, file } => of_credential(&facts.keystore, id, file),
        Pin::File { path, entry } => of_file(site, &facts.keystore, path, entry, keystore_user),
    };
    facts.iter().map(judge).collect()
}

fn of_credential(name: &str, id: &str, file: &HandedOver) -> Finding {
    let restart = format!("`systemctl restart assertd-keystore-pkcs11@{name}`");
    match file {
        HandedOver::From(path, Ok(())) => {
            CREDENTIAL_OPENS.ok(format!("{} opens as {id}", path.display()))
        }
        HandedOver::From(path, Err(why)) => CREDENTIAL_OPENS.fail(
            format!(
                "{} cannot be opened as {id}, so that keystore {name} does not start: {why}",
                path.display()
            ),
            format!("run {}, then {restart}", make(id, path)),
        ),
        HandedOver::Missing(path) => CREDENTIAL_THERE.fail(
            format!("{} is missing: keystore {name} has no PIN", path.display()),
            format!(
                "run `install -d -m 0700 {}`, {}, then {restart}",
                path.parent().unwrap_or(Path::new(STORES[0])).display(),
                make(id, path)
            ),
        ),
        HandedOver::Plain => CREDENTIAL_HANDED_OVER.warn(
            format!("the unit of keystore {name} loads credential {id} from an unencrypted file"),
            format!(
                "run {}, remove that LoadCredential= line, then `systemctl daemon-reload` and \
                 {restart}",
                make(id, &place(id))
            ),
        ),
        HandedOver::Not => CREDENTIAL_HANDED_OVER.fail(
            format!("the unit of keystore {name} loads no credential {id}"),
            format!(
                "write `pin = {{ credential = \"{name}.pin\" }}` in [keystore.{name}], which its \
                 unit loads from {}, then run {restart}",
                place(&format!("{name}.pin")).display()
            ),
        ),
        HandedOver::NoUnit => CREDENTIAL_HANDED_OVER.fail(
            format!(
                "[keystore.{name}] takes its PIN from credential {id}, and no unit of its own runs \
                 it that could hand it over"
            ),
            format!(
                "write `pin = {{ file = \"…\" }}` in [keystore.{name}], or let systemd run it: \
                 `socket = \"/run/assertd/keystore-{name}.sock\"`"
            ),
        ),
    }
}

fn of_file(
    site: &Site,
    name: &str,
    path: &Path,
    entry: &Result<Entry, ErrorKind>,
    user: Option<&Account>,
) -> Finding {
    let isolated = site.runner == Runner::Units
        && site
            .keystores
            .get(name)
            .is_some_and(|it| it.socket.is_some());
    let owner = user.map_or("root", |account| &account.name);
    let (file, shown) = (quoted(path), path.display());
    let own = format!("`chown {owner} {file} && chmod 0400 {file}`");
    let entry = match entry {
        Err(kind) => {
            let text = format!("PIN file {shown} of keystore {name}: not there ({kind})");
            let remedy = format!(
                "run `read -rsp 'user PIN: ' pin && printf %s \"$pin\" | install -m 0400 -o {owner} \
                 /dev/stdin {file}; unset pin` in a bash of root"
            );
            return PIN_FILE.fail(text, remedy);
        }
        Ok(entry) => entry,
    };
    let uid = user.map_or(0, |account| account.uid);
    let wrong = match entry {
        _ if entry.kind != EntryKind::File => Some("is no regular file".to_owned()),
        _ if entry.mode & 0o077 != 0 => Some(format!(
            "can be read or changed by others (mode {:04o})",
            entry.mode
        )),
        _ if entry.uid != uid && uid != 0 => Some(format!(
            "belongs to uid {}, so that {owner} cannot read it",
            entry.uid
        )),
        _ => None,
    };
    match wrong {
        Some(wrong) => PIN_FILE.fail(
            format!("PIN file {shown} of keystore {name} {wrong}"),
            format!("run {own}; others may know the PIN already: change it, too"),
        ),
        None if isolated => PIN_FILE.warn(
            format!("the PIN of keystore {name} is in a file, {shown}, and so in every backup"),
            format!(
                "encrypt it for this host: run {}, write `pin = {{ credential = \"{name}.pin\" }}` \
                 in [keystore.{name}], then `systemctl restart assertd-keystore-pkcs11@{name}`",
                make(&format!("{name}.pin"), &place(&format!("{name}.pin")))
            ),
        ),
        None => PIN_FILE.ok(format!("PIN file {shown} is for {owner} alone")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::entry;
    use super::super::finding::Severity;
    use super::super::site::NoUnits;
    use super::*;

    fn remedy(finding: &Finding) -> &str {
        finding.remedy.as_deref().unwrap()
    }

    #[test]
    fn each_fault_of_a_credential_has_its_remedy() {
        let path = || place("hsm.pin");
        let of = |file| of_credential("hsm", "hsm.pin", &file);
        assert_eq!(of(HandedOver::From(path(), Ok(()))).severity, Severity::Ok);
        let why = "Embedded credential name 'pin' does not match filename 'hsm.pin', refusing.";
        let encrypt = "systemd-creds encrypt --with-key=host --name=hsm.pin - \
                       /etc/credstore.encrypted/assertd.hsm.pin";
        for (file, id, severity, phrase) in [
            (HandedOver::Missing(path()), "D20", Severity::Fail, encrypt),
            (
                HandedOver::From(path(), Err(why.into())),
                "D21",
                Severity::Fail,
                encrypt,
            ),
            (
                HandedOver::Not,
                "D22",
                Severity::Fail,
                "write `pin = { credential = \"hsm.pin\" }`",
            ),
            (HandedOver::NoUnit, "D22", Severity::Fail, "pin = { file ="),
            (HandedOver::Plain, "D22", Severity::Warn, encrypt),
        ] {
            let finding = of(file);
            assert_eq!((finding.id, finding.severity), (id, severity));
            assert!(remedy(&finding).contains(phrase), "{}", remedy(&finding));
        }
        assert!(
            of(HandedOver::From(path(), Err(why.into())))
                .text
                .contains(why)
        );
    }

    #[test]
    fn a_pin_file_is_for_one_user_alone() {
        let site = Site {
            runner: Runner::Somebody(NoUnits::NoSystemd),
            ..Site::look(Some(Path::new("/nonexistent/assertd.toml")))
        };
        let account = Account {
            name: "assertd-pkcs11".into(),
            uid: 991,
            gid: 991,
            groups: vec![991],
            added: Vec::new(),
        };
        let of = |seen| of_file(&site, "hsm", Path::new("/pin"), &seen, Some(&account));
        let file = |uid, mode| entry("/pin", EntryKind::File, uid, 0, mode);
        assert_eq!(of(Ok(file(991, 0o400))).severity, Severity::Ok);
        for seen in [
            file(991, 0o440),
            file(991, 0o604),
            file(0, 0o400),
            file(990, 0o400),
        ] {
            let finding = of(Ok(seen));
            assert_eq!((finding.id, finding.severity), ("D23", Severity::Fail));
            let expected = "chown assertd-pkcs11 /pin && chmod 0400 /pin";
            assert!(remedy(&finding).contains(expected), "{}", remedy(&finding));
        }
        assert!(remedy(&of(Err(ErrorKind::NotFound))).contains("install -m 0400"));
    }
}
