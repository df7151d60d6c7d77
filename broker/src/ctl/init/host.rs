//! The host as init needs it: the users and directories of assertd, what the keystore's user may
//! read, and the sockets. Users and directories are made by systemd's own tools from the files that
//! the package installs, so that there is one place that says what they are.

use crate::ctl::account::{self, Account};
use crate::ctl::failure::{Exit, Failure};
use crate::ctl::run;
use keystore::config::BackendKind;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// assertd's user and group.
pub const BROKER_USER: &str = "assertd";

/// The user of keystores that use PKCS#11.
pub const KEYSTORE_USER: &str = "assertd-pkcs11";

/// What the tmpfiles.d file makes and init writes to.
const DIRECTORIES: [&str; 2] = ["/etc/assertd", "/etc/assertd/conf.d"];

/// Where packages and administrators put such files.
const SYSUSERS: [&str; 2] = [
    "/usr/lib/sysusers.d/assertd.conf",
    "/etc/sysusers.d/assertd.conf",
];
const TMPFILES: [&str; 2] = [
    "/usr/lib/tmpfiles.d/assertd.conf",
    "/etc/tmpfiles.d/assertd.conf",
];

/// How long one of systemd's tools may take; starting a socket waits for a job.
const DEADLINE: Duration = Duration::from_secs(60);

/// What is to be made before files can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Users, of which these are looked for.
    Users(Vec<&'static str>),
    /// The directories.
    Directories,
}

/// What is missing for keystores of these kinds.
pub fn missing(kinds: &[BackendKind]) -> Result<Vec<Missing>, Failure> {
    let mut missing = Vec::new();
    let users: Vec<&str> = [BROKER_USER]
        .into_iter()
        .chain(kinds.iter().map(|kind| kind.user()))
        .collect();
    for user in &users {
        if account(user)?.is_none() {
            missing.push(Missing::Users(users));
            break;
        }
    }
    if !DIRECTORIES.iter().all(|dir| Path::new(dir).is_dir()) {
        missing.push(Missing::Directories);
    }
    for one in &missing {
        one.recipe()?;
    }
    Ok(missing)
}

impl Missing {
    /// For the list of what will be done.
    pub fn line(&self) -> String {
        match self {
            Missing::Users(users) => {
                let (last, first) = users.split_last().unwrap_or((&BROKER_USER, &[]));
                format!(
                    "the users {} and {last}, by systemd-sysusers",
                    first.join(", ")
                )
            }
            Missing::Directories => format!("{}, by systemd-tmpfiles", DIRECTORIES.join(" and ")),
        }
    }

    /// Makes it.
    pub fn make(&self) -> Result<(), Failure> {
        let (tool, file) = self.recipe()?;
        let mut command = Command::new(&tool);
        if *self == Missing::Directories {
            command.arg("--create");
        }
        let name = tool.display();
        let failed = |why: String| Failure::new(Exit::Internal, format!("{name}: {why}"));
        let ended = run::run(command.arg(file), b"", DEADLINE).map_err(failed)?;
        match ended.succeeded() {
            true => Ok(()),
            false => Err(failed(ended.reason())),
        }
    }

    fn recipe(&self) -> Result<(PathBuf, &'static str), Failure> {
        let (tool, files) = match self {
            Missing::Users(_) => ("systemd-sysusers", SYSUSERS),
            Missing::Directories => ("systemd-tmpfiles", TMPFILES),
        };
        let absent = |what: &str| {
            let text = format!(
                "{what} is missing, which makes {}; install assertd's package, or in its source \
                 run `make install`",
                self.line()
            );
            Failure::new(Exit::Unavailable, text)
        };
        let tool = run::program(tool).ok_or_else(|| absent(tool))?;
        let file = files.into_iter().find(|file| Path::new(file).is_file());
        Ok((tool, file.ok_or_else(|| absent(files[0]))?))
    }
}

/// A user that may not exist yet.
pub fn account(name: &str) -> Result<Option<Account>, Failure> {
    account::of(name).map_err(|why| Failure::new(Exit::Internal, format!("user {name}: {why}")))
}

/// Groups that the keystore's user must be in to read this file, or to use this directory; besides
/// its own and the one that its unit adds.
pub fn groups_needed(user: Option<&Account>, path: &Path) -> BTreeSet<String> {
    let own_group = user.map(|user| user.gid);
    let gids = path.ancestors().filter_map(|step| {
        let metadata = step.metadata().ok()?;
        let wanted = match (step == path, metadata.is_dir()) {
            (true, false) => 0o4,
            (true, true) => 0o7,
            (false, _) => 0o1,
        };
        let uid = user.map(|user| user.uid);
        needed(wanted, metadata.mode(), metadata.uid(), uid).then(|| metadata.gid())
    });
    // root's group opens more than what is meant.
    gids.filter(|gid| Some(*gid) != own_group && *gid != 0)
        .map(account::group_name)
        .filter(|name| name != BROKER_USER)
        .collect()
}

/// Whether the keystore's user cannot read a file, or a directory, when it is in these groups too.
/// What is not there is closed to nobody.
pub fn is_closed_to(user: &Account, groups: &BTreeSet<String>, path: &Path) -> bool {
    let has = |gid| {
        let name = account::group_name(gid);
        gid == user.gid || name == BROKER_USER || groups.contains(&name)
    };
    path.ancestors().any(|step| {
        let Ok(metadata) = step.metadata() else {
            return false;
        };
        let wanted = match (step == path, metadata.is_dir()) {
            (true, false) => 0o4,
            (true, true) => 0o5,
            (false, _) => 0o1,
        };
        let shift = match () {
            () if metadata.uid() == user.uid => 6,
            () if has(metadata.gid()) => 3,
            () => 0,
        };
        metadata.mode() >> shift & wanted != wanted
    })
}

/// Whether only its group opens something to this user.
fn needed(wanted: u32, mode: u32, owner: u32, uid: Option<u32>) -> bool {
    uid != Some(owner) && mode & wanted != wanted && (mode >> 3) & wanted == wanted
}

/// Becomes the keystore's user with the groups of its unit, then runs `program`; nothing if the
/// user or the tool is not there.
pub fn as_keystore<'a>(
    kind: BackendKind,
    groups: impl IntoIterator<Item = &'a String>,
    program: &Path,
) -> Option<Command> {
    let Account { uid, gid, .. } = account(kind.user()).ok()??;
    let setpriv = run::program("setpriv")?;
    let mut names: Vec<&str> = groups.into_iter().map(String::as_str).collect();
    names.push(BROKER_USER);
    let mut command = Command::new(setpriv);
    command
        .args(["--reuid", &uid.to_string(), "--regid", &gid.to_string()])
        .args(["--groups", &names.join(","), "--inh-caps=-all"])
        .arg(program);
    Some(command)
}

/// Stays root, who owns files and devices, and keeps one capability: to read what is another's.
/// Then runs `program`.
pub fn as_reader(program: &Path) -> Command {
    let Some(setpriv) = run::program("setpriv") else {
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    command
        .args(["--inh-caps=-all", "--bounding-set=-all,+dac_read_search"])
        .arg(program);
    command
}

/// An owner as `ls -l` shows it.
pub fn owner_words(uid: u32, gid: u32, mode: u32) -> String {
    let user = account::of_uid(uid).name;
    format!("{user}:{}, mode {mode:04o}", account::group_name(gid))
}

/// The sockets that start everything else; `keystores` are the units of those.
pub fn sockets(keystores: &[String]) -> Vec<String> {
    let own = ["assertd.socket", "assertd-admin.socket"].map(str::to_owned);
    own.into_iter().chain(keystores.iter().cloned()).collect()
}

/// Whether a unit runs or listens.
pub fn is_active(unit: &str) -> bool {
    systemctl(&["is-active", "--quiet", unit]).is_ok_and(|ended| ended.succeeded())
}

/// Whether systemd is this host's service manager (sd_booted(3)).
pub fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Those that do not listen yet, or would not after the next boot.
pub fn sockets_off(keystores: &[String]) -> Result<Vec<String>, Failure> {
    let mut off = Vec::new();
    for socket in sockets(keystores) {
        let on = systemctl(&["is-active", "--quiet", &socket])?.succeeded()
            && systemctl(&["is-enabled", "--quiet", &socket])?.succeeded();
        if !on {
            off.push(socket);
        }
    }
    Ok(off)
}

/// Enables and starts them.
pub fn start_sockets(sockets: &[String]) -> Result<(), Failure> {
    let mut words = vec!["enable", "--now"];
    words.extend(sockets.iter().map(String::as_str));
    for words in [&["daemon-reload"][..], &words] {
        let ended = systemctl(words)?;
        if !ended.succeeded() {
            let text = format!("systemctl {}: {}", words.join(" "), ended.reason());
            return Err(Failure::new(Exit::Unavailable, text));
        }
    }
    Ok(())
}

fn systemctl(words: &[&str]) -> Result<run::Ended, Failure> {
    let failed = |why| Failure::new(Exit::Unavailable, format!("systemctl {why}"));
    let program = run::program("systemctl").ok_or_else(|| failed("is missing".to_owned()))?;
    run::run(Command::new(program).args(words), b"", DEADLINE).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_needed_only_where_it_opens_what_is_closed() {
        let me = Some(990);
        assert!(needed(0o4, 0o100_640, 0, me)); // Debian's softhsm2.conf
        assert!(needed(0o7, 0o042_770, 0, me)); // and its tokens
        assert!(needed(0o1, 0o040_750, 0, None));
        for (wanted, mode, owner) in [
            (0o4, 0o100_644, 0),   // open to all
            (0o1, 0o040_755, 0),   // likewise
            (0o4, 0o100_600, 0),   // closed to its group too
            (0o4, 0o100_640, 990), // ours
        ] {
            assert!(!needed(wanted, mode, owner, me), "{mode:o} {owner}");
        }
    }

    #[test]
    fn a_file_is_closed_to_who_cannot_read_it_or_come_to_it() {
        use nix::fcntl::AT_FDCWD;
        use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
        let tmp = tempfile::tempdir().unwrap();
        let (dir, file) = (tmp.path().join("d"), tmp.path().join("d/f"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::File::create_new(&file).unwrap();
        let mode = |path: &Path, mode| {
            let mode = Mode::from_bits_truncate(mode);
            fchmodat(AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink).unwrap();
        };
        mode(tmp.path(), 0o755);
        let owner = file.metadata().unwrap();
        let (uid, gid) = (owner.uid(), owner.gid());
        let user = |uid, gid| Account {
            name: "u".into(),
            uid,
            gid,
            groups: Vec::new(),
            added: Vec::new(),
        };
        let group = BTreeSet::from([account::group_name(gid)]);
        let none = BTreeSet::new();
        let (other, owner) = (user(uid + 1, gid + 1), user(uid, gid + 1));
        for (dir_mode, file_mode, by_other, by_member, by_owner) in [
            (0o755, 0o644, false, false, false),
            (0o755, 0o640, true, false, false),
            (0o700, 0o644, true, true, false),
            (0o750, 0o640, true, false, false),
            (0o755, 0o044, false, false, true),
        ] {
            mode(&dir, dir_mode);
            mode(&file, file_mode);
            assert_eq!(is_closed_to(&other, &none, &file), by_other);
            assert_eq!(is_closed_to(&other, &group, &file), by_member);
            assert_eq!(is_closed_to(&owner, &none, &file), by_owner);
        }
        assert!(!is_closed_to(&other, &none, &dir.join("not there")));
    }
}
