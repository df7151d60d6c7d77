//! What the host must have for a keystore, and has not: the one place that says it, for a first run
//! and for one that finishes what an earlier one began.

use super::credential::{self, Creds};
use super::files::{self, printable_path};
use super::host::{self, KEYSTORE_USER};
use super::look;
use super::section;
use super::softhsm::{self, Owner};
use super::text::{Keystore, Runs, Secret, Token};
use super::tokens::Environment;
use super::tpm::{self, Chip};
use super::work::{self, Sealed, Sealing, Visible, Work};
use crate::ctl::doctor::access::quoted;
use crate::ctl::failure::{Exit, Failure};
use crate::ctl::tpm::has_keys;
use keystore::config::{BackendKind, PinSource, Section};
use keystore::hardening::reach::is_node;
use keystore::inventory;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// All that a first keystore with a token needs, beside the configuration.
pub fn of_token(
    name: &str,
    written: &Token,
    token: &inventory::Token,
    home: Option<softhsm::Home>,
    creds: Option<&Creds>,
) -> Result<Work, Failure> {
    let groups = groups(&written.module, &written.environment, &written.module_state)?;
    let own = home.and_then(|home| home.token);
    let sealing = creds.map(|creds| Sealing {
        creds: creds.clone(),
        id: credential::id(BackendKind::Pkcs11, name),
        secret: Sealed::Pin {
            question: format!(
                "user PIN of token \"{}\" (not shown, not tried now): ",
                token.label
            ),
            lengths: (token.pin_len_min, token.pin_len_max),
        },
    });
    Ok(Work {
        give: own.filter(|token| softhsm::owner(token) == Owner::Root),
        files: drop_in(name, &written.module_state, &groups)?
            .into_iter()
            .collect(),
        sealings: sealing.into_iter().collect(),
        visible: Some(Visible {
            module: written.module.clone(),
            environment: written.environment.clone(),
            token: token.clone(),
            groups,
        }),
        ..Work::default()
    })
}

/// All that a first keystore with a TPM needs, beside the configuration. A secret that is there is
/// kept, if it can be opened: it may be the one of keys that are there too.
pub fn of_chip(name: &str, chip: Chip, creds: Option<&Creds>) -> Result<Work, Failure> {
    let id = credential::id(BackendKind::Tpm, name);
    let there = credential::path(&id);
    let mut work = Work {
        files: chip.drop_in(name)?.into_iter().collect(),
        chip: Some(chip),
        ..Work::default()
    };
    let Some(creds) = creds else {
        return Ok(work);
    };
    if !there.exists() {
        work.sealings.push(new_auth(name, creds)?);
        return Ok(work);
    }
    creds.opens(&id).map_err(|why| {
        let why = format!("is there already, cannot be opened here ({why})");
        work::auth_in_the_way(&id, &why)
    })?;
    work.kept.push(there);
    Ok(work)
}

/// A secret for a keystore that has none.
fn new_auth(name: &str, creds: &Creds) -> Result<Sealing, Failure> {
    let id = credential::id(BackendKind::Tpm, name);
    if let Some(state) = tpm::state_with_keys(name) {
        return Err(secret_is_gone(&credential::path(&id), &state));
    }
    Ok(Sealing {
        creds: creds.clone(),
        id,
        secret: Sealed::Auth,
    })
}

/// Refuses to have a secret made in a file where keys depend on one that was there. `state_dir` is
/// assertd's, below which the keystores that it starts itself have theirs.
pub fn no_keys_without_secret(keystores: &[Keystore], state_dir: &Path) -> Result<(), Failure> {
    for keystore in keystores {
        let path = match (keystore.kind(), &keystore.secret) {
            (BackendKind::Tpm, Secret::File(path)) if !path.exists() => path,
            _ => continue,
        };
        let state = match &keystore.runs {
            Runs::Unit(_) => Path::new(tpm::STATE_DIR).join(&keystore.name),
            Runs::Child(_) => state_dir.join("keystore").join(&keystore.name),
        };
        if has_keys(&state) {
            return Err(secret_is_gone(path, &state));
        }
    }
    Ok(())
}

fn secret_is_gone(secret: &Path, state: &Path) -> Failure {
    let (shown, away) = (state.display(), quoted(state));
    let text = format!(
        "{shown}/keys has keys, and the secret that they sign with, {}, is gone: a new one is of no \
         use to them. Bring it back from a backup of this host; or, if none of these keys is needed \
         any more, give every target and issuer of theirs another name in the configuration, run \
         `mv {away} {away}.old` and init again, restart the keystore, then run `assertctl reload` \
         and `assertctl apply`, which makes new keys",
        secret.display()
    );
    Failure::new(Exit::Refused, text)
}

/// What a keystore that is configured needs, and is not there.
pub fn of_section(name: &str, section: &Section) -> Result<Work, Failure> {
    match section.backend {
        BackendKind::Pkcs11 => of_token_section(name, section),
        BackendKind::Tpm => of_tpm_section(name, section),
    }
}

fn of_token_section(name: &str, section: &Section) -> Result<Work, Failure> {
    let module = section.module.clone().unwrap_or_default();
    let groups = groups(&module, &section.environment, &section.module_state)?;
    let drop_in = drop_in(name, &section.module_state, &groups)?;
    let id = credential::id(BackendKind::Pkcs11, name);
    let own = section.pin == Some(PinSource::Credential(id.clone()));
    let mut work = Work {
        files: absent(drop_in),
        ..Work::default()
    };
    if own && !credential::path(&id).exists() {
        work.sealings.push(Sealing {
            creds: creds("pin")?,
            id,
            secret: Sealed::Pin {
                question: format!("user PIN of the token of keystore {name} (not shown): "),
                lengths: (0, 0),
            },
        });
    }
    Ok(work)
}

fn of_tpm_section(name: &str, section: &Section) -> Result<Work, Failure> {
    let chip = section::tcti(section).map(|tcti| tpm::configured(&tcti));
    let drop_in = chip.as_ref().map(|chip| chip.drop_in(name)).transpose()?;
    let id = credential::id(BackendKind::Tpm, name);
    let own = match &section.auth {
        None => true,
        Some(source) => *source == PinSource::Credential(id.clone()),
    };
    let mut work = Work {
        files: absent(drop_in.flatten()),
        chip,
        ..Work::default()
    };
    if own && !credential::path(&id).exists() {
        work.sealings.push(new_auth(name, &creds("auth")?)?);
    }
    Ok(work)
}

/// One that is there is somebody's own, or ours.
fn absent(drop_in: Option<files::Planned>) -> Vec<files::Planned> {
    let nothing = |file: &files::Planned| file.there() == files::There::Nothing;
    drop_in.into_iter().filter(nothing).collect()
}

fn creds(key: &str) -> Result<Creds, Failure> {
    Creds::find().ok_or_else(|| {
        let text = format!(
            "systemd-creds is missing (systemd 250 and newer have it); write {key} = \
             {{ file = \"…\" }} into the configuration instead"
        );
        Failure::new(Exit::Unavailable, text)
    })
}

/// Groups that the keystore must be in for what its module reads and writes.
fn groups(
    module: &Path,
    environment: &Environment,
    state: &[PathBuf],
) -> Result<BTreeSet<String>, Failure> {
    let user = host::account(KEYSTORE_USER)?;
    let mut groups = look::groups(user.as_ref(), module, environment);
    for path in state {
        groups.append(&mut host::groups_needed(user.as_ref(), path));
    }
    Ok(groups)
}

/// The drop-in of its unit, if it needs one.
fn drop_in(
    name: &str,
    state: &[PathBuf],
    groups: &BTreeSet<String>,
) -> Result<Option<files::Planned>, Failure> {
    let dirs: Vec<PathBuf> = state
        .iter()
        .filter(|path| !is_node(path))
        .cloned()
        .collect();
    for dir in &dirs {
        printable_path(dir)?; // a blank, `%` or `\` has a meaning in a unit (systemd.syntax(7))
    }
    let needed = !dirs.is_empty() || !groups.is_empty();
    Ok(needed.then(|| work::drop_in(name, &dirs, groups)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::init::text::Backend;
    use keystore::config::Tcti;
    use std::fs::File;

    #[test]
    fn groups_alone_are_reason_enough_for_a_drop_in() {
        let groups = BTreeSet::from(["softhsm".to_owned()]);
        let text = drop_in("hsm", &[], &groups).unwrap().unwrap().text;
        assert!(text.ends_with("[Service]\nSupplementaryGroups=softhsm\n"));
        assert_eq!(drop_in("hsm", &[], &BTreeSet::new()).unwrap(), None);
        let node = [PathBuf::from("/dev/null")];
        assert_eq!(drop_in("hsm", &node, &BTreeSet::new()).unwrap(), None);
    }

    #[test]
    fn a_directory_that_a_unit_would_read_as_another_is_refused() {
        for dir in [
            "/srv/a b",
            "/srv/%i",
            "/srv/a\nExecStartPre=/bin/sh",
            "/srv/\"a",
        ] {
            let failure = drop_in("hsm", &[dir.into()], &BTreeSet::new()).unwrap_err();
            assert_eq!(failure.exit, Exit::Refused, "{dir}");
        }
    }
    #[test]
    fn where_keys_depend_on_a_secret_that_is_gone_no_other_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tpm.auth");
        let keystore = Keystore {
            name: "tpm".into(),
            about: String::new(),
            secret: Secret::File(path.clone()),
            runs: Runs::Child(dir.path().to_owned()),
            backend: Backend::Tpm(Tcti::Device("/dev/tpmrm0".into())),
        };
        let keystores = [keystore];
        no_keys_without_secret(&keystores, dir.path()).unwrap();
        let keys = dir.path().join("keystore/tpm/keys");
        std::fs::create_dir_all(&keys).unwrap();
        no_keys_without_secret(&keystores, dir.path()).unwrap();
        File::create_new(keys.join("00112233445566778899aabbccddeeff.pem")).unwrap();
        let gone = no_keys_without_secret(&keystores, dir.path()).unwrap_err();
        assert_eq!(gone.exit, Exit::Refused);
        let order = [
            "Bring it back",
            "another name",
            "mv ",
            "init again",
            "apply`",
        ];
        let places = order.map(|part| gone.message.find(part));
        assert!(places.iter().all(Option::is_some), "{}", gone.message);
        assert!(places.is_sorted(), "{}", gone.message);
        File::create_new(&path).unwrap();
        no_keys_without_secret(&keystores, dir.path()).unwrap();
    }
}
