//! QEMU, that of Debian 13's tree with its own libraries, whichever tree is booted: on processors that
//! Debian 12's (7.2) emulates, kernels end in a double fault after cmpxchg16b.
//!
//! KVM where a kernel really runs in it. A device node proves nothing inside some virtual machines,
//! where the first unusual instruction stops the processor.

use harness::swtpm::kept_until_we_end;
use harness::wait_for;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A kernel without a disk panics within a second or two where KVM works.
const KVM_DEADLINE: Duration = Duration::from_secs(15);

/// `panic=-1` and `-no-reboot`: a panic ends QEMU at once.
const ALWAYS: &str = "console=ttyS0 panic=-1 quiet";

/// QEMU, and the kernel that it boots.
pub struct Emulator {
    /// That QEMU is in.
    tree: PathBuf,
    kernel: PathBuf,
    kvm: bool,
}

impl Emulator {
    /// The kernel of one tree and the QEMU of another, or of the same; `console` is for what the kernel
    /// says that tries KVM.
    ///
    /// # Errors
    /// A tree has no kernel or no QEMU.
    pub fn of(booted: &Path, qemu: &Path, console: &Path) -> Result<Emulator, String> {
        let missing = |what: &str, tree: &Path| {
            let tree = tree.display();
            format!("no {what} in {tree}; run: tests/setup/tree.sh SUITE {tree} vm")
        };
        let kernel = booted.canonicalize().ok().and_then(|tree| kernel_of(&tree));
        let mut emulator = Emulator {
            kernel: kernel.ok_or_else(|| missing("kernel", booted))?,
            tree: qemu.canonicalize().map_err(|_| missing("QEMU", qemu))?,
            kvm: true,
        };
        if !emulator.tree.join("usr/bin/qemu-system-x86_64").exists() {
            return Err(missing("QEMU", qemu));
        }
        emulator.kvm = emulator.runs_a_kernel(console);
        Ok(emulator)
    }

    /// How the processor is made.
    pub fn processor(&self) -> &'static str {
        match self.kvm {
            true => "a processor by KVM",
            false => "an emulated processor, as KVM runs no kernel here",
        }
    }

    /// QEMU with this kernel command line and nothing but processors and memory. It is killed when
    /// we end.
    pub fn command(&self, kernel: &str) -> Command {
        let usr = self.tree.join("usr");
        // Its own loader: the C library outside is older.
        let loader = usr.join("lib64/ld-linux-x86-64.so.2");
        let mut command = kept_until_we_end("env");
        command.arg(loader).arg("--library-path");
        command.arg(usr.join("lib/x86_64-linux-gnu"));
        command.arg(usr.join("bin/qemu-system-x86_64"));
        for firmware in ["share/qemu", "share/seabios"] {
            command.arg("-L").arg(usr.join(firmware));
        }
        command.args(match self.kvm {
            true => ["-accel", "kvm", "-cpu", "host"],
            false => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        });
        command.args(["-machine", "pc,usb=off", "-m", "1024", "-smp", "2"]);
        command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(&self.kernel);
        command.arg("-append").arg(format!("{ALWAYS} {kernel}"));
        command
    }

    fn runs_a_kernel(&self, console: &Path) -> bool {
        let device = File::options().read(true).write(true).open("/dev/kvm");
        if device.is_err() {
            return false;
        }
        let mut command = self.command("");
        command.args(["-serial", &format!("file:{}", console.display())]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let Ok(mut qemu) = command.stderr(Stdio::null()).spawn() else {
            return false;
        };
        let ended = wait_for(KVM_DEADLINE, || qemu.try_wait().ok().flatten());
        let _ = qemu.kill(); // it may have ended
        let _ = qemu.wait();
        let said = std::fs::read(console).unwrap_or_default();
        ended.is_some_and(|status| status.success())
            && String::from_utf8_lossy(&said).contains("Kernel panic")
    }
}

/// The one kernel in a tree.
fn kernel_of(tree: &Path) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(tree.join("boot")).ok()?;
    entries.find_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        name.starts_with("vmlinuz").then_some(path)
    })
}
