//! The outer half of `units`: it starts the inner half in namespaces of its own, so that whatever
//! ends us (the last check, a panic, a signal, SIGKILL even) ends the box with all its processes and
//! mounts. The inner half is process 1 of the PID namespace: the kernel kills the rest with it.

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::geteuid;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Exit codes of sysexits.h: a program is missing, not permitted.
const EX_UNAVAILABLE: u8 = 69;
const EX_NOPERM: u8 = 77;

/// Programs without which no box boots, and the Debian packages that bring them.
const PROGRAMS: [(&str, &str); 5] = [
    ("systemd-nspawn", "systemd-container"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
];

/// Runs this program again, inside, over `tree`; its exit code is ours.
pub fn run_inside(tree: &Path, arguments: &[String]) -> ExitCode {
    if let Err((code, why)) = possible(tree) {
        eprintln!("units: cannot boot a systemd here: {why}");
        return ExitCode::from(code);
    }
    let name = cgroup_name();
    let signals = block_signals();
    let mut inside = match start(tree, &name, arguments) {
        Ok(child) => child,
        Err(e) => {
            eprintln!("units: cannot start unshare(1): {e}");
            return ExitCode::from(EX_UNAVAILABLE);
        }
    };
    let end = wait(&signals, &mut inside);
    sweep(&name);
    match end {
        End::Exit(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            ExitCode::from(code.unwrap_or(1))
        }
        End::Signal(signal) => {
            eprintln!("units: ended by {signal}; the box is down");
            ExitCode::from(128 + u8::try_from(signal as i32).unwrap_or(0))
        }
    }
}

/// What is missing, in the order in which it would be noticed.
fn possible(tree: &Path) -> Result<(), (u8, String)> {
    if !geteuid().is_root() {
        let why = "not root; run: sudo make test-systemd";
        return Err((EX_NOPERM, why.to_string()));
    }
    for (program, package) in PROGRAMS {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|dir| dir.join(program).exists()) {
            let why =
                format!("no {program}; run: apt-get install --no-install-recommends {package}");
            return Err((EX_UNAVAILABLE, why));
        }
    }
    if !tree.join("usr/lib/systemd/systemd").exists() && !tree.join("lib/systemd/systemd").exists()
    {
        let tree = tree.display();
        let why = format!("no systemd in {tree}; run: apt-get install systemd systemd-sysv");
        return Err((EX_UNAVAILABLE, why));
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for needed in ["overlay", "cgroup2"] {
        // overlay may be a module that the first mount loads; cgroup2 never is.
        if needed == "cgroup2" && !filesystems.contains(needed) {
            return Err((EX_UNAVAILABLE, format!("this kernel has no {needed}")));
        }
    }
    Ok(())
}

/// Different for every run on a machine, whatever PID namespace it counts in.
fn cgroup_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |since| since.as_nanos());
    format!("assertd-units-{}-{nanoseconds:x}", std::process::id())
}

fn block_signals() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
    ] {
        signals.add(signal);
    }
    signals
        .thread_block()
        .expect("a valid set can be blocked (sigprocmask(2))");
    signals
}

fn sysbox() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("units/sysbox")
}

/// Should we die without a word, unshare(1) is killed, and with it the namespace.
fn start(tree: &Path, name: &str, arguments: &[String]) -> std::io::Result<Child> {
    let this = std::env::current_exe()?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid"])
        .args(["--fork", "--kill-child", "--propagation", "unchanged", "--"])
        .arg(sysbox())
        .arg("enter")
        .arg(tree)
        .arg(name)
        .arg(this)
        .arg("--inside")
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
}

enum End {
    Exit(ExitStatus),
    Signal(Signal),
}

fn wait(signals: &SigSet, inside: &mut Child) -> End {
    loop {
        if let Ok(Some(status)) = inside.try_wait() {
            return End::Exit(status);
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                let _ = inside.kill();
                let _ = inside.wait();
                return End::Signal(signal);
            }
        }
    }
}

/// The empty cgroups are all that outlives the namespace.
fn sweep(name: &str) {
    let swept = Command::new("unshare")
        .args(["--mount", "--propagation", "unchanged", "--"])
        .arg(sysbox())
        .args(["sweep", name])
        .status();
    if !swept.is_ok_and(|status| status.success()) {
        eprintln!("units: cannot remove the cgroup {name}");
    }
}
