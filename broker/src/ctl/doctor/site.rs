//! What the doctor has to look at here: which configuration, and who runs assertd. A file with a
//! mistake does not end the examination: what can be read of it says where sockets and state are.

use super::access::quoted;
use super::host::{self, LOOK_DEADLINE};
use super::units::{self, Unit, Units};
use crate::audit;
use crate::config::Config;
use crate::ctl::CONFIG;
use crate::ctl::account::{self, Account};
use crate::ctl::run::within;
use keystore::config::{BackendKind, Diagnostic, Section, read_text};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The user of the broker's unit.
pub const BROKER_USER: &str = "assertd";

/// Who runs assertd and its keystores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runner {
    /// systemd, by the installed units.
    Units,
    /// Somebody at a terminal, or a test: assertd starts its keystores itself.
    Somebody(NoUnits),
}

/// Why units are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoUnits {
    /// systemd does not run here (sd_booted(3)).
    NoSystemd,
    /// The units read another configuration than the one that was asked about.
    OtherConfig,
}

/// Why there is no configuration to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLoaded {
    /// Its first mistake, or that it cannot be read.
    Mistake(Diagnostic),
    /// A disk did not answer, or the name service, which is asked for the users that it names.
    NoAnswer,
}

/// Everything the checks are about.
pub struct Site {
    /// The main file.
    pub config_path: PathBuf,
    /// The configuration, or why it is not loaded.
    pub config: Result<Config, NotLoaded>,
    /// Where sockets are.
    pub runtime_dir: PathBuf,
    /// The broker's state.
    pub state_dir: PathBuf,
    /// The audit log.
    pub audit_dir: PathBuf,
    /// Bytes of one of its segments.
    pub segment_bytes: u64,
    /// By name: all that can be read.
    pub keystores: BTreeMap<String, Section>,
    /// Who runs it.
    pub runner: Runner,
}

/// The parts of a configuration that say where things are.
#[derive(Debug, Default)]
struct Places {
    runtime_dir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    audit_dir: Option<PathBuf>,
    segment_bytes: Option<u64>,
    keystores: BTreeMap<String, Section>,
}

impl Site {
    /// Reads the configuration at `path`.
    pub fn look(path: Option<&Path>) -> Site {
        let path = path.unwrap_or(Path::new(CONFIG));
        let file = path.to_owned();
        Site::of(path, within(LOOK_DEADLINE, move || Config::load(&file)))
    }

    /// Of what loading came to; nothing if that hung.
    fn of(path: &Path, loaded: Option<Result<Config, Diagnostic>>) -> Site {
        let config = match loaded {
            Some(loaded) => loaded.map_err(NotLoaded::Mistake),
            None => Err(NotLoaded::NoAnswer),
        };
        let file = path.to_owned();
        let places = match &config {
            Ok(config) => Places::of(config),
            Err(_) => match within(LOOK_DEADLINE, move || read_text(&file)) {
                Some(Ok(text)) => salvage(&text),
                Some(Err(_)) | None => Places::default(),
            },
        };
        let state_dir = places
            .state_dir
            .unwrap_or_else(|| "/var/lib/assertd".into());
        let systemd = Path::new("/run/systemd/system").is_dir();
        let runner = match (systemd, path == Path::new(CONFIG)) {
            (true, true) => Runner::Units,
            (false, _) => Runner::Somebody(NoUnits::NoSystemd),
            (true, false) => Runner::Somebody(NoUnits::OtherConfig),
        };
        Site {
            config_path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            config,
            runtime_dir: places.runtime_dir.unwrap_or_else(|| "/run/assertd".into()),
            audit_dir: places.audit_dir.unwrap_or_else(|| state_dir.join("audit")),
            state_dir,
            segment_bytes: places.segment_bytes.unwrap_or(audit::SEGMENT_BYTES),
            keystores: places.keystores,
            runner,
        }
    }

    /// The workloads' socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join("assertd.sock")
    }

    /// The administrators' socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.runtime_dir.join("admin.sock")
    }

    /// A keystore's socket: its unit's, or the one the broker makes for it.
    pub fn keystore_socket(&self, name: &str, section: &Section) -> PathBuf {
        let own = || self.runtime_dir.join(format!("keystore-{name}.sock"));
        section.socket.clone().unwrap_or_else(own)
    }

    /// A keystore's state.
    pub fn keystore_state(&self, name: &str, section: &Section) -> PathBuf {
        match (&self.runner, &section.socket) {
            (Runner::Units, Some(_)) => Path::new("/var/lib/assertd-keystore").join(name),
            _ => self.state_dir.join("keystore").join(name),
        }
    }

    /// The options a suggested command needs to look at the same configuration.
    pub fn options(&self) -> String {
        match self.config_path == Path::new(CONFIG) {
            true => String::new(),
            false => format!(" -c {}", quoted(&self.config_path)),
        }
    }

    /// How assertd is started anew, as a phrase.
    pub fn restart(&self) -> String {
        match self.runner {
            Runner::Units => "run `systemctl restart assertd`".to_owned(),
            Runner::Somebody(_) => {
                format!(
                    "end assertd and start it again: `assertd{}`",
                    self.options()
                )
            }
        }
    }

    /// The unit of a keystore, as commands are given it: without `.service`.
    pub fn keystore_unit(&self, name: &str) -> String {
        let section = self.keystores.get(name);
        let backend = section.map_or(BackendKind::Pkcs11, |section| section.backend);
        format!("{}@{name}", backend.program())
    }

    /// How a keystore is started anew, as a phrase.
    pub fn restart_keystore(&self, name: &str, pid: Option<u32>) -> String {
        match (&self.runner, pid) {
            (Runner::Units, _) => {
                format!("run `systemctl restart {}`", self.keystore_unit(name))
            }
            (Runner::Somebody(_), Some(pid)) => {
                format!("run `kill {pid}` (assertd starts the keystore again)")
            }
            (Runner::Somebody(_), None) => self.restart(),
        }
    }
}

impl Places {
    fn of(config: &Config) -> Places {
        Places {
            runtime_dir: Some(config.server.runtime_dir.clone()),
            state_dir: Some(config.server.state_dir.clone()),
            audit_dir: Some(config.audit.dir.clone()),
            segment_bytes: config.audit.segment_bytes,
            keystores: config.keystores.clone(),
        }
    }
}

/// What is left of a configuration with a mistake; nothing if it is no TOML at all.
fn salvage(text: &str) -> Places {
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    let path = |section: &str, key: &str| {
        let value = table.get(section)?.get(key)?;
        Some(PathBuf::from(value.as_str()?))
    };
    let sections = table.get("keystore").and_then(toml::Value::as_table);
    let keystores = sections.into_iter().flatten().filter_map(|(name, value)| {
        let section: Section = value.clone().try_into().ok()?;
        section.check().is_ok().then(|| (name.clone(), section))
    });
    Places {
        runtime_dir: path("server", "runtime_dir"),
        state_dir: path("server", "state_dir"),
        audit_dir: path("audit", "dir"),
        segment_bytes: table
            .get("audit")
            .and_then(|audit| audit.get("segment_bytes")?.as_integer())
            .and_then(|bytes| u64::try_from(bytes).ok()),
        keystores: keystores.collect(),
    }
}

/// The users that run our processes.
#[derive(Clone, Debug)]
pub struct Users {
    /// The broker's; `None` if there is no such user.
    pub broker: Option<Account>,
    /// The keystores', by their kind; `None` if there is no such user. Those of PKCS#11 are always
    /// among them.
    pub keystores: BTreeMap<BackendKind, Option<Account>>,
}

impl Users {
    /// Those of the units, or whoever owns the state; `Err` if the name service does not answer.
    pub fn look(site: &Site, units: &Units) -> Result<Users, String> {
        if site.runner == Runner::Units {
            let mut keystores = BTreeMap::new();
            for kind in kinds(site) {
                keystores.insert(kind, of_unit(units.any_keystore(kind), kind.user())?);
            }
            return Ok(Users {
                broker: of_unit(units.unit(units::SERVICE), BROKER_USER)?,
                keystores,
            });
        }
        let uid = host::entry(&site.state_dir).map_or(0, |entry| entry.uid);
        let account = Some(account::of_uid(uid));
        Ok(Users {
            keystores: kinds(site)
                .into_iter()
                .map(|kind| (kind, account.clone()))
                .collect(),
            broker: account,
        })
    }

    /// Who runs the keystores of this kind.
    pub fn keystore(&self, kind: BackendKind) -> Option<&Account> {
        self.keystores.get(&kind)?.as_ref()
    }

    /// Who may own what assertd believes: root and, where nobody separates them, whoever runs it.
    pub fn trusted(&self, runner: &Runner) -> Vec<u32> {
        let own = match runner {
            Runner::Units => None,
            Runner::Somebody(_) => self.broker.as_ref().map(|account| account.uid),
        };
        [0].into_iter().chain(own).collect()
    }
}

/// The kinds of keystore that there are.
fn kinds(site: &Site) -> BTreeSet<BackendKind> {
    let named = site.keystores.values().map(|section| section.backend);
    named.chain([BackendKind::Pkcs11]).collect()
}

/// A service's user, with the groups that the unit adds.
fn of_unit(unit: Option<&Unit>, usual: &str) -> Result<Option<Account>, String> {
    let name = unit.and_then(|unit| unit.property("User"));
    let account = account::of(name.unwrap_or(usual))?;
    let added = unit
        .into_iter()
        .flat_map(|unit| unit.words("SupplementaryGroups"));
    let added: Vec<u32> = added
        .filter_map(|name| account::group(name).ok().flatten())
        .collect();
    Ok(account.map(|account| Account { added, ..account }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_elsewhere_hides_neither_places_nor_keystores() {
        let places = salvage(
            "[server]\nruntime_dir = \"/r\"\nstate_dir = \"/s\"\n[audit]\nsegment_bytes = 65536\n\
             [keystore.hsm]\nbackend = \"pkcs11\"\nmodule = \"/m.so\"\ntoken = { label = \"t\" }\n\
             pin = { credential = \"hsm.pin\" }\n[keystore.bad]\nbackend = \"tape\"\n\
             [workload.a]\nmach = 1\n",
        );
        assert_eq!(places.runtime_dir, Some("/r".into()));
        assert_eq!(places.state_dir, Some("/s".into()));
        assert_eq!(places.segment_bytes, Some(65_536));
        assert_eq!(places.keystores.keys().collect::<Vec<_>>(), ["hsm"]);
        assert!(salvage("[[[").keystores.is_empty());
    }

    #[test]
    fn a_configuration_that_could_not_be_loaded_in_time_says_still_where_things_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("assertd.toml");
        let mut options = std::fs::File::options();
        let mut file = options.create_new(true).write(true).open(&path).unwrap();
        let text = "[server]\nruntime_dir = \"/r\"\n[workload.a]\nmatch = { user = \"a\" }\n";
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let site = Site::of(&path, None);
        assert!(matches!(site.config, Err(NotLoaded::NoAnswer)));
        assert_eq!(site.socket(), Path::new("/r/assertd.sock"));
    }
}
