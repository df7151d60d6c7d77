//! The other end of one connection, as the kernel describes it; asked before a byte is read.
//! Only this module asks the kernel who is calling. A peer is not yet a workload.
//!
//! Where the kernel has SO_PEERPIDFD (6.5), the pidfd names the very process that connected.
//! Elsewhere a pidfd is opened by number, and belongs to the connector only if that process is older
//! than the connection (see [`nobody_waits`]). That proof is marked [`Proof::Pid`], and serves only
//! workloads that allow it (architecture.md, main request, step 2).

use crate::sys;
use crate::witness::Running;
use crate::workload::{Files, Look, Remembered, Wanted};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::Mode;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who connected.
pub struct Peer {
    uid: u32,
    gid: u32,
    pid: u32,
    pidfd: OwnedFd,
    files: Files,
    proof: Proof,
    /// What it ran when that was first asked on this connection.
    remembered: Remembered,
    executable: OnceLock<Running>,
    /// Whether it was seen to run another since: its connection is somebody else's.
    is_another: AtomicBool,
}

/// How well it is known that a process is the one that connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// SO_PEERPIDFD: the kernel's own reference.
    Pidfd,
    /// By pid and start time: the process with that number now is older than the connection.
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

/// A moment at which no connection waited to be accepted, in clock ticks since boot: what is accepted
/// later was connected later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(u64);

impl Ticks {
    /// Before everything: nothing is known.
    pub const NEVER: Ticks = Ticks(0);
    /// After everything: for whom the uid is enough, which comes with the connection itself.
    pub const ALWAYS: Ticks = Ticks(u64::MAX);
}

/// Why the kernel's answer is no peer. Whoever it is gets nothing but the advice to connect again, or
/// to look into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPeer {
    /// It exited before it was looked at.
    Gone,
    /// The process with that number may have started after the connection was made: it, or another
    /// one that is over and whose number it has, connected.
    Young {
        /// Of the connector, whoever it was.
        uid: u32,
        /// A connection made when this was past would be told apart.
        started: Ticks,
    },
    /// Its pid is 0: it lives in a pid namespace outside ours.
    ForeignNamespace,
    /// Its user or group has no number in our user namespace: the one shown stands for all of them.
    ForeignUser,
    /// It lives, and `/proc` does not show it to us.
    Hidden(Errno),
    /// A system call failed.
    Failed(&'static str, Errno),
}

impl Peer {
    /// Asks the kernel about the process that connected `socket`, which was not there yet at `quiet`.
    pub fn of(socket: &impl AsFd, quiet: Ticks) -> Result<Peer, NoPeer> {
        let credentials = getsockopt(&socket.as_fd(), sockopt::PeerCredentials)
            .map_err(|errno| NoPeer::Failed("SO_PEERCRED", errno))?;
        let pid = u32::try_from(credentials.pid()).unwrap_or(0);
        if pid == 0 {
            return Err(NoPeer::ForeignNamespace);
        }
        let (uid, gid) = (credentials.uid(), credentials.gid());
        if nobodys().is_some_and(|nobody| uid == nobody.uid || gid == nobody.gid) {
            return Err(NoPeer::ForeignUser);
        }
        let (pidfd, proof) = match getsockopt(&socket.as_fd(), sockopt::PeerPidfd) {
            Ok(pidfd) => (pidfd, Proof::Pidfd),
            Err(Errno::ENOPROTOOPT) => (by_number(pid, uid, quiet)?, Proof::Pid),
            Err(Errno::ESRCH | Errno::EINVAL) => return Err(NoPeer::Gone), // reaped already
            Err(errno) => return Err(NoPeer::Failed("SO_PEERPIDFD", errno)),
        };
        let files = proc_dir(pid)
            .and_then(|dir| Files::open(dir.as_fd()))
            .map_err(|errno| not_shown(&pidfd, errno))?;
        let peer = Peer {
            uid,
            gid,
            pid,
            pidfd,
            files,
            proof,
            remembered: Remembered::default(),
            executable: OnceLock::new(),
            is_another: AtomicBool::new(false),
        };
        // Alive after the files were opened: they are this process's and will answer ESRCH, never
        // show another process, once it is gone (tokens.md §5).
        match peer.life() {
            Life::Running => Ok(peer),
            Life::Over => Err(NoPeer::Gone),
        }
    }

    /// The process with this number, which an administrator wants to know about. Nobody has
    /// connected: what is found out about it is not for itself.
    pub fn by_pid(pid: u32) -> Result<Peer, NoPeer> {
        let failed = |what| move |errno| NoPeer::Failed(what, errno);
        let pidfd = match sys::pidfd_open(pid) {
            Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => return Err(NoPeer::Gone),
            opened => opened.map_err(failed("pidfd_open"))?,
        };
        let dir = proc_dir(pid).map_err(|errno| not_shown(&pidfd, errno))?;
        let files = Files::open(dir.as_fd()).map_err(|errno| not_shown(&pidfd, errno))?;
        let status = files.status().map_err(|_| NoPeer::Gone)?;
        Ok(Peer {
            uid: status.uids[1],
            gid: status.gids[1],
            pid,
            pidfd,
            files,
            proof: kernel_proof(),
            remembered: Remembered::default(),
            executable: OnceLock::new(),
            is_another: AtomicBool::new(false),
        })
    }

    /// Its pidfd, to be handed to who asks the kernel more about it.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether what it runs `now` is what it was first seen to run, which is `now` if nobody asked
    /// before.
    pub fn still_runs(&self, now: Running) -> bool {
        let same = *self.executable.get_or_init(|| now) == now;
        if !same {
            self.is_another.store(true, Ordering::Relaxed);
        }
        same
    }

    /// Whether it was seen to run something else than it did on this connection before, which is to
    /// end: nothing that is asked on it will be answered otherwise.
    pub fn is_another(&self) -> bool {
        self.is_another.load(Ordering::Relaxed)
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
    #[cfg(test)]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// What is seen of it now.
    ///
    /// # Errors
    /// A sentence; among others, once it has been reaped.
    pub fn look(&self, groups: Wanted) -> Result<Look, String> {
        Look::at(&self.files, self.pidfd(), &self.remembered, groups)
    }

    /// Whether it still runs: a pidfd polls readable once its process has exited, reaped or not.
    pub fn life(&self) -> Life {
        life(&self.pidfd)
    }
}

fn life(pidfd: &OwnedFd) -> Life {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(0) => Life::Running,
        Ok(_) | Err(_) => Life::Over, // an error of identification is a denial (CVE-2021-3560)
    }
}

/// `/proc` does not show a process: it is over, or mounted with `hidepid=`, or not mounted at all.
fn not_shown(pidfd: &OwnedFd, errno: Errno) -> NoPeer {
    match (life(pidfd), errno) {
        (Life::Over, _) => NoPeer::Gone,
        (Life::Running, Errno::ENOENT | Errno::ESRCH | Errno::EACCES | Errno::EPERM) => {
            NoPeer::Hidden(errno)
        }
        (Life::Running, other) => NoPeer::Failed("opening /proc/PID", other),
    }
}

/// What the kernel shows for users and groups that have no number in our user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nobodys {
    uid: u32,
    gid: u32,
}

/// There are some where our user namespace has not every user of the host, as with `PrivateUsers=`
/// or in a rootless container (user_namespaces(7)): there a section for `nobody` would be one for
/// everybody. A process does not change its user namespace by itself.
fn nobodys() -> Option<Nobodys> {
    static OURS: OnceLock<Option<Nobodys>> = OnceLock::new();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    *OURS.get_or_init(|| {
        let whole = ["/proc/self/uid_map", "/proc/self/gid_map"].map(|path| is_whole(&read(path)));
        let number = |path| read(path).trim().parse().unwrap_or(OVERFLOW_ID);
        (whole != [true; 2]).then(|| Nobodys {
            uid: number("/proc/sys/kernel/overflowuid"),
            gid: number("/proc/sys/kernel/overflowgid"),
        })
    })
}

/// The kernel's own default (proc_sys_kernel(5), overflowuid).
const OVERFLOW_ID: u32 = 65_534;

/// Whether a map has every id: one line that begins at 0 and has them all, as in the first namespace.
fn is_whole(map: &str) -> bool {
    let numbers: Vec<&str> = map.split_ascii_whitespace().collect();
    numbers == ["0", "0", "4294967295"]
}

/// The fallback: opens the pid by number, then demands that the process had that number before the
/// connection was made. Both had it while the connector connected, so they are one: a number has one
/// process at a time. The start time is taken after the number is (copy_process() in kernel/fork.c
/// since Linux 5.0, after CVE-2019-6133), and in whole ticks like `quiet`, so that less is earlier.
///
/// To compare with the time of *accept* is not enough: a connection may wait, and who connected may be
/// over, and its number taken, long before.
fn by_number(pid: u32, uid: u32, quiet: Ticks) -> Result<OwnedFd, NoPeer> {
    let pidfd = sys::pidfd_open(pid).map_err(|errno| match errno {
        // The last two: it has just ended, or its number is a thread's now (EINVAL on Linux 6.1, ENOENT
        // on 6.18).
        Errno::ESRCH | Errno::EINVAL | Errno::ENOENT => NoPeer::Gone,
        other => NoPeer::Failed("pidfd_open", other),
    })?;
    let proc_dir = proc_dir(pid).map_err(|errno| not_shown(&pidfd, errno))?;
    let started = crate::workload::start_time(proc_dir.as_fd()).map_err(|_| NoPeer::Gone)?;
    let started = Ticks(started);
    match life(&pidfd) {
        Life::Running if started < quiet => Ok(pidfd),
        Life::Running => Err(NoPeer::Young { uid, started }),
        Life::Over => Err(NoPeer::Gone),
    }
}

/// Whether nobody waits to be accepted: then, the time before we looked. The kernel says nothing of
/// when a connection was made, so this bounds it from below.
pub fn nobody_waits(listener: &impl AsFd) -> Option<Ticks> {
    let before = Ticks(sys::boot_ticks());
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(0) => Some(before),
        Ok(_) | Err(_) => None,
    }
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
            NoPeer::Young { .. } => {
                f.write_str("the process with the peer's pid may be younger than the connection")
            }
            NoPeer::ForeignNamespace => f.write_str(
                "the peer's pid is 0: it is outside assertd's pid namespace; do not run assertd with \
                 PrivatePIDs=",
            ),
            NoPeer::ForeignUser => f.write_str(
                "the peer's user or group is unknown in assertd's user namespace; do not run assertd \
                 with PrivateUsers=, and not in a container that has not every user of the host",
            ),
            NoPeer::Hidden(errno) => write!(
                f,
                "a peer that lives is not shown in /proc ({}); run assertd where it is mounted \
                 without hidepid=, or with the option's gid= for a group of assertd's, and without \
                 ProtectProc=",
                errno.desc()
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
        let peer = Peer::of(&ours, Ticks::ALWAYS).unwrap();
        assert_eq!(peer.pid(), std::process::id());
        assert_eq!(peer.life(), Life::Running);
        assert_eq!(peer.uid(), nix::unistd::geteuid().as_raw());
        assert_eq!(peer.gid(), nix::unistd::getegid().as_raw());
        assert_eq!(peer.proof(), kernel_proof());
        let extent = Extent {
            session: Wanted::Yes,
            ..Extent::default()
        };
        let workload = crate::workload::Workload::attest(&peer, extent).unwrap();
        assert_eq!(workload.uid(), nix::unistd::geteuid().as_raw());
        assert_eq!(workload.pid(), std::process::id());
        assert!(!workload.container());
    }

    #[test]
    fn what_was_seen_to_run_first_must_go_on_running() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours, Ticks::ALWAYS).unwrap();
        let running = |ino| Running {
            dev: 1,
            ino,
            sha256: crate::audit::Sha256::ZERO,
        };
        assert!(peer.still_runs(running(1)) && peer.still_runs(running(1)));
        assert!(!peer.is_another());
        assert!(!peer.still_runs(running(2)));
        assert!(peer.is_another());
        // It does not become itself again by going back.
        assert!(peer.still_runs(running(1)) && peer.is_another());
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
        assert_eq!(Peer::of(&stream, Ticks::ALWAYS).err(), Some(NoPeer::Gone));
    }

    #[test]
    fn a_process_that_an_administrator_names_is_that_one_while_it_lives() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let peer = Peer::by_pid(child.id()).unwrap();
        assert_eq!((peer.pid(), peer.life()), (child.id(), Life::Running));
        assert_eq!(peer.uid(), nix::unistd::geteuid().as_raw());
        assert_eq!(peer.gid(), nix::unistd::getegid().as_raw());
        assert_eq!(peer.proof(), kernel_proof());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(peer.life(), Life::Over);
        for gone in [child.id(), u32::MAX / 4] {
            assert_eq!(Peer::by_pid(gone).err(), Some(NoPeer::Gone), "{gone}");
        }
    }

    #[test]
    fn who_lives_and_is_not_shown_is_hidden_and_who_is_over_is_gone() {
        let ours = sys::pidfd_open(std::process::id()).unwrap();
        for errno in [Errno::ENOENT, Errno::ESRCH, Errno::EACCES, Errno::EPERM] {
            assert_eq!(not_shown(&ours, errno), NoPeer::Hidden(errno));
        }
        let failed = NoPeer::Failed("opening /proc/PID", Errno::EMFILE);
        assert_eq!(not_shown(&ours, Errno::EMFILE), failed);
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = sys::pidfd_open(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        for errno in [Errno::ENOENT, Errno::EMFILE] {
            assert_eq!(not_shown(&pidfd, errno), NoPeer::Gone);
        }
    }

    #[test]
    fn a_map_is_whole_that_has_every_id_by_its_own_number() {
        assert!(is_whole("         0          0 4294967295\n"));
        for part in [
            "",
            "0 0 1\n",
            "0 100000 65536\n",
            "0 0 4294967295\n0 0 1\n",
            "1 0 4294967295\n",
        ] {
            assert!(!is_whole(part), "{part:?}");
        }
    }

    #[test]
    fn what_is_no_peer_is_said_with_what_helps() {
        for (no_peer, part) in [
            (NoPeer::Gone, "exited"),
            (NoPeer::ForeignNamespace, "PrivatePIDs="),
            (NoPeer::ForeignUser, "PrivateUsers="),
            (NoPeer::Hidden(Errno::ENOENT), "hidepid="),
            (
                NoPeer::Failed("SO_PEERCRED", Errno::EBADF),
                "SO_PEERCRED: EBADF",
            ),
        ] {
            let said = no_peer.to_string();
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(
            [Proof::Pidfd, Proof::Pid].map(Proof::as_str),
            ["pidfd", "pid"]
        );
    }

    #[test]
    fn a_process_found_by_number_is_older_than_the_connection() {
        let us = std::process::id();
        let found = |pid, quiet| by_number(pid, 7, quiet).map(drop);
        let started = match found(us, Ticks::NEVER) {
            Err(NoPeer::Young { uid: 7, started }) => started,
            other => panic!("{other:?}"),
        };
        let same_tick = Ticks(started.0);
        assert_eq!(found(us, same_tick), Err(NoPeer::Young { uid: 7, started }));
        assert_eq!(found(us, Ticks(started.0 + 1)), Ok(()));
        assert_eq!(found(u32::MAX / 4, Ticks::ALWAYS), Err(NoPeer::Gone));
    }

    #[test]
    fn a_number_that_a_thread_has_now_is_no_peers() {
        let threads = std::thread::spawn(|| {
            let thread = nix::unistd::gettid().as_raw().unsigned_abs();
            assert_ne!(thread, std::process::id());
            by_number(thread, 7, Ticks::ALWAYS).map(drop)
        });
        assert_eq!(threads.join().unwrap(), Err(NoPeer::Gone));
    }

    #[test]
    fn it_is_quiet_only_while_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let before = Ticks(sys::boot_ticks());
        let quiet = nobody_waits(&listener).unwrap();
        assert!(before <= quiet && quiet <= Ticks(sys::boot_ticks()));
        drop(UnixStream::connect(&path).unwrap()); // it may have gone again
        assert_eq!(nobody_waits(&listener), None);
        let _accepted = listener.accept().unwrap();
        assert!(nobody_waits(&listener).is_some());
    }
}
