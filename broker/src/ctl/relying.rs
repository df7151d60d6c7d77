//! What a relying party keeps in files: its policy, the roots and the registry that the policy names; beside the
//! registry what is pending of enrolments, and which challenges are open. Nobody here asks assertd, or has a TPM.

use super::failure::{Exit, Failure};
use super::given::{is_absent, read, refused};
use super::place::put;
use crate::publication::tree::Dir;
use keystore::config::{Diagnostic, reason};
use keystore::evidence::enrolment::registry::{REGISTRY_LEN_MAX, Registry};
use keystore::evidence::enrolment::{EnrolmentId, FILE_LEN_MAX, File as _, Pending};
use keystore::evidence::nonces::{NONCES_LEN_MAX, Nonces};
use keystore::evidence::policy::{POLICY_LEN_MAX, Policy};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest file of roots.
const ROOTS_LEN_MAX: usize = 4 * 1024 * 1024;

/// Most files of one directory: what one batch may have.
const BATCH_MAX: usize = 100_000;

/// Most enrolments that are pending: what one batch may have, all waiting for hands.
pub const PENDING_MAX: usize = BATCH_MAX;

/// How files of an enrolment end.
pub const JSON: &str = ".json";

/// How often, and how far apart, the registry is tried for while another changes it: 10 s.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// It.
pub struct Relying {
    /// The policy.
    pub policy: Policy,
    /// Its text, by which it is known.
    pub text: String,
    /// The roots that it names.
    pub roots: Vec<CertificateDer<'static>>,
    dir: PathBuf,
}

/// The registry, and what is beside it, while nobody else changes it.
pub struct Held {
    /// What is in it.
    pub registry: Registry,
    /// What is beside it.
    pub beside: Beside,
}

/// What is beside the registry, while nobody else changes it.
pub struct Beside {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Relying {
    /// Reads the policy, and the roots that it names.
    pub fn load(path: &Path) -> Result<Relying, Failure> {
        let wrong = |text: String| Failure::new(Exit::Configuration, text);
        let bytes = read(path, POLICY_LEN_MAX)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| wrong(Diagnostic::file(path, "is no UTF-8").to_string()))?;
        let policy = Policy::parse(path, &text).map_err(|it| wrong(it.to_string()))?;
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut roots = Vec::new();
        for named in &policy.ek.roots {
            let path = dir.join(named);
            let bytes = read(&path, ROOTS_LEN_MAX)?;
            let before = roots.len();
            for root in CertificateDer::pem_slice_iter(&bytes) {
                let unreadable = |error| wrong(format!("{}: {error}", path.display()));
                roots.push(root.map_err(unreadable)?);
            }
            if roots.len() == before {
                let text = format!("{}: has no certificate in PEM", path.display());
                return Err(wrong(text));
            }
        }
        Ok(Relying {
            policy,
            text,
            roots,
            dir,
        })
    }

    /// Where the registry should be, if the policy names one that is not there: then nobody is enrolled, and that may be
    /// meant, or a file that was not brought along.
    pub fn absent_registry(&self) -> Option<PathBuf> {
        self.registry_path().ok().filter(|path| is_absent(path))
    }

    /// The registry that the policy names, as it is now; without one, nobody is enrolled.
    pub fn registry(&self) -> Result<Registry, Failure> {
        match self.registry_path() {
            Ok(path) => read_registry(&path),
            Err(_) => Ok(Registry::new()),
        }
    }

    /// The same, to be changed.
    pub fn hold_registry(&self) -> Result<Held, Failure> {
        let beside = self.hold()?;
        Ok(Held {
            registry: read_registry(&beside.path)?,
            beside,
        })
    }

    /// What is beside it, to be changed.
    pub fn hold(&self) -> Result<Beside, Failure> {
        let path = self.registry_path()?;
        let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let failed = |why: &dyn std::fmt::Display| refused(parent, why);
        let mut dir = File::open(parent).map_err(|error| failed(&reason(&error)))?;
        let mut tries = LOCK_TRIES;
        let lock = loop {
            match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => break lock,
                Err((back, Errno::EWOULDBLOCK)) if tries > 0 => dir = back,
                Err((_, Errno::EWOULDBLOCK)) => {
                    let text = "another assertctl has held the registry for long; try again when it is done";
                    return Err(failed(&text));
                }
                Err((_, errno)) => return Err(failed(&errno)),
            }
            tries -= 1;
            std::thread::sleep(LOCK_PAUSE);
        };
        Ok(Beside { path, _lock: lock })
    }

    fn registry_path(&self) -> Result<PathBuf, Failure> {
        let named = self.policy.registry.as_ref();
        let named = named.map(|it| self.dir.join(it));
        named.ok_or_else(|| {
            let text = "the policy names no registry: say `registry = \"registry.json\"` in it, where \
                        what is enrolled is to be recorded";
            Failure::new(Exit::Configuration, text)
        })
    }
}

impl Held {
    /// Writes it back.
    pub fn write(&self) -> Result<(), Failure> {
        put(&self.beside.path, self.registry.to_json().as_bytes())
    }
}

impl Beside {
    /// The challenges that are open.
    pub fn nonces(&self) -> Result<Nonces, Failure> {
        let path = self.nonces_path();
        if is_absent(&path) {
            return Ok(Nonces::new());
        }
        let nonces = Nonces::parse(&read(&path, NONCES_LEN_MAX)?);
        nonces.map_err(|why| refused(&path, &why))
    }

    /// Writes them back. When this returns, they survive a power cut.
    pub fn write_nonces(&self, nonces: &Nonces) -> Result<(), Failure> {
        put(&self.nonces_path(), nonces.to_json().as_bytes())
    }

    /// `registry.nonces` of `registry.json`.
    fn nonces_path(&self) -> PathBuf {
        self.path.with_extension("nonces")
    }

    /// Forgets the challenges of enrolments that have expired, and says how many are left. What is no challenge is left
    /// alone, and counted.
    pub fn forget_expired(&self, now: u64) -> Result<usize, Failure> {
        let dir = self.pending_dir();
        if is_absent(&dir) {
            return Ok(0);
        }
        let mut left = 0;
        for named in files(&dir, JSON)? {
            let pending = read(&named, FILE_LEN_MAX).ok();
            let pending = pending.and_then(|bytes| Pending::parse(&bytes).ok());
            let is_over = |it: &Pending| it.expires_at < now && named.ends_with(name(it.id));
            match pending.filter(is_over) {
                Some(over) => self.forget(over.id)?,
                None => left += 1,
            }
        }
        Ok(left)
    }

    /// Keeps what a response will be compared with.
    pub fn keep(&self, pending: &Pending) -> Result<(), Failure> {
        let dir = self.pending_dir();
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(refused(&dir, &reason(&error)));
            }
            _ => {}
        }
        put(&dir.join(name(pending.id)), pending.to_json().as_bytes())
    }

    /// What was kept for a response; none if no challenge is open.
    pub fn pending(&self, id: EnrolmentId) -> Result<Option<Pending>, Failure> {
        let path = self.pending_dir().join(name(id));
        if is_absent(&path) {
            return Ok(None);
        }
        let bytes = read(&path, FILE_LEN_MAX)?;
        let pending = Pending::parse(&bytes);
        pending.map(Some).map_err(|why| refused(&path, &why))
    }

    /// No challenge is answered twice.
    pub fn forget(&self, id: EnrolmentId) -> Result<(), Failure> {
        let dir = Dir::open(&self.pending_dir());
        let removed = dir.and_then(|dir| dir.remove(&name(id)));
        removed.map_err(|error| Failure::new(Exit::Refused, error.to_string()))
    }

    /// `registry.pending` of `registry.json`.
    fn pending_dir(&self) -> PathBuf {
        self.path.with_extension("pending")
    }
}

/// As a file of what is pending is called. Hexadecimal: no name begins with `-`.
fn name(id: EnrolmentId) -> String {
    format!("{}{JSON}", keystore::evidence::bundle::to_hex(&id.0))
}

fn read_registry(path: &Path) -> Result<Registry, Failure> {
    if is_absent(path) {
        return Ok(Registry::new());
    }
    let bytes = read(path, REGISTRY_LEN_MAX)?;
    Registry::parse(&bytes).map_err(|why| refused(path, &why))
}

/// One file of a batch.
pub struct Named {
    /// Where it is.
    pub path: PathBuf,
    /// Whether only its directory was named, in which there are others.
    pub is_one_of_many: bool,
}

/// The files that are named, and of directories those of their files that end so, in order.
pub fn batch(named: &[PathBuf], suffix: &str) -> Result<Vec<Named>, Failure> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(Named {
                path: path.clone(),
                is_one_of_many: false,
            });
            continue;
        }
        let found = self::files(path, suffix)?;
        if found.is_empty() {
            return Err(refused(path, &format!("has no file *{suffix}")));
        }
        files.extend(found.into_iter().map(|path| Named {
            path,
            is_one_of_many: true,
        }));
    }
    Ok(files)
}

/// The files of a directory that end so, in order.
fn files(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| refused(dir, &reason(&error));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        let name = entry.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.ends_with(suffix)) {
            found.push(entry);
        }
        if found.len() > BATCH_MAX {
            let why = format!("has more than {BATCH_MAX} files *{suffix}; name some of them");
            return Err(refused(dir, &why));
        }
    }
    found.sort();
    Ok(found)
}
