//! swtpm, a TPM 2.0 in software (libtpms): started, killed and started again on the same state,
//! reached by TCP, or behind a device node ([`Device`]). Three slots for objects, three for sessions
//! and no resource manager, so that a leak of ours is felt at once.

mod authority;
mod device;

pub use authority::Authority;
pub use device::Device;

use crate::DEADLINE;
use keystore::tcti::Tcti;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// First port; each swtpm of a process has two of its own.
const PORT: u16 = 2321;

/// One TPM. It is ended when the value is dropped; its state stays in its directory.
pub struct Swtpm {
    state: PathBuf,
    host: IpAddr,
    port: u16,
    child: Option<Child>,
}

impl Swtpm {
    /// A new TPM with its state in `dir`.
    pub fn start(dir: &Path) -> Swtpm {
        Swtpm::start_as(dir, |_| {})
    }

    /// The same, with certificates of its maker.
    pub fn start_with_certificates(dir: &Path, maker: &Authority) -> Swtpm {
        Swtpm::start_as(dir, |state| maker.manufacture(state))
    }

    fn start_as(dir: &Path, manufacture: impl FnOnce(&Path)) -> Swtpm {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let state = dir.join("swtpm");
        std::fs::create_dir_all(&state).unwrap();
        manufacture(&state);
        let mut swtpm = Swtpm {
            state,
            host: own_address(),
            port: PORT + 2 * NEXT.fetch_add(1, Ordering::Relaxed),
            child: None,
        };
        swtpm.power_on();
        swtpm
    }

    /// How the keystore reaches it.
    pub fn tcti(&self) -> Tcti {
        Tcti::Swtpm {
            host: self.host,
            port: self.port,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> (IpAddr, u16) {
        (self.host, self.port)
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it is off.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is on").id()
    }

    /// Ends it as a power cut would.
    pub fn power_off(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it on the same state and waits until it listens.
    pub fn power_on(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let socket = |port: u16| format!("type=tcp,bindaddr={},port={port}", self.host);
        let child = kept_until_we_end("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--server", &socket(self.port)])
            .args(["--ctrl", &socket(self.port + 1)])
            .arg("--tpmstate")
            .arg(format!("dir={},mode=0600", self.state.display()))
            .stdin(Stdio::null())
            .spawn()
            .expect("setpriv and swtpm are installed by `make setup`");
        self.child = Some(child);
        let listens = crate::wait_until(DEADLINE, || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert_eq!(ended, None, "swtpm has ended");
            // It listens on the control port first; a connection that says nothing is no harm.
            let listens_on = |port| TcpStream::connect((self.host, port)).is_ok();
            listens_on(self.port + 1) && listens_on(self.port)
        });
        assert!(listens, "swtpm does not listen");
    }

    /// Resets it while it runs, as a host that is started anew does: CMD_INIT on its control port
    /// (swtpm_ioctls.h), then the TPM2_Startup(CLEAR) of the firmware. Connections stay.
    pub fn reset(&self) {
        const CMD_INIT: [u8; 8] = [0, 0, 0, 2, 0, 0, 0, 0]; // command, flags
        const STARTUP: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
        let ask = |port: u16, command: &[u8], answer: &mut [u8]| {
            let mut stream = TcpStream::connect((self.host, port)).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(command).unwrap();
            stream.read_exact(answer).unwrap();
        };
        let mut result = [0; 4];
        ask(self.port + 1, &CMD_INIT, &mut result);
        assert_eq!(result, [0; 4], "CMD_INIT");
        let mut started = [0; 10];
        ask(self.port, &STARTUP, &mut started);
        let rc = u32::from_be_bytes([started[6], started[7], started[8], started[9]]);
        // TPM_RC_INITIALIZE: somebody was faster.
        assert!(matches!(rc, 0 | 0x100), "TPM2_Startup: {rc:#x}");
    }

    /// Puts another TPM in its place, which answers at the same address.
    pub fn replace(&mut self) {
        self.power_off();
        std::fs::remove_dir_all(&self.state).unwrap();
        std::fs::create_dir(&self.state).unwrap();
        self.power_on();
    }

    /// Off and on: the state is kept, what was loaded is gone.
    pub fn restart(&mut self) {
        self.power_off();
        self.power_on();
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// A program that is killed with us, however we end.
pub fn kept_until_we_end(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// A loopback address that no other process of this machine has: made of our process id, so that
/// ports need not be looked for.
fn own_address() -> IpAddr {
    let [high, a, b, c] = std::process::id().to_be_bytes();
    assert_eq!(high, 0, "process ids have 22 bits");
    // 127.0.0.x is where others listen.
    IpAddr::V4(Ipv4Addr::new(127, 64 | a, b, c))
}
