//! assertd as it runs: whether it answers, which program and configuration it runs, and what it
//! says of keystores, keys and its log. It is asked only where it runs already.
//!
//! What it says is shown and never believed further: root connects to no socket and runs no command
//! because of a name in it. Names and sockets are the configuration's.

use super::access::quoted;
use super::finding::{
    ANSWERS, AUDIT_WRITES, CERTIFICATE, CONFIG_IN_FORCE, DENY_LISTS, Finding, KEY_MADE, KEY_STATE,
    KEYSTORE, PROGRAM, STRANGE, WITNESS,
};
use super::site::{Runner, Site};
use super::units::{self, Units};
use crate::config::KeyFrom;
use crate::ctl::out::{count, duration, rfc3339};
use crate::ctl::run::within;
use assertd_client::Client;
use assertd_client::api::{KeyStatus, KeystoreStatus, Status};
use keystore::config::BackendKind;
use keystore::protocol::{Reply, Request};
use keystore::{Clock, client};
use keystores::Word;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

pub mod keystores;

/// How long assertd may take for two answers, which it keeps ready.
const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// How long a keystore may take to say how it is; it keeps that ready.
const KEYSTORE_DEADLINE: Duration = Duration::from_secs(5);

/// Whether it runs, and what it says.
pub enum Facts {
    /// It does not run.
    Absent,
    /// It runs, and why it does not answer.
    Silent(String),
    /// It answers.
    Answers(Box<Answers>),
}

/// What it says.
pub struct Answers {
    /// Itself.
    status: Status,
    /// Its keys.
    keys: Vec<KeyStatus>,
    /// What can be done about keystores that cannot serve, by their own word.
    words: BTreeMap<String, Word>,
    /// Processes of ours whose program is not the installed one any more.
    outdated: Vec<String>,
    /// When it said so, in seconds since 1970.
    now_s: u64,
}

/// Looks. `socket` is where administrators ask.
pub fn look(site: &Site, units: &Units, socket: PathBuf) -> Facts {
    let runs = match site.runner {
        Runner::Units => units.unit(units::SERVICE).is_some_and(units::Unit::is_up),
        // Nothing starts it, so that asking starts nothing.
        Runner::Somebody(_) => socket.exists(),
    };
    if !runs {
        return Facts::Absent;
    }
    let asked = socket.clone();
    let answers = within(ASK_DEADLINE, move || {
        let mut client = Client::connect(&asked)?;
        Ok((client.status()?, client.keys()?.keys))
    });
    let (status, keys) = match answers {
        Some(Ok(answers)) => answers,
        Some(Err(assertd_client::Error::Unreachable { reason, .. }))
            if site.runner != Runner::Units && reason.contains("refused") =>
        {
            return Facts::Absent; // a stale socket
        }
        Some(Err(error)) => return Facts::Silent(error.to_string()),
        None => return Facts::Silent(format!("{}: no answer", socket.display())),
    };
    Facts::Answers(Box::new(Answers {
        words: words(site, &status),
        outdated: outdated(&status),
        now_s: Clock::new().read().unix_s(),
        status,
        keys,
    }))
}

/// What the keystores that cannot serve say can be done about it; all are asked at once.
fn words(site: &Site, status: &Status) -> BTreeMap<String, Word> {
    let failed = status.keystores.iter().filter(|it| it.state != "usable");
    let sockets = failed.filter_map(|it| {
        let section = site.keystores.get(&it.name)?;
        Some((it.name.clone(), site.keystore_socket(&it.name, section)))
    });
    let asked: Vec<(String, thread::JoinHandle<Option<Word>>)> = sockets
        .map(|(name, socket)| (name, thread::spawn(move || word_of(socket))))
        .collect();
    asked
        .into_iter()
        .filter_map(|(name, thread)| Some((name, thread.join().ok().flatten()?)))
        .collect()
}

fn word_of(socket: PathBuf) -> Option<Word> {
    let health = within(KEYSTORE_DEADLINE, move || {
        client::Client::connect(&socket, KEYSTORE_DEADLINE)?.call(&Request::Health {})
    });
    match health?.ok()? {
        Reply::Health(health) => Word::of(&health.standing),
        _ => None,
    }
}

/// Processes whose file has been replaced since they started (proc_pid_exe(5)).
fn outdated(status: &Status) -> Vec<String> {
    let deleted = |(_, pid): &(String, u32)| {
        let link = std::fs::read_link(format!("/proc/{pid}/exe"));
        link.is_ok_and(|path| path.to_string_lossy().ends_with(" (deleted)"))
    };
    let processes = processes(status);
    processes
        .into_iter()
        .filter(deleted)
        .map(|(name, _)| name)
        .collect()
}

fn processes(status: &Status) -> Vec<(String, u32)> {
    let broker = ("assertd".to_owned(), status.pid);
    [vec![broker], keystore_processes(status)].concat()
}

fn keystore_processes(status: &Status) -> Vec<(String, u32)> {
    let keystores = status.keystores.iter();
    keystores
        .filter_map(|it| Some((format!("keystore {}", it.name), it.pid?)))
        .collect()
}

impl Facts {
    /// assertd's process, if it has said so.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Facts::Answers(answers) => Some(answers.status.pid),
            Facts::Absent | Facts::Silent(_) => None,
        }
    }

    /// The keystores' processes, by name and number.
    pub fn keystores(&self) -> Vec<(String, u32)> {
        match self {
            Facts::Answers(answers) => keystore_processes(&answers.status),
            Facts::Absent | Facts::Silent(_) => Vec::new(),
        }
    }
}

/// Judges.
pub fn findings(site: &Site, facts: &Facts) -> Vec<Finding> {
    match facts {
        Facts::Absent => vec![absent(site)],
        Facts::Silent(why) => {
            let text = format!("assertd runs and does not answer: {why}");
            vec![ANSWERS.fail(text, site.restart())]
        }
        Facts::Answers(answers) => of_answers(site, answers),
    }
}

/// With units a request starts it, so that this is no fault; but nobody could be asked.
fn absent(site: &Site) -> Finding {
    let text = "assertd does not run, so that keystores, keys and its log could not be asked about";
    match site.runner {
        Runner::Units => ANSWERS.warn(
            format!("{text}; the first request starts it"),
            "run `systemctl start assertd`, then `assertctl check` again",
        ),
        Runner::Somebody(_) => ANSWERS.fail(text, format!("start it: `assertd{}`", site.options())),
    }
}

fn of_answers(site: &Site, answers: &Answers) -> Vec<Finding> {
    let Answers { status, .. } = answers;
    let mut found = vec![ANSWERS.ok(format!(
        "assertd {}, pid {}, up {}",
        status.version,
        status.pid,
        duration(status.uptime_s)
    ))];
    found.extend(program(site, answers));
    found.extend(config_in_force(site, status));
    found.extend(deny_lists(status));
    found.extend(witness(site, status));
    for keystore in &status.keystores {
        let word = answers.words.get(&keystore.name).copied();
        found.push(match site.keystores.get(&keystore.name) {
            Some(section) => keystores::finding(site, keystore, section, word),
            None => unknown(site, keystore),
        });
        found.extend(strange(site, keystore));
    }
    found.extend(keys(site, answers));
    if status.audit.state != "ok" {
        let why = status
            .audit
            .why
            .as_deref()
            .unwrap_or("assertd does not say why");
        found.push(audit(site, &status.audit.state, why));
    }
    found
}

/// It may run a configuration that the files do not have any more.
fn unknown(site: &Site, keystore: &KeystoreStatus) -> Finding {
    KEYSTORE.warn(
        format!(
            "assertd speaks of a keystore \"{}\", which the configuration does not have",
            keystore.name
        ),
        site.restart(),
    )
}

fn program(site: &Site, answers: &Answers) -> Option<Finding> {
    let (running, ours) = (&answers.status.version, env!("CARGO_PKG_VERSION"));
    let text = if running != ours {
        format!("assertd {running} runs, and assertctl is {ours}")
    } else if answers.outdated.is_empty() {
        return None;
    } else {
        let names = answers.outdated.join(", ");
        format!("{names}: the installed program is another than the one that runs")
    };
    let keystores = answers
        .outdated
        .iter()
        .filter_map(|name| name.strip_prefix("keystore "))
        .filter_map(|name| Some((name, site.keystores.get(name)?)));
    let remedy = match site.runner {
        Runner::Units => {
            let units: String = keystores
                .map(|(name, section)| format!(" {}", section.backend.unit(name, "service")))
                .collect();
            format!("run `systemctl restart assertd{units}`, which loses no connection")
        }
        Runner::Somebody(_) => site.restart(),
    };
    Some(PROGRAM.warn(text, remedy))
}

fn config_in_force(site: &Site, status: &Status) -> Option<Finding> {
    let config = site.config.as_ref().ok()?;
    if config.sha256.to_string() == status.config.sha256 {
        return None;
    }
    Some(CONFIG_IN_FORCE.warn(
        "assertd runs another configuration than the files have",
        format!(
            "run `assertctl{} reload`; where it says that a section needs a restart, {}",
            site.options(),
            site.restart()
        ),
    ))
}

fn deny_lists(status: &Status) -> Option<Finding> {
    let deny = &status.deny;
    if let Some(why) = &deny.why {
        let why = why.strip_prefix("deny lists: ").unwrap_or(why);
        let remedy = "mend the line, or put the file back; assertd reads it again within seconds";
        return Some(DENY_LISTS.fail(why, remedy));
    }
    let entries = deny.entries;
    (entries > 0).then(|| DENY_LISTS.ok(format!("entries in force: {entries}")))
}

/// Whoever needs it is refused while it is away.
fn witness(site: &Site, status: &Status) -> Option<Finding> {
    match (&status.witness.why, status.witness.state.as_str()) {
        (None, "ok") => Some(WITNESS.ok("it says what workloads run")),
        (None, _) => None,
        (Some(why), _) => Some(WITNESS.fail(
            why.clone(),
            match site.runner {
                Runner::Units => {
                    "run `systemctl enable --now assertd-witness.socket`; if it listens already, see \
                     `journalctl -u assertd-witness`"
                }
                Runner::Somebody(_) => {
                    "start assertd again, which starts a witness of its own where it runs as root"
                }
            },
        )),
    }
}

fn strange(site: &Site, keystore: &KeystoreStatus) -> Option<Finding> {
    if keystore.strange.is_empty() {
        return None;
    }
    let section = site.keystores.get(&keystore.name);
    let module = section.and_then(|section| section.module.as_deref());
    let remove = match section {
        Some(section) if section.backend == BackendKind::Tpm => {
            let keys = site.keystore_state(&keystore.name, section).join("keys");
            format!("remove the file of each from {}", keys.display())
        }
        _ => format!(
            "remove each by the vendor's tool: `pkcs11-tool --module {} --login --delete-object \
             --type privkey --id …`",
            quoted(module.unwrap_or(Path::new("MODULE")))
        ),
    };
    Some(STRANGE.warn(
        format!(
            "keystore {}: objects that look like ours and have no record: {}; was an older state \
             restored?",
            keystore.name,
            keystore.strange.join(", ")
        ),
        format!("restore the keystore's newest state; or, if nothing uses them, {remove}"),
    ))
}

/// Keys that the files ask for and that are not there; keys in use that cannot sign.
fn keys(site: &Site, answers: &Answers) -> Vec<Finding> {
    let recorded: BTreeSet<&str> = answers
        .keys
        .iter()
        .filter_map(|key| key.key.rsplit_once('.').map(|(name, _)| name))
        .collect();
    let wanted = site
        .config
        .as_ref()
        .map(|config| config.wanted_keys())
        .unwrap_or_default();
    let missing: Vec<&str> = wanted
        .keys()
        .map(|name| name.as_str())
        .filter(|name| !recorded.contains(name))
        .collect();
    let mut found = Vec::new();
    if let Some(first) = missing.first() {
        let text = match missing.len() {
            1 => format!("{first} is not made yet: requests for it are refused"),
            n => format!(
                "{first} and {} more are not made yet: requests for them are refused",
                n - 1
            ),
        };
        let is_brought = wanted
            .iter()
            .find(|(name, _)| name.as_str() == *first)
            .is_some_and(|(_, wanted)| wanted.key_from == KeyFrom::Import);
        let command = match is_brought {
            true => format!("keys import {first} FILE"),
            false => "apply".to_owned(),
        };
        found.push(KEY_MADE.fail(text, format!("run `assertctl{} {command}`", site.options())));
    }
    for key in answers.keys.iter().filter(|key| key.used) {
        found.extend(key_state(site, key));
    }
    found.extend(none_active(site, &answers.keys));
    let ending = answers.keys.iter().filter(|key| key.used);
    let ending = ending.filter_map(|key| certificate(site, key, answers.now_s));
    let ending: Vec<Finding> = ending.collect();
    let is_active = |key: &&KeyStatus| key.used && key.phase == "active";
    let used = answers.keys.iter().filter(is_active).count();
    if found.is_empty() && used > 0 {
        found.push(KEY_STATE.ok(format!("{} in use, all active", count(used, "key"))));
    }
    found.extend(ending);
    found
}

/// A certificate that has ended or ends soon: nothing here stops by it, and the other side refuses the key.
fn certificate(site: &Site, key: &KeyStatus, now_s: u64) -> Option<Finding> {
    let certificate = key.certificate.as_ref()?;
    certificate.warning.as_ref()?; // assertd knows how soon is soon, and for which versions it matters
    let (id, options, end) = (&key.key, site.options(), rfc3339(certificate.not_after));
    let name = id.rsplit_once('.').map_or(id.as_str(), |(name, _)| name);
    let remedy = format!(
        "`assertctl{options} keys rotate {name}` makes the next version, with a certificate of its own; register \
         that (`assertctl{options} keys certificate {name}`), then `assertctl{options} keys activate {name}`"
    );
    Some(match certificate.not_after <= now_s {
        true => CERTIFICATE.fail(
            format!("the certificate of {id} has ended ({end}): the other side refuses it"),
            remedy,
        ),
        false => CERTIFICATE.warn(format!("the certificate of {id} ends soon ({end})"), remedy),
    })
}

/// Keys that are there and of which no version signs: the last one was revoked, or the first is not
/// published yet.
fn none_active(site: &Site, keys: &[KeyStatus]) -> Vec<Finding> {
    let name = |key: &KeyStatus| key.key.rsplit_once('.').map(|(name, _)| name.to_owned());
    let used = keys.iter().filter(|key| key.used);
    let signs = ["active", "held"];
    let (able, others): (Vec<_>, Vec<_>) =
        used.partition(|key| signs.contains(&key.phase.as_str()));
    let able: BTreeSet<String> = able.into_iter().filter_map(name).collect();
    let mut without: BTreeSet<String> = others.into_iter().filter_map(name).collect();
    without.retain(|name| !able.contains(name));
    let finding = |name: String| {
        let remedy = format!(
            "`assertctl{0} keys` says what it waits for; `assertctl{0} keys rotate {name}` makes another",
            site.options()
        );
        KEY_STATE.fail(format!("no version of {name} signs"), remedy)
    };
    without.into_iter().map(finding).collect()
}

fn key_state(site: &Site, key: &KeyStatus) -> Option<Finding> {
    let why = key.why.as_deref().unwrap_or("assertd does not say why");
    let text = format!("{} is {}: {why}", key.key, key.state);
    match key.state.as_str() {
        "active" | "making" | "made" | "published" => None,
        "retiring" | "retired" | "revoked" | "destroying" | "destroyed" => None,
        "held" => {
            let name = key
                .key
                .rsplit_once('.')
                .map_or(key.key.as_str(), |(name, _)| name);
            let text = format!("{} is stopped by an operator", key.key);
            let remedy = format!(
                "`assertctl{} keys resume {name}` lets it go on",
                site.options()
            );
            Some(KEY_STATE.warn(text, remedy))
        }
        // Its keystore has a finding of its own.
        "unknown" => {
            Some(KEY_STATE.warn(text, format!("mend keystore {} (see above)", key.keystore)))
        }
        "suspended" => Some(KEY_STATE.fail(
            text,
            format!(
                "a signature of the token was wrong: have the token checked by its vendor's tool, \
                 then {}, which looks anew",
                site.restart()
            ),
        )),
        _ => Some(KEY_STATE.fail(
            text,
            format!(
                "`assertctl{} config diff` says what apply could do; a key is never made anew in \
                 the place of a lost one: restore the token from its backup, or rename the target",
                site.options()
            ),
        )),
    }
}

fn audit(site: &Site, state: &str, why: &str) -> Finding {
    let remedy = format!(
        "make room or mend the file system (`df -h {0}; ls -ld {0}; dmesg | tail`); assertd goes on \
         by itself",
        quoted(&site.audit_dir)
    );
    let text = format!("{state}: {why}");
    match state {
        "failed" => AUDIT_WRITES.fail(text, remedy),
        _ => AUDIT_WRITES.warn(text, remedy),
    }
}

#[cfg(test)]
mod tests;
