//! How versions of a key come and go. Root makes the first one under a charter; the broker has the
//! next one made under the same charter, and old ones destroyed. Both write an intent before they ask
//! the token and the outcome after, so that whoever repeats what a crash cut off finishes it: an
//! object that is there under the intent's random id is ours and is adopted, one that is not there is
//! made, one that is to go and is gone is success.

use super::{Guard, KEYS_MAX, Keys, Record, RecordState, check_charter, not_found, replace};
use crate::backend::{Backend, Inspection, LABEL_PREFIX, ObjectId};
use crate::livekey::{LiveKey, Origin, look, probe};
use crate::protocol::KeyEntry;
use crate::{Charter, Error, KeyId, KeyName, KidMember, Kind, PublicKey};
use std::sync::Arc;
use std::time::Duration;

/// Most versions of one key at a time. A rotation needs two, one that overtakes the last needs three;
/// a broker that was taken over cannot fill a token with more.
pub const VERSIONS_MAX: usize = 8;

/// Which versions somebody may destroy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Root: any.
    Any,
    /// The broker: those that a newer one has taken the place of.
    Superseded,
}

/// Pauses after a probe that failed. One that fails each time is the object's doing.
const PROBES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::ZERO,
];

/// What an object that a crash left can do.
enum Signs {
    Yes,
    Never,
}

impl<B: Backend> Keys<B> {
    /// Makes a key that there is no version of, or answers with the one that is there under the same
    /// charter. It starts at whatever version is asked for: a keystore that has lost its records is
    /// told the next number, since a number is never used twice.
    ///
    /// # Errors
    /// `Refused` if other versions are recorded; `Exists` if this one has another charter.
    pub fn make(&self, key: &KeyId, charter: &Charter) -> Result<(KeyEntry, bool), Error> {
        check_charter(charter)?;
        let mut guard = self.lock();
        let has_others = versions(&guard, &key.name).any(|(other, _)| other != key);
        let object = match guard.1.keys.get(key) {
            Some(Record {
                charter: known,
                state: RecordState::Made { .. },
                ..
            }) => {
                if known != charter {
                    return Err(Error::new(
                        Kind::Exists,
                        format!("key {key}: is there under another charter; amend it instead"),
                    ));
                }
                return Ok((self.find(key)?.entry(key), false));
            }
            _ if has_others => {
                let text = format!(
                    "key {key}: other versions of it are recorded; a later one comes by rotation"
                );
                return Err(Error::new(Kind::Refused, text));
            }
            Some(record) if record.origin != Origin::Made => return Err(begun_otherwise(key)),
            Some(record) => record.object,
            None => self.new_object(&guard, key)?,
        };
        let intent = Record {
            object,
            charter: charter.clone(),
            origin: Origin::Made,
            token_id: None,
            certificate: None,
            state: RecordState::Intended {},
        };
        self.carry_out(&mut guard, key, intent, &|label, intent| {
            self.generate(key, label, intent)
        })
    }

    /// Makes the next version of a key under the charter of its newest one, or answers with the
    /// newest if it came so. A number may be left out where a version was destroyed, and never used
    /// again.
    ///
    /// # Errors
    /// `NotFound` if there is no version; `Refused` for any other number, for too many versions, and
    /// while the newest one is not made yet.
    pub fn next(&self, key: &KeyId) -> Result<(KeyEntry, bool), Error> {
        let refuse = |text: String| Error::new(Kind::Refused, format!("key {key}: {text}"));
        let mut guard = self.lock();
        let Some((newest, record)) = versions(&guard, &key.name).next_back() else {
            return Err(not_found(key));
        };
        let intent = match (newest == key, record.origin, &record.state) {
            (true, Origin::Next, RecordState::Made { .. }) => {
                return Ok((self.find(key)?.entry(key), false));
            }
            (true, Origin::Next, RecordState::Intended {}) => record.clone(),
            (true, Origin::Made | Origin::Imported | Origin::Adopted, _) => {
                let text =
                    "it did not come by rotation; `assertctl apply` or `assertctl keys` made it";
                return Err(refuse(text.to_owned()));
            }
            (false, ..) => {
                has_its_turn(&guard, newest, record, key).map_err(refuse)?;
                Record {
                    object: self.new_object(&guard, key)?,
                    charter: record.charter.clone(),
                    origin: Origin::Next,
                    token_id: None,
                    certificate: None,
                    state: RecordState::Intended {},
                }
            }
        };
        self.carry_out(&mut guard, key, intent, &|label, intent| {
            self.generate(key, label, intent)
        })
    }

    /// Adopted if a crash left it (its id is random and ours), else made. Nobody has been told its public
    /// key: one that does not sign is destroyed and made anew, since a module that was cut off while it
    /// made the key may have left no more than its shape.
    fn generate(&self, key: &KeyId, label: &str, intent: &Record) -> Result<Inspection, Error> {
        let (object, alg) = (intent.object, intent.charter.alg);
        let make = || self.backend.generate(object, label, alg);
        let found = match self.backend.inspect(object) {
            Err(error) if error.kind() == Kind::NotFound => return make(),
            other => other?,
        };
        let public_key = found.public_key.clone();
        let live = LiveKey::recorded(object, intent.charter.clone(), public_key);
        match self.tried(key, &live)? {
            Signs::Yes => Ok(found),
            Signs::Never => {
                self.backend.destroy(object, &found.public_key)?;
                make()
            }
        }
    }

    /// Whether it signs at all. What passes is no answer: a token that is away, or fails once, says
    /// nothing of the object.
    fn tried(&self, key: &KeyId, live: &LiveKey) -> Result<Signs, Error> {
        for pause in PROBES {
            match probe(&self.backend, key, live) {
                Ok(()) => return Ok(Signs::Yes),
                Err(error) if error.kind() == Kind::Mismatch => return Ok(Signs::Never),
                Err(error) if concerns_the_token(error.kind()) => return Err(error),
                Err(_) => std::thread::sleep(pause),
            }
        }
        self.backend.inspect(live.object)?; // the token answers, this object alone does not
        Ok(Signs::Never)
    }

    /// The id of an object to be made.
    pub(super) fn new_object(&self, guard: &Guard<'_>, key: &KeyId) -> Result<ObjectId, Error> {
        if guard.1.keys.len() >= KEYS_MAX {
            let text =
                format!("key {key}: this keystore holds {KEYS_MAX} keys, which is the most it may");
            return Err(Error::new(Kind::Refused, text));
        }
        ObjectId::random()
    }

    /// Writes the intent, sees to it that the object is there, writes that it is.
    pub(super) fn carry_out(
        &self,
        guard: &mut Guard<'_>,
        key: &KeyId,
        intent: Record,
        make: &dyn Fn(&str, &Record) -> Result<Inspection, Error>,
    ) -> Result<(KeyEntry, bool), Error> {
        replace(guard, |stored| {
            drop(stored.keys.insert(key.clone(), intent.clone()))
        })?;
        let public_key = self.find_or_make(key, &intent, make)?;
        let made = Record {
            state: RecordState::Made { public_key },
            ..intent
        };
        replace(guard, |stored| {
            drop(stored.keys.insert(key.clone(), made.clone()))
        })?;
        let recorded = made.live().expect("it is made");
        let live = Arc::new(look(&self.backend, key, recorded));
        self.write_live().insert(key.clone(), live.clone());
        Ok((live.entry(key), true))
    }

    /// The object of an intent, of the right kind.
    fn find_or_make(
        &self,
        key: &KeyId,
        intent: &Record,
        make: &dyn Fn(&str, &Record) -> Result<Inspection, Error>,
    ) -> Result<PublicKey, Error> {
        let Record {
            object, charter, ..
        } = intent;
        let label = format!("{LABEL_PREFIX}{}/{}", key.name, key.version.number());
        let inspection = make(&label, intent)?;
        if !inspection.public_key.fits(charter.alg) {
            return Err(Error::new(
                Kind::Mismatch,
                format!(
                    "key {key}: object {object} is not a key for {}",
                    charter.alg
                ),
            ));
        }
        Ok(inspection.public_key)
    }

    /// Gives all versions of a key another charter. What a key is for and its algorithm stay, and so does the
    /// `kid` of a version that is not the newest, where the other side gives each its own.
    pub fn amend(&self, name: &KeyName, charter: &Charter) -> Result<(), Error> {
        check_charter(charter)?;
        let mut guard = self.lock();
        let recorded: Vec<KeyId> = versions(&guard, name).map(|(key, _)| key.clone()).collect();
        if recorded.is_empty() {
            return Err(Error::new(
                Kind::NotFound,
                format!("key {name}: there is none to amend"),
            ));
        }
        for (key, record) in versions(&guard, name) {
            let known = &record.charter;
            if known.alg != charter.alg || known.purpose.kind() != charter.purpose.kind() {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "key {key}: a charter's algorithm and kind of purpose never change; \
                             destroy the key and make another"
                    ),
                ));
            }
        }
        let newest = recorded.last().cloned();
        let amended = |key: &KeyId, known: &Charter| {
            let mut amended = charter.clone();
            if matches!(charter.kid, KidMember::Assigned(_)) && Some(key) != newest.as_ref() {
                amended.kid = known.kid.clone();
            }
            amended
        };
        replace(&mut guard, |stored| {
            for key in &recorded {
                if let Some(record) = stored.keys.get_mut(key) {
                    record.charter = amended(key, &record.charter);
                }
            }
        })?;
        let mut live = self.write_live();
        for key in recorded {
            if let Some(old) = live.get(&key) {
                let amended = LiveKey {
                    charter: amended(&key, &old.charter),
                    ..(**old).clone()
                };
                live.insert(key, Arc::new(amended));
            }
        }
        Ok(())
    }

    /// Destroys one version, in the token first and in the records then. A crash between the two
    /// leaves a record of what is gone, and destroying it again is success.
    ///
    /// # Errors
    /// `NotFound` if it is not recorded: it was destroyed, or never made. `Refused` if it is out of
    /// reach.
    pub fn destroy(&self, key: &KeyId, reach: Reach) -> Result<(), Error> {
        let mut guard = self.lock();
        let Some(record) = guard.1.keys.get(key).cloned() else {
            let text = format!("key {key}: is not recorded; it was destroyed, or never made");
            return Err(Error::new(Kind::NotFound, text));
        };
        let is_newer_and_made = |(other, record): (&KeyId, &Record)| {
            other > key && matches!(record.state, RecordState::Made { .. })
        };
        match reach {
            Reach::Any => {}
            Reach::Superseded if versions(&guard, &key.name).any(is_newer_and_made) => {}
            Reach::Superseded => {
                let text = format!(
                    "key {key}: no newer version of it is made; only root may destroy it \
                     (`assertctl keys destroy`)"
                );
                return Err(Error::new(Kind::Refused, text));
            }
        }
        self.write_live().remove(key); // it signs nothing from here on, whatever fails below
        let public_key = match record.state {
            RecordState::Made { public_key } => Some(public_key),
            RecordState::Intended {} => match self.backend.inspect(record.object) {
                Ok(inspection) => Some(inspection.public_key),
                Err(error) if error.kind() == Kind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        if let Some(public_key) = public_key {
            self.backend.destroy(record.object, &public_key)?;
        }
        replace(&mut guard, |stored| drop(stored.keys.remove(key)))
    }
}

fn concerns_the_token(kind: Kind) -> bool {
    matches!(kind, Kind::Absent | Kind::Locked | Kind::BadPin)
}

/// Of a version that somebody asks for in another way than it was begun in.
pub(super) fn begun_otherwise(key: &KeyId) -> Error {
    let text = format!(
        "key {key}: its making was begun in another way; finish it so, or abandon it by `assertctl \
         keys destroy`"
    );
    Error::new(Kind::Refused, text)
}

/// Whether a version may be the next one after the newest.
pub(super) fn has_its_turn(
    guard: &Guard<'_>,
    newest: &KeyId,
    record: &Record,
    key: &KeyId,
) -> Result<(), String> {
    check_number(newest, key)?;
    if let RecordState::Intended {} = record.state {
        return Err(format!("{newest} is not made yet; finish that one first"));
    }
    match versions(guard, &key.name).count() {
        ..VERSIONS_MAX => Ok(()),
        _ => Err(format!(
            "there are {VERSIONS_MAX} versions of it, which is the most at a time; destroy old ones \
             by `assertctl keys destroy`"
        )),
    }
}

/// Whether a number is one that may follow the newest: numbers of versions that were destroyed are
/// left out, and a jump to the last number there is would leave none.
fn check_number(newest: &KeyId, key: &KeyId) -> Result<(), String> {
    let (newest_number, number) = (newest.version.number(), key.version.number());
    let ahead = number.saturating_sub(newest_number) as usize;
    match (1..=VERSIONS_MAX).contains(&ahead) {
        true => Ok(()),
        false => Err(format!(
            "the newest version of it is {newest}; the next is one of the {VERSIONS_MAX} numbers \
             after that"
        )),
    }
}

/// The recorded versions of a key, oldest first.
pub(super) fn versions<'a>(
    guard: &'a Guard<'_>,
    name: &'a KeyName,
) -> impl DoubleEndedIterator<Item = (&'a KeyId, &'a Record)> {
    let recorded = guard.1.keys.iter();
    recorded.filter(move |(key, _)| key.name == *name)
}
