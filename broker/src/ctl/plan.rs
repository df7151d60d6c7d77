//! What `apply` has to do so that the keys are those the configuration asks for.
//!
//! Pure: the configuration's keys, what every keystore shows and what the broker has recorded go
//! in, steps come out; [`tests`] check that doing them leaves nothing to do. Two things are never
//! a step: destroying a key, and making one in the place of a key that is lost and that nobody has given up. A keystore that
//! could not be asked is not an empty one.

use crate::config::{KeyFrom, Wanted};
use keystore::charter::{KidMember, Purpose};
use keystore::protocol::{Condition, KeyEntry};
use keystore::{Alg, Charter, KeyId, KeyName, KeyVersion};
use serde::Serialize;
use std::collections::BTreeMap;

mod charter;
mod show;
#[cfg(test)]
mod tests;

pub use charter::Change;

/// Everything a plan follows from.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The keys the configuration asks for.
    pub wanted: BTreeMap<KeyName, Wanted>,
    /// What each keystore of the configuration shows.
    pub keystores: BTreeMap<String, Shown>,
    /// What the broker has recorded.
    pub recorded: Vec<Recorded>,
    /// Versions that the broker waits for to be made.
    pub making: Vec<KeyId>,
}

/// What a keystore shows.
#[derive(Clone, Debug)]
pub enum Shown {
    /// All its keys.
    Keys(Vec<KeyEntry>),
    /// Nothing, and why.
    Unreachable(String),
}

/// A version of a key as the broker has recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its id.
    pub key: KeyId,
    /// Where it is said to be.
    pub keystore: String,
    /// Its thumbprint.
    pub kid: String,
    /// Why the broker does not use it, if it has suspended it.
    pub suspended: Option<String>,
    /// Whether it signs, or will.
    pub use_of: Use,
}

/// Whether a version is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It signs, or will.
    Signs,
    /// It has been replaced, revoked or given up: nothing is missed if it is gone.
    Over,
}

/// One thing to do, or to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The keystore makes a key, the broker records it.
    Create {
        key: KeyId,
        keystore: String,
        charter: Charter,
        #[serde(skip_serializing_if = "Option::is_none")]
        certificate_s: Option<u64>,
    },
    /// The keystore gives all versions of a key another charter.
    Amend {
        name: KeyName,
        keystore: String,
        changes: Vec<Change>,
        charter: Charter,
    },
    /// The keystore gives a key the certificate that it lacks.
    Certify {
        key: KeyId,
        keystore: String,
        certificate_s: u64,
    },
    /// The broker records a key that the keystore has.
    Adopt {
        key: KeyId,
        keystore: String,
        kid: String,
    },
    /// A key that is not made here: an operator brings it in.
    Import { name: KeyName, keystore: String },
    /// The configuration asks for what no key can become.
    Conflict {
        name: KeyName,
        #[serde(flatten)]
        conflict: Conflict,
    },
    /// A key that cannot sign. Nothing is made in its place.
    Failed {
        key: KeyId,
        keystore: String,
        why: String,
    },
    /// A keystore that does not answer, so that nothing is known about these keys.
    Unreachable {
        keystore: String,
        why: String,
        keys: usize,
    },
    /// A key nobody asks for. It is kept.
    Orphan {
        key: KeyId,
        keystore: String,
        record: Record,
    },
}

/// Why a key cannot become what the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "conflict", rename_all = "snake_case")]
pub enum Conflict {
    /// It was made for another algorithm.
    Alg { has: Alg, wanted: Alg },
    /// It was made for another kind of statement.
    Purpose {
        has: &'static str,
        wanted: &'static str,
    },
    /// It is in another keystore.
    Keystore { has: String, wanted: String },
}

/// Whether the broker knows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// It does.
    Recorded,
    /// Only the keystore has it.
    Unrecorded,
}

/// Whether a step changes something, and whether it can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `apply` does it.
    Change,
    /// `apply` cannot do it; somebody has to.
    Blocked,
    /// Worth knowing.
    Note,
}

impl Step {
    /// What kind of step it is.
    pub fn effect(&self) -> Effect {
        match self {
            Step::Create { .. }
            | Step::Amend { .. }
            | Step::Certify { .. }
            | Step::Adopt { .. } => Effect::Change,
            Step::Import { .. }
            | Step::Conflict { .. }
            | Step::Failed { .. }
            | Step::Unreachable { .. } => Effect::Blocked,
            Step::Orphan { .. } => Effect::Note,
        }
    }
}

/// The steps: keystores that do not answer, wanted keys by name, then orphans.
pub fn plan(world: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    for (keystore, shown) in &world.keystores {
        if let Shown::Unreachable(why) = shown {
            let keys = world
                .wanted
                .values()
                .filter(|wanted| wanted.keystore == *keystore)
                .count();
            steps.push(Step::Unreachable {
                keystore: keystore.clone(),
                why: why.clone(),
                keys,
            });
        }
    }
    for (name, wanted) in &world.wanted {
        wanted_key(world, name, wanted, &mut steps);
    }
    orphans(world, &mut steps);
    steps
}

/// One wanted key: is it there, in its place, under its charter, recorded, and able to sign?
fn wanted_key(world: &World, name: &KeyName, wanted: &Wanted, steps: &mut Vec<Step>) {
    let home = &wanted.keystore;
    if let Some(elsewhere) = elsewhere(world, name, home) {
        let conflict = Conflict::Keystore {
            has: elsewhere.to_owned(),
            wanted: home.clone(),
        };
        steps.push(Step::Conflict {
            name: name.clone(),
            conflict,
        });
        return;
    }
    let Some(Shown::Keys(entries)) = world.keystores.get(home) else {
        return; // it is unreachable, which one step says for all its keys
    };
    let entries: Vec<&KeyEntry> = entries
        .iter()
        .filter(|entry| entry.key.name == *name)
        .collect();
    for recorded in world.records_of(name) {
        let is_shown = entries.iter().any(|entry| entry.key == recorded.key);
        if !is_shown && recorded.use_of == Use::Signs {
            let why = format!(
                "it is recorded with kid {}, but the keystore does not show it: is this the right \
                 token, and is it whole? restore it from the token's backup; nothing is made in \
                 its place",
                recorded.kid
            );
            let (key, keystore) = (recorded.key.clone(), home.clone());
            steps.push(Step::Failed { key, keystore, why });
        }
    }
    let Some(newest) = entries.iter().max_by_key(|entry| &entry.key) else {
        // Of a key whose keystore has lost all it knew the broker cannot have the next version made:
        // its charter went with the others, and is ours to give.
        let awaited = world.making.iter().find(|key| key.name == *name);
        let first = || {
            let is_new = world.records_of(name).next().is_none();
            is_new.then(|| name.version(KeyVersion::FIRST))
        };
        if let Some(key) = awaited.cloned().or_else(first) {
            steps.push(first_version(key, wanted));
        }
        return;
    };
    if let Some(conflict) = entries
        .iter()
        .find_map(|entry| unlike(&entry.charter, &wanted.charter))
    {
        steps.push(Step::Conflict {
            name: name.clone(),
            conflict,
        });
        return;
    }
    let is_other = |entry: &&&KeyEntry| entry.charter != charter_of(entry, newest, wanted);
    if let Some(other) = entries.iter().find(is_other) {
        let changes = charter::changes(&other.charter, &charter_of(other, newest, wanted));
        let (name, keystore) = (newest.key.name.clone(), home.clone());
        steps.push(Step::Amend {
            name,
            keystore,
            changes,
            charter: wanted.charter.clone(),
        });
    }
    for entry in entries {
        let shown = shown_key(world, entry, home);
        if !matches!(shown, Some(Step::Failed { .. })) {
            steps.extend(lacking_certificate(world, entry, wanted));
        }
        steps.extend(shown);
    }
}

/// How a key that is nowhere begins.
fn first_version(key: KeyId, wanted: &Wanted) -> Step {
    let keystore = wanted.keystore.clone();
    match wanted.key_from {
        KeyFrom::Make => Step::Create {
            key,
            keystore,
            charter: wanted.charter.clone(),
            certificate_s: wanted.certificate_s,
        },
        KeyFrom::Import => Step::Import {
            name: key.name,
            keystore,
        },
    }
}

/// The charter that a version should have: a `kid` that the other side has given is the newest one's, and
/// those before keep what was theirs (the keystore amends them so).
fn charter_of(entry: &KeyEntry, newest: &KeyEntry, wanted: &Wanted) -> Charter {
    let mut charter = wanted.charter.clone();
    if matches!(charter.kid, KidMember::Assigned(_)) && entry.key != newest.key {
        charter.kid = entry.charter.kid.clone();
    }
    charter
}

/// Of a key that signs, or will, and is to have a certificate and has none.
fn lacking_certificate(world: &World, entry: &KeyEntry, wanted: &Wanted) -> Option<Step> {
    let mut records = world.records_of(&entry.key.name);
    let is_over = records.any(|it| it.key == entry.key && it.use_of == Use::Over);
    let can_sign = entry.condition == Condition::Usable {};
    if entry.certificate.is_some() || is_over || !can_sign {
        return None;
    }
    Some(Step::Certify {
        key: entry.key.clone(),
        keystore: wanted.keystore.clone(),
        certificate_s: wanted.certificate_s?,
    })
}

/// A key that its keystore shows: can it sign, is it recorded, is it the recorded one?
fn shown_key(world: &World, entry: &KeyEntry, home: &str) -> Option<Step> {
    let (key, keystore) = (entry.key.clone(), home.to_owned());
    let recorded = world
        .recorded
        .iter()
        .find(|recorded| recorded.key == entry.key);
    let failed = |why| {
        Some(Step::Failed {
            key: key.clone(),
            keystore: keystore.clone(),
            why,
        })
    };
    if recorded.is_some_and(|recorded| recorded.use_of == Use::Over) {
        return None;
    }
    if let Condition::Failed { why, .. } = &entry.condition {
        return failed(why.clone());
    }
    let kid = entry.kid.as_str();
    match recorded {
        None => Some(Step::Adopt {
            key,
            keystore,
            kid: kid.to_owned(),
        }),
        Some(recorded) if recorded.kid != kid => failed(format!(
            "it is recorded with kid {}, but the keystore shows kid {kid}: was the token replaced, \
             or an older state restored? bring back the right one",
            recorded.kid
        )),
        Some(Recorded {
            suspended: Some(why),
            ..
        }) => failed(why.clone()),
        Some(_) => None,
    }
}

/// Another keystore that has the key: by the broker's record, or by showing it while home has none.
fn elsewhere<'a>(world: &'a World, name: &KeyName, home: &str) -> Option<&'a str> {
    let recorded = world
        .records_of(name)
        .find(|recorded| recorded.keystore != home && recorded.use_of == Use::Signs);
    if let Some(recorded) = recorded {
        return Some(&recorded.keystore);
    }
    let has = |shown: &Shown| match shown {
        Shown::Keys(entries) => entries.iter().any(|entry| entry.key.name == *name),
        Shown::Unreachable(_) => false,
    };
    if world.keystores.get(home).is_some_and(has) || world.records_of(name).next().is_some() {
        return None;
    }
    world
        .keystores
        .iter()
        .find(|(_, shown)| has(shown))
        .map(|(keystore, _)| keystore.as_str())
}

/// What an amended charter may not change (the keystore refuses it too).
fn unlike(has: &Charter, wanted: &Charter) -> Option<Conflict> {
    if has.purpose.kind() != wanted.purpose.kind() {
        let (has, wanted) = (purpose_name(&has.purpose), purpose_name(&wanted.purpose));
        return Some(Conflict::Purpose { has, wanted });
    }
    (has.alg != wanted.alg).then_some(Conflict::Alg {
        has: has.alg,
        wanted: wanted.alg,
    })
}

fn purpose_name(purpose: &Purpose) -> &'static str {
    match purpose {
        Purpose::ClientAuthentication { .. } => "client authentication",
        Purpose::Federation { .. } => "federation",
        Purpose::Account { .. } => "an account",
    }
}

/// Keys that are recorded or shown, and wanted nowhere, or shown besides the one that is wanted.
fn orphans(world: &World, steps: &mut Vec<Step>) {
    let mut orphans = BTreeMap::new();
    for recorded in &world.recorded {
        if !world.wanted.contains_key(&recorded.key.name) {
            orphans.insert(
                (&recorded.key, recorded.keystore.as_str()),
                Record::Recorded,
            );
        }
    }
    for (keystore, shown) in &world.keystores {
        let Shown::Keys(entries) = shown else {
            continue;
        };
        for entry in entries {
            let name = &entry.key.name;
            let at_home = match world.wanted.get(name) {
                None => false,
                Some(wanted) => {
                    wanted.keystore == *keystore
                        || elsewhere(world, name, &wanted.keystore) == Some(keystore)
                }
            };
            if !at_home {
                orphans
                    .entry((&entry.key, keystore.as_str()))
                    .or_insert(Record::Unrecorded);
            }
        }
    }
    steps.extend(
        orphans
            .into_iter()
            .map(|((key, keystore), record)| Step::Orphan {
                key: key.clone(),
                keystore: keystore.to_owned(),
                record,
            }),
    );
}

impl World {
    fn records_of(&self, name: &KeyName) -> impl Iterator<Item = &Recorded> {
        self.recorded
            .iter()
            .filter(move |recorded| recorded.key.name == *name)
    }
}
