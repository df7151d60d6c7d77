//! A process that is held in a system call: strace(1) delays the call, and the kernel says which
//! thread is in it. So that a test acts at a moment of which it knows that it is that moment.

use crate::trace::Trace;
use crate::{DEADLINE, wait_until};
use nix::libc;
use std::path::{Path, PathBuf};

/// A system call to hold a process in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Data to the disk.
    Fdatasync,
    /// A file is opened.
    Openat,
    /// A process is opened by its number.
    PidfdOpen,
    /// poll(2), which on some machines is ppoll(2).
    Poll,
}

/// As long as it lives, each such call of the process, by whatever thread, takes longer.
pub struct Hold {
    trace: Trace,
    pid: u32,
    call: Call,
}

impl Hold {
    /// Attaches to a process and delays the calls that begin from now on by `delay`, as strace writes
    /// it (`2s`, `500ms`), before the kernel does anything of them. Other calls named in `beside` are
    /// traced and not delayed.
    pub fn attach(pid: u32, call: Call, delay: &str, beside: &str) -> Hold {
        let name = call.name();
        let trace = format!("--trace={name}{beside}");
        let inject = format!("--inject={name}:delay_enter={delay}");
        let trace = Trace::attach(&[pid], &["--string-limit=64", &trace, &inject]);
        Hold { trace, pid, call }
    }

    /// Waits until a thread is in the call.
    #[track_caller]
    pub fn wait_inside(&self) {
        let inside = wait_until(DEADLINE, || self.inside());
        assert!(inside, "{} never came to {:?}", self.pid, self.call);
    }

    /// Whether a thread is in the call now.
    pub fn inside(&self) -> bool {
        self.arguments().next().is_some()
    }

    /// Waits until a thread opens this very path.
    #[track_caller]
    pub fn wait_opening(&self, path: &Path) {
        let opening = wait_until(DEADLINE, || self.opening(path));
        assert!(opening, "{} never opens {}", self.pid, path.display());
    }

    /// Whether a thread is about to open this path: the second argument of openat(2).
    pub fn opening(&self, path: &Path) -> bool {
        self.arguments()
            .any(|arguments| text_at(self.pid, arguments[1]).as_deref() == Some(path))
    }

    /// Detaches; all that was held goes on. What was traced.
    pub fn end(self) -> String {
        self.trace.end()
    }

    /// The arguments of every thread that is in the call (proc_pid_syscall(5)).
    fn arguments(&self) -> impl Iterator<Item = Vec<u64>> + use<'_> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid));
        let tasks = tasks.into_iter().flatten().filter_map(Result::ok);
        tasks.filter_map(|task| {
            let line = std::fs::read_to_string(task.path().join("syscall")).ok()?;
            let mut words = line.split_ascii_whitespace();
            let number: i64 = words.next()?.parse().ok()?; // or `running`
            let hexadecimal = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
            let arguments: Vec<u64> = words.filter_map(hexadecimal).collect();
            (self.call.is(number) && arguments.len() >= 6).then_some(arguments)
        })
    }
}

impl Call {
    /// As strace has it.
    fn name(self) -> &'static str {
        match self {
            Call::Fdatasync => "fdatasync",
            Call::Openat => "openat",
            Call::PidfdOpen => "pidfd_open",
            #[cfg(target_arch = "x86_64")]
            Call::Poll => "poll",
            #[cfg(not(target_arch = "x86_64"))]
            Call::Poll => "ppoll",
        }
    }

    fn is(self, number: i64) -> bool {
        let ours = match self {
            Call::Fdatasync => libc::SYS_fdatasync,
            Call::Openat => libc::SYS_openat,
            Call::PidfdOpen => libc::SYS_pidfd_open,
            #[cfg(target_arch = "x86_64")]
            Call::Poll => libc::SYS_poll,
            #[cfg(not(target_arch = "x86_64"))]
            Call::Poll => libc::SYS_ppoll,
        };
        number == ours
    }
}

/// The path that stands at an address of another process.
fn text_at(pid: u32, address: u64) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::FileExt;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = vec![0; 256];
    let read = memory.read_at(&mut bytes, address).ok()?;
    bytes.truncate(bytes[..read].iter().position(|byte| *byte == 0)?);
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}
