//! The other end of one connection, as the kernel describes it; asked before a byte is read.
//! Only this module asks the kernel who is calling. A peer is not yet a workload.
//!
//! Where the kernel has SO_PEERPIDFD (6.5), the pidfd names the very process that connected.
//! Elsewhere a pidfd is opened by number, and a pid that was reused in between is told apart by
//! its start time; that proof is weaker, is marked [`Proof::Pid`], and serves only workloads that
//! allow it (architecture.md, main request, step 2).

use crate::sys;
use crate::workload::Files;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::Mode;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

/// Who connected.
pub struct Peer {
    uid: u32,
    gid: u32,
    pid: u32,
    pidfd: OwnedFd,
    files: Files,
    proof: Proof,
}

/// How well it is known that a process is the one that connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// SO_PEERPIDFD: the kernel's own reference.
    Pidfd,
    /// By pid and start time: a race of one clock tick (10 ms) is left.
    Pid,
}

/// Whether a process still runs. A zombie does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It does.
    Running,
    /// It has exited.
    Over,
}

/// Why the kernel's answer is no peer. The connection is closed without a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPeer {
    /// It exited before it was looked at.
    Gone,
    /// Its pid is 0: it lives in a pid namespace outside ours.
    ForeignNamespace,
    /// A system call failed.
    Failed(&'static str, Errno),
}

impl Peer {
    /// Asks the kernel about the process that connected `socket`.
    pub fn of(socket: &impl AsFd) -> Result<Peer, NoPeer> {
        let credentials = getsockopt(&socket.as_fd(), sockopt::PeerCredentials)
            .map_err(|errno| NoPeer::Failed("SO_PEERCRED", errno))?;
        let pid = u32::try_from(credentials.pid()).unwrap_or(0);
        if pid == 0 {
            return Err(NoPeer::ForeignNamespace);
        }
        let (pidfd, proof) = match getsockopt(&socket.as_fd(), sockopt::PeerPidfd) {
            Ok(pidfd) => (pidfd, Proof::Pidfd),
            Err(Errno::ENOPROTOOPT) => (by_number(pid)?, Proof::Pid),
            Err(Errno::ESRCH | Errno::EINVAL) => return Err(NoPeer::Gone), // reaped already
            Err(errno) => return Err(NoPeer::Failed("SO_PEERPIDFD", errno)),
        };
        let files = proc_dir(pid)
            .and_then(|dir| Files::open(dir.as_fd()))
            .map_err(|errno| match errno {
                Errno::ENOENT | Errno::ESRCH => NoPeer::Gone,
                other => NoPeer::Failed("opening /proc/PID", other),
            })?;
        let (uid, gid) = (credentials.uid(), credentials.gid());
        let peer = Peer {
            uid,
            gid,
            pid,
            pidfd,
            files,
            proof,
        };
        // Alive after the files were opened: they are this process's and will answer ESRCH, never
        // show another process, once it is gone (tokens.md §5).
        match peer.life() {
            Life::Running => Ok(peer),
            Life::Over => Err(NoPeer::Gone),
        }
    }

    /// Effective user id when it connected.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Effective group id when it connected.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Process id when it connected; for records, never an identity.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How well it is known.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// Its `/proc` files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Whether it still runs: a pidfd polls readable once its process has exited, reaped or not.
    pub fn life(&self) -> Life {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) => Life::Running,
            Ok(_) | Err(_) => Life::Over, // an error of identification is a denial (CVE-2021-3560)
        }
    }
}

/// The fallback: opens the pid by number, then demands that the process was there already when
/// the connection was accepted. A pid reused since then belongs to a later start.
fn by_number(pid: u32) -> Result<OwnedFd, NoPeer> {
    let accepted = sys::boot_ticks();
    let pidfd = sys::pidfd_open(pid).map_err(|errno| match errno {
        Errno::ESRCH => NoPeer::Gone,
        other => NoPeer::Failed("pidfd_open", other),
    })?;
    let proc_dir = proc_dir(pid).map_err(|_| NoPeer::Gone)?;
    let started = crate::workload::start_time(proc_dir.as_fd()).map_err(|_| NoPeer::Gone)?;
    if started > accepted {
        return Err(NoPeer::Gone);
    }
    Ok(pidfd)
}

fn proc_dir(pid: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(format!("/proc/{pid}").as_str(), flags, Mode::empty())
}

/// Whether this kernel has SO_PEERPIDFD: the feature is probed, not the version.
pub fn kernel_proof() -> Proof {
    let probe = std::os::unix::net::UnixStream::pair()
        .map(|(socket, _other)| getsockopt(&socket, sockopt::PeerPidfd));
    match probe {
        Ok(Ok(_)) => Proof::Pidfd,
        _ => Proof::Pid,
    }
}

impl Proof {
    /// As records and status say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Proof::Pidfd => "pidfd",
            Proof::Pid => "pid",
        }
    }
}

impl fmt::Display for NoPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoPeer::Gone => f.write_str("the peer exited before it was looked at"),
            NoPeer::ForeignNamespace => f.write_str(
                "the peer's pid is 0: it is outside assertd's pid namespace; do not run assertd with \
                 PrivatePIDs=",
            ),
            NoPeer::Failed(what, errno) => write!(f, "{what}: {errno}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Extent;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::Command;

    #[test]
    fn a_connected_process_is_itself() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.pid(), std::process::id());
        assert_eq!(peer.life(), Life::Running);
        let workload = crate::workload::Workload::attest(&peer, Extent::WithSession).unwrap();
        assert_eq!(workload.uid(), nix::unistd::geteuid().as_raw());
    }

    #[test]
    fn a_peer_that_died_gets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let script = format!(
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{}')",
            path.display()
        );
        let mut child = Command::new("python3")
            .args(["-c", &script])
            .spawn()
            .unwrap();
        assert!(child.wait().unwrap().success()); // dead and reaped before it is accepted
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(Peer::of(&stream).err(), Some(NoPeer::Gone));
    }

    #[test]
    fn a_process_found_by_number_was_there_before() {
        assert!(by_number(std::process::id()).is_ok());
        assert_eq!(by_number(u32::MAX / 4).err(), Some(NoPeer::Gone));
    }
}
