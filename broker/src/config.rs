//! The configuration: files in, [`Config`] out, or a [`Diagnostic`] that cites the line.
//!
//! `assertd.toml` holds everything; `conf.d/*.toml` beside it hold workload sections alone, one
//! file per team. Strict: an unknown key anywhere is an error. What comes out is checked and
//! resolved: users are numbers, profiles are rows, every target has its charter.

use crate::audit::Sha256;
use crate::denylist;
use crate::lifecycle::Schedule;
use crate::profile::Profile;
use crate::reuse::Reuse;
use crate::selector::{self, Selector};
use keystore::charter::{Charter, Purpose, SubjectPattern};
use keystore::config::{Diagnostic, Section as KeystoreSection, read_text, reason};
use keystore::evidence::bundle::{Host, Selection};
use keystore::protocol::EvidenceLevel;
use keystore::{Alg, KeyName, Time};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod facts;
mod file;
mod keys;
mod many;
mod published;
mod resolve;
#[cfg(test)]
mod schema;
mod spanned;
mod table;
#[cfg(test)]
mod tests;
pub mod url;

pub use facts::{FORMAT as FACTS_FORMAT, Facts, UnitFacts, template};
pub use file::KeyFrom;
pub use keys::{Kept, NextVersion, Wanted};
pub use published::{Published, published};

/// The workloads' socket, in the runtime directory.
pub const SOCKET: &str = "assertd.sock";

/// The administrators' socket, there too.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// Where sockets are made if nothing else is said.
const RUNTIME_DIR: &str = "/run/assertd";

/// Default for [`Config::rate_per_s`]: a service that redeems one assertion per outgoing call
/// stays below, a loop gone wrong does not starve the token.
pub const RATE_PER_S: u32 = 100;

/// Largest weight of a workload in the queue of a keystore: a thousand times another's is a mistake.
pub const WEIGHT_MAX: u32 = 100;

/// Default for [`Config::burst`]: a service with 200 workers may start at once.
pub const BURST: u32 = 200;

/// Everything assertd is told, checked.
#[derive(Debug)]
pub struct Config {
    /// The main file.
    pub path: PathBuf,
    /// It, and the drop-in files beside it, as they were read.
    pub files: Vec<PathBuf>,
    /// SHA-256 over the text of all files: the configuration's name.
    pub sha256: Sha256,
    /// Sockets and directories.
    pub server: Server,
    /// The audit log.
    pub audit: Audit,
    /// Where documents with public keys are put, if anywhere.
    pub publication: Option<Publication>,
    /// Files of what gets nothing.
    pub deny: denylist::Files,
    /// By name.
    pub keystores: BTreeMap<String, KeystoreSection>,
    /// By name.
    pub issuers: BTreeMap<String, Arc<Issuer>>,
    /// How published keys are read back.
    pub courier: Courier,
    /// What is said to who asks for evidence.
    pub attest: Attest,
    /// By name: those that are shipped, and its own.
    pub profiles: BTreeMap<String, Arc<Profile>>,
    /// By name.
    pub workloads: Vec<Arc<Section>>,
    /// By name; loading has held every drop-in file to them.
    pub bounds: Vec<WrittenBounds>,
}

/// A `[bounds.NAME]` as it is written, to be talked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenBounds {
    /// Its name.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// The files it is of, patterns among them.
    pub files: Vec<String>,
    /// Which units these may match, if it says.
    pub units: Option<Vec<String>>,
    /// Which users these may match, if it says.
    pub users: Option<Vec<String>>,
}

/// Sockets and directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where sockets are made: `assertd.sock`, `admin.sock`, and keystores' without units.
    pub runtime_dir: PathBuf,
    /// The broker's state; keystores without units keep theirs in `keystore/NAME` below.
    pub state_dir: PathBuf,
}

/// The audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Its directory.
    pub dir: PathBuf,
    /// Bytes of one preallocated segment.
    pub segment_bytes: Option<u64>,
}

/// `[publication]`: what others are to know of our keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The directory in which [`crate::publication`] puts it.
    pub directory: PathBuf,
}

/// How assertd-courier reads published keys back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Courier {
    /// The only authorities it accepts certificates of, in place of the host's.
    pub ca: Option<PathBuf>,
}

/// `[attest]`: what is said of this host to who asks for evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    /// What it is called there; its host name if nothing is said.
    pub host: Option<Host>,
    /// Which PCRs are quoted.
    pub selection: Selection,
}

impl Attest {
    /// What a host is called whose system has this name.
    ///
    /// # Errors
    /// A sentence: that it has none.
    pub fn host_of(&self, system: &str) -> Result<Host, &'static str> {
        let named = self.host.clone().map(Ok);
        named
            .unwrap_or_else(|| system.parse())
            .map_err(|_| "this system has no host name; say `host` in [attest]")
    }
}

/// An `[issuer.NAME]`: this host, or its fleet, as an OIDC issuer for federation.
#[derive(Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Its name.
    pub name: String,
    /// `iss`, string-equal to the discovery document's.
    pub url: String,
    /// The SPIFFE trust domain whose workloads it names, if it does.
    pub trust_domain: Option<String>,
    /// What it may ever assert.
    pub subjects: Vec<SubjectPattern>,
    /// Which keystore holds its key.
    pub keystore: String,
    /// Its key's algorithm.
    pub alg: Alg,
    /// Its key's name.
    pub key: KeyName,
    /// Its key's charter.
    pub charter: Arc<Charter>,
    /// When the versions of its key follow each other.
    pub schedule: Schedule,
    /// Where its JWKS is published, to be read back.
    pub verify_url: Option<String>,
}

/// A `[workload.NAME]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is written.
    pub place: Place,
    /// Whom to ask about it.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// Whom it fits: all of these hold.
    pub matches: Vec<Selector>,
    /// Whom it does not fit all the same: where all of one of these hold, or may hold.
    pub unless: Vec<Vec<Selector>>,
    /// What is recorded if it does not hold, and changes nothing.
    pub shadow: Vec<Selector>,
    /// It grants nothing from this moment on.
    pub expires: Option<Time>,
    /// Whether it serves on kernels that prove the peer by pid alone.
    pub allow_pid_fallback: bool,
    /// Requests per second, over all its processes.
    pub rate_per_s: u32,
    /// Requests at once before the rate holds.
    pub burst: u32,
    /// Its part of a keystore that others ask for at the same time, against theirs.
    pub weight: u32,
    /// By name.
    pub targets: BTreeMap<String, Arc<Target>>,
}

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// Its line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A `[workload.NAME.target.NAME]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// The workload's name.
    pub workload: Arc<str>,
    /// Its name, which callers ask for.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// Its profile.
    pub profile: Arc<Profile>,
    /// `iss`, without the fingerprint of a key
    pub iss: String,
    /// `sub`, if its profile has one
    pub sub: Option<String>,
    /// `aud`, if its profile has one
    pub aud: Option<String>,
    /// `scope`, if its profile has one
    pub scope: Option<String>,
    /// Seconds an assertion lives unless a shorter life is asked for.
    pub lifetime_s: u32,
    /// Requests per second and at once for this target alone, beyond its workload's.
    pub rate: Option<(u32, u32)>,
    /// How well it must be known that the key lives in hardware.
    pub evidence_min: EvidenceLevel,
    /// Whether its assertions may be handed out again.
    pub reuse: Reuse,
    /// Whether another workload may have the same subject of the same issuer.
    pub shared: bool,
    /// The key that signs: its own, or its issuer's.
    pub key: KeyName,
    /// The keystore that holds the key.
    pub keystore: String,
    /// The charter the key should have; an issuer's is that of thousands.
    pub charter: Arc<Charter>,
    /// When the versions of its own key follow each other.
    pub schedule: Option<Box<Schedule>>,
    /// Where its own key comes from.
    pub key_from: KeyFrom,
    /// How a version of its own key comes after another.
    pub next: NextVersion,
    /// For how many seconds each certificate of its key is valid, if it has any.
    pub certificate_s: Option<u64>,
    /// What each next version of its key has to get before it is active, if that is how it becomes so.
    pub canary: Option<Box<Canary>>,
}

/// The access tokens that a version of a key has to get before it is active. The broker knows what is asked
/// for; assertd-courier goes by its own reading of the same files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Where they are to be had; parses as [`url::Https`].
    pub token_endpoint: String,
    /// The client that they are for.
    pub client_id: String,
    /// The request's `scope`.
    pub scope: Option<String>,
    /// The request's `audience`.
    pub audience: Option<String>,
    /// Over how many seconds three in a row have to be got.
    pub span_s: u64,
}

impl Section {
    /// All that it says about workloads, whatever that is for.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        let excluded = self.unless.iter().flatten();
        self.matches.iter().chain(excluded).chain(&self.shadow)
    }

    /// Whether anything in it needs to know this of a workload.
    pub fn asks(&self, source: selector::Source) -> bool {
        self.selectors().any(|selector| selector.source() == source)
    }
}

impl Config {
    /// Reads the main file and `conf.d/*.toml` beside it.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place. Nothing is half loaded.
    pub fn load(path: &Path) -> Result<Config, Diagnostic> {
        Config::load_from(path, resolve::NameService::Host)
    }

    /// Reads the same with the users and groups of a host that this one need not be.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(path: &Path, facts: &Facts) -> Result<Config, Diagnostic> {
        Config::load_from(path, resolve::NameService::Given(facts))
    }

    fn load_from(path: &Path, names: resolve::NameService) -> Result<Config, Diagnostic> {
        // Absolute, because keystore processes are told it and status shows it.
        let path = std::path::absolute(path)
            .map_err(|error| Diagnostic::file(Path::new("-c"), format!("no file: {error}")))?;
        resolve::resolve(read_all(&path)?, names)
    }

    /// The workloads' socket.
    pub fn socket(&self) -> PathBuf {
        self.server.runtime_dir.join(SOCKET)
    }

    /// The administrators' socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.server.runtime_dir.join(ADMIN_SOCKET)
    }

    /// A keystore's socket: its unit's, or the one the broker makes for it.
    pub fn keystore_socket(&self, name: &str, section: &KeystoreSection) -> PathBuf {
        let own = || {
            self.server
                .runtime_dir
                .join(format!("keystore-{name}.sock"))
        };
        section.socket.clone().unwrap_or_else(own)
    }
}

/// One file's path and text.
pub(crate) struct Source {
    path: PathBuf,
    text: String,
}

/// The files of a configuration: the main file first, then the drop-ins in the order of their
/// names.
///
/// # Errors
/// If `conf.d` is there and cannot be read.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let mut drop_ins = in_conf_d(path)?;
    drop_ins.retain(|path| is_drop_in(path));
    Ok([vec![path.to_owned()], drop_ins].concat())
}

/// What is in `conf.d` and is not read, because of its name.
///
/// # Errors
/// If `conf.d` is there and cannot be read.
pub fn passed_by(path: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let mut others = in_conf_d(path)?;
    others.retain(|path| !is_drop_in(path));
    Ok(others)
}

/// What is in `conf.d`, in the order of the names.
fn in_conf_d(path: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let dir = path.parent().unwrap_or(Path::new(".")).join("conf.d");
    let failed = |error| Diagnostic::file(&dir, format!("cannot be read: {}", reason(&error)));
    let mut drop_ins = Vec::new();
    match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(entries) => {
            for entry in entries {
                drop_ins.push(entry.map_err(failed)?.path());
            }
        }
    }
    drop_ins.sort();
    Ok(drop_ins)
}

/// Whether a file of `conf.d` is a drop-in by its name. Editors keep files of their own beside what
/// they edit, with a dot before the name: `.#payments.toml` is a link to nothing.
fn is_drop_in(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let is_hidden = name.as_encoded_bytes().starts_with(b".");
    !is_hidden && path.extension().is_some_and(|it| it == "toml")
}

fn read_all(path: &Path) -> Result<Vec<Source>, Diagnostic> {
    is_there(path)?;
    let read = |path: PathBuf| read_text(&path).map(|text| Source { path, text });
    files(path)?.into_iter().map(read).collect()
}

fn is_there(path: &Path) -> Result<(), Diagnostic> {
    let looked = std::fs::symlink_metadata(path);
    if looked.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        let message = "there is no such file; `assertctl init` writes a first configuration, and -c names \
                       another";
        return Err(Diagnostic::file(path, message));
    }
    Ok(())
}

/// Where a configuration's sockets are, whatever else is wrong with it.
///
/// # Errors
/// It cannot be read, or is no TOML.
pub fn runtime_dir(path: &Path) -> Result<PathBuf, Diagnostic> {
    is_there(path)?;
    let text = read_text(path)?;
    let parsed: file::ServerAlone =
        toml::from_str(&text).map_err(|error| Diagnostic::from_toml(path, &text, &error))?;
    let written = parsed.server.runtime_dir;
    Ok(written.unwrap_or_else(|| RUNTIME_DIR.into()))
}
