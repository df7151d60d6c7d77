//! The doctor's eyes: runs commands, follows paths, reads files. Only looks. Whatever could wait for
//! ever (a command, a socket, a disk) has a deadline.

use crate::ctl::run::{self, Ended};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long one command may take; `systemctl show` of ten units takes 20 ms, a TPM a second.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// How long a socket or a disk may take.
pub const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Runs a program of the system by its name. `Err` says why there is no answer.
pub fn command(name: &str, arguments: &[&str], output: Output) -> Result<Ended, String> {
    let program = run::program(name).ok_or_else(|| format!("there is no {name}"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    let ended = match output {
        Output::Read => run::run(&mut command, b"", COMMAND_DEADLINE),
        Output::Discarded => run::run_blindly(&mut command, b"", COMMAND_DEADLINE),
    };
    ended.map_err(|why| format!("{name} {why}"))
}

/// What becomes of a command's standard output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// It is read.
    Read,
    /// It goes to /dev/null and never into our memory: it is a secret.
    Discarded,
}

/// What is at a path, links followed where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Permission bits, 07777.
    pub mode: u32,
}

/// What an [`Entry`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A Unix socket.
    Socket,
    /// Anything else.
    Other,
}

/// What is at a path itself: a link is `Other`.
pub fn entry_itself(path: &Path) -> Result<Entry, ErrorKind> {
    let metadata = fs::symlink_metadata(path).map_err(|error| error.kind())?;
    Ok(entry_of(path, &metadata))
}

/// What is at a path, links followed.
pub fn entry(path: &Path) -> Result<Entry, ErrorKind> {
    let metadata = fs::metadata(path).map_err(|error| error.kind())?;
    Ok(entry_of(path, &metadata))
}

fn entry_of(path: &Path, metadata: &fs::Metadata) -> Entry {
    use std::os::unix::fs::FileTypeExt;
    let kind = match metadata.file_type() {
        it if it.is_dir() => EntryKind::Directory,
        it if it.is_file() => EntryKind::File,
        it if it.is_socket() => EntryKind::Socket,
        _ => EntryKind::Other,
    };
    Entry {
        path: path.to_owned(),
        kind,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode() & 0o7777,
    }
}

/// Everything that decides what is found at a path: the directories on the way to it and, if a
/// link is among them, those on the way to where it leads; then the thing itself.
pub fn way(path: &Path) -> Result<Vec<Entry>, ErrorKind> {
    let real = path.canonicalize().map_err(|error| error.kind())?;
    let mut paths: Vec<&Path> = path.ancestors().skip(1).chain(real.ancestors()).collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().map(entry).collect()
}

/// A text file, its first 64 KiB; empty if it cannot be read.
pub fn text(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(64 * 1024).read_to_end(&mut bytes); // what came is what there is
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_heard_and_a_secret_is_not() {
        let said = command("echo", &["-n", "1234"], Output::Read).unwrap();
        assert!(said.succeeded());
        assert_eq!(said.stdout, "1234");
        let said = command("echo", &["1234"], Output::Discarded).unwrap();
        assert!(said.succeeded() && said.stdout.is_empty());
        assert!(!command("false", &[], Output::Read).unwrap().succeeded());
        let missing = command("no-such-program", &[], Output::Read).unwrap_err();
        assert_eq!(missing, "there is no no-such-program");
    }

    #[test]
    fn the_way_to_a_link_and_the_way_to_its_target_both_count() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for dir in [&from, &to] {
            fs::create_dir(dir).unwrap();
        }
        let file = to.join("file");
        fs::File::options()
            .create_new(true)
            .write(true)
            .open(&file)
            .unwrap();
        std::os::unix::fs::symlink(&file, from.join("link")).unwrap();
        let paths: Vec<PathBuf> = way(&from.join("link"))
            .unwrap()
            .into_iter()
            .map(|entry| entry.path)
            .collect();
        for path in [&from, &to, &file, &PathBuf::from("/")] {
            assert!(
                paths.contains(&path.canonicalize().unwrap()) || paths.contains(path),
                "{}: {paths:?}",
                path.display()
            );
        }
    }
}
