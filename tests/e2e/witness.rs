//! The witness: what it says of real processes, to whom, and what it cannot be made to say. Asked
//! over its socket, as assertd asks it: eight bytes with a pidfd beside them.

use harness::process::Process;
use harness::programs::Programs;
use harness::user::{ALICE, give_to, need_root, python_as};
use harness::{DEADLINE, public_dir, public_dir_in, wait_until};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, statfs};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use tempfile::TempDir;

mod access;
mod child;
mod death;
mod files;
mod hanging;
mod memory;

/// Starts every script here. A pidfd is made when its process is first named, and kept.
const PRELUDE: &str = "
import json, os, socket, struct, sys, time
def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(path)
    return s
def send(s, descriptors, question=b'exe? v1\\n'):
    try:
        socket.send_fds(s, [question], descriptors)
    except (BrokenPipeError, ConnectionResetError):
        pass
def receive(s, length):
    data = b''
    while len(data) < length:
        try:
            part = s.recv(length - len(data))
        except ConnectionResetError:
            return None
        if not part:
            return None
        data += part
    return data
def answer(s):
    header = receive(s, 4)
    body = header and receive(s, struct.unpack('>I', header)[0])
    return body and json.loads(body)
pidfds = {}
def ask(s, pid):
    if pid not in pidfds:
        pidfds[pid] = os.pidfd_open(pid)
    send(s, [pidfds[pid]])
    return answer(s)
def wait_until(condition, what):
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            sys.exit('never: ' + what)
        time.sleep(0.002)
def connect_soon(path):
    end = time.monotonic() + 20
    while True:
        try:
            return connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                raise
            time.sleep(0.002)
";

/// Answers every number of a process with what the witness says of it.
const ASKER: &str = "
s = connect(sys.argv[1])
for line in sys.stdin:
    print(json.dumps(ask(s, int(line))), flush=True)
";

fn python(uid: u32, script: &str) -> Command {
    python_as(uid, &format!("{PRELUDE}{script}"))
}

/// A running witness, and a process of its broker's uid that asks.
struct Witness {
    process: Process,
    asker: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    dir: TempDir,
    _programs: Programs,
}

impl Witness {
    /// As root, for root.
    fn start() -> Witness {
        Witness::start_as(0, &[])
    }

    /// As a user, with more options of setpriv(1), for a broker that is the same user. The socket lets
    /// everybody connect, so that only the witness can tell peers apart.
    fn start_as(uid: u32, privileges: &[&str]) -> Witness {
        need_root();
        let (programs, dir) = (Programs::installed(), public_dir());
        let socket = dir.path().join("witness.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={uid}")]);
        command.arg("--clear-groups").args(privileges);
        command.arg(programs.path("assertd-witness"));
        command.args(["--listen-stdin", "--broker-uid", &uid.to_string()]);
        command.current_dir("/").env_remove("NOTIFY_SOCKET");
        let process = Process::start(command.stdin(Stdio::from(OwnedFd::from(listener))));
        let mut asker = python(uid, ASKER)
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Witness {
            process,
            questions: asker.stdin.take().unwrap(),
            answers: BufReader::new(asker.stdout.take().unwrap()),
            asker,
            dir,
            _programs: programs,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("witness.sock")
    }

    /// What it says of a process; null if it hung up.
    fn ask(&mut self, pid: u32) -> Value {
        writeln!(self.questions, "{pid}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}: {}", self.said()))
    }

    /// The same, when it is an executable.
    fn executable(&mut self, pid: u32) -> Value {
        let answer = self.ask(pid);
        let executable = answer["executable"].clone();
        assert!(executable.is_object(), "{answer}");
        executable
    }

    /// Why it says nothing.
    fn refusal(&mut self, pid: u32) -> String {
        let answer = self.ask(pid);
        let why = answer["not_attestable"].as_str();
        why.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    fn said(&self) -> String {
        self.process.stderr()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.asker.kill(); // it may have ended
        let _ = self.asker.wait();
    }
}

/// A process that does nothing, until it is dropped.
struct Running(Child);

impl Running {
    /// Starts it, and waits until it executes what the command says.
    fn start(command: &mut Command) -> Running {
        let program = PathBuf::from(command.get_program());
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let running = Running(child);
        running.wait_for(&program);
        running
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Where the kernel says that its executable is.
    fn link(&self) -> PathBuf {
        std::fs::read_link(format!("/proc/{}/exe", self.pid())).unwrap_or_default()
    }

    fn wait_for(&self, program: &Path) {
        let there = wait_until(DEADLINE, || self.link() == program);
        assert!(
            there,
            "{} is not {}",
            self.link().display(),
            program.display()
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// A program that sleeps, unlike any other by the bytes at its end.
fn sleeper(path: &Path, unlike: &str) {
    let mut bytes = std::fs::read("/bin/sleep").unwrap();
    bytes.extend(unlike.as_bytes());
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

fn sleep(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("60");
    command
}

/// By the tool that people use for it.
fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let digest = text.split_whitespace().next().unwrap();
    assert_eq!(digest.len(), 64, "{}", path.display());
    digest.to_owned()
}

/// Bytes that a process has read since its start.
fn bytes_read(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

/// What the witness does with the digest of a file, by what the file lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// It keeps it.
    Kept,
    /// It hashes the file each time.
    Never,
}

fn memory_of(path: &Path) -> Memory {
    let disks = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];
    let lies_on = statfs(path).unwrap().filesystem_type();
    match disks.contains(&lies_on) {
        true => Memory::Kept,
        false => Memory::Never,
    }
}

/// A directory on a disk, if this machine has one for tests: a container has an overlay, and `/tmp` may be
/// in memory.
fn dir_on_disk() -> TempDir {
    let there = ["/tmp", "/var/tmp", "/root", "/"]
        .into_iter()
        .map(Path::new);
    let mut disks = there.filter(|path| path.is_dir() && memory_of(path) == Memory::Kept);
    disks.next().map_or_else(public_dir, public_dir_in)
}

#[test]
fn a_running_program_is_attested_by_its_path_and_the_digest_of_its_file() {
    let mut witness = Witness::start();
    let dir = public_dir();
    let program = dir.path().join("payments");
    sleeper(&program, "1");
    let running = Running::start(&mut sleep(&program));
    let executable = witness.executable(running.pid());
    assert_eq!(executable["place"]["at"], program.to_str().unwrap());
    assert_eq!(executable["sha256"], sha256(&program));
    let file = program.metadata().unwrap();
    let identity = &executable["identity"];
    assert_eq!(
        (&identity["dev"], &identity["ino"], &identity["size"]),
        (&file.dev().into(), &file.ino().into(), &file.size().into())
    );
}

#[test]
fn after_an_exec_the_answer_is_of_the_new_program() {
    let mut witness = Witness::start();
    let dir = public_dir();
    let (gate, program) = (dir.path().join("gate"), dir.path().join("payments"));
    sleeper(&program, "1");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("read x <{}; exec {} 60", gate.display(), program.display());
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    let running = Running::start(Command::new(&shell).args(["-c", &script]));
    let before = witness.executable(running.pid());
    assert_eq!(before["place"]["at"], shell.to_str().unwrap());
    assert_eq!(before["sha256"], sha256(&shell));
    std::fs::write(&gate, "now\n").unwrap();
    running.wait_for(&program);
    let after = witness.executable(running.pid());
    assert_eq!(after["place"]["at"], program.to_str().unwrap());
    assert_eq!(after["sha256"], sha256(&program));
}

#[test]
fn what_a_process_calls_itself_means_nothing() {
    let mut witness = Witness::start();
    let dir = public_dir();
    let named = dir.path().join("named");
    let script = "
open('/proc/self/comm', 'wb').write(b'\\xff\\nUid:\\t0')
open(sys.argv[1], 'w').close()
time.sleep(60)
";
    let mut command = python(ALICE, script);
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let running = Running(command.arg(&named).spawn().unwrap());
    assert!(wait_until(DEADLINE, || named.exists()));
    let name = std::fs::read(format!("/proc/{}/comm", running.pid())).unwrap();
    assert_eq!(name, b"\xff\nUid:\t0\n");
    let program = std::fs::canonicalize("/usr/bin/python3").unwrap();
    let executable = witness.executable(running.pid());
    assert_eq!(executable["place"]["at"], program.to_str().unwrap());
}

#[test]
fn an_executable_that_is_known_is_not_read_again() {
    let mut witness = Witness::start();
    // Old enough that another change of it would show, unlike what a test has just made.
    let program = std::fs::canonicalize("/usr/bin/python3").unwrap();
    let memory = memory_of(&program);
    let size = program.metadata().unwrap().size();
    let mut python = Command::new(&program);
    let first = Running::start(python.args(["-I", "-c", "import time; time.sleep(60)"]));
    let second = Running::start(&mut python);
    let mut read = Vec::new();
    let mut answers = Vec::new();
    for pid in [first.pid(), first.pid(), second.pid()] {
        let before = bytes_read(witness.process.pid());
        answers.push(witness.executable(pid));
        read.push(bytes_read(witness.process.pid()) - before);
    }
    assert!(read[0] >= size, "{read:?} of {size}");
    let is_kept = read[1..].iter().all(|read| *read < size / 100);
    assert_eq!(is_kept, memory == Memory::Kept, "{read:?} of {size}");
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    assert_eq!(answers[0]["sha256"], sha256(&program));
}

#[test]
fn a_known_file_with_another_content_is_read_again_whatever_its_times_were_set_to() {
    let mut witness = Witness::start();
    let dir = dir_on_disk();
    let program = dir.path().join("payments");
    sleeper(&program, "1");
    let old = program.metadata().unwrap();
    let running = Running::start(&mut sleep(&program));
    if memory_of(&program) == Memory::Kept {
        let known = wait_until(DEADLINE, || {
            let before = bytes_read(witness.process.pid());
            witness.executable(running.pid());
            bytes_read(witness.process.pid()) - before < old.size()
        });
        assert!(known, "it is never remembered");
    }
    let digest = sha256(&program);
    drop(running);
    // In place, of the same length, and with the modification time it had.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&program)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"2", old.size() - 1).unwrap();
    file.set_modified(old.modified().unwrap()).unwrap();
    drop(file);
    let new = program.metadata().unwrap();
    let looks = |of: &std::fs::Metadata| (of.dev(), of.ino(), of.size(), of.mtime_nsec());
    assert_eq!(looks(&new), looks(&old));
    let running = Running::start(&mut sleep(&program));
    let executable = witness.executable(running.pid());
    assert_ne!(executable["sha256"], digest);
    assert_eq!(executable["sha256"], sha256(&program));
}

#[test]
fn an_enormous_executable_is_refused_unread() {
    let mut witness = Witness::start();
    let dir = public_dir();
    let program = dir.path().join("enormous");
    sleeper(&program, "1");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&program)
        .unwrap();
    file.set_len(2 << 30).unwrap(); // nothing on the disk
    drop(file);
    let running = Running::start(&mut sleep(&program));
    let before = bytes_read(witness.process.pid());
    let why = witness.refusal(running.pid());
    let (has, most) = ((2_u64 << 30).to_string(), (1_u64 << 30).to_string());
    assert!(why.contains(&has) && why.contains(&most), "{why}");
    assert!(bytes_read(witness.process.pid()) - before < 1 << 20);
}

/// Makes files that another user can execute where root alone put them.
fn public_program(uid: u32, unlike: &str) -> (TempDir, PathBuf) {
    let dir = public_dir();
    let program = dir.path().join("payments");
    sleeper(&program, unlike);
    give_to(&program, uid);
    (dir, program)
}
