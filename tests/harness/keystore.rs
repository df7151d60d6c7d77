//! The keystore process alone, under its own uid, as a systemd unit would run it; and peers of it
//! that really are the broker's uid, root or a stranger.

use crate::process::Process;
use crate::programs::Programs;
use crate::token::KEYSTORE;
use crate::user::{self, give_to, python_as};
use crate::{Config, Token, public_dir};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// A keystore of uid [`user::KEYSTORE`] whose broker has uid [`user::BROKER`].
pub struct Keystore {
    process: Process,
    _programs: Programs,
    token: Token,
    dir: TempDir,
}

impl Keystore {
    /// Starts one on a fresh token and waits until it is usable. The socket lets everybody connect,
    /// so that only the process itself can tell peers apart.
    pub fn start() -> Keystore {
        Keystore::start_with(&[], &[])
    }

    /// The same with more options of prlimit(1), such as `--core=0`, and of setpriv(1).
    pub fn start_with(limits: &[&str], privileges: &[&str]) -> Keystore {
        user::need_root();
        let (programs, token, dir) = (
            Programs::installed(),
            Token::of_user(user::KEYSTORE),
            public_dir(),
        );
        let (config, state) = (dir.path().join("assertd.toml"), dir.path().join("state"));
        std::fs::write(&config, Config::new(&token).text()).unwrap();
        std::fs::create_dir(&state).unwrap();
        give_to(&state, user::KEYSTORE);
        let socket = dir.path().join("keystore.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        // Root sets the limits, the user's process inherits them; its number stays the same.
        let (user, group) = (user::KEYSTORE, user::KEYSTORE);
        let mut command = Command::new("prlimit");
        command.args(limits).arg("setpriv").args([
            &format!("--reuid={user}"),
            &format!("--regid={group}"),
            "--clear-groups",
        ]);
        command.args(privileges);
        command.arg(programs.keystore()).current_dir("/");
        command
            .arg("--config")
            .arg(config)
            .args(["--name", KEYSTORE, "--listen-stdin"]);
        command
            .arg("--broker-uid")
            .arg(user::BROKER.to_string())
            .arg("--state-dir")
            .arg(state);
        command.stdin(Stdio::from(OwnedFd::from(listener)));
        let process = Process::start(&mut command);
        process.wait_for_stderr("keystore hsm: usable");
        Keystore {
            process,
            _programs: programs,
            token,
            dir,
        }
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its token.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("keystore.sock")
    }

    /// A connection of a process of `uid`, without a hello.
    pub fn connect_as(&self, uid: u32) -> Peer {
        Peer::connect(uid, &self.socket())
    }

    /// A connection of a process of `uid`, past its hello.
    pub fn greeted_as(&self, uid: u32) -> Peer {
        let mut peer = self.connect_as(uid);
        let welcome = peer.ask(r#"{"hello":{"version":3}}"#).expect("a welcome");
        assert!(welcome["welcome"].is_object(), "{welcome}");
        peer
    }
}

/// A process of some uid with one connection to a keystore, told line by line what to do.
pub struct Peer {
    child: Child,
    orders: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
}

/// Orders: `send HEX`, `shut`, `read`. Reports one line for each read: a frame's JSON, or `end`.
const PEER: &str = "
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
def exactly(n):
    data = b''
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part:
            raise EOFError
        data += part
    return data
for line in sys.stdin:
    order, _, rest = line.strip().partition(' ')
    try:
        if order == 'send':
            s.sendall(bytes.fromhex(rest))
        elif order == 'shut':
            s.shutdown(socket.SHUT_WR)
        elif order == 'read':
            frame = exactly(int.from_bytes(exactly(4), 'big'))
            print(frame.decode(), flush=True)
    except TimeoutError:
        print('timeout', flush=True)
    except (EOFError, OSError):
        if order == 'read':
            print('end', flush=True)
";

impl Peer {
    /// Connects.
    pub fn connect(uid: u32, socket: &Path) -> Peer {
        let mut python = python_as(uid, PEER);
        python
            .arg(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let orders = child.stdin.take();
        let reports = BufReader::new(child.stdout.take().unwrap());
        Peer {
            child,
            orders,
            reports,
        }
    }

    /// Sends one message and reads the reply; `None` if the keystore hung up.
    pub fn ask(&mut self, json: &str) -> Option<Value> {
        self.send(&frame(json.as_bytes()));
        self.reply()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.order(&format!("send {hex}"));
    }

    /// Says that no more will come.
    pub fn end_sending(&mut self) {
        self.order("shut");
    }

    /// Reads one reply; `None` if the keystore hung up.
    pub fn reply(&mut self) -> Option<Value> {
        self.order("read");
        let mut line = String::new();
        self.reports.read_line(&mut line).unwrap();
        match line.trim_end() {
            "end" => None,
            "timeout" | "" => panic!("the keystore neither answered nor hung up"),
            json => Some(serde_json::from_str(json).unwrap()),
        }
    }

    fn order(&mut self, line: &str) {
        let orders = self.orders.as_mut().expect("taken only by drop");
        writeln!(orders, "{line}").unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.kill(); // it may have ended with its orders
        let _ = self.child.wait();
    }
}

/// A frame of the keystore protocol around these bytes.
pub fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[..], bytes].concat()
}
