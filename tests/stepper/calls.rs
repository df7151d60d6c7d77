//! The system calls that change something outside the process that makes them, and what they change.
//!
//! Not among them: locks and everything else that ends with the process; what goes to the process
//! itself (an eventfd); what is written to a pipe, which here is the log on standard error.

use harness::stepper::Place;
use nix::libc::{self, c_long};
use nix::unistd::Pid;
use std::fs::{File, read_link};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Which argument says what is changed.
#[derive(Clone, Copy)]
enum Names {
    /// A descriptor.
    Descriptor(usize),
    /// A path.
    Path(usize),
    /// A path below a directory's descriptor, which is the argument before it.
    Below(usize),
    /// The same, and this argument has the flags of open(2).
    Opened { path: usize, flags: usize },
}

/// One of the system calls.
#[derive(Clone, Copy)]
pub struct Call {
    number: c_long,
    name: &'static str,
    names: Names,
}

/// One that a thread is about to make.
pub struct Entered {
    pub call: &'static str,
    pub place: Place,
    pub target: String,
}

macro_rules! calls {
    ($($number:ident $name:literal $names:expr;)*) => {
        &[$(Call { number: libc::$number, name: $name, names: $names },)*]
    };
}

use Names::{Below, Descriptor, Opened};

const CALLS: &[Call] = calls! {
    SYS_write "write" Descriptor(0);
    SYS_writev "write" Descriptor(0);
    SYS_pwrite64 "write" Descriptor(0);
    SYS_pwritev "write" Descriptor(0);
    SYS_pwritev2 "write" Descriptor(0);
    SYS_sendto "send" Descriptor(0);
    SYS_sendmsg "send" Descriptor(0);
    SYS_connect "connect" Descriptor(0);
    SYS_fsync "fsync" Descriptor(0);
    SYS_fdatasync "fdatasync" Descriptor(0);
    SYS_ftruncate "ftruncate" Descriptor(0);
    SYS_fallocate "fallocate" Descriptor(0);
    SYS_fchmod "fchmod" Descriptor(0);
    SYS_fchown "fchown" Descriptor(0);
    SYS_openat "open" Opened { path: 1, flags: 2 };
    SYS_mkdirat "mkdir" Below(1);
    SYS_unlinkat "unlink" Below(1);
    SYS_linkat "link" Below(3);
    SYS_symlinkat "link" Below(2);
    SYS_renameat2 "rename" Below(3);
    SYS_fchmodat "fchmod" Below(1);
    SYS_fchownat "fchown" Below(1);
    SYS_utimensat "utime" Below(1);
    SYS_truncate "ftruncate" Names::Path(0);
};

/// Those that newer architectures have not got.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[Call] = calls! {
    SYS_open "open" Opened { path: 0, flags: 1 };
    SYS_creat "open" Names::Path(0);
    SYS_mkdir "mkdir" Names::Path(0);
    SYS_rmdir "unlink" Names::Path(0);
    SYS_unlink "unlink" Names::Path(0);
    SYS_link "link" Names::Path(1);
    SYS_symlink "link" Names::Path(1);
    SYS_rename "rename" Names::Path(1);
    SYS_renameat "rename" Below(3);
    SYS_chmod "fchmod" Names::Path(0);
    SYS_chown "fchown" Names::Path(0);
};
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[Call] = calls! {
    SYS_renameat "rename" Below(3);
};

impl Call {
    /// By its number, if it changes anything.
    pub fn of(number: c_long) -> Option<Call> {
        let mut all = CALLS.iter().chain(OLD_CALLS);
        all.find(|call| call.number == number).copied()
    }

    /// What it changes; nothing if it is one that does not, by its arguments.
    pub fn entered(self, thread: Pid, arguments: &[u64; 6]) -> Option<Entered> {
        let (place, target) = match self.names {
            Descriptor(at) => of_descriptor(thread, arguments[at])?,
            Names::Path(at) => (Place::File, path(thread, None, arguments[at])),
            Below(at) => {
                let dir = at.checked_sub(1).map(|dir| arguments[dir]);
                (Place::File, path(thread, dir, arguments[at]))
            }
            Opened { path: at, flags } => {
                let changes = libc::O_CREAT | libc::O_TRUNC;
                if arguments[flags] & u64::from(changes.cast_unsigned()) == 0 {
                    return None;
                }
                let dir = at.checked_sub(1).map(|dir| arguments[dir]);
                (Place::File, path(thread, dir, arguments[at]))
            }
        };
        Some(Entered {
            call: self.name,
            place,
            target,
        })
    }
}

/// What is behind a descriptor, if it is anybody else's.
fn of_descriptor(thread: Pid, number: u64) -> Option<(Place, String)> {
    let target = descriptor(thread, number)?;
    let target = target.to_string_lossy().into_owned();
    let place = match target.split(':').next()? {
        "socket" => Place::Socket,
        "pipe" | "anon_inode" => return None,
        _ if target.starts_with("/dev/") => return None,
        _ => Place::File,
    };
    Some((place, target))
}

fn descriptor(thread: Pid, number: u64) -> Option<PathBuf> {
    let number = number as u32; // the kernel looks at no more
    read_link(format!("/proc/{thread}/fd/{number}")).ok()
}

/// The path that stands at an address, as it is from the root.
fn path(thread: Pid, dir: Option<u64>, address: u64) -> String {
    let named = text_at(thread, address).unwrap_or_default();
    let base = match dir.map(|dir| dir as u32 as i32) {
        None | Some(libc::AT_FDCWD) => read_link(format!("/proc/{thread}/cwd")).ok(),
        Some(dir) => descriptor(thread, u64::from(dir.cast_unsigned())),
    };
    let whole = base.unwrap_or_default().join(Path::new(&named));
    whole.to_string_lossy().into_owned()
}

fn text_at(thread: Pid, address: u64) -> Option<String> {
    let memory = File::open(format!("/proc/{thread}/mem")).ok()?;
    let mut bytes = vec![0; 1024];
    let read = memory.read_at(&mut bytes, address).ok()?;
    bytes.truncate(bytes[..read].iter().position(|byte| *byte == 0)?);
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
