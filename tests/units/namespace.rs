//! The outer half of `units`: it starts the inner half in namespaces of its own, so that whatever
//! ends us (the last check, a panic, a signal, SIGKILL even) ends the box with all its processes and
//! mounts. The inner half is process 1 of the PID namespace: the kernel kills the rest with it.

use crate::suite::Counts;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::geteuid;
use std::env::VarError;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Exit codes of sysexits.h: used wrongly, no such file, a program is missing, not permitted.
const EX_USAGE: u8 = 64;
const EX_NOINPUT: u8 = 66;
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

/// How long all of it may take (issue 3: less than 2 minutes). It is printed beside the time; only
/// where the variable names a number of seconds does a run that took longer fail, because a machine
/// with other things to do is no fault of ours.
const BUDGET: Duration = Duration::from_secs(120);
const BUDGET_VARIABLE: &str = "UNITS_BUDGET_S";

/// Runs this program again, inside, once for each of these groups and all of them at once, each over
/// its own view of `tree`. Prints what they print, and the total; the exit code says whether every
/// check of every group held.
pub fn run_inside(tree: &Path, groups: &[&str], arguments: &[String]) -> ExitCode {
    let tree = match possible(tree) {
        Ok(tree) => tree,
        Err((code, why)) => {
            eprintln!("units: cannot boot a systemd here: {why}");
            return ExitCode::from(code);
        }
    };
    let demanded = match demanded_budget() {
        Ok(demanded) => demanded,
        Err(why) => {
            eprintln!("units: {why}");
            return ExitCode::from(EX_USAGE);
        }
    };
    let started = Instant::now();
    let signals = block_signals();
    let mut boxes = Vec::new();
    for group in groups {
        match Inside::start(&tree, group, arguments) {
            Ok(inside) => boxes.push(inside),
            Err(e) => eprintln!("units: cannot start unshare(1): {e}"),
        }
    }
    let ended_by = wait(&signals, &mut boxes);
    let mut total = Counts::default();
    for inside in boxes {
        let counts = inside.end();
        total.passed += counts.passed;
        total.failed += counts.failed;
    }
    if let Some(signal) = ended_by {
        eprintln!("units: ended by {signal}; every box is down");
        return ExitCode::from(128 + u8::try_from(signal as i32).unwrap_or(0));
    }
    let (took, budget) = (started.elapsed(), demanded.unwrap_or(BUDGET));
    println!(
        "units: {:.1} s of the {} s budgeted",
        took.as_secs_f32(),
        budget.as_secs()
    );
    if demanded.is_some_and(|demanded| took > demanded) {
        println!("FAIL units: took longer than {BUDGET_VARIABLE} allows");
        total.failed += 1;
    }
    println!("{total}");
    match (total.passed, total.failed) {
        // No check at all is a failure too.
        (1.., 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// What the environment demands, if it does.
fn demanded_budget() -> Result<Option<Duration>, String> {
    match std::env::var(BUDGET_VARIABLE) {
        Err(VarError::NotPresent) => Ok(None),
        Ok(text) => match text.parse() {
            Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
            Err(_) => Err(format!(
                "{BUDGET_VARIABLE}={text:?} is no number of seconds"
            )),
        },
        Err(VarError::NotUnicode(_)) => Err(format!("{BUDGET_VARIABLE} is no number of seconds")),
    }
}

/// The tree's full path, or what is missing, in the order in which it would be noticed.
fn possible(tree: &Path) -> Result<PathBuf, (u8, String)> {
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
    let tree = tree
        .canonicalize()
        .map_err(|e| (EX_NOINPUT, format!("{}: {e}", tree.display())))?;
    if !tree.join("usr/lib/systemd/systemd").exists() && !tree.join("lib/systemd/systemd").exists()
    {
        let tree = tree.display();
        let why = format!("no systemd in {tree}; run: apt-get install systemd systemd-sysv");
        return Err((EX_UNAVAILABLE, why));
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    // Unlike overlay it is never a module that the first mount loads.
    if !filesystems.contains("cgroup2") {
        return Err((EX_UNAVAILABLE, "this kernel has no cgroup2".to_string()));
    }
    Ok(tree)
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

fn sysbox() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("units/sysbox")
}

/// One group of checks in its namespaces.
struct Inside {
    group: String,
    /// unshare(1). Its end is the end of all that is inside.
    process: Child,
    status: Option<ExitStatus>,
    cgroup: String,
    relay: JoinHandle<Option<Counts>>,
}

impl Inside {
    /// Should we die without a word, unshare(1) is killed, and with it the namespace.
    fn start(tree: &Path, group: &str, arguments: &[String]) -> std::io::Result<Inside> {
        let cgroup = format!("{}-{group}", cgroup_name());
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid"])
            .args(["--fork", "--kill-child", "--propagation", "unchanged", "--"])
            .arg(sysbox())
            .arg("enter")
            .arg(tree)
            .arg(&cgroup)
            .arg(std::env::current_exe()?)
            .args(["--inside", "--group", group])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = process.stdout.take();
        let relay = std::thread::spawn(move || said.and_then(relay));
        Ok(Inside {
            group: group.to_string(),
            process,
            status: None,
            cgroup,
            relay,
        })
    }

    fn ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.process.try_wait().ok().flatten();
        }
        self.status.is_some()
    }

    /// Ends it, if it has not ended, and says how its checks went.
    fn end(mut self) -> Counts {
        if !self.ended() {
            let _ = self.process.kill();
            self.status = self.process.wait().ok();
        }
        let counts = self.relay.join().ok().flatten();
        sweep(&self.cgroup);
        counts.unwrap_or_else(|| {
            let (group, status) = (self.group, self.status);
            let status = status.map_or("no status".to_string(), |status| status.to_string());
            println!("FAIL {group}: ended before its last check ({status})");
            Counts {
                passed: 0,
                failed: 1,
            }
        })
    }
}

/// Hands on what one group prints, a check and what belongs to it in one piece, up to its total.
fn relay(said: impl Read) -> Option<Counts> {
    let mut block = String::new();
    let mut counts = None;
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        counts = Counts::parse(&line);
        if !line.starts_with(crate::suite::INDENT) {
            print!("{}", std::mem::take(&mut block));
        }
        if counts.is_none() {
            block += &line;
            block.push('\n');
        }
    }
    print!("{block}");
    counts
}

/// Waits until all have ended, or for a signal that ends us.
fn wait(signals: &SigSet, boxes: &mut [Inside]) -> Option<Signal> {
    loop {
        let ended = boxes
            .iter_mut()
            .filter_map(|one| one.ended().then_some(()))
            .count();
        if ended == boxes.len() {
            return None;
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => return Some(signal),
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
