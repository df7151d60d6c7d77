//! The doctor's eyes: runs commands, follows paths, reads files. Only looks. Whatever could wait for
//! ever (a command, a socket, a disk) has a deadline.

use super::access::Want;
use crate::ctl::account::Account;
use crate::ctl::run::{self, Ended, within};
use keystore::trail;
use std::fs;
use std::io::{self, ErrorKind, Read};
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

/// Whether a user can do it, as the kernel says when it is asked under that user's numbers: with an
/// ACL that may be more than the mode bits show. Nothing if it cannot be asked.
pub fn allows(account: &Account, path: &Path, want: Want) -> Option<bool> {
    let flags: &[&str] = match want {
        Want::Read => &["-r"],
        Want::Change => &["-w", "-x"],
        Want::Enter => &["-x"],
        Want::Use => &["-r", "-w"],
    };
    let groups = account.groups.iter().chain(&account.added);
    let groups: Vec<String> = groups.map(u32::to_string).collect();
    let become_it = [
        format!("--reuid={}", account.uid),
        format!("--regid={}", account.gid),
        format!("--groups={}", groups.join(",")),
    ];
    let path = path.to_str()?;
    for flag in flags {
        let mut arguments: Vec<&str> = become_it.iter().map(String::as_str).collect();
        arguments.extend(["/usr/bin/test", flag, path]);
        if !command("setpriv", &arguments, Output::Discarded)
            .ok()?
            .succeeded()
        {
            return Some(false);
        }
    }
    Some(true)
}

/// What is at a path.
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
    /// A symbolic link; it has no mode of its own (symlink(7)).
    Link,
    /// Anything else.
    Other,
}

/// What is at a path itself: a link is a link.
pub fn entry_itself(path: &Path) -> Result<Entry, ErrorKind> {
    let asked = path.to_owned();
    let metadata = on_disk(move || fs::symlink_metadata(asked))?;
    Ok(entry_of(path, &metadata))
}

/// What is at a path, links followed.
pub fn entry(path: &Path) -> Result<Entry, ErrorKind> {
    let asked = path.to_owned();
    let metadata = on_disk(move || fs::metadata(asked))?;
    Ok(entry_of(path, &metadata))
}

fn entry_of(path: &Path, metadata: &fs::Metadata) -> Entry {
    use std::os::unix::fs::FileTypeExt;
    let kind = match metadata.file_type() {
        it if it.is_dir() => EntryKind::Directory,
        it if it.is_file() => EntryKind::File,
        it if it.is_socket() => EntryKind::Socket,
        it if it.is_symlink() => EntryKind::Link,
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

/// Everything that decides what is found at a path: each directory and link on the way; then the
/// thing itself, by its path without links.
pub fn way(path: &Path) -> Result<Vec<Entry>, ErrorKind> {
    let asked = path.to_owned();
    let trail = on_disk(move || trail::follow(&asked))?;
    let steps = trail.steps.iter();
    Ok(steps
        .map(|step| entry_of(&step.path, &step.metadata))
        .collect())
}

/// A disk may be somebody else's, over a network that is away.
fn on_disk<T: Send + 'static>(
    look: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ErrorKind> {
    let looked = within(LOOK_DEADLINE, look).unwrap_or_else(|| Err(ErrorKind::TimedOut.into()));
    looked.map_err(|error| error.kind())
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
    fn the_kernel_says_what_a_user_can_do() {
        // Of any number; root's own answer is yes to everything.
        let nobody = Account {
            name: "65533".into(),
            uid: 65_533,
            gid: 65_533,
            groups: vec![65_533],
            added: Vec::new(),
        };
        if !nix::unistd::geteuid().is_root() {
            return; // nobody else may ask
        }
        let asked = |path: &str, want| allows(&nobody, Path::new(path), want);
        assert_eq!(asked("/etc/passwd", Want::Read), Some(true));
        assert_eq!(asked("/tmp", Want::Change), Some(true));
        assert_eq!(asked("/etc", Want::Change), Some(false));
        assert_eq!(asked("/root/none", Want::Read), Some(false));
    }

    #[test]
    fn the_way_to_a_link_and_the_way_to_its_target_both_count() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let (from, to) = (top.join("from"), top.join("to"));
        for dir in [&from, &to] {
            fs::create_dir(dir).unwrap();
        }
        let (file, link) = (to.join("file"), from.join("link"));
        fs::File::options()
            .create_new(true)
            .write(true)
            .open(&file)
            .unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let seen = way(&link).unwrap();
        for (path, kind) in [
            (&PathBuf::from("/"), EntryKind::Directory),
            (&from, EntryKind::Directory),
            (&link, EntryKind::Link),
            (&to, EntryKind::Directory),
            (&file, EntryKind::File),
        ] {
            let of_path = seen.iter().find(|entry| entry.path == *path);
            assert_eq!(of_path.map(|entry| entry.kind), Some(kind), "{seen:?}");
        }
        assert_eq!(seen.last().unwrap().kind, EntryKind::File);
    }
}
