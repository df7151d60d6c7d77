//! SoftHSM keeps its tokens in files: where they are, and whether the keystore's user may use them.
//! Other modules bring their own servers or devices, and need nothing of this.

use super::files::printable_path;
use super::host::KEYSTORE_USER;
use super::modules::{self, Reach};
use super::tokens::{Candidate, Environment};
use crate::ctl::failure::{Exit, Failure};
use nix::dir::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid, fchown};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The variable that names its configuration (softhsm2.conf(5)).
const VARIABLE: &str = "SOFTHSM2_CONF";

/// Where its configuration is if SOFTHSM2_CONF does not say: Debian's place, and others'.
const CONFIGURATIONS: [&str; 2] = ["/etc/softhsm/softhsm2.conf", "/etc/softhsm2.conf"];

/// Where tokens are if its configuration does not say (softhsm2.conf(5)).
const TOKEN_DIR: &str = "/var/lib/softhsm/tokens";

/// Where a token in software is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The directory of all its tokens.
    pub tokens: PathBuf,
    /// This token's own, if it is there.
    pub token: Option<PathBuf>,
}

/// Where this token is; nothing if another module holds it.
pub fn home(candidate: &Candidate) -> Result<Option<Home>, Failure> {
    let (module, environment) = (&candidate.module, &candidate.environment);
    if modules::reach(module) != Reach::Files || !is_softhsm(module, environment) {
        return Ok(None);
    }
    let Some(configuration) = configuration(environment) else {
        let text = "SoftHSM's configuration file is not where it usually is; name it by \
                    --environment SOFTHSM2_CONF=FILE";
        return Err(Failure::new(Exit::Unavailable, text));
    };
    let text = fs::read_to_string(&configuration).map_err(|error| {
        let text = format!("{}: {error}", configuration.display());
        Failure::new(Exit::Unavailable, text)
    })?;
    let tokens = token_dir(&text);
    printable_path(&tokens)?;
    let token = own_dir(&tokens, &candidate.token.serial);
    Ok(Some(Home { tokens, token }))
}

/// What it reads: its configuration, and the directory of its tokens. Nothing of another module.
pub fn reads(module: &Path, environment: &Environment) -> Vec<PathBuf> {
    if !is_softhsm(module, environment) {
        return Vec::new();
    }
    let configuration = configuration(environment);
    let text = configuration.as_ref().map(fs::read_to_string);
    let tokens = text.and_then(Result::ok).map(|text| token_dir(&text));
    configuration.into_iter().chain(tokens).collect()
}

fn is_softhsm(module: &Path, environment: &Environment) -> bool {
    environment.contains_key(VARIABLE) || module.to_string_lossy().contains("softhsm")
}

fn configuration(environment: &Environment) -> Option<PathBuf> {
    let usual = || {
        CONFIGURATIONS
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists())
    };
    environment.get(VARIABLE).map(PathBuf::from).or_else(usual)
}

/// `directories.tokendir`, without the slash at its end.
fn token_dir(configuration: &str) -> PathBuf {
    let value = |line: &str| {
        let (key, value) = line.split('#').next()?.split_once('=')?;
        (key.trim() == "directories.tokendir").then(|| value.trim().to_owned())
    };
    let dir = configuration.lines().filter_map(value).next_back();
    let dir = dir.unwrap_or_else(|| TOKEN_DIR.to_owned());
    let trimmed = dir.trim_end_matches('/');
    PathBuf::from(if trimmed.is_empty() { "/" } else { trimmed })
}

/// A token's directory is named by its UUID, the end of which is the token's serial number.
fn own_dir(tokens: &Path, serial: &str) -> Option<PathBuf> {
    let is_its = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.len() == 36 && !serial.is_empty() && name.replace('-', "").ends_with(serial)
    };
    let entries = fs::read_dir(tokens).ok()?;
    let mut found = entries.flatten().map(|entry| entry.path()).filter(is_its);
    found.next().filter(|_| found.next().is_none())
}

/// Whether the keystore's user could use a token's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// They are its own, or somebody else's, which the look as that user will judge.
    LeaveIt,
    /// They are root's, who made the token: they must be given away.
    Root,
}

/// Whose a token is. SoftHSM makes its files for their maker alone.
pub fn owner(token: &Path) -> Owner {
    match fs::symlink_metadata(token) {
        Ok(metadata) if metadata.is_dir() && metadata.uid() == 0 => Owner::Root,
        _ => Owner::LeaveIt,
    }
}

/// Gives a token's directory and the files in it to `user`. Members of SoftHSM's group may rename
/// what lies around it, so everything is opened without following links, and looked at before it
/// changes hands.
pub fn give_away(token: &Path, user: Uid) -> Result<(), Failure> {
    let failed = |what: &str| {
        let text = format!(
            "{}: {what}; it was not given to {KEYSTORE_USER}",
            token.display()
        );
        Failure::new(Exit::Refused, text)
    };
    let errno = |e: nix::errno::Errno| failed(e.desc());
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut dir = Dir::open(token, flags | OFlag::O_DIRECTORY, Mode::empty()).map_err(errno)?;
    let is_roots = |stat: &FileStat| stat.st_uid == 0 && stat.st_mode & 0o022 == 0;
    if !is_roots(&fstat(&dir).map_err(errno)?) {
        return Err(failed("is not root's alone"));
    }
    let mut names = Vec::new();
    for entry in dir.iter() {
        names.push(entry.map_err(errno)?.file_name().to_owned());
    }
    let mut files = Vec::new();
    for name in names
        .iter()
        .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
    {
        let file = openat(
            &dir,
            name.as_c_str(),
            flags | OFlag::O_NONBLOCK,
            Mode::empty(),
        );
        let file = file.map_err(errno)?;
        let stat = fstat(&file).map_err(errno)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if kind != SFlag::S_IFREG || stat.st_nlink != 1 || !is_roots(&stat) {
            return Err(failed("holds something that is no file of root's alone"));
        }
        files.push(file);
    }
    for fd in files.iter().map(AsFd::as_fd).chain([dir.as_fd()]) {
        fchown(fd, Some(user), None::<Gid>).map_err(errno)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_token_directory_is_read_as_softhsm_reads_it() {
        for (text, dir) in [
            ("", TOKEN_DIR),
            ("# directories.tokendir = /a\n", TOKEN_DIR),
            ("directories.tokendir = /a/b/\nlog.level = ERROR\n", "/a/b"),
            ("directories.tokendir=/a # here\n", "/a"),
            ("directories.tokendir = /\n", "/"),
        ] {
            assert_eq!(token_dir(text), Path::new(dir), "{text}");
        }
    }

    #[test]
    fn a_tokens_directory_is_found_by_its_serial_number() {
        let dir = tempfile::tempdir().unwrap();
        let uuid = "a7ee77eb-9149-7371-42d7-7848f66f8a09";
        for name in [uuid, "b7ee77eb-9149-7371-42d7-7848f66f8a00", "short8a09"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let own = |serial| own_dir(dir.path(), serial);
        assert_eq!(own("42d77848f66f8a09"), Some(dir.path().join(uuid)));
        assert_eq!(own("42d77848f66f8a01"), None);
        assert_eq!(own(""), None);
    }

    #[test]
    fn a_directory_with_something_foreign_in_it_is_not_given_away() {
        let dir = tempfile::tempdir().unwrap();
        let (token, elsewhere) = (dir.path().join("token"), dir.path().join("elsewhere"));
        fs::create_dir(&token).unwrap();
        let new = |path: &Path| {
            let mut options = fs::OpenOptions::new();
            options.create_new(true).write(true).open(path).unwrap();
        };
        new(&elsewhere);
        new(&token.join("token.object"));
        let before = fs::metadata(&token).unwrap().uid();
        let refused = || {
            let failure = give_away(&token, Uid::from_raw(12_345)).unwrap_err();
            assert_eq!(failure.exit, Exit::Refused);
            assert_eq!(fs::metadata(&token).unwrap().uid(), before);
            assert_eq!(fs::metadata(&elsewhere).unwrap().uid(), before);
        };
        symlink(&elsewhere, token.join("a")).unwrap();
        refused();
        fs::remove_file(token.join("a")).unwrap();
        fs::hard_link(&elsewhere, token.join("a")).unwrap();
        refused();
        fs::remove_file(token.join("a")).unwrap();
        fs::create_dir(token.join("a")).unwrap();
        refused();
        fs::remove_dir(token.join("a")).unwrap();
        symlink(&token, dir.path().join("link")).unwrap();
        assert!(give_away(&dir.path().join("link"), Uid::from_raw(12_345)).is_err());
    }
}
