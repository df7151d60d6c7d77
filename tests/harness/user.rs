//! Other users, really: processes with another uid, no supplementary groups and nothing inherited.
//! Needs root, and says so.

use std::ffi::OsStr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Uids that no distribution hands out (Debian policy 9.2.2: 60000–64999 are reserved), so that a
/// test never acts as somebody who is there.
pub const ALICE: u32 = 61_001;
/// Another one.
pub const BOB: u32 = 61_002;
/// And one that no configuration knows.
pub const STRANGER: u32 = 61_003;
/// For a broker that is not root.
pub const BROKER: u32 = 61_004;
/// For a keystore that is not root.
pub const KEYSTORE: u32 = 61_005;

/// Fails the test if it is not run by root: without that there are no other users.
pub fn need_root() {
    let root = nix::unistd::geteuid().is_root();
    assert!(
        root,
        "this test starts processes as other users and must be run by root (`sudo`)"
    );
}

/// A command that will run as `uid`, with the group of the same number.
pub fn as_uid(uid: u32, program: impl AsRef<OsStr>) -> Command {
    need_root();
    let mut command = Command::new(program);
    command
        .uid(uid)
        .gid(uid)
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

/// A Python script that will run as `uid`, with these arguments: for what a shell cannot do with
/// sockets. The standard library alone.
pub fn python_as(uid: u32, script: &str) -> Command {
    let mut command = as_uid(uid, "/usr/bin/python3");
    command.args(["-I", "-c", script]);
    command
}

/// Makes everything below a directory, and itself, the property of `uid`.
pub fn give_to(path: &Path, uid: u32) {
    need_root();
    chown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give_to(&entry.unwrap().path(), uid);
        }
    }
}

/// Connects, sends standard input, and copies what comes back until the answer is whole, which is
/// when nothing has come for a moment or the other side has closed. On a kernel without SO_PEERPIDFD it
/// may have to connect again, because it is young.
const EXCHANGE: &str = "
import socket, sys
def exchange(request):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(sys.argv[1])
    s.sendall(request)
    data = b''
    while True:
        head, _, body = data.partition(b'\\r\\n\\r\\n')
        lengths = [l.split(b':')[1] for l in head.lower().split(b'\\r\\n') if l.startswith(b'content-length:')]
        if b'\\r\\n\\r\\n' in data and lengths and len(body) >= int(lengths[0]):
            return data
        part = s.recv(65536)
        if not part:
            return data
        data += part
request = sys.stdin.buffer.read()
data = exchange(request)
for _ in range(20):
    if b'problem:connect_again' not in data:
        break
    data = exchange(request)
sys.stdout.buffer.write(data)
";

/// Sends one request over a new connection as `uid` and returns the answer's bytes.
pub fn exchange_as(uid: u32, socket: &Path, request: &[u8]) -> crate::http::Answer {
    use std::io::Write;
    let mut python = python_as(uid, EXCHANGE);
    python
        .arg(socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = python
        .spawn()
        .expect("python3 is part of Debian's base of `make setup`");
    child.stdin.take().unwrap().write_all(request).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the caller of uid {uid} failed");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    crate::http::Answer::parse(output.stdout).unwrap_or_else(|| panic!("no answer: {shown:?}"))
}
