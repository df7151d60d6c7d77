//! Asks a module for its tokens. That runs the module's code, before anybody has chosen it: in a
//! process of its own with a deadline, in a sandbox that the keystore program enters first, and as
//! the keystore's user. Root asks only where files that the module reads are closed to that user,
//! and where there is no such user, and keeps of its rights only that of reading.
//!
//! One that crashes or hangs costs one line. No PIN is tried here.

use super::Setup;
use super::host::{self, KEYSTORE_USER};
use super::modules::{self, Reach};
use super::softhsm;
use super::tokens::Environment;
use crate::child::beside_us;
use crate::ctl::account::Account;
use crate::ctl::failure::Failure;
use crate::ctl::run;
use keystore::config::BackendKind;
use keystore::hardening::reach::paths_in;
use keystore::inventory::Inventory;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The program that loads modules.
const PROGRAM: &str = "assertd-keystore-pkcs11";

/// How long a module may take to start and show its tokens: smart cards take seconds, a network
/// HSM that does not answer takes as long as its library waits.
const DEADLINE: Duration = Duration::from_secs(30);

/// As whom a module is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Root, who we are.
    Root,
    /// The keystore's user, in these groups besides its own.
    Keystore(BTreeSet<String>),
}

/// As whom this module is to be asked first.
pub fn asker(setup: Setup, module: &Path, environment: &Environment) -> Result<Asker, Failure> {
    let user = match setup {
        Setup::Host => host::account(KEYSTORE_USER)?,
        Setup::ByHand => None,
    };
    let Some(user) = user else {
        return Ok(Asker::Root);
    };
    let groups = groups(Some(&user), module, environment);
    let reads = reads(module, environment);
    // A directory may hold the tokens, each in a directory of its own.
    let inside = reads.iter().flat_map(fs::read_dir).flatten().flatten();
    let inside: Vec<PathBuf> = inside.map(|entry| entry.path()).collect();
    let closed = |path: &PathBuf| host::is_closed_to(&user, &groups, path);
    Ok(match reads.iter().chain(&inside).any(closed) {
        true => Asker::Root,
        false => Asker::Keystore(groups),
    })
}

/// Groups that the keystore's user must be in for what this module reads.
pub fn groups(
    user: Option<&Account>,
    module: &Path,
    environment: &Environment,
) -> BTreeSet<String> {
    let reads = reads(module, environment);
    reads
        .iter()
        .flat_map(|path| host::groups_needed(user, path))
        .collect()
}

/// What this module reads besides programs, libraries and configuration of the machine.
pub fn reads(module: &Path, environment: &Environment) -> Vec<PathBuf> {
    let named = environment.values().flat_map(|value| paths_in(value));
    named.chain(softhsm::reads(module, environment)).collect()
}

/// Asks.
///
/// # Errors
/// Why it showed nothing, in a sentence without its name.
pub fn ask(asker: &Asker, module: &Path, environment: &Environment) -> Result<Inventory, String> {
    let program = beside_us(PROGRAM)?;
    let mut command = match asker {
        Asker::Root => host::as_reader(&program),
        Asker::Keystore(groups) => host::as_keystore(BackendKind::Pkcs11, groups, &program)
            .ok_or_else(|| format!("setpriv is missing, or user {KEYSTORE_USER}"))?,
    };
    command
        .envs(environment)
        .current_dir("/")
        .args(["--list-tokens", "--module"])
        .arg(module);
    for path in reads(module, environment) {
        command.arg("--read").arg(path);
    }
    if modules::reach(module) == Reach::Network {
        command.arg("--network");
    }
    let ended = run::run(&mut command, b"", DEADLINE)?;
    if !ended.succeeded() {
        return Err(without_its_name(&ended.reason(), module));
    }
    Inventory::from_output(&ended.stdout)
}

/// The program names the module in its messages, by the file it is in the end; so do we, once.
fn without_its_name(reason: &str, module: &Path) -> String {
    let real = module.canonicalize().unwrap_or_default();
    let stripped = [module, &real].into_iter().find_map(|path| {
        let place = format!("module {}: ", path.display());
        reason.strip_prefix(&place).map(str::to_owned)
    });
    let mut why = stripped.unwrap_or_else(|| reason.to_owned());
    if modules::reach(module) == Reach::Pcscd {
        why += "; is pcscd running?";
    }
    why
}
