//! The configuration in force and its policy, swapped whole (P13). A request takes one look and
//! goes by it to its end; a reload replaces both or neither.
//!
//! What sockets, state, audit and keystores are made of is fixed at start: a reload that would
//! change it is refused. Nothing here decides about a request.

use crate::app::App;
use crate::attestation;
use crate::audit;
use crate::config::Config;
use crate::denylist::{DenyLists, Reading, Sight};
use crate::notify::notify;
use crate::policy::Policy;
use crate::reply::Refusal;
use crate::sandbox;
use crate::sys;
use keystore::Kind;
use sd_notify::NotifyState;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

/// How long who asked for a reload waits for the verdict: less than a connection may take (8 s) and
/// a client waits (10 s).
const VERDICT_DEADLINE: Duration = Duration::from_secs(7);

/// How long a reload waits for the one before it.
const TURN_DEADLINE: Duration = Duration::from_secs(2);

/// How long reading may take: a few files and users.
const LOAD_DEADLINE: Duration = Duration::from_secs(4);

/// How long a witness that starts only now may take; half of what is left until the verdict.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How often it is looked whether a request still goes by rules that are not in force any more.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One configuration, its policy, and the deny lists.
pub struct Rules {
    /// As loaded.
    pub config: Arc<Config>,
    /// Its decisions.
    pub policy: Arc<Policy>,
    /// What gets nothing all the same. Its files may change without the configuration.
    pub denied: Arc<DenyLists>,
    /// The how manieth in force since the start: what was signed under another is not handed out again.
    pub generation: u64,
    drop_ins: DropIns,
}

/// Whether there was a `conf.d` to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DropIns {
    There,
    None,
}

/// The rules in force.
pub struct InForce {
    rules: RwLock<Arc<Rules>>,
    /// One reload at a time, so that the log's order is the order in which they came into force.
    reloading: Arc<tokio::sync::Mutex<()>>,
    outgoing: Outgoing,
}

/// Rules that are not in force any more and that requests still go by. They are taken apart on a thread
/// for that, one however many reloads there are: the last of the requests would have to do it otherwise.
#[derive(Default)]
struct Outgoing {
    /// And whether somebody waits for their requests.
    rules: Mutex<(Vec<Arc<Rules>>, Taker)>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Taker {
    #[default]
    None,
    Runs,
}

/// Whether somebody has to take rules apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hands {
    Wanted,
    There,
}

impl Outgoing {
    fn leave(&self, rules: Arc<Rules>) -> Hands {
        let mut guard = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0.push(rules);
        match std::mem::replace(&mut guard.1, Taker::Runs) {
            Taker::None => Hands::Wanted,
            Taker::Runs => Hands::There,
        }
    }

    /// Until there are none any more, which a request's deadline bounds.
    fn take_apart(&self) {
        loop {
            let mut guard = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
            let over: Vec<Arc<Rules>> = guard.0.extract_if(.., |rules| rules.is_over()).collect();
            if guard.0.is_empty() {
                guard.1 = Taker::None;
                drop(guard);
                drop(over);
                sys::give_memory_back();
                return;
            }
            drop(guard);
            drop(over); // outside of the lock: it takes long
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Rules {
    /// Rules of a configuration.
    pub fn new(config: Config, denied: DenyLists) -> Rules {
        let policy = Policy::new(config.workloads.clone());
        let drop_ins = DropIns::beside(&config.path);
        Rules {
            config: Arc::new(config),
            policy: Arc::new(policy),
            denied: Arc::new(denied),
            generation: 0,
            drop_ins,
        }
    }
}

impl Rules {
    /// Whether no request goes by them, nor by the same with other deny lists.
    fn is_over(self: &Arc<Self>) -> bool {
        let holders = [
            Arc::strong_count(self),
            Arc::strong_count(&self.policy),
            Arc::strong_count(&self.config),
        ];
        holders == [1; 3]
    }
}

impl InForce {
    /// These from the start.
    pub fn new(rules: Rules) -> InForce {
        InForce {
            rules: RwLock::new(Arc::new(rules)),
            reloading: Arc::default(),
            outgoing: Outgoing::default(),
        }
    }

    /// The rules now.
    pub fn now(&self) -> Arc<Rules> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.clone()
    }

    /// Waits until no other is about to change the rules.
    pub async fn turn(&self) -> OwnedMutexGuard<()> {
        self.reloading.clone().lock_owned().await
    }

    /// Other deny lists, by whoever has the turn.
    pub fn replace_lists(&self, denied: DenyLists) {
        let old = self.now();
        self.replace(Rules {
            config: old.config.clone(),
            policy: old.policy.clone(),
            denied: Arc::new(denied),
            generation: old.generation, // what is denied is asked for each request
            drop_ins: old.drop_ins,
        });
    }

    fn replace(&self, rules: Rules) -> Arc<Rules> {
        let rules = Arc::new(rules);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules.clone();
        rules
    }
}

/// Reads the files again and puts them in force, once the record of it is durable. Says in log and
/// status what came of it. The work is a task of its own: whoever asked may hang up or lose
/// patience, and it still ends with the verdict in the log, never half done.
///
/// # Errors
/// A file that is wrong, a change that needs a restart, an audit log that takes no record: the
/// rules are then the old ones. Or no verdict within [`VERDICT_DEADLINE`]; it is then still to come.
pub async fn reload(app: &Arc<App>) -> Result<Arc<Rules>, Refusal> {
    let task = tokio::spawn(exchange_and_tell(app.clone()));
    match timeout(VERDICT_DEADLINE, task).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => Err(Refusal::unavailable("internal", error)),
        Err(_) => {
            let text = "no verdict yet; it will be in the log and in `systemctl status assertd`";
            Err(Refusal::unavailable("deadline", text))
        }
    }
}

async fn exchange_and_tell(app: Arc<App>) -> Result<Arc<Rules>, Refusal> {
    // Who is not ready yet is not reloading either, and a reload must not call it ready.
    let is_ready = app.ready.load(Ordering::SeqCst);
    let begin = async {
        if is_ready {
            notify(&reloading()).await;
        }
    };
    let ((), reloaded) = tokio::join!(begin, exchange(&app));
    let status = match &reloaded {
        Ok(_) => format!("{} (reloaded)", app.in_a_line()),
        Err(refusal) => format!("reload failed: {}", refusal.detail()),
    };
    eprintln!("assertd: {status}");
    let status = NotifyState::Status(&status);
    match is_ready {
        true => notify(&[NotifyState::Ready, status]).await,
        false => notify(&[status]).await,
    }
    reloaded
}

/// The service manager takes the second line, where it asks for it, for proof that the first is no
/// older than its own wish (sd_notify(3), systemd 253).
fn reloading() -> Vec<NotifyState<'static>> {
    let now = NotifyState::monotonic_usec_now();
    [NotifyState::Reloading].into_iter().chain(now).collect()
}

async fn exchange(app: &Arc<App>) -> Result<Arc<Rules>, Refusal> {
    let slow = |text: &str| {
        let text = format!("{text}; the old configuration stays in force");
        Refusal::unavailable("deadline", text)
    };
    let turn = timeout(TURN_DEADLINE, app.rules.turn()).await;
    let turn = turn.map_err(|_| slow("another reload is still reading its files"))?;
    let old = app.rules.now();
    // Reading files and looking up users blocks, and cannot be given up. A thread that hangs keeps
    // the turn, so that there is one of them at most. With thousands of sections it also takes long to
    // make the rules and to take them apart: none of it happens where requests are served.
    let before = old.clone();
    let loading = tokio::task::spawn_blocking(move || {
        let loaded = load(&before).inspect_err(|_| sys::give_memory_back());
        (loaded, turn)
    });
    let loaded = timeout(LOAD_DEADLINE, loading).await;
    let loaded = loaded.map_err(|_| slow("reading took too long: does a name service hang?"))?;
    let (loaded, _turn) = loaded.map_err(|error| Refusal::unavailable("internal", error))?;
    let Loaded { new, sight } = loaded?;
    let enforceable = attestation::enforceable(&app.witness, &new, PATIENCE).await;
    enforceable.map_err(|why| Refusal::Configuration(why.to_string()))?;
    let durable = app
        .audit
        .configured(record(&new.config, &new.denied))
        .map_err(|error| Refusal::unavailable("audit_unavailable", error))?;
    // Once it is written it must come into force, however long the disk takes.
    durable.await.map_err(|_lost| Refusal::AUDIT_NOT_DURABLE)?;
    if let Some(sight) = sight {
        app.denied.saw(sight);
    }
    // A version stays published until the last it has signed has expired, however long that lives.
    let (keyring, lifetimes) = (app.keyring.clone(), new.config.lifetimes());
    let written = tokio::task::spawn_blocking(move || keyring.will_live(&lifetimes)).await;
    let written =
        written.unwrap_or_else(|lost| Err(keystore::Error::new(Kind::Internal, lost.to_string())));
    written.map_err(|error| Refusal::unavailable("state_unavailable", error))?;
    let new = app.rules.replace(Rules {
        generation: old.generation + 1,
        ..new
    });
    app.shelf.clear();
    app.keyring.tell(); // of other schedules
    if app.rules.outgoing.leave(old) == Hands::Wanted {
        let app = app.clone();
        let _freed = tokio::task::spawn_blocking(move || app.rules.outgoing.take_apart());
    }
    Ok(new)
}

/// Rules that may come into force.
struct Loaded {
    new: Rules,
    /// How the deny lists' files looked, if the lists are as they were read.
    sight: Option<Sight>,
}

/// A directory that was there and is not any more has been moved or not been mounted: nobody takes
/// everything from every team that way.
fn load(before: &Rules) -> Result<Loaded, Refusal> {
    let path = &before.config.path;
    if before.drop_ins == DropIns::There && DropIns::beside(path) == DropIns::None {
        let text = format!(
            "{}: is not there any more; put it back, or make an empty directory if nothing that \
             was in it is meant any more",
            path.with_file_name("conf.d").display()
        );
        return Err(Refusal::Configuration(text));
    }
    let config = Config::load(path);
    let both = config.and_then(|config| Reading::of(&config.deny).map(|read| (config, read)));
    let (config, Reading { lists, sight }) =
        both.map_err(|error| Refusal::Configuration(error.to_string()))?;
    fixed_at_start(&before.config, &config).map_err(Refusal::Configuration)?;
    // The same files with another content may be half written at this moment: they are for who
    // watches them (denylist/watch.rs), and until then the old lists hold.
    let is_news = config.deny == before.config.deny && lists.sha256() != before.denied.sha256();
    let (denied, sight) = match is_news {
        true => (before.denied.clone(), None),
        false => (Arc::new(lists), Some(sight)),
    };
    let new = Rules {
        denied,
        ..Rules::new(config, DenyLists::default())
    };
    Ok(Loaded { new, sight })
}

impl DropIns {
    fn beside(path: &Path) -> DropIns {
        match path.with_file_name("conf.d").is_dir() {
            true => DropIns::There,
            false => DropIns::None,
        }
    }
}

/// What is recorded of a configuration, or of deny lists, that come into force.
pub fn record(config: &Config, denied: &DenyLists) -> audit::Configured {
    audit::Configured {
        config_sha256: config.sha256,
        deny_sha256: denied.sha256(),
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
    if old.publication != new.publication {
        changed.push("[publication]".to_owned()); // the sandbox lets in the directory of the start
    }
    // What the sandbox was made of at start is all that can be read.
    let let_in = sandbox::readable(old);
    let is_readable = |file: &PathBuf| let_in.iter().any(|directory| file.starts_with(directory));
    if !new.deny.paths().all(is_readable) {
        changed.push("[deny] (a list in another directory)".to_owned());
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
            (
                format!("[publication]\ndirectory = \"/p\"\n{TEXT}"),
                "[publication]",
            ),
            (
                format!("[deny]\nusers = \"/srv/elsewhere/users\"\n{TEXT}"),
                "[deny] (a list in another directory)",
            ),
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
    fn a_deny_list_beside_the_configuration_takes_no_restart() {
        let old = config(TEXT);
        let beside = old.path.with_file_name("denied");
        let text = format!("[deny]\nusers = \"{}\"\n{TEXT}", beside.display());
        assert_eq!(fixed_at_start(&old, &config(&text)), Ok(()));
    }

    #[test]
    fn the_last_look_at_old_rules_is_not_what_takes_them_apart() {
        let in_force = Arc::new(InForce::new(Rules::new(config(TEXT), DenyLists::default())));
        let first = in_force.now();
        in_force.replace_lists(DenyLists::default()); // the same policy, under other lists
        let (old, gone) = (in_force.now(), Arc::downgrade(&first.policy));
        in_force.replace(Rules::new(config(TEXT), DenyLists::default()));
        assert!(in_force.outgoing.leave(old) == Hands::Wanted);
        let taker = {
            let in_force = in_force.clone();
            std::thread::spawn(move || in_force.outgoing.take_apart())
        };
        let another = Arc::new(Rules::new(config(TEXT), DenyLists::default()));
        let another_gone = Arc::downgrade(&another);
        assert!(
            in_force.outgoing.leave(another) == Hands::There,
            "one is enough"
        );
        while another_gone.strong_count() > 0 {
            std::thread::sleep(LOOK_AGAIN); // until the taker has looked at them
        }
        assert!(
            !taker.is_finished() && gone.strong_count() > 0,
            "it waits for the look"
        );
        drop(first);
        taker.join().unwrap();
        assert!(gone.upgrade().is_none());
    }

    #[test]
    fn a_look_outlives_a_replacement() {
        let rules = |text: &str| Rules::new(config(text), DenyLists::default());
        let in_force = InForce::new(rules(TEXT));
        let look = in_force.now();
        let new = in_force.replace(rules(&format!("# new\n{TEXT}")));
        assert_ne!(look.config.sha256, new.config.sha256);
        assert_eq!(in_force.now().config.sha256, new.config.sha256);
    }
}
