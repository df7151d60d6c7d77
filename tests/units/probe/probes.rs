//! The probes: each tries one thing. `Ok` means that it was allowed, with what was seen; `Err` says how
//! it was refused. A probe must leave nothing behind that changes what the next one sees.

use crate::sys;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, Uid, chroot, geteuid, gethostname, sethostname, setuid};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{IoSliceMut, Read};
use std::net::{TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A connection that is neither made nor refused by then is refused for us.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// What was seen, or how it was refused.
type Verdict = Result<String, String>;

/// Tries one.
pub fn try_one(probe: &str) -> Verdict {
    let (name, argument) = probe.split_once(':').unwrap_or((probe, ""));
    files(name, argument)
        .or_else(|| sockets(name, argument))
        .or_else(|| processes(name, argument))
        .or_else(|| system_calls(name))
        .unwrap_or_else(|| Err(format!("there is no probe {name:?}")))
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
        "make-directory" => said(fs::create_dir(path).and_then(|()| fs::remove_dir(path))),
        "make-device" => said(make_device(path)),
        "make-suid-file" => said(make_suid_file()),
        "make-file-for-others" => make_file_for_others(),
        "credential" => credential(path),
        _ => return None,
    })
}

/// /dev/kmsg's numbers: a device that every kernel has.
fn make_device(path: &str) -> nix::Result<()> {
    let made = mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 11));
    let _ = fs::remove_file(path);
    made
}

fn make_suid_file() -> std::io::Result<()> {
    let path = format!("/tmp/assertd-probe-suid-{}", std::process::id());
    File::create_new(&path)?;
    let changed = fs::set_permissions(&path, Permissions::from_mode(0o4755));
    let _ = fs::remove_file(&path);
    changed
}

/// Refused means: what we make can be read by nobody else.
fn make_file_for_others() -> Verdict {
    let path = format!("/tmp/assertd-probe-mode-{}", std::process::id());
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&path)
        .and_then(|file| file.metadata());
    let _ = fs::remove_file(&path);
    match made {
        Ok(metadata) if metadata.mode() & 0o077 == 0 => Err(format!("{:o}", metadata.mode())),
        Ok(metadata) => Ok(format!("{:o}", metadata.mode())),
        Err(e) => Err(e.to_string()),
    }
}

/// One of our own unit's credentials; shows its length, never what is in it.
fn credential(id: &str) -> Verdict {
    let dir = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or("no $CREDENTIALS_DIRECTORY")?;
    let text = said_raw(fs::read(Path::new(&dir).join(id)))?;
    Ok(format!("{} bytes", text.len()))
}

fn sockets(name: &str, argument: &str) -> Option<Verdict> {
    Some(match name {
        "tcp" => match argument.parse() {
            Ok(address) => said(TcpStream::connect_timeout(&address, CONNECT_DEADLINE)),
            Err(e) => Err(format!("{argument}: {e}")),
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
        "exec" => said(
            Command::new(argument)
                .args(["-c", "exit 0"])
                .status()
                .and_then(|status| match status.success() {
                    true => Ok(()),
                    false => Err(std::io::Error::other(status.to_string())),
                }),
        ),
        "exec-a-copy" => exec_a_copy(argument),
        "exec-from-memory" => exec_from_memory(),
        "become-root-by-suid" => become_root(argument),
        "effective-user" => Ok(geteuid().to_string()),
        "identity" => identity(argument),
        "process" => said(fs::read(format!("/proc/{argument}/status"))),
        "mount-namespace" => shares_mounts(argument),
        "shared-memory" => shared_memory(argument),
        _ => return None,
    })
}

/// Our own program, in a file that we have written.
fn exec_a_copy(directory: &str) -> Verdict {
    let copy = format!("{directory}/assertd-probe-copy-{}", std::process::id());
    let tried = fs::copy("/proc/self/exe", &copy).and_then(|_| effective_user_by(&copy));
    let _ = fs::remove_file(&copy);
    said(tried)
}

/// Our own program, in no file at all.
fn exec_from_memory() -> Verdict {
    said(sys::make_file_in_memory().and_then(|descriptor| {
        // By this process's number: the child that executes it has descriptors of its own.
        let path = format!("/proc/{}/fd/{descriptor}", std::process::id());
        fs::copy("/proc/self/exe", &path)?;
        effective_user_by(&path)
    }))
}

fn effective_user_by(program: &str) -> std::io::Result<String> {
    let mut command = Command::new(program);
    let output = command.args(["--one", "effective-user"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn become_root(program: &str) -> Verdict {
    match said_raw(effective_user_by(program))?.as_str() {
        "0" => Ok("root".to_string()),
        user => Err(format!("user {user}")),
    }
}

/// `PID,UID,UNIT`: whether we see whose process it is and of which unit, as the broker has to.
fn identity(expected: &str) -> Verdict {
    let words: Vec<&str> = expected.split(',').collect();
    let [pid, uid, unit] = words[..] else {
        return Err(format!("{expected:?} is not PID,UID,UNIT"));
    };
    let cgroups = said_raw(fs::read_to_string(format!("/proc/{pid}/cgroup")))?;
    let own = cgroups.lines().find(|line| line.starts_with("0::"));
    let cgroup = own.ok_or_else(|| format!("no cgroup v2 line in {cgroups:?}"))?;
    let status = said_raw(fs::read_to_string(format!("/proc/{pid}/status")))?;
    let uids = status.lines().find(|line| line.starts_with("Uid:"));
    let real = uids.and_then(|line| line.split_whitespace().nth(1));
    let seen = format!("uid {} in {cgroup}", real.unwrap_or("?"));
    if real == Some(uid) && cgroup == format!("0::/system.slice/{unit}") {
        Ok(seen)
    } else {
        Err(seen)
    }
}

/// Allowed means: in the mount namespace with this inode, so that what we mount others see.
fn shares_mounts(inode: &str) -> Verdict {
    let own = said_raw(fs::read_link("/proc/self/ns/mnt"))?;
    let own = own.display().to_string();
    if own == format!("mnt:[{inode}]") {
        Ok(own)
    } else {
        Err(own)
    }
}

/// Whether a System V segment of this id is there.
fn shared_memory(id: &str) -> Verdict {
    let table = said_raw(fs::read_to_string("/proc/sysvipc/shm"))?;
    let there = |line: &str| line.split_whitespace().nth(1) == Some(id);
    match table.lines().find(|line| there(line)) {
        Some(_) => Ok(id.to_string()),
        None => Err(format!("no segment {id}")),
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
        "core-dump" => said(
            getrlimit(Resource::RLIMIT_CORE)
                .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_CORE, 1 << 20, hard)),
        ),
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

fn said<T: std::fmt::Debug, E: std::fmt::Display>(result: Result<T, E>) -> Verdict {
    match result {
        Ok(seen) => Ok(format!("{seen:?}")),
        Err(e) => Err(e.to_string()),
    }
}

fn said_raw<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}
