//! A caller: a Python process of another user that does with its socket what its script says, tells
//! the test how far it is line by line, and is told by lines when to go on.

use crate::process::{self, send};
use crate::user::python_as;
use crate::{DEADLINE, wait_until};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Every script begins so. A wait in a script ends after 20 s.
pub const PRELUDE: &str = r"
import os, select, signal, socket, struct, sys, time
def connect(name=None):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    if name is not None:
        s.bind(name)
    s.connect(sys.argv[1])
    return s
def request(target):
    body = b'{\x22target\x22:\x22%s\x22}' % target.encode()
    return b'POST /v1/assertion HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s' % (len(body), body)
def ask(s, target):
    try:
        s.sendall(request(target))
    except (BrokenPipeError, ConnectionResetError):
        pass
def answer(s):
    data = b''
    while True:
        head, _, body = data.partition(b'\r\n\r\n')
        lengths = [l.split(b':')[1] for l in head.lower().split(b'\r\n') if l.startswith(b'content-length:')]
        if b'\r\n\r\n' in data and len(body) >= int(lengths[0]):
            return int(data[9:12]), body.decode()
        try:
            part = s.recv(65536)
        except ConnectionResetError:
            part = b''
        if not part:
            return 0, data.decode()
        data += part
def status(s):
    return answer(s)[0]
def whoami(s):
    s.sendall(b'GET /v1/whoami HTTP/1.1\r\nhost: a\r\n\r\n')
    return answer(s)[1]
def to_end(s):
    data = b''
    while True:
        try:
            part = s.recv(65536)
        except ConnectionResetError:
            part = b''
        if not part:
            return data
        data += part
# How many bytes that were sent nobody has read (unix(7), SIOCOUTQ), and how many wait to be read.
def unread(s):
    import fcntl, termios
    return struct.unpack('i', fcntl.ioctl(s, termios.TIOCOUTQ, b'\0' * 4))[0]
def waiting(s):
    import fcntl, termios
    return struct.unpack('i', fcntl.ioctl(s, termios.FIONREAD, b'\0' * 4))[0]
def until(condition, what):
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            sys.exit('never: ' + what)
        time.sleep(0.002)
def say(*words):
    print(*words, flush=True)
def told():
    return sys.stdin.readline().strip()
";

/// A caller that runs; it is killed when dropped.
pub struct Caller {
    child: Child,
    says: BufReader<ChildStdout>,
    orders: ChildStdin,
}

/// A command that runs [`PRELUDE`] and `script` as `uid`, with the socket as its first argument.
pub fn script_as(uid: u32, socket: &Path, script: &str) -> Command {
    let mut python = python_as(uid, &format!("{PRELUDE}{script}"));
    python.arg(socket);
    python
}

/// Runs a script to its end and returns what it printed.
///
/// # Panics
/// With what it said if it failed.
#[track_caller]
pub fn printed(uid: u32, socket: &Path, script: &str) -> String {
    finished(&mut script_as(uid, socket, script))
}

/// Runs a command to its end and returns what it printed.
///
/// # Panics
/// With what it said if it failed.
#[track_caller]
pub fn finished(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Caller {
    /// Starts a script as `uid`.
    pub fn start(uid: u32, socket: &Path, script: &str) -> Caller {
        Caller::run(&mut script_as(uid, socket, script))
    }

    /// Starts a command that came from [`script_as`].
    pub fn run(command: &mut Command) -> Caller {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Caller {
            says: BufReader::new(child.stdout.take().unwrap()),
            orders: child.stdin.take().unwrap(),
            child,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it says; empty at the end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Waits until it says this.
    #[track_caller]
    pub fn expect(&mut self, said: &str) {
        assert_eq!(self.line(), said);
    }

    /// Tells it to go on.
    pub fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// All that it and its children still say.
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.says.read_to_string(&mut rest).unwrap();
        rest.trim().to_owned()
    }

    /// Kills it, which leaves a zombie until [`Caller::reap`].
    #[track_caller]
    pub fn kill(&self) {
        send(self.pid(), Signal::SIGKILL);
        let dead = wait_until(DEADLINE, || process::state(self.pid()) == Some('Z'));
        assert!(dead, "{} outlives SIGKILL", self.pid());
    }

    /// Waits for its end and takes its number back.
    pub fn reap(&mut self) {
        self.child.wait().unwrap();
        assert_eq!(process::state(self.pid()), None, "it was reaped");
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended long ago
        let _ = self.child.wait();
    }
}
