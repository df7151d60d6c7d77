//! A root directory that is the kernel's idea of one too. In a chroot(2), in which tests may run, nobody
//! may make a user namespace (clone(2), EPERM): there a mount namespace is made whose root is what was
//! `/` before, and elsewhere nothing is done.

use std::process::Command;

/// Leaves a chroot with its own root, and becomes the command that follows. To join one's own mount
/// namespace is to leave the chroot (setns(2)); pivot_root(2) with `.` twice is from its manual.
const LEAVE: &str = r"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x1000, 0x4000, 0x40000, 2
def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        sys.exit('%s: %s' % (name, os.strerror(ctypes.get_errno())))
here = os.getcwd()
call('unshare', CLONE_NEWNS)
ours = os.open('/', os.O_PATH | os.O_DIRECTORY)
call('setns', os.open('/proc/self/ns/mnt', os.O_RDONLY), CLONE_NEWNS)
if not os.path.samestat(os.stat('/'), os.fstat(ours)):
    call('mount', None, b'/', None, MS_REC | MS_PRIVATE, None)
    os.fchdir(ours)
    root = os.getcwd().encode()
    call('mount', root, root, None, MS_BIND | MS_REC, None)
    os.chdir(root)
    pivot_root = {'x86_64': 155}.get(os.uname().machine, 41)
    call('syscall', pivot_root, b'.', b'.')
    call('umount2', b'.', MNT_DETACH)
os.chdir(here)
os.execv(sys.argv[1], sys.argv[1:])
";

/// A command that runs another, given by its full path, below a root of its own if it has none.
pub fn rooted(command: &Command) -> Command {
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-I", "-c", LEAVE]);
    python.arg(command.get_program()).args(command.get_args());
    python
}

/// Set in the process that has the test below a root of its own.
const BELOW: &str = "ASSERTD_TEST_ROOT";

/// Runs a test below a root of its own if it has none: paths that the kernel shows of processes in
/// other mount namespaces begin at the root of those, which a chroot(2) is none of. As nextest starts
/// it: this process is one test, and its arguments name it.
///
/// # Panics
/// When the test fails there.
pub fn below_own_root(test: impl FnOnce()) {
    if std::env::var_os(BELOW).is_some() {
        return test();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let one = arguments.iter().any(|argument| argument == "--exact");
    assert!(one, "one process per test: use cargo nextest");
    let mut again = Command::new(std::env::current_exe().unwrap());
    let mut again = rooted(again.args(arguments));
    let ended = again.env(BELOW, "1").status().unwrap();
    assert!(ended.success(), "below a root of its own: {ended}");
}
