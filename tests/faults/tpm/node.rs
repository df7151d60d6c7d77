//! A device node that behaves like `/dev/tpmrm0` as far as a program can see who else is there: others
//! use the TPM behind it. A pseudo terminal whose other end carries each command to a TPM's data port,
//! where others ask too, and whose name is a link called `tpmrm0`.
//!
//! It is no resource manager: what somebody leaves in the TPM stays there, as with programs that go
//! around the manager. So a TPM that is full can be had behind it.

use super::scene::tool;
use harness::fault::Proxied;
use harness::public_dir;
use harness::token::{Keystore, tpm_section};
use keystore::tcti::Tcti;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{Read, Result, Write};
use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use tempfile::TempDir;

/// `tag(2) size(4) code(4)`
const HEAD_LEN: usize = 10;

/// A TPM that is reached by such a node, through the proxy.
pub struct Shared {
    /// Has the link.
    dir: TempDir,
    /// The terminal goes away with its last holder.
    _slave: OwnedFd,
    pub tpm: Proxied,
}

impl Shared {
    /// A new TPM.
    pub fn new() -> Shared {
        let (tpm, dir) = (Proxied::new(), public_dir());
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        for end in [&master, &slave] {
            let mut settings = tcgetattr(end).unwrap();
            cfmakeraw(&mut settings);
            tcsetattr(end, SetArg::TCSANOW, &settings).unwrap();
        }
        let node = nix::unistd::ttyname(&slave).unwrap();
        std::os::unix::fs::symlink(node, dir.path().join("tpmrm0")).unwrap();
        let Tcti::Swtpm { host, port } = tpm.proxy.tcti() else {
            unreachable!("the proxy listens on TCP");
        };
        let mut master = File::from(master);
        // Ends with this process: the slave is never closed before.
        std::thread::spawn(move || while carry(&mut master, (host, port)).is_ok() {});
        Shared {
            dir,
            _slave: slave,
            tpm,
        }
    }

    /// Takes out of the TPM what the keystore had in it, as the kernel does when a program closes the
    /// node (tpm2-space.c).
    pub fn flush_as_closed(&self) {
        for kind in ["--transient-object", "--loaded-session"] {
            tool(&self.tpm.tpm.tcti(), "tpm2_flushcontext", &[kind]);
        }
    }
}

impl Keystore for Shared {
    fn section(&self) -> String {
        let tcti = Tcti::Device(self.dir.path().join("tpmrm0"));
        tpm_section(&tcti, &self.tpm.tpm)
    }
}

/// One command to the TPM, and its answer back.
fn carry(node: &mut File, tpm: (IpAddr, u16)) -> Result<()> {
    let command = message(node)?;
    let mut tpm = TcpStream::connect(tpm)?;
    tpm.write_all(&command)?;
    node.write_all(&message(&mut tpm)?)
}

fn message(from: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD_LEN];
    from.read_exact(&mut bytes)?;
    let size = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
    bytes.resize(usize::try_from(size).unwrap(), 0);
    from.read_exact(&mut bytes[HEAD_LEN..])?;
    Ok(bytes)
}
