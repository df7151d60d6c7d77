//! A virtual machine: QEMU boots a copy of a tree with a kernel of its own and a TPM 2.0 (swtpm
//! behind tpm-tis, which the kernel sees as any other chip). Disk and TPM outlive a boot, as they
//! would in a real machine.
//!
//! Both programs are killed with us however we end, and a start that failed says what the console
//! said. What is written lies in one directory, emptied at each start.

use crate::agent::Agent;
use crate::emulator::Emulator;
use harness::suite::{Outcome, Site};
use harness::swtpm::kept_until_we_end;
use harness::{DEADLINE, wait_for, wait_until};
use nix::fcntl::{Flock, FlockArg};
use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The emulated processor boots in 15 to 25 s where nobody else wants the real one.
const BOOT_DEADLINE: Duration = Duration::from_secs(300);

/// For one command. Whatever takes longer hangs; what takes a second elsewhere takes some here.
const COMMAND_DEADLINE: Duration = Duration::from_secs(240);

/// For leaving everything in order.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(240);

/// What assertctl ends with where trying again may help (its manual, EXIT STATUS). It waits 10 s, which
/// is little for services that start on an emulated processor.
const UNAVAILABLE: i32 = 69;

/// How long one tries again, then.
const PATIENCE: Duration = Duration::from_secs(240);

/// Free space on its disk beside the tree: the programs, the journal, and room.
const ROOM_MIB: u64 = 600;

const CONSOLE_LINES: usize = 40;

/// The kernel's command line. Without a machine id each start would be a first one, which enables
/// every unit there is; timers would fetch packages. The rest saves time.
const KERNEL: &str = "root=/dev/nvme0n1 rw mitigations=off nokaslr systemd.show_status=0 \
    systemd.machine_id=61737365727464766d00000000000001 systemd.firstboot=no \
    systemd.mask=timers.target systemd.condition_needs_update=no systemd.mask=systemd-logind.service \
    systemd.mask=systemd-user-sessions.service systemd.mask=getty.target";

/// The machine's own name for the disk with what is to be installed.
pub const PAYLOAD: &str = "/dev/disk/by-id/virtio-payload";

/// A machine, on or off.
pub struct Machine {
    work: PathBuf,
    emulator: Emulator,
    running: RefCell<Option<Running>>,
    _lock: Flock<File>,
}

/// What runs while it is on.
struct Running {
    qemu: Child,
    swtpm: Child,
    agent: Agent,
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in [&mut self.qemu, &mut self.swtpm] {
            let _ = child.kill(); // it may have ended
            let _ = child.wait();
        }
    }
}

impl Machine {
    /// A new machine whose disk is a copy of `tree`, switched off, for the QEMU in the tree `qemu`;
    /// `payload` becomes a second disk. Everything is below `work`, which is emptied.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn new(tree: &Path, qemu: &Path, payload: &Path, work: &Path) -> Result<Machine, String> {
        let lock = locked(work)?;
        let at = |e: std::io::Error| format!("{}: {e}", work.display());
        match std::fs::remove_dir_all(work) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(at(e)),
            _ => std::fs::create_dir_all(work).map_err(at)?,
        }
        let emulator = Emulator::of(tree, qemu, &work.join("kvm.log"))?;
        make_disk(&work.join("root.img"), tree)?;
        make_disk(&work.join("payload.img"), payload)?;
        Ok(Machine {
            work: work.to_path_buf(),
            emulator,
            running: RefCell::new(None),
            _lock: lock,
        })
    }

    /// How the processor is made.
    pub fn processor(&self) -> &'static str {
        self.emulator.processor()
    }

    /// Switches it on with the TPM of this name, which is new at its first use, and waits until it
    /// is up. Says how long that took.
    ///
    /// # Errors
    /// Says what the console said.
    pub fn start(&self, tpm: &str) -> Result<Duration, String> {
        let begun = Instant::now();
        let started = self.power_on(tpm).and_then(|mut running| {
            let answers = wait_until(BOOT_DEADLINE, || {
                !matches!(running.qemu.try_wait(), Ok(None)) || running.agent.answers()
            });
            if let Ok(Some(status)) = running.qemu.try_wait() {
                return Err(format!("QEMU ended ({status})"));
            }
            if !answers {
                return Err(format!("no agent answers after {BOOT_DEADLINE:?}"));
            }
            Ok(running)
        });
        let running =
            started.map_err(|why| format!("{why}; the console said:\n{}", self.console()))?;
        *self.running.borrow_mut() = Some(running);
        let state = self.run(&["systemctl", "is-system-running", "--wait"]);
        match state.stdout.trim() {
            "running" => Ok(begun.elapsed()),
            other => {
                let failed = self.run(&["systemctl", "list-units", "--failed", "--no-legend"]);
                Err(format!(
                    "systemd is {other:?}: {}{}",
                    state.stderr, failed.stdout
                ))
            }
        }
    }

    /// Shuts it down as an administrator would, and waits until it is off.
    ///
    /// # Errors
    /// Says what the console said, if it does not end or QEMU itself failed.
    pub fn stop(&self) -> Result<(), String> {
        let Some(mut running) = self.running.borrow_mut().take() else {
            return Err("the machine is off".to_string());
        };
        // The connection may end before the answer comes.
        let _ = running
            .agent
            .run(COMMAND_DEADLINE, &["systemctl", "reboot"]);
        let ended = |child: &mut Child| -> Option<ExitStatus> {
            wait_for(SHUTDOWN_DEADLINE, || child.try_wait().ok().flatten())
        };
        match ended(&mut running.qemu) {
            Some(status) if status.success() => {}
            Some(status) => return Err(format!("QEMU ended ({status}):\n{}", self.console())),
            None => return Err(format!("it does not shut down:\n{}", self.console())),
        }
        // `--terminate`: it goes when QEMU has gone.
        match ended(&mut running.swtpm) {
            Some(_) => Ok(()),
            None => Err("swtpm goes on without QEMU".to_string()),
        }
    }

    /// Runs a shell script of which the last word is assertctl's or its like: again, while it ends with
    /// [`UNAVAILABLE`], and no longer than [`PATIENCE`].
    pub fn insist(&self, script: &str) -> Outcome {
        let mut last = None;
        let _done = wait_until(PATIENCE, || {
            let outcome = self.sh(script);
            let done = outcome.code != Some(UNAVAILABLE);
            last = Some(outcome);
            done
        });
        last.expect("wait_until asks once at least")
    }

    /// Runs a shell script as root, like [`Site::run`].
    pub fn sh(&self, script: &str) -> Outcome {
        self.run(&["bash", "-euc", script])
    }

    fn power_on(&self, tpm: &str) -> Result<Running, String> {
        let state = self.work.join(tpm);
        std::fs::create_dir_all(&state).map_err(|e| format!("{}: {e}", state.display()))?;
        for socket in ["tpm.sock", "agent.sock"] {
            let _ = std::fs::remove_file(self.work.join(socket)); // of the last time
        }
        let mut swtpm = kept_until_we_end("swtpm")
            .current_dir(&self.work)
            .stderr(self.log("swtpm.log")?)
            .args([
                "socket",
                "--tpm2",
                "--terminate",
                "--flags",
                "not-need-init",
            ])
            .args(["--tpmstate", &format!("dir={tpm},mode=0600")])
            .args(["--ctrl", "type=unixio,path=tpm.sock"])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("swtpm: {e}"))?;
        let qemu = self.there("tpm.sock").and_then(|()| self.qemu());
        let mut qemu = match qemu {
            Ok(qemu) => qemu,
            Err(why) => {
                let _ = swtpm.kill();
                let _ = swtpm.wait();
                return Err(why);
            }
        };
        // Relative: the path of a socket has 107 bytes (unix(7)), and that of a clone may be long.
        let agent = self.there("agent.sock").and_then(|()| {
            let directory = File::open(&self.work).map_err(|e| e.to_string())?;
            let here = format!("/proc/self/fd/{}/agent.sock", fd(&directory));
            // The path is there before anybody listens on it.
            let mut refused = String::new();
            let connected = wait_for(DEADLINE, || match Agent::connect(Path::new(&here)) {
                Ok(agent) => Some(agent),
                Err(error) => {
                    refused = error.to_string();
                    None
                }
            });
            connected.ok_or_else(|| format!("agent.sock: {refused}"))
        });
        match agent {
            Ok(agent) => Ok(Running { qemu, swtpm, agent }),
            Err(why) => {
                for child in [&mut qemu, &mut swtpm] {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                Err(why)
            }
        }
    }

    /// NVMe, ext4 and the TPM's driver are built into Debian's cloud kernels, so that no initial ramdisk
    /// is needed. The second disk is of another kind: which of two NVMe disks is
    /// nvme0 is a matter of chance.
    fn qemu(&self) -> Result<Child, String> {
        let errors = self.log("qemu.log")?;
        let mut command = self.emulator.command(KERNEL);
        command.current_dir(&self.work);
        command.args(["-serial", "file:console.log"]);
        for (name, kind) in [("root", "nvme"), ("payload", "virtio-blk-pci")] {
            let drive = format!("file={name}.img,format=raw,if=none,id={name},cache=unsafe");
            let device = format!("{kind},drive={name},serial={name}");
            command.args(["-drive", &drive, "-device", &device]);
        }
        command
            .args(["-chardev", "socket,id=tpm,path=tpm.sock"])
            .args(["-tpmdev", "emulator,id=tpm,chardev=tpm"])
            .args(["-device", "tpm-tis,tpmdev=tpm"])
            .args([
                "-chardev",
                "socket,id=agent,path=agent.sock,server=on,wait=off",
            ])
            .args(["-device", "virtio-serial-pci", "-device"])
            .arg("virtserialport,chardev=agent,name=org.qemu.guest_agent.0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("qemu-system-x86_64: {e}"))
    }

    fn log(&self, name: &str) -> Result<File, String> {
        File::create(self.work.join(name)).map_err(|e| format!("{name}: {e}"))
    }

    fn there(&self, name: &str) -> Result<(), String> {
        match wait_until(DEADLINE, || self.work.join(name).exists()) {
            true => Ok(()),
            false => Err(format!("{name} does not appear: {}", self.console())),
        }
    }

    /// The last lines of what QEMU and the kernel said.
    fn console(&self) -> String {
        let mut said = String::new();
        for name in ["swtpm.log", "qemu.log", "console.log"] {
            let bytes = std::fs::read(self.work.join(name)).unwrap_or_default();
            said += &String::from_utf8_lossy(&bytes);
        }
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
    }
}

impl Site for Machine {
    fn run(&self, command: &[&str]) -> Outcome {
        match self.running.borrow_mut().as_mut() {
            Some(running) => running.agent.run(COMMAND_DEADLINE, command),
            None => Outcome {
                code: None,
                stdout: String::new(),
                stderr: "the machine is off".to_string(),
            },
        }
    }
}

/// Two runs at once would write the same files.
fn locked(work: &Path) -> Result<Flock<File>, String> {
    let path = work.with_extension("lock");
    let at = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above).map_err(at)?;
    }
    let file = File::create(&path).map_err(at)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| format!("another run holds {}", path.display()))
}

/// An ext4 file system with a directory's files in it and [`ROOM_MIB`] free.
fn make_disk(image: &Path, directory: &Path) -> Result<(), String> {
    let used = Command::new("du")
        .args(["--summarize", "--block-size=1M"])
        .arg(directory)
        .output()
        .map_err(|e| format!("du: {e}"))?;
    let used = String::from_utf8_lossy(&used.stdout);
    let used: u64 = used
        .split_whitespace()
        .next()
        .and_then(|mib| mib.parse().ok())
        .ok_or_else(|| format!("{}: no size", directory.display()))?;
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(directory)
        .arg(image)
        .arg(format!("{}M", used + used / 10 + ROOM_MIB))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("mke2fs: {e}"))?;
    match made.status.success() {
        true => Ok(()),
        false => Err(format!("mke2fs: {}", String::from_utf8_lossy(&made.stderr))),
    }
}

fn fd(file: &File) -> i32 {
    use std::os::fd::AsRawFd;
    file.as_raw_fd()
}
