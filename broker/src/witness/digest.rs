//! SHA-256 of executables, each hashed once for as long as it does not change, where a change would
//! show, and else whenever it is asked for. Owns what is remembered and how much is hashed at a time.
//! Hashes an open descriptor, never a path; believes and remembers nothing about a file that was
//! written meanwhile. To hash while the file is executed is sound: it cannot be opened to be written
//! then (ETXTBSY of open(2); not so on Linux 6.11 and the first releases of 6.12, docs/facts.md).

use super::filesystem::Memory;
use super::turns::Turns;
use super::{Doubt, Inode};
use crate::audit::Sha256;
use aws_lc_rs::digest::{Context, SHA256};
use keystore::Clock;
use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Largest executable that is hashed, in bytes. The largest that people ship (statically linked, with
/// their debug information and a runtime inside) have some hundred megabytes; this one takes a second
/// of one core with SHA instructions, five without.
pub const SIZE_MAX: u64 = 1 << 30;

/// How long one hash may take: the largest from a disk of 50 MB/s.
const HASH_DEADLINE: Duration = Duration::from_secs(25);

/// Hashes at a time, and of one uid: each takes a core, and the host's work comes first.
const HASHES_MAX: usize = 2;
const HASHES_OF_ONE_UID_MAX: usize = 1;

/// Digests that are remembered, of 150 bytes each. A host runs some hundred different executables.
const KNOWN_MAX: usize = 1024;

/// A file that was changed so recently may be changed again without its times showing it: they tick
/// every 4 to 10 ms on many file systems, and every two seconds on the coarsest.
const SETTLED_S: u64 = 2;

/// Read at a time, in bytes: what a core's second cache holds.
const CHUNK_LEN: usize = 256 * 1024;

/// Digests of files.
pub struct Digests {
    state: Mutex<State>,
    /// When a hash has ended.
    hashed: Condvar,
    turns: Turns,
    clock: Clock,
    known_max: usize,
}

#[derive(Default)]
struct State {
    known: HashMap<Inode, Known>,
    /// Counts uses, so that what was used last can be told.
    uses: u64,
    /// What is being hashed.
    under_way: HashSet<Inode>,
}

struct Known {
    sha256: Sha256,
    used: u64,
}

impl Default for Digests {
    fn default() -> Digests {
        Digests::remembering(KNOWN_MAX)
    }
}

impl Digests {
    fn remembering(known_max: usize) -> Digests {
        Digests {
            state: Mutex::default(),
            hashed: Condvar::new(),
            turns: Turns::new(HASHES_MAX, HASHES_OF_ONE_UID_MAX),
            clock: Clock::new(),
            known_max,
        }
    }

    /// The digest of an open file that is what `inode` says, for a process of `uid`. Waits for its
    /// turn, and for others who hash the same file, until `deadline`; a hash that has begun goes on
    /// to its end, so that the next who asks has it if it may be remembered.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of(
        &self,
        file: &File,
        inode: &Inode,
        memory: Memory,
        uid: u32,
        deadline: Instant,
    ) -> Result<Sha256, Doubt> {
        let passing = |why: &str| Err(Doubt::Passing(why.to_owned()));
        if inode.size > SIZE_MAX {
            let size = inode.size;
            return Err(Doubt::Lasting(format!(
                "its executable has {size} bytes; more than {SIZE_MAX} are not hashed"
            )));
        }
        let under_way = match memory {
            Memory::Anew => None,
            Memory::Kept => match self.known_or_mine(inode, deadline) {
                Some(Ok(sha256)) => return Ok(sha256),
                Some(Err(under_way)) => Some(under_way),
                None => return passing("its executable is still being hashed; ask again"),
            },
        };
        let Some(_turn) = self.turns.enter(uid, deadline) else {
            return passing("other executables are being hashed; ask again");
        };
        let sha256 = hash(file, inode.size, Instant::now() + HASH_DEADLINE)?;
        let now = file.metadata().ok().and_then(|now| Inode::of(&now));
        if now != Some(*inode) {
            return passing("its executable was written while it was hashed; ask again");
        }
        if under_way.is_some() && settled(inode, self.clock.read().unix_s()) {
            self.remember(*inode, sha256);
        }
        drop(under_way);
        Ok(sha256)
    }

    /// The digest, or the right to hash that nobody else has meanwhile; `None` if another has it
    /// until the deadline.
    fn known_or_mine(
        &self,
        inode: &Inode,
        deadline: Instant,
    ) -> Option<Result<Sha256, UnderWay<'_>>> {
        let mut state = self.state();
        loop {
            state.uses += 1;
            let used = state.uses;
            if let Some(known) = state.known.get_mut(inode) {
                known.used = used;
                return Some(Ok(known.sha256));
            }
            if state.under_way.insert(*inode) {
                let (digests, inode) = (self, *inode);
                return Some(Err(UnderWay { digests, inode }));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.hashed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn remember(&self, inode: Inode, sha256: Sha256) {
        let mut state = self.state();
        if state.known.len() >= self.known_max {
            // Looking through all of them is nothing beside the hash that was just made.
            let oldest = state.known.iter().min_by_key(|(_, known)| known.used);
            if let Some(oldest) = oldest.map(|(inode, _)| *inode) {
                state.known.remove(&oldest);
            }
        }
        state.uses += 1;
        let used = state.uses;
        state.known.insert(inode, Known { sha256, used });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who hashes a file; ends when it is dropped, however the hash ended.
struct UnderWay<'a> {
    digests: &'a Digests,
    inode: Inode,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.digests.state().under_way.remove(&self.inode);
        self.digests.hashed.notify_all();
    }
}

impl Inode {
    /// What a descriptor's own status says; `None` for times that no clock shows.
    pub fn of(metadata: &Metadata) -> Option<Inode> {
        let ns = |seconds: i64, ns: i64| seconds.checked_mul(1_000_000_000)?.checked_add(ns);
        Some(Inode {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec())?,
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec())?,
        })
    }
}

/// Whether another change would show in the times. A time to come never is past.
fn settled(inode: &Inode, now_s: u64) -> bool {
    let changed_s = inode.ctime_ns.max(inode.mtime_ns).div_euclid(1_000_000_000);
    i64::try_from(now_s).is_ok_and(|now_s| now_s.saturating_sub(changed_s) > SETTLED_S as i64)
}

/// Hashes so many bytes, which must be all.
fn hash(file: &File, size: u64, deadline: Instant) -> Result<Sha256, Doubt> {
    let passing = |why: &str| Err(Doubt::Passing(format!("its executable {why}; ask again")));
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK_LEN];
    let mut at = 0;
    loop {
        if Instant::now() >= deadline {
            let limit = HASH_DEADLINE.as_secs();
            return passing(&format!("takes longer than {limit} s to read"));
        }
        match file.read_at(&mut chunk, at) {
            Ok(0) if at == size => return Ok(Sha256::from_digest(&context.finish())),
            Ok(0) => return passing("became shorter while it was hashed"),
            Ok(read) => {
                context.update(&chunk[..read]);
                at += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let why = format!("its executable cannot be read: {error}");
                return Err(Doubt::Lasting(why));
            }
        }
        if at > size {
            return passing("became longer while it was hashed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// A file with this content, open, and what its status says, as if it were from long ago.
    fn file(content: &[u8]) -> (File, Inode) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let inode = Inode::of(&file.metadata().unwrap()).unwrap();
        (file, inode)
    }

    /// Why there is none now.
    fn passing(digest: Result<Sha256, Doubt>) -> String {
        match digest {
            Err(Doubt::Passing(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    fn known(digests: &Digests, inode: &Inode) -> bool {
        digests.state().known.contains_key(inode)
    }

    #[test]
    fn a_digest_is_that_of_the_whole_content() {
        let digests = Digests::default();
        for length in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN] {
            let content = vec![b'x'; length];
            let (file, inode) = file(&content);
            let digest = digests.of(&file, &inode, Memory::Kept, 1, soon());
            assert_eq!(digest, Ok(Sha256::of(&content)), "{length}");
        }
    }

    #[test]
    fn what_was_just_written_is_not_remembered() {
        let digests = Digests::default();
        let (file, inode) = file(b"new");
        digests.of(&file, &inode, Memory::Kept, 1, soon()).unwrap();
        assert!(!known(&digests, &inode));
        assert!(digests.state().under_way.is_empty());
    }

    #[test]
    fn times_are_settled_once_another_change_would_show() {
        let (_, inode) = file(b"");
        let at = |mtime_s: i64, ctime_s: i64| Inode {
            mtime_ns: mtime_s * 1_000_000_000,
            ctime_ns: ctime_s * 1_000_000_000 + 999_999_999,
            ..inode
        };
        assert!(!settled(&at(0, 100), 100 + SETTLED_S));
        assert!(settled(&at(0, 100), 101 + SETTLED_S));
        assert!(!settled(&at(0, 100), 50), "a time to come");
        assert!(!settled(&at(100, 0), 50), "a time to come");
        assert!(settled(&at(-5, -5), 0));
        assert!(!settled(&at(0, 0), u64::MAX), "no clock shows that");
    }

    #[test]
    fn a_file_that_is_not_what_it_was_said_to_be_is_not_believed() {
        let digests = Digests::default();
        let (file, inode) = file(b"content");
        for (other, part) in [
            (Inode { size: 6, ..inode }, "longer"),
            (Inode { size: 8, ..inode }, "shorter"),
            (
                Inode {
                    ctime_ns: 0,
                    ..inode
                },
                "written",
            ),
            (
                Inode {
                    mtime_ns: 0,
                    ..inode
                },
                "written",
            ),
            (Inode { ino: 0, ..inode }, "written"),
        ] {
            let why = passing(digests.of(&file, &other, Memory::Kept, 1, soon()));
            assert!(why.contains(part), "{why}");
            assert!(!known(&digests, &other));
        }
        assert!(digests.state().under_way.is_empty());
    }

    #[test]
    fn the_size_limit_is_at_its_border() {
        let digests = Digests::default();
        let (file, inode) = file(b"");
        let of_size = |size| Inode { size, ..inode };
        let refused = |size| {
            let digest = digests.of(&file, &of_size(size), Memory::Kept, 1, soon());
            matches!(digest, Err(Doubt::Lasting(why)) if why.contains("are not hashed"))
        };
        assert!(!refused(SIZE_MAX - 1)); // it is shorter than it says, which is noticed
        assert!(!refused(SIZE_MAX));
        assert!(refused(SIZE_MAX + 1));
    }

    #[test]
    fn what_is_known_is_not_read_again() {
        let digests = Digests::default();
        let (_, inode) = file(b"");
        let made_up = Sha256::of(b"not what is in the file");
        digests.remember(inode, made_up);
        let dir = tempfile::tempdir().unwrap();
        let mut options = std::fs::OpenOptions::new();
        let unreadable = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(dir.path().join("unreadable"))
            .unwrap();
        assert_eq!(
            digests.of(&unreadable, &inode, Memory::Kept, 1, soon()),
            Ok(made_up)
        );
        let changed = Inode {
            ctime_ns: 1,
            ..inode
        };
        assert!(
            digests
                .of(&unreadable, &changed, Memory::Kept, 1, soon())
                .is_err()
        );
    }

    #[test]
    fn what_could_change_unseen_is_not_taken_from_memory_nor_waited_for() {
        let digests = Digests::default();
        let (file, inode) = file(b"content");
        digests.remember(inode, Sha256::of(b"what it was"));
        let digest = digests.of(&file, &inode, Memory::Anew, 1, soon());
        assert_eq!(digest, Ok(Sha256::of(b"content")));
        let other = Digests::default();
        let _busy = other.known_or_mine(&inode, soon());
        assert!(other.of(&file, &inode, Memory::Anew, 1, soon()).is_ok());
        assert!(!known(&other, &inode));
    }

    #[test]
    fn the_least_recently_used_is_forgotten_first() {
        let digests = Digests::remembering(3);
        let (file, inode) = file(b"");
        let nth = |ino| Inode { ino, ..inode };
        for ino in 1..=3 {
            digests.remember(nth(ino), Sha256::ZERO);
        }
        digests.of(&file, &nth(1), Memory::Kept, 1, soon()).unwrap(); // used
        digests.remember(nth(4), Sha256::ZERO);
        let known: Vec<bool> = (1..=4).map(|ino| known(&digests, &nth(ino))).collect();
        assert_eq!(known, [true, false, true, true]);
        for ino in 5..100 {
            digests.remember(nth(ino), Sha256::ZERO);
            assert_eq!(digests.state().known.len(), 3);
        }
    }

    #[test]
    fn who_asks_for_what_another_hashes_waits_for_it_but_not_for_ever() {
        let digests = Digests::default();
        let (file, inode) = file(b"it");
        let Some(Err(first)) = digests.known_or_mine(&inode, soon()) else {
            panic!("nobody has it");
        };
        let why = passing(digests.of(&file, &inode, Memory::Kept, 1, Instant::now()));
        assert!(why.contains("still being hashed"), "{why}");
        std::thread::scope(|threads| {
            let second = threads.spawn(|| digests.of(&file, &inode, Memory::Kept, 1, soon()));
            digests.remember(inode, Sha256::ZERO);
            drop(first);
            assert_eq!(second.join().unwrap(), Ok(Sha256::ZERO));
        });
    }

    #[test]
    fn a_uid_that_hashes_already_waits_and_others_do_not() {
        let digests = Digests::default();
        let (file, inode) = file(b"it");
        let _busy = digests.turns.enter(1, soon()).unwrap();
        let why = passing(digests.of(&file, &inode, Memory::Kept, 1, Instant::now()));
        assert!(why.contains("other executables"), "{why}");
        assert!(
            digests
                .of(&file, &inode, Memory::Kept, 2, Instant::now())
                .is_ok()
        );
    }
}
