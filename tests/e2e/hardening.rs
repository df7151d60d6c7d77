//! What the processes give up by themselves, without a unit around them (reliability §12): tried
//! from outside here, from inside in [`sandbox`]; what of a secret is left where in [`canary`] and
//! [`memory`]. What is refused to us is granted to another process of the same user beside it,
//! or nothing would be shown.

mod canary;
mod memory;
mod sandbox;

use crate::world::{BANK, bank, us};
use harness::daemon::Site;
use harness::http::{Raw, post};
use harness::keystore::Keystore;
use harness::process::{Process, send};
use harness::token::KEYSTORE;
use harness::user::{self, BROKER, as_uid, give_to, python_as};
use harness::{Config, DEADLINE, Daemon, Token, public_dir, wait_until};
use nix::sys::signal::Signal;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A daemon whose user is [`BROKER`], as is its keystore.
fn daemon_of_a_user() -> (Daemon, Token) {
    let token = Token::of_user(BROKER);
    let config = Config::new(&token)
        .workload("ours", us(), "")
        .target("ours", "bank", "");
    let site = Site::new(config.text());
    give_to(site.config().parent().unwrap(), BROKER);
    let mut command = site.command();
    command.uid(BROKER).gid(BROKER).current_dir("/");
    let daemon = Daemon::ready(Process::start(&mut command), site);
    daemon.apply();
    assert_eq!(daemon.ask(BANK).status, 200, "{}", daemon.stderr());
    (daemon, token)
}

/// The value of a line of `/proc/PID/…/status`.
fn status(path: &Path, name: &str) -> String {
    line_of(&std::fs::read_to_string(path).unwrap(), name)
}

fn line_of(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.and_then(|value| value.strip_prefix(':'));
    value
        .unwrap_or_else(|| panic!("no {name}"))
        .trim()
        .to_owned()
}

/// Ways to look into the memory of process argv[1]: each prints its name and ` ok` or an errno.
const PEEK: &str = "
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, body):
    try:
        body()
        print(name, 'ok')
    except OSError as error:
        print(name, error.errno)
def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), '')
def read(name):
    with open(f'/proc/{pid}/{name}', 'rb') as file:
        if name != 'mem':
            file.read(1)
def attach():
    call(libc.ptrace(16, pid, None, None))
    os.waitpid(pid, 0x40000000)
    call(libc.ptrace(17, pid, None, None))
for name in ['environ', 'maps', 'mem']:
    attempt(name, lambda: read(name))
attempt('exe', lambda: os.readlink(f'/proc/{pid}/exe'))
attempt('fd', lambda: os.listdir(f'/proc/{pid}/fd'))
attempt('ptrace', attach)
";

fn peek(uid: u32, pid: u32) -> Vec<String> {
    let output = python_as(uid, PEEK).arg(pid.to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

#[test]
fn another_process_of_the_same_user_cannot_look_into_memory() {
    let (daemon, _token) = daemon_of_a_user();
    let ways = ["environ", "maps", "mem", "exe", "fd", "ptrace"];
    for pid in [daemon.pid(), daemon.keystore_pid()] {
        let refused = peek(BROKER, pid);
        assert_eq!(refused.len(), ways.len());
        for (way, outcome) in ways.iter().zip(refused) {
            let (eperm, eacces) = (format!("{way} 1"), format!("{way} 13"));
            assert!(outcome == eperm || outcome == eacces, "{pid}: {outcome}");
        }
    }
    // 0x59616d61 is PR_SET_PTRACER, in case Yama is there: anybody of this user may.
    let open = "import ctypes, sys, time\nctypes.CDLL(None).prctl(0x59616d61, -1)\n\
                print('open', file=sys.stderr, flush=True)\ntime.sleep(600)";
    let other = Process::start(&mut python_as(BROKER, open));
    other.wait_for_stderr("open\n");
    let seen = peek(BROKER, other.pid());
    assert_eq!(seen, ways.map(|way| format!("{way} ok")));
}

#[test]
fn no_thread_can_gain_privileges() {
    let (daemon, _token) = daemon_of_a_user();
    for pid in [daemon.pid(), daemon.keystore_pid()] {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        // One that has ended since it was listed can gain nothing.
        let texts = tasks
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
        let texts: Vec<String> = texts.collect();
        assert!(texts.len() > 2, "{texts:?}");
        for text in texts {
            assert_eq!(line_of(&text, "NoNewPrivs"), "1", "{text}");
        }
    }
    let plain = Process::start(as_uid(BROKER, "/bin/sleep").arg("600"));
    let path = PathBuf::from(format!("/proc/{}/status", plain.pid()));
    assert_eq!(status(&path, "NoNewPrivs"), "0");
}

/// Sends SIGQUIT, whose default is a core dump, and says whether there was one.
fn quit(process: &mut Process) -> bool {
    process.signal(Signal::SIGQUIT);
    let status = process.wait(DEADLINE);
    assert_eq!(status.signal(), Some(Signal::SIGQUIT as i32), "{status}");
    status.core_dumped()
}

#[test]
fn a_process_that_is_killed_leaves_no_core() {
    const UNLIMITED: &str = "--core=unlimited";
    let mut keystore = Keystore::start_with(&[UNLIMITED], &[]);
    let limits = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let none = |text: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Max core file size"));
        let mut words = line.unwrap().split_ascii_whitespace();
        words.next() == Some("0") && words.next() == Some("0")
    };
    assert!(none(&limits(keystore.process().pid())));
    assert!(!quit(keystore.process()));

    let (token, here) = (Token::new(), public_dir());
    let site = Site::new(Config::new(&token).text());
    let assertd = site.command();
    let mut limited = Command::new("prlimit");
    limited.args([UNLIMITED]).arg(assertd.get_program());
    limited.args(assertd.get_args()).current_dir(here.path());
    limited.stdin(Stdio::null()).stdout(Stdio::null());
    let mut daemon = Process::start(&mut limited);
    daemon.wait_for_stderr("assertd: ready:");
    assert!(none(&limits(daemon.pid())));
    assert!(!quit(&mut daemon));
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0);

    let mut sleep = Command::new("prlimit");
    let mut sleep = Process::start(
        sleep
            .args([UNLIMITED, "sleep", "600"])
            .current_dir(here.path()),
    );
    let comm = format!("/proc/{}/comm", sleep.pid());
    let runs = wait_until(DEADLINE, || {
        std::fs::read_to_string(&comm).is_ok_and(|n| n == "sleep\n")
    });
    assert!(runs && !none(&limits(sleep.pid())));
    assert!(
        quit(&mut sleep),
        "this machine dumps no cores at all (/proc/sys/kernel/core_pattern), so that nothing is \
         shown here"
    );
}

#[test]
fn files_are_private_whatever_umask_was_inherited() {
    user::need_root();
    let (token, here) = (Token::new(), public_dir());
    let config = Config::new(&token)
        .workload("ours", us(), "")
        .target("ours", "bank", "");
    let site = Site::new(config.text());
    let open = |program: &Command| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask 0 && exec \"$@\"", "sh"]);
        command.arg(program.get_program()).args(program.get_args());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    let process = Process::start(&mut open(&site.command()));
    let daemon = Daemon::ready(process, site);
    daemon.apply();
    assert_eq!(daemon.ask(BANK).status, 200);
    let files = below(&daemon.site().state_dir());
    assert!(
        files
            .iter()
            .any(|path| path.starts_with(daemon.audit_dir()))
    );
    let keystore = daemon.site().state_dir().join("keystore/hsm");
    assert!(
        files.iter().any(|path| path.starts_with(&keystore)),
        "{files:?}"
    );
    for path in files {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue; // one that was being written, and has its name now
        };
        let mode = metadata.permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
    let mode = |path: PathBuf| path.symlink_metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(daemon.socket()), 0o666);
    assert_eq!(mode(daemon.admin_socket()), 0o600);
    assert_eq!(mode(daemon.keystore_socket("hsm")), 0o600);

    let made = here.path().join("made");
    let mut touch = Command::new("touch");
    assert!(open(touch.arg(&made)).status().unwrap().success());
    assert_eq!(mode(made), 0o666);
}

/// What the descriptors of a process lead to.
fn descriptors(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

#[test]
fn a_keystore_that_is_started_again_has_nothing_of_any_caller() {
    let token = Token::new();
    let daemon = Daemon::with_keys(bank(&token));
    let mut callers: Vec<Raw> = (0..8).map(|_| daemon.raw()).collect();
    for caller in &mut callers {
        caller.send(&post(BANK)).unwrap();
        assert_eq!(caller.answer(DEADLINE).expect("an answer").status, 200);
    }
    let ours = format!("/proc/{}/", std::process::id());
    let is_of_callers = |link: &String| link.starts_with(&ours) || link.contains("pidfd");
    let of_callers = |pid| descriptors(pid).into_iter().filter(is_of_callers).count();
    let held = of_callers(daemon.pid());
    assert!(held >= 3 * callers.len(), "assertd has {held} of them");

    let before = daemon.keystore_pid();
    send(before, Signal::SIGKILL);
    let is_another = || matches!(daemon.keystore_process(KEYSTORE), Some(pid) if pid != before);
    assert!(wait_until(DEADLINE, is_another));
    daemon.wait_served("bank"); // it has executed its program, and opened what it needs
    assert_eq!(of_callers(daemon.keystore_pid()), 0);
    assert!(of_callers(daemon.pid()) >= held, "callers are still there");
}

/// Everything below a directory, itself included; no sockets, and nothing that has gone since it was
/// listed (a state file is replaced by a temporary one that takes its name).
fn below(path: &Path) -> Vec<PathBuf> {
    let kind = match path.symlink_metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => panic!("{}: {error}", path.display()),
    };
    if kind.is_socket() {
        return Vec::new();
    }
    let mut found = vec![path.to_owned()];
    if kind.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            found.extend(below(&entry.unwrap().path()));
        }
    }
    found
}
