//! The probes: each tries one thing. `Ok` means that it was allowed, with what was seen; `Err` says how
//! it was refused, or why it could not be tried, which must never be taken for a refusal. A probe must
//! leave nothing behind that changes what the next one sees, nor what others see at the same time.

use crate::sys;
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socket,
};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, Uid, chroot, geteuid, gethostname, sethostname, setuid};
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Error, IoSlice, IoSliceMut, Read};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A connection that is neither made nor refused by then is no verdict.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// What was seen, or why not.
type Verdict = Result<String, Not>;

/// It was not allowed, or nobody knows.
pub enum Not {
    /// How it was refused.
    Refused(String),
    /// Why it was not tried.
    Tried(String),
}

/// What a sandbox refuses by: not permitted, not there, read-only, no such kind of socket, nobody
/// behind that address. Any other error is the probe's own.
const REFUSALS: [Errno; 7] = [
    Errno::EPERM,
    Errno::EACCES,
    Errno::EROFS,
    Errno::ENOENT,
    Errno::ENXIO,
    Errno::EAFNOSUPPORT,
    Errno::ECONNREFUSED,
];

/// Probes that are refused by a signal to themselves.
const REFUSED_BY_SIGNAL: [(&str, Signal); 1] = [("exec-32", Signal::SIGSYS)];

/// The signal that refuses this one.
pub fn refused_by_signal(probe: &str) -> Option<i32> {
    let name = probe.split_once(':').map_or(probe, |(name, _)| name);
    let row = REFUSED_BY_SIGNAL.iter().find(|(known, _)| *known == name);
    row.map(|(_, signal)| *signal as i32)
}

/// Tries one.
pub fn try_one(probe: &str) -> Verdict {
    let (name, argument) = probe.split_once(':').unwrap_or((probe, ""));
    files(name, argument)
        .or_else(|| sockets(name, argument))
        .or_else(|| processes(name, argument))
        .or_else(|| system_calls(name))
        .unwrap_or_else(|| Err(Not::Tried(format!("there is no probe {name:?}"))))
}

/// Files, directories and devices.
fn files(name: &str, path: &str) -> Option<Verdict> {
    Some(match name {
        "read" => said(File::open(path).and_then(|mut file| {
            let mut text = Vec::new();
            file.by_ref().take(4096).read_to_end(&mut text)
        })),
        "list" => said(fs::read_dir(path).map(Iterator::count)),
        "write" => said(OpenOptions::new().append(true).create(true).open(path)),
        "open-to-write" => said(OpenOptions::new().write(true).open(path)),
        "make-directory" => said(make_directory(path)),
        "make-device" => said(make_device(path)),
        "make-suid-file" => make_suid_file(),
        "make-file-for-others" => make_file_for_others(),
        "credential" => credential(path),
        _ => return None,
    })
}

/// A name that no other process uses, in a directory that several may share.
fn own_name(directory: &str) -> String {
    format!("{directory}/assertd-probe-{}", std::process::id())
}

fn make_directory(above: &str) -> std::io::Result<()> {
    let path = own_name(above);
    fs::create_dir(&path).and_then(|()| fs::remove_dir(&path))
}

/// /dev/kmsg's numbers: a device that every kernel has.
fn make_device(directory: &str) -> std::io::Result<()> {
    let path = own_name(directory);
    mknod(&*path, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 11))?;
    fs::remove_file(&path)
}

fn make_suid_file() -> Verdict {
    let path = own_name("/tmp");
    first(File::create_new(&path))?;
    let changed = fs::set_permissions(&path, Permissions::from_mode(0o4755));
    first(fs::remove_file(&path))?;
    said(changed)
}

/// Refused means: what we make can be read by nobody else.
fn make_file_for_others() -> Verdict {
    let path = own_name("/tmp");
    let mut new = OpenOptions::new();
    new.write(true).create_new(true).mode(0o666);
    let file = first(new.open(&path))?;
    let metadata = first(file.metadata())?;
    first(fs::remove_file(&path))?;
    let mode = format!("{:o}", metadata.mode());
    match metadata.mode() & 0o077 {
        0 => Err(Not::Refused(mode)),
        _ => Ok(mode),
    }
}

/// One of our own unit's credentials; shows its length, never what is in it.
fn credential(id: &str) -> Verdict {
    let dir = std::env::var_os("CREDENTIALS_DIRECTORY");
    let dir = dir.ok_or_else(|| Not::Refused("no $CREDENTIALS_DIRECTORY".to_owned()))?;
    let text = fs::read(Path::new(&dir).join(id)).map_err(not)?;
    Ok(format!("{} bytes", text.len()))
}

fn sockets(name: &str, argument: &str) -> Option<Verdict> {
    Some(match name {
        "tcp" => match argument.parse() {
            Ok(address) => said(TcpStream::connect_timeout(&address, CONNECT_DEADLINE)),
            Err(e) => Err(Not::Tried(format!("{argument}: {e}"))),
        },
        "udp" => {
            said(UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", argument)))
        }
        "unix" => said(UnixStream::connect(argument)),
        "abstract" => said(
            SocketAddr::from_abstract_name(argument)
                .and_then(|address| UnixStream::connect_addr(&address)),
        ),
        "netlink" => said(socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::empty(),
            None,
        )),
        "packet" => said(socket(
            AddressFamily::Packet,
            SockType::Datagram,
            SockFlag::empty(),
            None,
        )),
        "vsock" => said(socket(
            AddressFamily::Vsock,
            SockType::Stream,
            SockFlag::empty(),
            None,
        )),
        _ => return None,
    })
}

/// Other processes, and what we can start.
fn processes(name: &str, argument: &str) -> Option<Verdict> {
    Some(match name {
        "exec" => exec(argument),
        // In our place: a signal that ends it ends us.
        "exec-32" => said::<(), _>(Err(Command::new(argument).exec())),
        "exec-a-copy" => exec_a_copy(argument),
        "exec-from-memory" => exec_from_memory(),
        "become-root-by-suid" => become_root(argument),
        "effective-user" => Ok(geteuid().to_string()),
        "identity" => identity(argument),
        "executable" => said(File::open(format!("/proc/{argument}/exe"))),
        "witness" => ask_witness(argument),
        "process" => said(fs::read(format!("/proc/{argument}/status"))),
        "mount-namespace" => shares_mounts(argument),
        "shared-memory" => shared_memory(argument),
        _ => return None,
    })
}

/// A shell.
fn exec(program: &str) -> Verdict {
    let mut command = Command::new(program);
    let status = command.args(["-c", "exit 0"]).status().map_err(not)?;
    match status.success() {
        true => Ok(status.to_string()),
        false => Err(Not::Tried(format!("it ran: {status}"))),
    }
}

/// Our own program, in a file that we have written.
fn exec_a_copy(directory: &str) -> Verdict {
    let copy = own_name(directory);
    first(fs::copy("/proc/self/exe", &copy))?;
    let tried = effective_user_by(&copy);
    first(fs::remove_file(&copy))?;
    tried
}

/// Our own program, in no file at all.
fn exec_from_memory() -> Verdict {
    let descriptor = sys::make_file_in_memory().map_err(not)?;
    // By this process's number: the child that executes it has descriptors of its own.
    let path = format!("/proc/{}/fd/{descriptor}", std::process::id());
    first(fs::copy("/proc/self/exe", &path))?;
    effective_user_by(&path)
}

/// A number, as our own program says it in that file.
fn effective_user_by(program: &str) -> Verdict {
    let mut command = Command::new(program);
    let output = command.args(["--one", "effective-user"]).output();
    let output = output.map_err(not)?;
    let user = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() && user.parse::<u32>().is_ok() {
        true => Ok(user),
        false => Err(Not::Tried(format!("it ran: {}: {user:?}", output.status))),
    }
}

fn become_root(program: &str) -> Verdict {
    match effective_user_by(program)?.as_str() {
        "0" => Ok("root".to_string()),
        user => Err(Not::Refused(format!("user {user}"))),
    }
}

/// `PID,UID,UNIT`: whether we see whose process it is and of which unit, as the broker has to.
fn identity(expected: &str) -> Verdict {
    let tried = |why: String| Err(Not::Tried(why));
    let words: Vec<&str> = expected.split(',').collect();
    let [pid, uid, unit] = words[..] else {
        return tried(format!("{expected:?} is not PID,UID,UNIT"));
    };
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(not)?;
    let Some(cgroup) = cgroups.lines().find(|line| line.starts_with("0::")) else {
        return tried(format!("no cgroup v2 line in {cgroups:?}"));
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(not)?;
    let uids = status.lines().find(|line| line.starts_with("Uid:"));
    let Some(real) = uids.and_then(|line| line.split_whitespace().nth(1)) else {
        return tried(format!("no line with a uid in {status:?}"));
    };
    let seen = format!("uid {real} in {cgroup}");
    if real == uid && cgroup == format!("0::/system.slice/{unit}") {
        Ok(seen)
    } else {
        Err(Not::Refused(seen))
    }
}

/// Whether the witness attests the executable of a process, and where it lies: as the broker asks.
fn ask_witness(pid: &str) -> Verdict {
    let pid = pid.parse().map_err(|e| Not::Tried(format!("{pid}: {e}")))?;
    let pidfd = first(sys::pidfd(pid))?;
    let stream = UnixStream::connect("/run/assertd/witness.sock").map_err(not)?;
    first(stream.set_read_timeout(Some(CONNECT_DEADLINE)))?;
    let descriptors = [pidfd.as_raw_fd()];
    let (question, control) = (
        [IoSlice::new(b"exe? v1\n")],
        [ControlMessage::ScmRights(&descriptors)],
    );
    sendmsg::<()>(
        stream.as_raw_fd(),
        &question,
        &control,
        MsgFlags::empty(),
        None,
    )
    .map_err(not)?;
    let mut length = [0; 4];
    first((&stream).read_exact(&mut length))?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    first((&stream).read_exact(&mut answer))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match answer.contains(r#""place":{"at":"/"#) {
        true => Ok(answer),
        false => Err(Not::Refused(answer)),
    }
}

/// Allowed means: in the mount namespace with this inode, so that what we mount others see.
fn shares_mounts(inode: &str) -> Verdict {
    let own = first(fs::read_link("/proc/self/ns/mnt"))?;
    let own = own.display().to_string();
    if own == format!("mnt:[{inode}]") {
        Ok(own)
    } else {
        Err(Not::Refused(own))
    }
}

/// Whether a System V segment of this id is there.
fn shared_memory(id: &str) -> Verdict {
    let table = fs::read_to_string("/proc/sysvipc/shm").map_err(not)?;
    let there = |line: &str| line.split_whitespace().nth(1) == Some(id);
    match table.lines().find(|line| there(line)) {
        Some(_) => Ok(id.to_string()),
        None => Err(Not::Refused(format!("no segment {id}"))),
    }
}

fn system_calls(name: &str) -> Option<Verdict> {
    Some(match name {
        "writable-code" => said(sys::map_writable_and_executable()),
        "executable-data" => said(sys::make_executable()),
        "lock-memory" => said(sys::lock_memory()),
        "landlock" => said(sys::ask_landlock()),
        "mount" => said(sys::mount_a_file_system()),
        "chroot" => said(chroot("/run")),
        "set-user" => said(setuid(Uid::from_raw(1))),
        "trace" => said(sys::trace()),
        "read-process-memory" => said(read_memory()),
        "take-descriptor" => said(sys::take_descriptor()),
        "compare-processes" => said(sys::compare_processes()),
        "keyring" => said(sys::ask_keyring()),
        "aio" => said(sys::make_aio_queue()),
        "remap-pages" => said(sys::remap_pages()),
        "io-uring" => said(sys::make_io_uring()),
        "bpf" => said(sys::make_bpf_map()),
        "page-faults" => said(sys::handle_page_faults()),
        "user-namespace" => said(sys::make_user_namespace()),
        "mount-namespace-of-its-own" => said(sys::make_mount_namespace()),
        "set-host-name" => said(gethostname().and_then(sethostname)),
        "real-time" => said(sys::schedule_in_real_time()),
        "priority" => said(sys::change_priority()),
        "clock" => said(sys::ask_clock()),
        "personality" => said(sys::change_personality()),
        "core-dump" => said(setrlimit(Resource::RLIMIT_CORE, 1 << 20, 1 << 20)),
        _ => return None,
    })
}

fn read_memory() -> nix::Result<usize> {
    let source = [7_u8; 8];
    let mut copy = [0_u8; 8];
    let remote = [RemoteIoVec {
        base: source.as_ptr() as usize,
        len: source.len(),
    }];
    process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut copy)], &remote)
}

fn said<T: Debug, E: Into<Error>>(result: Result<T, E>) -> Verdict {
    match result {
        Ok(seen) => Ok(format!("{seen:?}")),
        Err(e) => Err(not(e)),
    }
}

/// What an error in the thing itself means.
fn not(e: impl Into<Error>) -> Not {
    let e = e.into();
    match e.raw_os_error().map(Errno::from_raw) {
        Some(errno) if REFUSALS.contains(&errno) => Not::Refused(e.to_string()),
        _ => Not::Tried(e.to_string()),
    }
}

/// What comes before the thing itself (or tidies up after it), which no sandbox is asked to refuse.
fn first<T>(result: std::io::Result<T>) -> Result<T, Not> {
    result.map_err(|e| Not::Tried(format!("before it could be tried: {e}")))
}
