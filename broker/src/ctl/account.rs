//! Users and groups of this host, as its name service has them. It may be a server that is away:
//! every question has a deadline, and once one was not answered no other waits again.

use super::run::within;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the name service may take: sssd gives a server 6 s before it says that it is away.
const DEADLINE: Duration = Duration::from_secs(10);

/// Whether it has been waited for in vain. For the whole process: there is one name service, and
/// whoever waits for it ten times over seems to hang.
static SILENT: AtomicBool = AtomicBool::new(false);

/// A user with all its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name, or the number where it has none.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
    /// All its groups, as the group file has them.
    pub groups: Vec<u32>,
    /// Those that its unit adds.
    pub added: Vec<u32>,
}

impl Account {
    /// Whether its processes have this group.
    pub fn has_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid) || self.added.contains(&gid)
    }
}

/// A user, if there is one of this name.
///
/// # Errors
/// The name service does not answer, or says that it cannot.
pub fn of(name: &str) -> Result<Option<Account>, String> {
    let asked = name.to_owned();
    ask(move || User::from_name(&asked).map(|user| user.map(with_groups)))
}

/// The user of a number, by whatever name.
pub fn of_uid(uid: u32) -> Account {
    let found = ask(move || User::from_uid(Uid::from_raw(uid)).map(|user| user.map(with_groups)));
    found.ok().flatten().unwrap_or_else(|| Account {
        name: uid.to_string(),
        uid,
        gid: uid,
        groups: vec![uid],
        added: Vec::new(),
    })
}

/// The id of a group, if there is one of this name.
///
/// # Errors
/// As [`of`].
pub fn group(name: &str) -> Result<Option<u32>, String> {
    let asked = name.to_owned();
    let found = ask(move || Group::from_name(&asked))?;
    Ok(found.map(|group| group.gid.as_raw()))
}

/// The name of a group, or its number.
pub fn group_name(gid: u32) -> String {
    let found = ask(move || Group::from_gid(Gid::from_raw(gid)));
    let named = found.ok().flatten().map(|group| group.name);
    named.unwrap_or_else(|| gid.to_string())
}

fn ask<T: Send + 'static>(
    question: impl FnOnce() -> nix::Result<T> + Send + 'static,
) -> Result<T, String> {
    ask_within(DEADLINE, &SILENT, question)
}

fn ask_within<T: Send + 'static>(
    deadline: Duration,
    silent: &AtomicBool,
    question: impl FnOnce() -> nix::Result<T> + Send + 'static,
) -> Result<T, String> {
    let no_answer = || {
        format!(
            "the name service does not answer within {} s",
            deadline.as_secs()
        )
    };
    if silent.load(Ordering::Relaxed) {
        return Err(no_answer());
    }
    match within(deadline, question) {
        Some(answer) => answer.map_err(|errno| errno.desc().to_owned()),
        None => {
            silent.store(true, Ordering::Relaxed);
            Err(no_answer())
        }
    }
}

fn with_groups(user: User) -> Account {
    let groups = CString::new(user.name.as_str())
        .ok()
        .and_then(|name| getgrouplist(&name, user.gid).ok())
        .unwrap_or_else(|| vec![user.gid]);
    Account {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
        added: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_user_comes_with_its_groups_and_an_unknown_one_is_none() {
        let root = of("root").unwrap().unwrap();
        assert_eq!((root.uid, root.has_group(0)), (0, true));
        assert_eq!(of_uid(0), root);
        assert_eq!(of("no-such-user"), Ok(None));
        assert_eq!(group("root"), Ok(Some(0)));
        assert_eq!(group("no-such-group"), Ok(None));
        assert_eq!(group_name(0), "root");
        assert_eq!(group_name(4_294_967_000), "4294967000");
    }

    #[test]
    fn a_name_service_that_was_silent_once_is_not_waited_for_again() {
        let silent = AtomicBool::new(false);
        let (_keep, never) = mpsc::channel::<()>();
        let short = Duration::from_millis(20);
        let hung = ask_within(short, &silent, move || {
            let _ = never.recv();
            Ok(())
        });
        assert!(hung.unwrap_err().contains("does not answer"));
        // It would answer now, and is not asked.
        assert!(ask_within(DEADLINE, &silent, || Ok(())).is_err());
        let well = AtomicBool::new(false);
        assert_eq!(ask_within(DEADLINE, &well, || Ok(7)), Ok(7));
    }
}
