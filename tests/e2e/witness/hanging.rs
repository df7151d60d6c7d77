//! Executables on a file system that somebody's program serves (FUSE), or on an overlay of one: what is
//! read there proves nothing, and when it hangs, it hangs for that user alone.

use super::{DEADLINE, Running, Witness, public_dir, python, sha256, sleeper, wait_until};
use harness::process::{freeze, send};
use harness::rootspace::below_own_root;
use harness::user::{ALICE, as_uid, give_to};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Serves one file, `payments`, with the content of another, on a FUSE file system that is mounted in
/// this mount namespace alone (libfuse is not needed for that: the kernel's fuse.h is the protocol).
/// Runs it as a user first of all, and prints the number of that process. With a fourth argument it is
/// run from an overlay there, whose lower layers are the FUSE and an empty directory.
const FUSE: &str = "
import ctypes, threading
dir, source, uid = sys.argv[1], sys.argv[2], int(sys.argv[3])
content = open(source, 'rb').read()
libc = ctypes.CDLL(None, use_errno=True)
device = os.open('/dev/fuse', os.O_RDWR)
options = 'fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other' % device
if libc.mount(b'payments', dir.encode(), b'fuse', 0, options.encode()):
    sys.exit('mount: ' + os.strerror(ctypes.get_errno()))
def attributes(node):
    size, mode = (0, 0o40755) if node == 1 else (len(content), 0o100755)
    return struct.pack('=6Q10I', node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
def reply(opcode, node, body):
    if opcode == 26:  # INIT
        return struct.pack('=4I2H2I2H8I', 7, 31, 65536, 0, 16, 12, 65536, 1, 16, 0, *[0] * 8)
    if opcode == 1:  # LOOKUP
        return struct.pack('=4Q2I', 2, 0, 0, 0, 0, 0) + attributes(2) if body == b'payments\\0' else -2
    if opcode == 3:  # GETATTR
        return struct.pack('=Q2I', 0, 0, 0) + attributes(node)
    if opcode == 14:  # OPEN
        return struct.pack('=Q2I', 0, 0, 0)
    if opcode == 15:  # READ
        offset, size = struct.unpack_from('=QI', body, 8)
        return content[offset:offset + size]
    if opcode == 17:  # STATFS
        return bytes(80)
    return b'' if opcode in (18, 25) else -38  # RELEASE, FLUSH; else ENOSYS
def mount_overlay(merged):
    layers = 'userxattr,lowerdir=%s:%s' % (dir, os.path.join(os.path.dirname(merged), 'empty'))
    if libc.mount(b'overlay', merged.encode(), b'overlay', 0, layers.encode()):
        sys.exit('overlay: ' + os.strerror(ctypes.get_errno()))
    return merged
def serve():
    while True:
        request = os.read(device, 1 << 20)
        _, opcode, unique, node = struct.unpack_from('=IIQQ', request)
        if opcode in (2, 36, 42):  # FORGET, INTERRUPT, BATCH_FORGET
            continue
        data = reply(opcode, node, request[40:])
        error, data = (data, b'') if isinstance(data, int) else (0, data)
        os.write(device, struct.pack('=IiQ', 16 + len(data), error, unique) + data)
threading.Thread(target=serve, daemon=True).start()
if len(sys.argv) > 4:
    dir = mount_overlay(sys.argv[4])
import subprocess
subprocess._USE_VFORK = False  # it would hold the lock of the thread that serves
other = {'user': uid, 'group': uid, 'extra_groups': []} if uid else {}
payments = subprocess.Popen([dir + '/payments', '60'], **other)
print(payments.pid, flush=True)
sys.stdin.read()
";

/// A program on such a file system, and who serves it.
struct Served {
    server: Child,
    pid: u32,
}

impl Served {
    /// As root, with the program as Alice.
    fn start(dir: &Path, program: &Path) -> Served {
        let script = python(0, FUSE);
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "unchanged", "sh", "-c"]);
        unshare
            .arg("mount --make-rprivate / 2>/dev/null; exec \"$@\"")
            .arg("sh");
        unshare.arg(script.get_program()).args(script.get_args());
        unshare.arg(dir).arg(program).arg(ALICE.to_string());
        Served::by(unshare, &dir.join("payments"))
    }

    /// As Alice, who has no privilege on this host: in a user namespace of her own, on an overlay.
    fn by_alice(dir: &Path, program: &Path) -> Served {
        let [served, empty, merged] = ["served", "empty", "merged"].map(|name| dir.join(name));
        for made in [&served, &empty, &merged] {
            std::fs::create_dir(made).unwrap();
        }
        give_to(dir, ALICE);
        let script = python(ALICE, FUSE);
        let mut unshare = as_uid(ALICE, "/usr/bin/unshare");
        unshare.args(["--user", "--map-root-user", "--mount"]);
        unshare.arg(script.get_program()).args(script.get_args());
        unshare.arg(&served).arg(program).arg("0").arg(&merged);
        Served::by(unshare, &merged.join("payments"))
    }

    fn by(mut command: Command, payments: &Path) -> Served {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = command.spawn().unwrap();
        let mut line = String::new();
        let mut says = BufReader::new(server.stdout.take().unwrap());
        says.read_line(&mut line).unwrap();
        let pid = line.trim().parse().expect("the number of the program");
        let runs =
            || std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == payments);
        assert!(wait_until(DEADLINE, runs), "it never runs");
        Served { server, pid }
    }
}

impl Drop for Served {
    /// With its server the file system ends, and whatever waits for it gets an error.
    fn drop(&mut self) {
        send(self.pid, Signal::SIGKILL);
        let _ = self.server.kill(); // it may have ended
        let _ = self.server.wait();
    }
}

#[test]
fn an_executable_that_somebody_serves_is_not_attested() {
    below_own_root(|| {
        let mut witness = Witness::start();
        let (dir, files) = (public_dir(), public_dir());
        let program = files.path().join("payments");
        sleeper(&program, "1");
        let served = Served::start(dir.path(), &program);
        let why = witness.refusal(served.pid);
        assert!(why.contains("lies on FUSE"), "{why}");
    });
}

/// The overlay says of itself that it is one, whatever is below.
#[test]
fn an_executable_on_an_overlay_that_a_user_mounted_over_what_he_serves_is_not_attested() {
    below_own_root(|| {
        let mut witness = Witness::start();
        let (dir, files) = (public_dir(), public_dir());
        let program = files.path().join("payments");
        sleeper(&program, "1");
        let served = Served::by_alice(dir.path(), &program);
        let exe = format!("/proc/{}/exe", served.pid);
        let kind = nix::sys::statfs::statfs(exe.as_str()).unwrap();
        assert_eq!(
            kind.filesystem_type(),
            nix::sys::statfs::OVERLAYFS_SUPER_MAGIC
        );
        let owner = std::fs::metadata(format!("/proc/{}", served.pid)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), ALICE);
        assert_eq!(
            sha256(Path::new(&exe)),
            sha256(&program),
            "it is read there"
        );
        let why = witness.refusal(served.pid);
        assert!(why.contains("lies on an overlay"), "{why}");
    });
}

/// Asks about a process over so many connections at once, and then about itself over another. Prints
/// what was answered about itself, then what about the other, in the order in which it came.
const CROWD: &str = "
import select
pid, count = int(sys.argv[2]), int(sys.argv[3])
crowd = [connect(sys.argv[1]) for _ in range(count)]
pidfd = os.pidfd_open(pid)
for s in crowd:
    send(s, [pidfd])
own = ask(connect(sys.argv[1]), os.getpid())
print(json.dumps(own), flush=True)
while crowd:
    for s in select.select(crowd, [], [])[0]:
        print(json.dumps(answer(s)), flush=True)
        crowd.remove(s)
";

#[test]
fn a_file_system_that_hangs_keeps_no_other_user_waiting() {
    below_own_root(|| {
        let mut witness = Witness::start();
        let (dir, files) = (public_dir(), public_dir());
        let program = files.path().join("payments");
        sleeper(&program, "1");
        let served = Served::start(dir.path(), &program);
        freeze(served.server.id());
        let mut asking = python(0, CROWD);
        asking
            .arg(witness.socket())
            .args([&served.pid.to_string(), "8"]);
        let mut asking = asking.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(asking.stdout.take().unwrap()).lines();
        let mut next =
            || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
        let own = next();
        assert!(own["executable"].is_object(), "{own}");
        // Four of Alice's may hang; the others are told so.
        for _ in 0..4 {
            let refused = next();
            let why = refused["not_now"].as_str().unwrap_or_default();
            assert!(why.contains("too many processes of its user"), "{refused}");
        }
        // Of another user's anything is answered still, and of a program that is not known yet.
        let other = files.path().join("reports");
        sleeper(&other, "2");
        let running = Running::start(Command::new(&other).arg("60"));
        assert_eq!(witness.executable(running.pid())["sha256"], sha256(&other));
        drop(served);
        for _ in 0..4 {
            let ended = next();
            assert!(ended["not_attestable"].is_string(), "{ended}");
        }
        assert!(asking.wait().unwrap().success());
    });
}
