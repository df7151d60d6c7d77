//! What the host must have for a keystore, and has not: the one place that says it, for a first run
//! and for one that finishes what an earlier one began.

use super::credential::{self, Creds};
use super::files::{self, printable_path};
use super::host::{self, BROKER_USER, KEYSTORE_USER};
use super::look;
use super::softhsm::{self, Owner};
use super::text::Keystore;
use super::tokens::Environment;
use super::work::{self, Sealing, Visible, Work};
use crate::ctl::failure::{Exit, Failure};
use keystore::config::{PinSource, Section};
use keystore::inventory::Token;
use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// All that a first keystore needs.
pub fn of_token(
    path: &Path,
    keystore: &Keystore,
    token: &Token,
    home: Option<softhsm::Home>,
    creds: Option<Creds>,
) -> Result<Work, Failure> {
    let mut files = vec![work::configuration(path, keystore, Some(BROKER_USER))];
    let conf_d = path.with_file_name("conf.d");
    let example = work::example(&conf_d, &keystore.name);
    if example.there() != files::There::Other {
        files.push(example); // somebody's own one is better
    }
    let groups = groups(
        &keystore.module,
        &keystore.environment,
        &keystore.module_state,
    )?;
    files.extend(drop_in(&keystore.name, &keystore.module_state, &groups)?);
    let own = home.and_then(|home| home.token);
    Ok(Work {
        missing: host::missing()?,
        give: own.filter(|token| softhsm::owner(token) == Owner::Root),
        files,
        credential: creds.map(|creds| Sealing {
            creds,
            keystore: keystore.name.clone(),
            question: format!(
                "user PIN of token \"{}\" (not shown, not tried now): ",
                token.label
            ),
            lengths: (token.pin_len_min, token.pin_len_max),
        }),
        visible: Some(Visible {
            keystore: keystore.clone(),
            token: token.clone(),
            groups,
        }),
    })
}

/// What a keystore that is configured needs, and is not there.
pub fn of_section(name: &str, section: &Section) -> Result<Work, Failure> {
    let mut work = Work {
        missing: host::missing()?,
        ..Work::default()
    };
    let module = section.module.clone().unwrap_or_default();
    let groups = groups(&module, &section.environment, &section.module_state)?;
    let drop_in = drop_in(name, &section.module_state, &groups)?;
    // One that is there is somebody's own, or ours.
    let absent = drop_in.filter(|file| file.there() == files::There::Nothing);
    work.files.extend(absent);
    let own_credential = section.pin == Some(PinSource::Credential(credential::id(name)));
    if own_credential && !credential::path(name).exists() {
        let without = "systemd-creds is missing (systemd 250 and newer have it); write pin = \
                       { file = \"…\" } into the configuration instead";
        let creds = Creds::find().ok_or_else(|| Failure::new(Exit::Unavailable, without))?;
        work.credential = Some(Sealing {
            creds,
            keystore: name.to_owned(),
            question: format!("user PIN of the token of keystore {name} (not shown): "),
            lengths: (0, 0),
        });
    }
    Ok(work)
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
    let is_node = |path: &PathBuf| {
        let kind = path.metadata().map(|metadata| metadata.file_type());
        kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
    };
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
}
