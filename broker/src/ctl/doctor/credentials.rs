//! Where the keystores' secrets come from, a token's PIN or what a TPM's keys ask for: encrypted
//! credentials that systemd hands over to the keystores' units, or files. A credential is opened to
//! see whether it can be, and its content goes to /dev/null, or is counted by another program: no
//! secret ever reaches this process.

use super::access::quoted;
use super::finding::{
    CREDENTIAL_HANDED_OVER, CREDENTIAL_OPENS, CREDENTIAL_THERE, Finding, PIN_FILE,
};
use super::host::{self, Entry, EntryKind, Output};
use super::site::{Runner, Site, Users};
use super::units::{Unit, Units};
use crate::ctl::account::Account;
use crate::ctl::tpm;
use keystore::config::{BackendKind, PinSource, Section};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

mod words;

use words::{Keys, Noun};
pub use words::{make, place};

/// Where systemd looks for an encrypted credential that a unit names without a path
/// (systemd.exec(5), LoadCredentialEncrypted=).
const STORES: [&str; 3] = [
    "/etc/credstore.encrypted",
    "/run/credstore.encrypted",
    "/usr/lib/credstore.encrypted",
];

/// Bytes of a TPM's secret.
const AUTH_LEN: u64 = 32;

/// One keystore's secret.
pub struct Facts {
    noun: Noun,
    secret: Secret,
}

enum Secret {
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
        len: Option<u64>,
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
    /// Its unit loads this file; what is wrong with it under this id.
    From(PathBuf, Result<(), Wrong>),
}

/// What is wrong with a credential.
enum Wrong {
    /// It cannot be opened, for this reason.
    Closed(String),
    /// It holds so many bytes, which cannot be a TPM's secret.
    Len(u64),
}

/// Looks, and opens every credential once.
pub fn look(site: &Site, units: &Units) -> Vec<Facts> {
    let all = site.keystores.iter();
    let with_secret = all.filter_map(|(name, section)| {
        let noun = noun(site, name, section);
        let secret = match source(section, &noun)? {
            PinSource::File(path) => Secret::File {
                entry: host::entry(&path),
                len: path.metadata().ok().map(|metadata| metadata.len()),
                path,
            },
            PinSource::Credential(id) => {
                let unit = units.unit(&section.backend.unit(name, "service"));
                let unit = unit.filter(|_| section.socket.is_some());
                Secret::Credential {
                    file: handed_over(unit, &id, section.backend),
                    id,
                }
            }
        };
        Some(Facts { noun, secret })
    });
    with_secret.collect()
}

fn noun(site: &Site, name: &str, section: &Section) -> Noun {
    let state = site.keystore_state(name, section);
    let has_keys = section.backend == BackendKind::Tpm && tpm::has_keys(&state);
    Noun {
        keystore: name.to_owned(),
        kind: section.backend,
        keys: match has_keys {
            true => Keys::In(state),
            false => Keys::None,
        },
    }
}

/// A TPM's has a name of its own if the section says nothing.
fn source(section: &Section, noun: &Noun) -> Option<PinSource> {
    match section.backend {
        BackendKind::Pkcs11 => section.pin.clone(),
        BackendKind::Tpm => {
            let usual = || PinSource::Credential(noun.usual());
            Some(section.auth.clone().unwrap_or_else(usual))
        }
    }
}

fn handed_over(unit: Option<&Unit>, id: &str, kind: BackendKind) -> HandedOver {
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
        Some(path) => HandedOver::From(path.clone(), opens(path, id, kind)),
        None => HandedOver::Missing(places[0].clone()),
    }
}

/// As systemd does at the unit's start; what it says if it cannot.
fn opens(path: &Path, id: &str, kind: BackendKind) -> Result<(), Wrong> {
    let (name, path) = (format!("--name={id}"), path.display().to_string());
    let said = host::command(
        "systemd-creds",
        &["decrypt", &name, &path, "-"],
        Output::Discarded,
    );
    let said = said.map_err(Wrong::Closed)?;
    if !said.succeeded() {
        return Err(Wrong::Closed(said.reason()));
    }
    match kind {
        BackendKind::Pkcs11 => Ok(()),
        BackendKind::Tpm => match len(&name, &path) {
            Some(AUTH_LEN) | None => Ok(()),
            Some(other) => Err(Wrong::Len(other)),
        },
    }
}

/// How many bytes it holds, as wc(1) counts them; nothing if that could not be asked.
fn len(name: &str, path: &str) -> Option<u64> {
    let count = "systemd-creds decrypt \"$0\" \"$1\" - | wc -c";
    let said = host::command("sh", &["-c", count, name, path], Output::Read).ok()?;
    said.stdout.trim().parse().ok()
}

/// Judges.
pub fn findings(site: &Site, facts: &[Facts], users: &Result<Users, String>) -> Vec<Finding> {
    let users = users.as_ref().ok();
    let judge = |Facts { noun, secret }: &Facts| match secret {
        Secret::Credential { id, file } => of_credential(noun, id, file),
        Secret::File { path, entry, len } => {
            let user = users.and_then(|users| users.keystore(noun.kind));
            let file = FileSeen {
                path,
                entry,
                len: *len,
            };
            of_file(site, noun, &file, user)
        }
    };
    facts.iter().map(judge).collect()
}

fn of_credential(noun: &Noun, id: &str, file: &HandedOver) -> Finding {
    let (name, secret, restart) = (&noun.keystore, noun.secret(), noun.restart());
    let own = noun.usual();
    match file {
        HandedOver::From(path, Ok(())) => {
            CREDENTIAL_OPENS.ok(format!("{} opens as {id}", path.display()))
        }
        HandedOver::From(path, Err(Wrong::Closed(why))) => CREDENTIAL_OPENS.fail(
            format!(
                "{} cannot be opened as {id}, so that keystore {name} does not start: {why}",
                path.display()
            ),
            noun.mend(id, path),
        ),
        HandedOver::From(path, Err(Wrong::Len(len))) => CREDENTIAL_OPENS.fail(
            format!(
                "{} holds {len} bytes, and keystore {name} wants exactly {AUTH_LEN} random ones",
                path.display()
            ),
            noun.mend(id, path),
        ),
        HandedOver::Missing(path) => CREDENTIAL_THERE.fail(
            format!(
                "{} is missing: keystore {name} has no {secret}",
                path.display()
            ),
            noun.give(id, path),
        ),
        HandedOver::Plain => CREDENTIAL_HANDED_OVER.warn(
            format!("the unit of keystore {name} loads credential {id} from an unencrypted file"),
            noun.encrypt(id),
        ),
        HandedOver::Not => CREDENTIAL_HANDED_OVER.fail(
            format!("the unit of keystore {name} loads no credential {id}"),
            format!(
                "write `{} = {{ credential = \"{own}\" }}` in [keystore.{name}], which its unit \
                 loads from {}, then run {restart}",
                noun.key(),
                place(&own).display()
            ),
        ),
        HandedOver::NoUnit => CREDENTIAL_HANDED_OVER.fail(
            format!(
                "[keystore.{name}] takes its {secret} from credential {id}, and no unit of its own \
                 runs it that could hand it over"
            ),
            format!(
                "write `{} = {{ file = \"…\" }}` in [keystore.{name}], or let systemd run it: \
                 `socket = \"/run/assertd/keystore-{name}.sock\"`",
                noun.key()
            ),
        ),
    }
}

/// A file that holds a secret.
struct FileSeen<'a> {
    path: &'a Path,
    entry: &'a Result<Entry, ErrorKind>,
    len: Option<u64>,
}

fn of_file(site: &Site, noun: &Noun, seen: &FileSeen<'_>, user: Option<&Account>) -> Finding {
    let (name, secret) = (&noun.keystore, noun.secret());
    let isolated = site.runner == Runner::Units
        && site
            .keystores
            .get(name)
            .is_some_and(|it| it.socket.is_some());
    let owner = user.map_or("root", |account| &account.name);
    let (file, shown) = (quoted(seen.path), seen.path.display());
    let own = format!("`chown {owner} {file} && chmod 0400 {file}`");
    let entry = match seen.entry {
        Err(kind) => {
            let text = format!("{secret} file {shown} of keystore {name}: not there ({kind})");
            return PIN_FILE.fail(text, noun.write_file(owner, &file));
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
    let known = match noun.kind {
        BackendKind::Pkcs11 => "others may know the PIN already: change it, too",
        BackendKind::Tpm => {
            "others may have read it already: it is worth something beside this TPM"
        }
    };
    match (wrong, seen.len) {
        (Some(wrong), _) => PIN_FILE.fail(
            format!("{secret} file {shown} of keystore {name} {wrong}"),
            format!("run {own}; {known}"),
        ),
        (None, Some(len)) if noun.kind == BackendKind::Tpm && len != AUTH_LEN => PIN_FILE.fail(
            format!(
                "{secret} file {shown} of keystore {name} has {len} bytes, and exactly {AUTH_LEN} \
                 random ones are wanted"
            ),
            noun.write_file(owner, &file),
        ),
        (None, _) if isolated => PIN_FILE.warn(
            format!(
                "the {secret} of keystore {name} is in a file, {shown}, and so in every backup"
            ),
            noun.encrypt_file(&file),
        ),
        (None, _) => PIN_FILE.ok(format!("{secret} file {shown} is for {owner} alone")),
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
        let of = |file| of_credential(&words::tests::pin(), "hsm.pin", &file);
        assert_eq!(of(HandedOver::From(path(), Ok(()))).severity, Severity::Ok);
        let why = "Embedded credential name 'pin' does not match filename 'hsm.pin', refusing.";
        let encrypt = "systemd-creds encrypt --with-key=host --name=hsm.pin - \
                       /etc/credstore.encrypted/assertd.hsm.pin";
        for (file, id, severity, phrase) in [
            (HandedOver::Missing(path()), "D20", Severity::Fail, encrypt),
            (
                HandedOver::From(path(), Err(Wrong::Closed(why.into()))),
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
            of(HandedOver::From(path(), Err(Wrong::Closed(why.into()))))
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
        let noun = words::tests::pin();
        let of = |seen: Result<Entry, ErrorKind>| {
            let seen = FileSeen {
                path: Path::new("/pin"),
                entry: &seen,
                len: Some(4),
            };
            of_file(&site, &noun, &seen, Some(&account))
        };
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
