//! The configuration in force and its policy, swapped whole (P13). A request takes one look and
//! goes by it to its end; a reload replaces both or neither.
//!
//! What sockets, state, audit and keystores are made of is fixed at start: a reload that would
//! change it is refused. Nothing here decides about a request.

use crate::app::App;
use crate::audit;
use crate::config::Config;
use crate::notify::notify;
use crate::policy::Policy;
use crate::reply::Refusal;
use sd_notify::NotifyState;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// One configuration and its policy.
pub struct Rules {
    /// As loaded.
    pub config: Config,
    /// Its decisions.
    pub policy: Policy,
}

/// The rules in force.
pub struct InForce {
    rules: RwLock<Arc<Rules>>,
    /// One reload at a time, so that the log's order is the order in which they came into force.
    reloading: tokio::sync::Mutex<()>,
}

impl Rules {
    /// Rules of a configuration.
    pub fn new(config: Config) -> Rules {
        let policy = Policy::new(config.workloads.clone());
        Rules { config, policy }
    }
}

impl InForce {
    /// These from the start.
    pub fn new(config: Config) -> InForce {
        InForce {
            rules: RwLock::new(Arc::new(Rules::new(config))),
            reloading: tokio::sync::Mutex::new(()),
        }
    }

    /// The rules now.
    pub fn now(&self) -> Arc<Rules> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.clone()
    }

    fn replace(&self, rules: Rules) -> Arc<Rules> {
        let rules = Arc::new(rules);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules.clone();
        rules
    }
}

/// Reads the files again and puts them in force, once the record of it is durable. Says in log and
/// status what came of it.
///
/// # Errors
/// A file that is wrong, a change that needs a restart, an audit log that takes no record. The
/// rules are then the old ones.
pub async fn reload(app: &App) -> Result<Arc<Rules>, Refusal> {
    let reloaded = exchange(app).await;
    let status = match &reloaded {
        Ok(_) => format!("{} (reloaded)", app.in_a_line()),
        Err(refusal) => format!("reload failed: {}", refusal.detail()),
    };
    eprintln!("assertd: {status}");
    notify(&[NotifyState::Status(&status)]).await;
    reloaded
}

async fn exchange(app: &App) -> Result<Arc<Rules>, Refusal> {
    let _one_at_a_time = app.rules.reloading.lock().await;
    let old = app.rules.now();
    let path = old.config.path.clone();
    // Reading files and looking up users blocks; a name service may take its time.
    let loaded = tokio::task::spawn_blocking(move || load(&path)).await;
    let config = loaded.map_err(|error| Refusal::unavailable("internal", error))??;
    fixed_at_start(&old.config, &config).map_err(Refusal::Configuration)?;
    let durable = app
        .audit
        .configured(record(&config))
        .map_err(|error| Refusal::unavailable("audit_unavailable", error))?;
    durable.await.map_err(|_lost| Refusal::AUDIT_NOT_DURABLE)?;
    Ok(app.rules.replace(Rules::new(config)))
}

fn load(path: &Path) -> Result<Config, Refusal> {
    Config::load(path).map_err(|error| Refusal::Configuration(error.to_string()))
}

/// What is recorded of a configuration that comes into force.
pub fn record(config: &Config) -> audit::Configured {
    let mut sha256 = [0; 32];
    for (byte, digits) in sha256.iter_mut().zip(config.sha256.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or("00");
        *byte = u8::from_str_radix(digits, 16).unwrap_or(0);
    }
    audit::Configured {
        config_sha256: audit::Sha256(sha256),
    }
}

/// What a running daemon cannot change. A restart can, and costs nobody an answer: systemd keeps
/// the sockets meanwhile.
fn fixed_at_start(old: &Config, new: &Config) -> Result<(), String> {
    let mut changed: Vec<String> = Vec::new();
    if old.server != new.server {
        changed.push("[server]".to_owned());
    }
    if old.audit != new.audit {
        changed.push("[audit]".to_owned());
    }
    let names: BTreeSet<&String> = old.keystores.keys().chain(new.keystores.keys()).collect();
    for name in names {
        if old.keystores.get(name) != new.keystores.get(name) {
            changed.push(format!("[keystore.{name}]"));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    let changed = changed.join(", ");
    Err(format!(
        "{}: {changed} changed, which takes a restart: systemctl restart assertd (no request is \
         lost), and for a keystore its unit too",
        new.path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const TEXT: &str = "[keystore.hsm]\nbackend = \"pkcs11\"\nmodule = \"/m.so\"\n\
        token = { label = \"t\" }\npin = { file = \"/pin\" }\n";

    fn config(text: &str) -> Config {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Config::load(file.path()).unwrap()
    }

    #[test]
    fn only_a_restart_changes_what_was_made_at_start() {
        let old = config(TEXT);
        assert_eq!(fixed_at_start(&old, &config(TEXT)), Ok(()));
        for (text, named) in [
            (TEXT.replace("/m.so", "/n.so"), "[keystore.hsm]"),
            (
                format!("{TEXT}[keystore.b]\n{}", &TEXT[15..]),
                "[keystore.b]",
            ),
            (format!("[audit]\ndir = \"/a\"\n{TEXT}"), "[audit]"),
            // Where the audit log is follows the state directory, if it is not said.
            (
                format!("[server]\nstate_dir = \"/s\"\n{TEXT}"),
                "[server], [audit]",
            ),
        ] {
            let refused = fixed_at_start(&old, &config(&text)).unwrap_err();
            assert!(refused.contains(&format!("{named} changed")), "{refused}");
            assert!(refused.contains("systemctl restart assertd"), "{refused}");
        }
    }

    #[test]
    fn a_look_outlives_a_replacement() {
        let in_force = InForce::new(config(TEXT));
        let look = in_force.now();
        let new = in_force.replace(Rules::new(config(&format!("# new\n{TEXT}"))));
        assert_ne!(look.config.sha256, new.config.sha256);
        assert_eq!(in_force.now().config.sha256, new.config.sha256);
    }
}
