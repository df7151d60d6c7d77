//! A workload: a running process seen as what was attested about it. Only [`Workload::attest`]
//! makes one, from a [`Peer`] the kernel vouched for. Everything is read through
//! descriptors of its own `/proc` files, and the pidfd is asked *afterwards* whether the process still lives: only then
//! was what we read about that process.
//!
//! Only this module reads what `/proc` says about a peer.

use crate::peer::{Life, Peer, Proof};

mod look;
mod proc;
mod program;
mod session;
mod unattested;
mod unit;
pub use look::{Look, Remembered};
pub use proc::{Files, start_time};
pub use program::Program;
pub use session::Session;
pub use unattested::Unattested;
pub use unit::Unit;
#[cfg(test)]
mod tests;

/// What was attested about a peer, at one moment, for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    pid: u32,
    unit: Option<Unit>,
    container: bool,
    session: Session,
    program: Program,
    proof: Proof,
}

/// What to read beyond what every request needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Whether somebody sits before it.
    pub session: Wanted,
    /// Its supplementary groups, where they may not be at hand.
    pub groups: Wanted,
}

/// Whether something has to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing depends on it.
    #[default]
    No,
    /// A section asks for it.
    Yes,
}

impl Wanted {
    /// If it is so that something asks for it.
    pub fn when(asked: bool) -> Wanted {
        match asked {
            true => Wanted::Yes,
            false => Wanted::No,
        }
    }
}

impl Workload {
    /// Reads what there is to know about a peer, then checks that it still lives.
    pub fn attest(peer: &Peer, extent: Extent) -> Result<Workload, Unattested> {
        let failed = |text| unreadable(peer, text);
        let look = peer.look(extent.groups).map_err(failed)?;
        let unit = Unit::of_cgroup(&look.cgroup).map(Unit::with_invocation);
        let session = match extent.session {
            Wanted::No => Session::Unread,
            Wanted::Yes => {
                let terminal = proc::terminal(peer.pid()).map_err(failed)?;
                Session::of(terminal, unit.as_ref())
            }
        };
        if peer.life() == Life::Over {
            return Err(Unattested::Gone);
        }
        if look.uids.iter().any(|uid| *uid != peer.uid())
            || look.gids.iter().any(|gid| *gid != peer.gid())
        {
            return Err(Unattested::ChangedUser);
        }
        Ok(Workload {
            uid: peer.uid(),
            gid: peer.gid(),
            groups: look.groups,
            pid: peer.pid(),
            unit,
            container: look.pid_namespaces > 1,
            session,
            program: Program::Unread,
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
            groups: Vec::new(),
            pid: 1,
            unit,
            container,
            session: Session::Unread,
            program: Program::Unread,
            proof,
        }
    }

    /// Gives it these groups.
    #[cfg(test)]
    pub fn set_groups(&mut self, groups: Vec<u32>) {
        self.groups = groups;
    }

    /// The same with those of its supplementary groups alone that matter: a user may have thousands.
    pub fn with_groups(&self, matters: impl Fn(u32) -> bool) -> Workload {
        let groups = self.groups.iter().copied();
        Workload {
            groups: groups.filter(|group| matters(*group)).collect(),
            ..self.clone()
        }
    }

    /// Says whether somebody sits before it.
    #[cfg(test)]
    pub fn set_session(&mut self, session: Session) {
        self.session = session;
    }

    /// Says what it runs, which is attested by itself.
    pub fn set_program(&mut self, program: Program) {
        self.program = program;
    }

    /// Real, effective and saved user id, which are equal.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Real, effective and saved group id, which are equal.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Its other groups.
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// Process id; for records, never an identity.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its unit.
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// The slices it is in, from the outermost.
    pub fn slices(&self) -> impl Iterator<Item = &str> {
        self.unit.iter().flat_map(Unit::slices)
    }

    /// Its unit of the user's own service manager, if it has one and that user is its user.
    pub fn user_unit(&self) -> Option<&str> {
        let (user, unit) = self.unit()?.of_user()?;
        (user == self.uid).then_some(unit)
    }

    /// Whether somebody sits before it.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What it runs.
    pub fn program(&self) -> &Program {
        &self.program
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
