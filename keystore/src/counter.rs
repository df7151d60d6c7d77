//! The counter of one keystore: in its TPM, or where there is none in a file of its own state.

use crate::Error;
use crate::backend::Backend;
use crate::protocol::{Counter, CounterPlace};
use crate::statefile::{StateDir, StateFile};

/// So many steps one request advances a counter in hardware at most; each takes a chip some 20 ms.
const STEPS_MAX: u64 = 16;

/// Where the token has no counter of its own: a file, read when it is first asked for.
pub struct CounterFile {
    dir: StateDir,
    open: Option<(StateFile<Option<u64>>, Option<u64>)>,
}

impl CounterFile {
    /// In this directory; nothing is read yet.
    pub fn new(dir: StateDir) -> CounterFile {
        CounterFile { dir, open: None }
    }

    /// How far the counter has come.
    ///
    /// # Errors
    /// As [`Backend::counted`]; `Corrupt` if the file fails its check.
    pub fn read(&mut self, backend: &impl Backend) -> Result<Counter, Error> {
        let (value, place) = match backend.counted() {
            Some(counted) => (counted?, CounterPlace::Tpm),
            None => (self.open()?.1, CounterPlace::File),
        };
        Ok(Counter { value, place })
    }

    /// Has it come to `to`, or some steps nearer. A new one in hardware begins where it likes.
    ///
    /// # Errors
    /// As [`Self::read`]; `Unavailable` if it could not be written.
    pub fn advance(&mut self, backend: &impl Backend, to: u64) -> Result<Counter, Error> {
        let Counter { mut value, place } = self.read(backend)?;
        match place {
            CounterPlace::File => {
                let to = to.max(1); // 0 is no value
                let (file, current) = self.open()?;
                if current.is_none_or(|current| current < to) {
                    file.replace(&Some(to))?;
                    *current = Some(to);
                }
                value = *current;
            }
            CounterPlace::Tpm => {
                let near = match value {
                    None => 0, // it begins above all that were ever taken out of this TPM
                    Some(value) => to.min(value.saturating_add(STEPS_MAX)),
                };
                value = Some(backend.count(near)?);
            }
        }
        Ok(Counter { value, place })
    }

    fn open(&mut self) -> Result<&mut (StateFile<Option<u64>>, Option<u64>), Error> {
        let opened = match self.open.take() {
            Some(opened) => opened,
            None => StateFile::open(&self.dir, "counter.v1")?,
        };
        Ok(self.open.insert(opened))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Existing, Inspection, ObjectId, TokenId, Trial};
    use crate::survey::Line;
    use crate::{Alg, Kind, PrivateKey, PublicKey};

    /// A token that has no counter, and of which nothing else is asked.
    struct Plain;

    fn unasked<T>() -> Result<T, Error> {
        Err(Error::new(Kind::Internal, "nobody asks for this"))
    }

    impl Backend for Plain {
        fn describe(&self) -> String {
            String::new()
        }
        fn algs(&self) -> Vec<Alg> {
            Vec::new()
        }
        fn parallelism(&self) -> usize {
            1
        }
        fn generate(&self, _: ObjectId, _: &str, _: Alg) -> Result<Inspection, Error> {
            unasked()
        }
        fn import(
            &self,
            _: ObjectId,
            _: &str,
            _: Alg,
            _: &PrivateKey,
        ) -> Result<Inspection, Error> {
            unasked()
        }
        fn find(&self, _: &Existing) -> Result<(TokenId, Inspection), Error> {
            unasked()
        }
        fn alias(&self, _: ObjectId, _: &TokenId) {}
        fn mend(&self) -> Result<(), Error> {
            unasked()
        }
        fn inspect(&self, _: ObjectId) -> Result<Inspection, Error> {
            unasked()
        }
        fn sign(&self, _: ObjectId, _: &PublicKey, _: Alg, _: &[u8]) -> Result<Vec<u8>, Error> {
            unasked()
        }
        fn destroy(&self, _: ObjectId, _: &PublicKey) -> Result<(), Error> {
            unasked()
        }
        fn strange(&self, _: &[ObjectId]) -> Result<Vec<String>, Error> {
            unasked()
        }
        fn survey(&self) -> Vec<Line> {
            Vec::new()
        }
        fn trial(&self, _: Alg) -> Result<Box<dyn Trial + '_>, Error> {
            unasked()
        }
    }

    #[test]
    fn a_file_counts_where_the_token_does_not_and_never_back() {
        let dir = tempfile::tempdir().unwrap();
        let open = || StateDir::lock(&dir.path().join("state")).unwrap();
        let file = |value| Counter {
            value,
            place: CounterPlace::File,
        };
        let mut counter = CounterFile::new(open());
        assert_eq!(counter.read(&Plain).unwrap(), file(None));
        assert_eq!(counter.advance(&Plain, 0).unwrap(), file(Some(1)));
        assert_eq!(counter.advance(&Plain, 40).unwrap(), file(Some(40)));
        assert_eq!(counter.advance(&Plain, 3).unwrap(), file(Some(40)));
        drop(counter);
        let mut counter = CounterFile::new(open());
        assert_eq!(counter.read(&Plain).unwrap(), file(Some(40)));
        drop(counter);
        std::fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join("state/counter.v1"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"x"))
            .unwrap();
        let error = CounterFile::new(open()).read(&Plain).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    }
}
