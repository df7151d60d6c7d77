//! A keystore that somebody owns, by hand: KEYSTORE_UNDER_TEST names a file with one
//! [keystore.NAME] section, as in assertd.toml (CONTRIBUTING.md says how). Every promise is tried on
//! it, one after the other in one process, since a wrong PIN that each of a dozen processes tries
//! once locks a token. Leaves nothing there.

use crate::process::{Environment, Shown, in_own_process};
use crate::promises::{self, promises};
use crate::subject::{Birth, Neighbours, Promise, SOME, Subject};
use keystore::backend::Backend;
use keystore::config::{self, BackendKind, Section, Tcti};
use keystore::statefile::StateDir;
use keystore_pkcs11::Pkcs11Backend;
use keystore_tpm::{Secrets, TpmBackend};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

const VARIABLE: &str = "KEYSTORE_UNDER_TEST";

macro_rules! table {
    (() $($promise:ident)*) => {
        const EVERY: &[(&str, Promise)] = &[$((stringify!($promise), promises::$promise)),*];
    };
}
promises!(table!());

#[test]
#[ignore = "by hand: KEYSTORE_UNDER_TEST names the section of a real keystore (2026-11-22)"]
fn every_promise_is_kept() {
    let (name, section) = asked();
    let prepare = |_: &Path| environment(&section);
    in_own_process(
        concat!(module_path!(), "::every_promise_is_kept"),
        Shown::Live,
        prepare,
        |directory| every_promise(&name, &section, &directory.join("state")),
    );
}

/// The one section there is.
fn asked() -> (String, Section) {
    let path = std::env::var_os(VARIABLE).map(PathBuf::from);
    let path = path.unwrap_or_else(|| {
        panic!("{VARIABLE} is not set; it names a file with one [keystore.NAME] section")
    });
    let text = config::read_text(&path).unwrap_or_else(|error| panic!("{error}"));
    let table: toml::Table = text
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let keystores = table.get("keystore").and_then(toml::Value::as_table);
    let names: Vec<&String> = keystores.map(|k| k.keys().collect()).unwrap_or_default();
    let [name] = names[..] else {
        panic!(
            "{}: has {names:?} where one keystore is due",
            path.display()
        );
    };
    let loaded = config::load(&path, name).unwrap_or_else(|error| panic!("{error}"));
    (name.clone(), loaded.section)
}

fn environment(section: &Section) -> Environment {
    let mut environment: Environment = section
        .environment
        .iter()
        .map(|(name, value)| (name.clone(), value.into()))
        .collect();
    environment.push(("TSS2_LOG".to_owned(), "all+NONE".into()));
    environment
}

fn open(name: &str, section: &Section, state: &Path) -> Result<Box<dyn Backend>, keystore::Error> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let credentials = credentials.as_deref();
    match section.backend {
        BackendKind::Pkcs11 => {
            let settings = {
                let state = StateDir::lock(state)?;
                keystore_pkcs11::Settings::read(section, name, credentials, state)?
            };
            Ok(Box::new(Pkcs11Backend::open(settings)?))
        }
        BackendKind::Tpm => {
            let tcti = section.tcti.as_deref().unwrap_or(config::TCTI);
            let settings = keystore_tpm::Settings {
                tcti: Tcti::parse(tcti).expect("a section that was loaded was checked"),
                secrets: Secrets::read(section.auth.as_ref(), credentials, name)?,
                sessions: section.sessions,
                healthy: section.healthy.clone(),
                state: StateDir::lock(state)?,
            };
            Ok(Box::new(TpmBackend::open(settings)?))
        }
    }
}

fn every_promise(name: &str, section: &Section, state: &Path) {
    // Once before all: a PIN that is wrong now is not tried again.
    let backend = open(name, section, state).unwrap_or_else(|error| panic!("{error}"));
    let algs: Vec<&str> = backend.algs().into_iter().map(|alg| alg.name()).collect();
    println!("\n{}\nalgorithms: {}", backend.describe(), algs.join(" "));
    drop(backend);
    let neighbours = match section.backend {
        BackendKind::Pkcs11 => Neighbours::Others,
        BackendKind::Tpm => Neighbours::Nobody,
    };
    let subject = Subject::new(
        || open(name, section, state).unwrap_or_else(|error| panic!("{error}")),
        neighbours,
        Birth::Shown,
        SOME,
    );
    let mut broken = Vec::new();
    for (promise, try_it) in EVERY {
        let started = Instant::now();
        let kept = catch_unwind(AssertUnwindSafe(|| subject.keeps(*try_it))).is_ok();
        let verdict = if kept { "kept" } else { "BROKEN" };
        let seconds = started.elapsed().as_secs_f32();
        println!("{verdict:<7} {seconds:6.1} s  {promise}");
        if !kept {
            broken.push(*promise);
        }
    }
    assert!(broken.is_empty(), "broken: {}", broken.join(", "));
}
