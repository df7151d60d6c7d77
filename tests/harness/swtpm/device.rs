//! swtpm behind a device node, without a kernel that has a TPM: swtpm on one end of a pseudo
//! terminal, and the other end opened as if it were `/dev/tpm0`.

use super::kept_until_we_end;
use keystore::tcti::Tcti;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// A TPM with a device node; ended when dropped, its state stays in its directory.
pub struct Device {
    child: Child,
    node: PathBuf,
    /// The terminal goes away with its last holder.
    _slave: OwnedFd,
}

impl Device {
    /// With its state in `dir`, where it may have been before.
    pub fn start(dir: &Path) -> Device {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        for end in [&master, &slave] {
            let mut settings = tcgetattr(end).unwrap();
            cfmakeraw(&mut settings);
            tcsetattr(end, SetArg::TCSANOW, &settings).unwrap();
        }
        let node = nix::unistd::ttyname(&slave).unwrap();
        let state = dir.join("swtpm");
        std::fs::create_dir_all(&state).unwrap();
        let child = kept_until_we_end("swtpm")
            .args([
                "chardev",
                "--tpm2",
                "--fd",
                &master.as_raw_fd().to_string(),
                "--flags",
                "not-need-init,startup-clear",
            ])
            .arg("--tpmstate")
            .arg(format!("dir={},mode=0600", state.display()))
            .stdin(Stdio::null())
            .spawn()
            .expect("setpriv and swtpm are installed by `make setup`");
        drop(master); // swtpm has its own, since openpty(3) does not set close-on-exec
        Device {
            child,
            node,
            _slave: slave,
        }
    }

    /// Where it is.
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// How the keystore reaches it.
    pub fn tcti(&self) -> Tcti {
        Tcti::Device(self.node.clone())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
