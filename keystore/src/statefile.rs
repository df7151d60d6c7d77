//! One small file of state, replaced as a whole or not at all.
//!
//! Layout: one header line `assertd-state <format> <generation> <length> <sha256>`, then the
//! payload as JSON and a newline. Replacing writes a new file, fsyncs it, links the old one to
//! `NAME.prev`, renames, and fsyncs the directory: a crash at any point leaves the old or the new
//! state, never a torn one. A file that fails its check is reported and left where it is.

use crate::{Error, Kind};
use aws_lc_rs::digest;
use nix::fcntl::{Flock, FlockArg};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest state file we read, in bytes: 10,000 keys at 1 KiB with room to spare.
pub const STATE_LEN_MAX: u64 = 32 * 1024 * 1024;

const MAGIC: &str = "assertd-state";
const FORMAT: u32 = 1;

/// A state directory that belongs to one process: the lock is held for life, by all clones.
#[derive(Clone)]
pub struct StateDir {
    path: PathBuf,
    _lock: Arc<Flock<File>>,
}

impl StateDir {
    /// Makes the directory if it is missing (mode 0700) and locks it.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if another process holds it; [`Kind::Corrupt`] if it is not a
    /// directory of ours alone.
    pub fn lock(path: &Path) -> Result<StateDir, Error> {
        let failed = |what: &str, error: std::io::Error| {
            // Nobody mends that by waiting (reliability row 23).
            let (kind, remedy) = match error.kind() {
                ErrorKind::ReadOnlyFilesystem => {
                    let remedy =
                        "; mend its file system and mount it for writing, then start again";
                    (Kind::Corrupt, remedy)
                }
                _ => (Kind::Unavailable, ""),
            };
            let text = format!("state directory {}: {what}{remedy}", path.display());
            Error::new(kind, text).because(error)
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| failed("cannot be made", e))?;
        check_owner(path)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|e| failed("cannot be opened", e))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            Error::new(
                Kind::Unavailable,
                format!(
                    "state directory {}: in use by another process ({errno}); stop that one first",
                    path.display()
                ),
            )
        })?;
        Ok(StateDir {
            path: path.to_owned(),
            _lock: Arc::new(lock),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A directory that another user could write to is no place for state (reliability row 31).
fn check_owner(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    let refuse = |text: &str| {
        Err(Error::new(
            Kind::Corrupt,
            format!("state directory {}: {text}", path.display()),
        ))
    };
    let metadata = fs::symlink_metadata(path).map_err(|e| {
        Error::new(
            Kind::Unavailable,
            format!("state directory {}", path.display()),
        )
        .because(e)
    })?;
    if !metadata.is_dir() {
        return refuse("is not a directory (a symbolic link is not followed)");
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return refuse("belongs to another user; chown it to the user this process runs as");
    }
    if metadata.mode() & 0o022 != 0 {
        return refuse("is writable by others; chmod it to 0700");
    }
    Ok(())
}

/// The current value of one state file and the means to replace it.
pub struct StateFile<T> {
    path: PathBuf,
    generation: u64,
    kind: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned + Default> StateFile<T> {
    /// Reads `name` in `dir`. A file that does not exist is the default value at generation 0.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if the file fails its check; nothing is changed then.
    pub fn open(dir: &StateDir, name: &str) -> Result<(StateFile<T>, T), Error> {
        let path = dir.path().join(name);
        let new = with_suffix(&path, NEW);
        if new.exists() {
            let _ = fs::remove_file(&new); // a crash left it, and it may be long until the next write
        }
        let (generation, value) = match read_whole(&path)? {
            None => (0, T::default()),
            Some(bytes) => decode(&bytes).map_err(|text| corrupt(&path, &text))?,
        };
        Ok((
            StateFile {
                path,
                generation,
                kind: PhantomData,
            },
            value,
        ))
    }

    /// Replaces the file. When this returns `Ok` the new value survives a power cut.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if it could not be written for certain: a crash now leaves the old or
    /// the new value. [`Kind::Refused`] if it would be too long to be read back.
    pub fn replace(&mut self, value: &T) -> Result<(), Error> {
        let generation = self.generation + 1;
        let bytes = encode(generation, value);
        if bytes.len() as u64 > STATE_LEN_MAX {
            let text = format!(
                "state file {}: would be {} bytes, and {STATE_LEN_MAX} is the most; the old state \
                 stands; destroy keys that are not needed",
                self.path.display(),
                bytes.len()
            );
            return Err(Error::new(Kind::Refused, text));
        }
        replace_bytes(&self.path, &bytes).map_err(|error| {
            let text = format!(
                "state file {}: cannot be replaced for certain; free space or mend the disk, then \
                 try again",
                self.path.display()
            );
            Error::new(Kind::Unavailable, text).because(error)
        })?;
        self.generation = generation;
        Ok(())
    }

    /// How often the file has been replaced.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// Generation and value of a state file, whoever holds its directory; `None` if there is none.
///
/// # Errors
/// [`Kind::Corrupt`] if it fails its check.
pub fn peek<T: DeserializeOwned>(path: &Path) -> Result<Option<(u64, T)>, Error> {
    let bytes = read_whole(path)?;
    let value = bytes.map(|bytes| decode(&bytes).map_err(|text| corrupt(path, &text)));
    value.transpose()
}

/// Generation and checksum of a state file; `None` if there is none. Two files that share them are the
/// same.
///
/// # Errors
/// [`Kind::Corrupt`] if it fails its check.
pub fn fingerprint(path: &Path) -> Result<Option<String>, Error> {
    let Some(bytes) = read_whole(path)? else {
        return Ok(None);
    };
    decode::<serde::de::IgnoredAny>(&bytes).map_err(|text| corrupt(path, &text))?;
    let header = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let header = String::from_utf8_lossy(header);
    let fields: Vec<&str> = header.split(' ').collect();
    Ok(Some(format!("{} {}", fields[2], fields[4]))) // as decode has found them
}

fn corrupt(path: &Path, text: &str) -> Error {
    Error::new(
        Kind::Corrupt,
        format!(
            "state file {}: {text}; nothing was changed; restore it from a backup, or from the \
             previous generation in {}.prev if that one is complete",
            path.display(),
            path.display()
        ),
    )
}

fn encode<T: Serialize>(generation: u64, value: &T) -> Vec<u8> {
    let payload = serde_json::to_vec_pretty(value).expect("state is structs, strings and numbers");
    let sum = checksum(generation, &payload);
    let mut bytes = format!("{MAGIC} {FORMAT} {generation} {} {sum}\n", payload.len()).into_bytes();
    bytes.extend_from_slice(&payload);
    bytes.push(b'\n');
    bytes
}

/// The generation and value in these bytes, or what is wrong with them.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(u64, T), String> {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or("has no header line")?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| "header is not text")?;
    let fields: Vec<&str> = header.split(' ').collect();
    let [magic, format, generation, length, sum] = fields[..] else {
        return Err("header has not five fields".into());
    };
    if magic != MAGIC {
        return Err("is not an assertd state file".into());
    }
    if format != FORMAT.to_string() {
        return Err(format!("has format {format}, this program reads {FORMAT}"));
    }
    let number = |text: &str| -> Result<u64, String> {
        let value: u64 = text
            .parse()
            .map_err(|_| "header number is damaged".to_owned())?;
        if value.to_string() == text {
            Ok(value)
        } else {
            Err("header number is damaged".into())
        }
    };
    let (generation, length) = (number(generation)?, number(length)?);
    let payload = bytes[end + 1..].strip_suffix(b"\n").ok_or("is cut off")?;
    if generation == 0 || payload.len() as u64 != length {
        return Err("has another length than it says".into());
    }
    if checksum(generation, payload) != sum {
        return Err("fails its checksum".into());
    }
    serde_json::from_slice(payload)
        .map(|value| (generation, value))
        .map_err(|e| e.to_string())
}

/// SHA-256 over generation and payload, so that neither can change alone.
fn checksum(generation: u64, payload: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&generation.to_be_bytes());
    context.update(payload);
    context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn read_whole(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let failed = |error| {
        Error::new(
            Kind::Unavailable,
            format!("state file {}: cannot be read", path.display()),
        )
        .because(error)
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(STATE_LEN_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > STATE_LEN_MAX {
        return Err(corrupt(
            path,
            &format!("is longer than {STATE_LEN_MAX} bytes"),
        ));
    }
    Ok(Some(bytes))
}

fn replace_bytes(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let (new, previous) = (with_suffix(path, NEW), with_suffix(path, ".prev"));
    write_new(&new, bytes)?;
    let placed = (|| {
        if path.exists() {
            match fs::remove_file(&previous) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => fs::hard_link(path, &previous)?,
            }
        }
        fs::rename(&new, path)
    })();
    if placed.is_err() {
        let _ = fs::remove_file(&new); // nobody looks for it, and it would be written anew
    }
    placed?;
    sync_parent(path)
}

/// What a file is called while it is written; one that a crash left is of no use to anyone.
pub const NEW: &str = ".new";

/// Puts a file where none is, as a whole or not at all; mode 0600. When this returns `Ok` it
/// survives a power cut.
///
/// # Errors
/// `AlreadyExists` if there is one, which is left as it is; what the file system says.
pub fn place(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = with_suffix(path, NEW);
    write_new(&new, bytes)?;
    let placed = fs::hard_link(&new, path);
    let removed = fs::remove_file(&new);
    placed?;
    // Whoever finds it would take it for one that survives a power cut.
    let settled = removed.and_then(|()| sync_parent(path));
    settled.inspect_err(|_| drop(fs::remove_file(path)))
}

/// Takes a file away. When this returns `Ok` it does not come back after a power cut. A file that
/// is not there is success.
///
/// # Errors
/// What the file system says.
pub fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => sync_parent(path),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn write_new(new: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // What a crash left may be another name of the file that is there now (see `place`): it is taken
    // away, never written to.
    match fs::remove_file(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(new)?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(new); // a half-written file is of no use to anyone
    }
    written
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    type Value = BTreeMap<String, u32>;

    fn value() -> Value {
        Value::from([("a".to_owned(), 1), ("b".to_owned(), 2)])
    }

    fn place() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::lock(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    #[test]
    fn what_was_replaced_is_read_back() {
        let (_tmp, dir) = place();
        let (mut file, empty) = StateFile::<Value>::open(&dir, "keys").unwrap();
        assert_eq!((empty, file.generation()), (Value::new(), 0));
        file.replace(&value()).unwrap();
        file.replace(&value()).unwrap();
        let (file, read) = StateFile::<Value>::open(&dir, "keys").unwrap();
        assert_eq!((read, file.generation()), (value(), 2));
        assert!(dir.path().join("keys.prev").exists());
    }

    #[test]
    fn every_prefix_and_every_flipped_bit_is_refused() {
        let bytes = encode(7, &value());
        assert_eq!(decode::<Value>(&bytes).unwrap(), (7, value()));
        for length in 0..bytes.len() {
            assert!(
                decode::<Value>(&bytes[..length]).is_err(),
                "prefix of {length}"
            );
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Value>(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let (_tmp, dir) = place();
        let path = dir.path().join("keys");
        OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path)
            .unwrap()
            .write_all(b"assertd-state 1 1 2 00\n{}\n")
            .unwrap();
        let before = fs::read(&path).unwrap();
        let error = StateFile::<Value>::open(&dir, "keys").err().unwrap();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains("keys.prev"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_state_directory_has_one_owner() {
        let (_tmp, dir) = place();
        let error = StateDir::lock(dir.path()).err().unwrap();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().contains("in use by another process"));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test makes the mode wrong")]
    fn a_directory_others_may_write_or_a_link_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (tmp, dir) = place();
        let link = tmp.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert_eq!(StateDir::lock(&link).err().unwrap().kind(), Kind::Corrupt);
        let open = tmp.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(StateDir::lock(&open).err().unwrap().kind(), Kind::Corrupt);
    }

    #[test]
    fn a_failed_replace_leaves_the_old_state() {
        let (_tmp, dir) = place();
        let (mut file, _) = StateFile::<Value>::open(&dir, "keys").unwrap();
        file.replace(&value()).unwrap();
        fs::create_dir(dir.path().join("keys.new")).unwrap(); // opening it for writing fails
        assert_eq!(
            file.replace(&Value::new()).unwrap_err().kind(),
            Kind::Unavailable
        );
        assert_eq!(file.generation(), 1);
        assert_eq!(StateFile::<Value>::open(&dir, "keys").unwrap().1, value());
    }

    #[test]
    fn what_could_not_take_its_place_is_taken_away() {
        let (_tmp, dir) = place();
        let (mut file, _) = StateFile::<Value>::open(&dir, "keys").unwrap();
        file.replace(&value()).unwrap();
        fs::create_dir(dir.path().join("keys.prev")).unwrap(); // it cannot be removed as a file
        assert!(file.replace(&Value::new()).is_err());
        assert!(!dir.path().join("keys.new").exists());
        assert_eq!(StateFile::<Value>::open(&dir, "keys").unwrap().1, value());
    }

    #[test]
    fn what_a_crash_left_half_written_is_taken_away_at_the_next_start() {
        let (_tmp, dir) = place();
        let new = dir.path().join("keys.new");
        write_new(&new, b"half").unwrap();
        StateFile::<Value>::open(&dir, "keys").unwrap();
        assert!(!new.exists());
    }

    #[test]
    fn a_file_is_placed_once_and_taken_away_once() {
        let (_tmp, dir) = place();
        let path = dir.path().join("a.pem");
        super::place(&path, b"one").unwrap();
        let again = super::place(&path, b"two").unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert!(!dir.path().join("a.pem.new").exists());
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
    }
}
