//! A TPM in the box, at the place where a machine has its own. swtpm answers at one end of a
//! pseudo terminal of the box, whose other end is mounted over `/dev/tpmrm0`; the number of that node
//! is a terminal's, which is what the unit's device list then lets in. What only a kernel's driver
//! has (sysfs, its resource manager) is tried in a virtual machine.

use crate::boxed::{BUILD, SysBox};
use harness::DEADLINE;
use harness::swtpm::Device;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::sync::mpsc;

/// By which this program is told, in the box, to be the TPM ([`serve`]).
pub const ARGUMENT: &str = "--chip";

/// Where the node is.
pub const NODE: &str = "/dev/tpmrm0";

/// Where its state is, in the box.
const STATE: &str = "/root/chip";

/// One TPM; it is gone when the value is dropped.
pub struct Chip<'a> {
    boxed: &'a SysBox,
    server: Child,
    /// What it says: one path for each time it is switched on.
    nodes: mpsc::Receiver<String>,
}

/// In the box: starts swtpm and says where; anew for each line that it reads, until there is no more.
pub fn serve() -> ExitCode {
    let mut lines = std::io::stdin().lines();
    loop {
        let device = Device::start(Path::new(STATE));
        println!("{}", device.node().display());
        match lines.next() {
            Some(Ok(_)) => drop(device),
            Some(Err(_)) | None => return ExitCode::SUCCESS,
        }
    }
}

impl<'a> Chip<'a> {
    /// Starts it, with a node that is root's alone, as it is without udev's rules.
    pub fn start(boxed: &'a SysBox) -> Result<Chip<'a>, String> {
        let program = format!("{BUILD}/units");
        let mut server = boxed.command(&[&program, ARGUMENT]);
        let server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut server = server.map_err(|e| format!("{program}: {e}"))?;
        let (said, (send, nodes)) = (server.stdout.take(), mpsc::channel());
        std::thread::spawn(move || {
            let lines = said.map(|said| BufReader::new(said).lines());
            let mut lines = lines.into_iter().flatten().map_while(Result::ok);
            lines.all(|line| send.send(line).is_ok())
        });
        let chip = Chip {
            boxed,
            server,
            nodes,
        };
        chip.mount()?;
        chip.open_to("root:root", "600")?;
        Ok(chip)
    }

    /// Switches it off and on: what was loaded in it is gone, as a resource manager has it when a
    /// program closes the device.
    pub fn power_cycle(&mut self) -> Result<(), String> {
        self.unmount()?;
        let stdin = self.server.stdin.as_mut().ok_or("it has ended")?;
        let told = stdin.write_all(b"again\n");
        told.map_err(|e| format!("telling the TPM: {e}"))?;
        self.mount()?;
        self.open_to("root:tss", "660")
    }

    /// Gives the node an owner and a mode.
    pub fn open_to(&self, owner: &str, mode: &str) -> Result<(), String> {
        let script = format!("chown {owner} {NODE} && chmod {mode} {NODE}");
        self.boxed.sh(&script).success().map(drop)
    }

    fn mount(&self) -> Result<(), String> {
        let none = |_| "no swtpm in the box; run: apt-get install swtpm".to_owned();
        let node = self.nodes.recv_timeout(DEADLINE).map_err(none)?;
        let mount = format!("touch {NODE} && mount --bind {node} {NODE}");
        self.boxed.sh(&mount).success().map(drop)
    }

    /// A keystore may have it open still, and would wait for an answer.
    fn unmount(&self) -> Result<(), String> {
        let unmount = format!("umount -l {NODE} && rm -f {NODE}");
        self.boxed.sh(&unmount).success().map(drop)
    }
}

impl Drop for Chip<'_> {
    fn drop(&mut self) {
        let _ = self.unmount(); // it may not have been mounted
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}
