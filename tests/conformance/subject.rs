//! A keystore that promises are tried on: how it is opened, and what may rightly differ between
//! keystores. Keeps account of every key a promise makes, and destroys it when the promise is done,
//! kept or not: a token that is somebody's own is left as it was.

use keystore::backend::{Backend, Inspection, LABEL_PREFIX, ObjectId};
use keystore::{Alg, Error, Kind, PublicKey};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

/// How many signatures a promise about many makes, where they cost nothing: r or s is short once in
/// about 128, so a thousand leave no doubt about padding.
pub const MANY: usize = 1000;

/// And where they cost milliseconds: two are short.
pub const SOME: usize = 250;

/// Opens the keystore; what was open before is closed by then.
type Open<'a> = Box<dyn Fn() -> Box<dyn Backend> + 'a>;

/// The keys that were made.
pub type Made = Arc<Mutex<Vec<(ObjectId, PublicKey)>>>;

/// Checks, while it is closed, that nothing is left there but these keys.
type Left<'a> = Box<dyn Fn(&[ObjectId]) + 'a>;

/// One keystore.
pub struct Subject<'a> {
    open: Open<'a>,
    /// Who else keeps keys where it keeps ours.
    pub neighbours: Neighbours,
    /// What it can tell of where its keys were made.
    pub birth: Birth,
    /// How many signatures a promise about many makes: [`MANY`] or [`SOME`].
    pub signatures: usize,
    left: Left<'a>,
    made: Made,
}

/// Who else keeps keys there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// A token may be used by others: what does not look like ours is not our concern.
    Others,
    /// The directory of key files is ours alone: whatever nobody knows in it is strange.
    Nobody,
}

/// What the keystore can tell of where its keys were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// That it was here.
    Told,
    /// That, and the token states it of each key with a key that others know.
    Proven,
    /// Nothing that could not be said of an imported key as well.
    NotTold,
    /// Whatever it says is shown, and believed: nobody knows this token.
    Shown,
}

/// What a promise is: it panics when it is broken.
pub type Promise = fn(&Subject<'_>);

/// The `n`th key of a promise, under an id that nobody else has.
pub struct Named {
    pub object: ObjectId,
    pub label: String,
}

/// A key of our own kind; `name` tells it from the promise's others.
pub fn ours(name: &str) -> Named {
    Named {
        object: ObjectId::random().unwrap(),
        label: format!("{LABEL_PREFIX}conformance/{name}"),
    }
}

impl<'a> Subject<'a> {
    /// One that is opened so.
    pub fn new(
        open: impl Fn() -> Box<dyn Backend> + 'a,
        neighbours: Neighbours,
        birth: Birth,
        signatures: usize,
    ) -> Subject<'a> {
        Subject {
            open: Box::new(open),
            neighbours,
            birth,
            signatures,
            left: Box::new(|_| {}),
            made: Made::default(),
        }
    }

    /// With a check that is made whenever a promise is done with it.
    pub fn checked(self, left: impl Fn(&[ObjectId]) + 'a) -> Subject<'a> {
        Subject {
            left: Box::new(left),
            ..self
        }
    }

    /// Opens it.
    pub fn open(&self) -> Box<dyn Backend> {
        (self.open)()
    }

    /// The keys that are to be destroyed when the promise is done; whoever makes one adds it.
    pub fn made(&self) -> Made {
        self.made.clone()
    }

    /// Makes a key, and remembers to destroy it.
    ///
    /// # Errors
    /// The backend's.
    pub fn generate(
        &self,
        backend: &dyn Backend,
        key: &Named,
        alg: Alg,
    ) -> Result<Inspection, Error> {
        let made = backend.generate(key.object, &key.label, alg)?;
        let public_key = made.public_key.clone();
        self.made.lock().unwrap().push((key.object, public_key));
        Ok(made)
    }

    /// Makes a key, which must succeed.
    pub fn make(&self, backend: &dyn Backend, key: &Named, alg: Alg) -> PublicKey {
        self.generate(backend, key, alg).unwrap().public_key
    }

    /// Tries a promise, and sees that nothing of it is left.
    pub fn keeps(&self, promise: Promise) {
        let before = self.strange();
        // Opening it would clear away what was left, so this is looked at first.
        let tried = catch_unwind(AssertUnwindSafe(|| {
            promise(self);
            let made: Vec<ObjectId> = self.made.lock().unwrap().iter().map(|m| m.0).collect();
            (self.left)(&made);
        }));
        self.clear();
        (self.left)(&[]);
        assert_eq!(self.strange(), before, "what is strange was that before");
        if let Err(broken) = tried {
            resume_unwind(broken);
        }
    }

    fn strange(&self) -> BTreeSet<String> {
        self.open().strange(&[]).unwrap().into_iter().collect()
    }

    fn clear(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(|e| e.into_inner()));
        let backend = self.open();
        for (object, public_key) in made {
            backend.destroy(object, &public_key).unwrap();
            let gone = backend.inspect(object).unwrap_err();
            assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
        }
    }
}
