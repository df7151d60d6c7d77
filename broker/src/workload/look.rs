//! One look at a process: whose it is, and where. Its `/proc` files say it all. Where the kernel says
//! the most of it in one system call (PIDFD_GET_INFO, Linux 6.13), the files are read only when its
//! cgroup is another than before, or somebody's groups decide: what else they say stays the same.
//! A cgroup keeps its path (cgroup v2 has no rename), its id is of 64 bits and not used again (kernfs),
//! and a process stays in the pid namespace it was born in (pid_namespaces(7)).
//!
//! Never guesses: wherever the one call fails or says less, the files are read.

use super::Wanted;
use super::proc::Files;
use crate::sys;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// What is seen of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Real, effective, saved, file-system user id.
    pub uids: [u32; 4],
    /// The same for groups.
    pub gids: [u32; 4],
    /// Its supplementary groups, if they were wanted.
    pub groups: Vec<u32>,
    /// Its path in the unified hierarchy.
    pub cgroup: Arc<str>,
    /// In how many pid namespaces it has a pid, ours included.
    pub pid_namespaces: usize,
}

/// What a process's files said, and is so still while it is in the same cgroup.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<Option<Place>>);

#[derive(Clone, Debug)]
struct Place {
    cgroup_id: u64,
    cgroup: Arc<str>,
    pid_namespaces: usize,
}

impl Look {
    /// At the process of these files and this pidfd, now.
    ///
    /// # Errors
    /// What of it cannot be read, as a sentence; among others, once it has been reaped.
    pub fn at(
        files: &Files,
        pidfd: BorrowedFd<'_>,
        remembered: &Remembered,
        groups: Wanted,
    ) -> Result<Look, String> {
        let before = sys::process_info(pidfd).ok();
        if groups == Wanted::No
            && let Some(info) = &before
            && let Some(place) = remembered.in_cgroup(info.cgroup_id)
        {
            return Ok(Look {
                uids: info.uids,
                gids: info.gids,
                groups: Vec::new(),
                cgroup: place.cgroup,
                pid_namespaces: place.pid_namespaces,
            });
        }
        let look = Look::by_files(files)?;
        // The path is this cgroup's only if it was in it before and after.
        let after = sys::process_info(pidfd).ok();
        if let (Some(before), Some(after)) = (before, after)
            && before.cgroup_id == after.cgroup_id
        {
            remembered.keep(before.cgroup_id, &look);
        }
        Ok(look)
    }

    /// By its files alone.
    ///
    /// # Errors
    /// As [`Look::at`].
    pub fn by_files(files: &Files) -> Result<Look, String> {
        let status = files.status()?;
        Ok(Look {
            uids: status.uids,
            gids: status.gids,
            groups: status.groups,
            cgroup: files.cgroup()?.into(),
            pid_namespaces: status.pid_namespaces,
        })
    }
}

impl Remembered {
    fn in_cgroup(&self, id: u64) -> Option<Place> {
        let place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.clone().filter(|place| place.cgroup_id == id)
    }

    fn keep(&self, cgroup_id: u64, look: &Look) {
        let place = Place {
            cgroup_id,
            cgroup: look.cgroup.clone(),
            pid_namespaces: look.pid_namespaces,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Peer;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_remembered_is_what_the_files_say() {
        let peer = Peer::by_pid(std::process::id()).unwrap();
        let remembered = Remembered::default();
        let look = |groups| Look::at(peer.files(), peer.pidfd(), &remembered, groups).unwrap();
        let by_files = Look::by_files(peer.files()).unwrap();
        assert_eq!(look(Wanted::Yes), by_files);
        let again = look(Wanted::No);
        let groups = again.groups.clone();
        assert_eq!(Look { groups, ..by_files }, again);
        // Where the kernel has the call, the groups show that no file was read.
        let has_call = sys::process_info(peer.pidfd().as_fd()).is_ok();
        assert_eq!(remembered.0.lock().unwrap().is_some(), has_call);
        assert!(!has_call || again.groups.is_empty());
    }

    #[test]
    fn another_cgroup_is_read_anew() {
        let peer = Peer::by_pid(std::process::id()).unwrap();
        let right = Look::by_files(peer.files()).unwrap();
        let remembered = Remembered::default();
        let elsewhere = Look {
            cgroup: "/elsewhere.service".into(),
            ..right.clone()
        };
        let Ok(info) = sys::process_info(peer.pidfd()) else {
            return; // this kernel has no such call: nothing is remembered
        };
        let look = || Look::at(peer.files(), peer.pidfd(), &remembered, Wanted::No).unwrap();
        remembered.keep(info.cgroup_id, &elsewhere);
        assert_eq!(look().cgroup, elsewhere.cgroup, "it is remembered");
        remembered.keep(info.cgroup_id + 1, &elsewhere);
        assert_eq!(look().cgroup, right.cgroup);
        assert_eq!(look().cgroup, right.cgroup, "and that is remembered");
    }
}
