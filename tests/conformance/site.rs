//! The records of one keystore, over as many processes as they are opened in.

use crate::cut::{Cut, Severed};
use crate::subject::Subject;
use keystore::records::Keys;
use keystore::statefile::StateDir;
use keystore::{Clock, Error, Kind};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// One keystore.
pub struct Site<'a, 'b> {
    subject: &'a Subject<'b>,
    dir: TempDir,
    cut: Arc<Mutex<Cut>>,
    /// What was strange before.
    strange: BTreeSet<String>,
}

impl<'a, 'b> Site<'a, 'b> {
    pub fn new(subject: &'a Subject<'b>) -> Site<'a, 'b> {
        let strange = subject.open().strange(&[]).unwrap().into_iter().collect();
        Site {
            subject,
            dir: tempfile::tempdir().unwrap(),
            cut: Arc::new(Mutex::new(Cut::Never)),
            strange,
        }
    }

    /// As a process does that starts; the one before has ended.
    pub fn open(&self) -> Keys<Severed> {
        let state = StateDir::lock(&self.dir.path().join("records")).unwrap();
        let backend = Severed {
            backend: self.subject.open(),
            made: self.subject.made(),
            cut: self.cut.clone(),
        };
        Keys::open(backend, &state, Arc::new(Clock::new())).unwrap()
    }

    /// What `work` does in a process that is cut off then.
    pub fn cut_off<T: std::fmt::Debug>(
        &self,
        cut: Cut,
        work: impl Fn(&Keys<Severed>) -> Result<T, Error>,
    ) {
        let keys = self.open();
        self.cut(cut);
        let error = work(&keys).unwrap_err();
        self.cut(Cut::Never);
        assert_eq!(error.kind(), Kind::Unavailable, "{cut:?}: {error}");
        assert!(error.to_string().contains("cut off"), "{cut:?}: {error}");
    }

    /// What is cut off from here on.
    pub fn cut(&self, cut: Cut) {
        *self.cut.lock().unwrap() = cut;
    }

    /// Nobody's objects are there beside what is recorded.
    pub fn no_orphans(&self, keys: &Keys<Severed>) {
        let now: BTreeSet<String> = keys.strange().unwrap().into_iter().collect();
        let new: Vec<_> = now.difference(&self.strange).collect();
        assert!(new.is_empty(), "{new:?}");
    }

    /// How many objects were made.
    pub fn made(&self) -> usize {
        self.subject.made().lock().unwrap().len()
    }
}
