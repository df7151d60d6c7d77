//! A workload: a running process seen as what was attested about it. Only [`Workload::attest`]
//! makes one, from a [`Peer`] the kernel vouched for. Everything is read through
//! descriptors of its own `/proc` files, and the pidfd is asked *afterwards* whether the process still lives: only then
//! was what we read about that process.
//!
//! Only this module reads what `/proc` says about a peer.

use crate::peer::{Life, Peer, Proof};
use std::fmt;

mod proc;
pub use proc::{Files, start_time};
#[cfg(test)]
mod tests;

/// What was attested about a peer, at one moment, for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    uid: u32,
    gid: u32,
    pid: u32,
    unit: Option<Unit>,
    container: bool,
    proof: Proof,
}

/// The systemd unit a process runs in: the outermost service or scope below its slices. Whatever
/// a delegated service builds below itself is still that unit, and is marked nested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    name: String,
    path: String,
    nested: bool,
    invocation: Option<String>,
}

/// Why a peer could not be attested. None of these reach the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unattested {
    /// It has died; what was read may have been about another process.
    Gone,
    /// Its uid or gid now is not the one it connected with (reliability §1).
    ChangedUser,
    /// `/proc` did not show what is needed.
    Unreadable(String),
}

impl Workload {
    /// Reads what there is to know about a peer, then checks that it still lives.
    pub fn attest(peer: &Peer) -> Result<Workload, Unattested> {
        let status = peer
            .files()
            .status()
            .map_err(|text| unreadable(peer, text))?;
        let cgroup = peer
            .files()
            .cgroup()
            .map_err(|text| unreadable(peer, text))?;
        let unit = Unit::of_cgroup(&cgroup).map(Unit::with_invocation);
        if peer.life() == Life::Over {
            return Err(Unattested::Gone);
        }
        if status.uids.iter().any(|uid| *uid != peer.uid())
            || status.gids.iter().any(|gid| *gid != peer.gid())
        {
            return Err(Unattested::ChangedUser);
        }
        Ok(Workload {
            uid: peer.uid(),
            gid: peer.gid(),
            pid: peer.pid(),
            unit,
            container: status.pid_namespaces > 1,
            proof: peer.proof(),
        })
    }

    /// A workload that was never attested, for tests of what comes after.
    #[cfg(test)]
    pub fn for_test(
        uid: u32,
        gid: u32,
        cgroup: Option<&str>,
        container: bool,
        proof: Proof,
    ) -> Workload {
        let unit = cgroup.and_then(Unit::of_cgroup);
        Workload {
            uid,
            gid,
            pid: 1,
            unit,
            container,
            proof,
        }
    }

    /// Real, effective and saved user id, which are equal.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Real, effective and saved group id, which are equal.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Process id; for records, never an identity.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its unit.
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// Whether it runs in a pid namespace of its own.
    pub fn container(&self) -> bool {
        self.container
    }

    /// How well it is known that this process connected.
    pub fn proof(&self) -> Proof {
        self.proof
    }
}

fn unreadable(peer: &Peer, text: String) -> Unattested {
    match peer.life() {
        Life::Over => Unattested::Gone, // reads fail with ESRCH once it is reaped
        Life::Running => Unattested::Unreadable(text),
    }
}

impl Unit {
    /// The unit in a cgroup v2 path. Slices are skipped from the top; the first other component
    /// is the unit if systemd names units so. Nothing below it matters: a user manager is
    /// `user@1000.service`, so its units never equal a system unit of the same name.
    pub fn of_cgroup(path: &str) -> Option<Unit> {
        let mut end = 0;
        for component in path.strip_prefix('/')?.split('/') {
            end += 1 + component.len();
            if component.ends_with(".slice") {
                continue;
            }
            let named_as_unit = [".service", ".scope"].iter().any(|suffix| {
                component
                    .strip_suffix(suffix)
                    .is_some_and(|stem| !stem.is_empty())
            });
            return named_as_unit.then(|| Unit {
                name: component.to_owned(),
                path: path[..end].to_owned(),
                nested: end < path.len(),
                invocation: None,
            });
        }
        None
    }

    fn with_invocation(mut self) -> Unit {
        self.invocation = proc::invocation(&self.name);
        self
    }

    /// `payments.service`
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `/system.slice/payments.service`
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the process is in a cgroup below the unit's.
    pub fn nested(&self) -> bool {
        self.nested
    }

    /// systemd's id of this start of the unit, 32 hexadecimal digits.
    pub fn invocation(&self) -> Option<&str> {
        self.invocation.as_deref()
    }
}

impl fmt::Display for Unattested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unattested::Gone => f.write_str("the peer has died"),
            Unattested::ChangedUser => f.write_str("the peer's user is not the one that connected"),
            Unattested::Unreadable(text) => write!(f, "the peer cannot be read: {text}"),
        }
    }
}
