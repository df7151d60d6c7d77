//! A real systemd as process 1 of a container over a copy-on-write view of a tree, and ways to run
//! commands and to put files in it. Dropping it takes it down.
//!
//! Commands run by [`SysBox::run`] are root's and belong to no unit of the box. A caller that should
//! be a unit is started with `systemd-run` or a unit file.

pub use harness::suite::Outcome;
use harness::suite::Site;
use harness::{DEADLINE, wait_for, wait_until};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where `sysbox enter` has put the tree.
const TREE: &str = "/run/box";

/// What the box's console said.
const CONSOLE: &str = "/run/layers/console";

/// The repository's `systemd/` and the directory with the built programs, as the box sees them.
pub const SOURCES: &str = "/mnt/assertd/systemd";
pub const BUILD: &str = "/mnt/assertd/build";

/// What `install.sh` takes from beside it.
const SCHEMA: &str = "/mnt/assertd/docs/assertd.schema.json";

/// systemd-nspawn has a filter of its own. Without bpf (and its capabilities), IPAddressDeny= and
/// DeviceAllow= are silently not enforced; without Landlock's three, our processes cannot close
/// themselves off; and what it refuses, a unit cannot be shown to refuse.
const ALLOWED_CALLS: &str = "bpf @keyring @memlock adjtimex pidfd_getfd \
    landlock_create_ruleset landlock_add_rule landlock_restrict_self";

/// Booting takes under a second on a machine that has nothing else to do.
const BOOT_DEADLINE: Duration = Duration::from_secs(90);

/// For one command. Whatever takes longer hangs.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// A booted box.
pub struct SysBox {
    nspawn: Child,
    /// Process 1 of the box, as we count.
    leader: u32,
}

impl SysBox {
    /// Boots until basic.target is reached; the error says what the console said.
    pub fn boot() -> Result<SysBox, String> {
        // Without one it would be a first boot, which enables every unit there is.
        write_at(
            Path::new(TREE),
            "/etc/machine-id",
            "61737365727464626f78000000000001\n",
        )?;
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let build = std::env::current_exe().map_err(|e| e.to_string())?;
        let build = build.parent().expect("a program lies in a directory");
        let console = File::create(CONSOLE).map_err(|e| format!("{CONSOLE}: {e}"))?;
        let errors = console.try_clone().map_err(|e| e.to_string())?;
        let nspawn = Command::new("systemd-nspawn")
            .args(["--directory", TREE, "--boot", "--machine=assertd-units"])
            .args(["--register=no", "--keep-unit", "--private-network"])
            .args(["--console=pipe", "--resolv-conf=off", "--timezone=off"])
            .arg("--link-journal=no")
            .arg("--capability=CAP_BPF,CAP_PERFMON")
            .arg(format!("--system-call-filter={ALLOWED_CALLS}"))
            .arg(bind(&repository.join("systemd"), SOURCES)?)
            .arg(bind(&repository.join("docs/assertd.schema.json"), SCHEMA)?)
            .arg(bind(build, BUILD)?)
            // Not the services that the machine whose tree this is has enabled.
            .args(["systemd.unit=basic.target", "systemd.mask=timers.target"])
            .arg("systemd.firstboot=no")
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(console)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("systemd-nspawn: {e}"))?;
        let mut boxed = SysBox { nspawn, leader: 0 };
        boxed.wait_until_up().map_err(|why| {
            let console = std::fs::read_to_string(CONSOLE).unwrap_or_default();
            format!("{why}; its console said:\n{console}")
        })?;
        Ok(boxed)
    }

    fn wait_until_up(&mut self) -> Result<(), String> {
        let up = wait_until(BOOT_DEADLINE, || {
            if !matches!(self.nspawn.try_wait(), Ok(None)) {
                return true;
            }
            self.leader = leader(self.nspawn.id()).unwrap_or(0);
            self.leader != 0 && self.root().join("run/systemd/private").exists()
        });
        if let Ok(Some(status)) = self.nspawn.try_wait() {
            return Err(format!("systemd-nspawn ended ({status})"));
        }
        if !up {
            return Err("systemd does not answer".to_string());
        }
        // That its socket's path is there does not say that somebody listens, nor that it is the box's own.
        let answered = wait_for(BOOT_DEADLINE, || {
            let state = self.run(&["systemctl", "is-system-running", "--wait"]);
            Some(state).filter(|state| !state.stdout.trim().is_empty())
        });
        let Some(state) = answered else {
            return Err("systemctl finds nobody to ask".to_owned());
        };
        match state.stdout.trim() {
            "running" => Ok(()),
            // A unit of the tree's own failed: no matter to ours, if basic.target is there.
            "degraded" => {
                let basic = self.run(&["systemctl", "is-active", "basic.target"]);
                basic.success().map(drop)
            }
            other => Err(format!("systemd is {other:?} {}", state.stderr)),
        }
    }

    /// The box's file tree, seen from outside.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.leader))
    }

    /// Runs a command as root and waits for it, no longer than [`COMMAND_DEADLINE`].
    pub fn run<S: AsRef<OsStr>>(&self, command: &[S]) -> Outcome {
        self.run_within(COMMAND_DEADLINE, command)
    }

    /// Runs a shell script as root, like [`SysBox::run`].
    pub fn sh(&self, script: &str) -> Outcome {
        self.run(&["bash", "-euc", script])
    }

    /// Runs a command as root; at the deadline it is killed.
    pub fn run_within<S: AsRef<OsStr>>(&self, deadline: Duration, command: &[S]) -> Outcome {
        let mut inside = vec![
            "timeout".into(),
            "--kill-after=5".into(),
            deadline.as_secs().max(1).to_string().into(),
        ];
        inside.extend(command.iter().map(|word| word.as_ref().to_os_string()));
        let mut child = match self.spawn(&inside) {
            Ok(child) => child,
            Err(e) => {
                return Outcome {
                    code: None,
                    stdout: String::new(),
                    stderr: format!("nsenter: {e}"),
                };
            }
        };
        let stdout = read_all(child.stdout.take());
        let stderr = read_all(child.stderr.take());
        // timeout(1) ends the command itself; this is for one that cannot be killed.
        let patience = deadline + Duration::from_secs(10);
        let status = wait_for(patience, || child.try_wait().ok().flatten());
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        Outcome {
            code: status.and_then(|status| status.code()),
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        }
    }

    /// Starts a command as root, its output piped. It is killed with the box at the latest.
    pub fn spawn<S: AsRef<OsStr>>(&self, command: &[S]) -> std::io::Result<Child> {
        if let Some(unit) = transient_unit(command) {
            self.wait_until_forgotten(unit);
        }
        self.command(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }

    /// systemd forgets a transient unit a moment after `systemd-run --wait` has returned; until then
    /// another of that name is refused ("was already loaded or has a fragment file").
    fn wait_until_forgotten(&self, unit: &str) {
        let show = ["systemctl", "show", "--property=LoadState", "--value", unit];
        // If it stays, the command's own error says so. A question without an answer is asked again.
        let _ = wait_until(DEADLINE, || {
            let shown = self.command(&show).stdin(Stdio::null()).output();
            shown.is_ok_and(|shown| shown.status.success() && !shown.stdout.starts_with(b"loaded"))
        });
    }

    /// A command of root's in the box, not started yet.
    pub fn command<S: AsRef<OsStr>>(&self, command: &[S]) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter
            .arg(format!("--target={}", self.leader))
            .args(["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "env", "-i"])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"])
            .arg("LANG=C.UTF-8")
            .args(command);
        nsenter
    }

    /// Writes a file (0644 root:root) and the directories above it.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) -> Result<(), String> {
        write_at(&self.root(), path, text)
    }
}

impl Site for SysBox {
    fn run(&self, command: &[&str]) -> Outcome {
        SysBox::run(self, command)
    }
}

impl Drop for SysBox {
    fn drop(&mut self) {
        // Not in order: nothing in it is kept, and its namespace ends right after.
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}

fn write_at(root: &Path, path: &str, text: impl AsRef<[u8]>) -> Result<(), String> {
    let full = root.join(path.trim_start_matches('/'));
    let above = full.parent().unwrap_or(root);
    std::fs::create_dir_all(above).map_err(|e| format!("{}: {e}", above.display()))?;
    std::fs::write(&full, text).map_err(|e| format!("{}: {e}", full.display()))
}

/// The name that systemd-run(1) is to give, if that is the command.
fn transient_unit<S: AsRef<OsStr>>(command: &[S]) -> Option<&str> {
    let mut words = command.iter().map_while(|word| word.as_ref().to_str());
    words.find(|word| *word == "systemd-run")?;
    words.find_map(|word| word.strip_prefix("--unit="))
}

/// A colon in a path would be taken for the one between source and target.
fn bind(from: &Path, to: &str) -> Result<String, String> {
    let from = from
        .canonicalize()
        .map_err(|e| format!("{}: {e}", from.display()))?;
    let from = from.to_str().ok_or("a path that is not UTF-8")?;
    let from = from.replace('\\', "\\\\").replace(':', "\\:");
    Ok(format!("--bind-ro={from}:{to}"))
}

/// nspawn's child is the box's process 1 once it has become systemd.
fn leader(nspawn: u32) -> Option<u32> {
    let children = format!("/proc/{nspawn}/task/{nspawn}/children");
    let children = std::fs::read_to_string(children).ok()?;
    children.split_whitespace().find_map(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "systemd").then(|| pid.parse().ok())?
    })
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
