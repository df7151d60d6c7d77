//! Stands between a keystore and swtpm, relays both ports, counts the commands, and spoils what a
//! file of rules says ([`rules`] has its lines). Connections come and go, several at a time, and
//! swtpm may be ended and started behind it: it is asked on a new connection for each command.
//!
//! A TPM command is `tag(2) size(4) code(4) …`, an answer the same with its response code
//! (TPM 2.0 part 1, §18). What goes through the control port is not looked at.

mod commands;
mod relay;
pub mod rules;

use crate::swtpm::Swtpm;
use crate::{DEADLINE, wait_until};
use commands::Scope;
use keystore::tcti::Tcti;
use relay::Shared;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use tempfile::TempDir;

/// Ports that are looked at for two free ones; swtpm of this process has others.
const PORTS: std::ops::Range<u16> = 3000..4000;

/// A running proxy. When it is dropped nobody listens any more, as without a TPM.
pub struct TpmProxy {
    host: IpAddr,
    port: u16,
    shared: Arc<Shared>,
    acceptors: Vec<JoinHandle<()>>,
    dir: TempDir,
}

impl TpmProxy {
    /// In front of that TPM, without rules.
    pub fn before(swtpm: &Swtpm) -> TpmProxy {
        let dir = tempfile::tempdir().unwrap();
        let (host, behind) = swtpm.address();
        let (data, control) = listeners(host);
        let port = data.local_addr().unwrap().port();
        let shared = Arc::new(Shared::new((host, behind), dir.path().join("rules")));
        let acceptors = vec![
            relay::accept(data, shared.clone(), relay::commands),
            relay::accept(control, shared.clone(), relay::control),
        ];
        TpmProxy {
            host,
            port,
            shared,
            acceptors,
            dir,
        }
    }

    /// How a keystore reaches the TPM through it.
    pub fn tcti(&self) -> Tcti {
        Tcti::Swtpm {
            host: self.host,
            port: self.port,
        }
    }

    /// The file of rules, for somebody else to replace. A line in it that is no rule ends this
    /// process, so that no test passes because of a typo.
    pub fn rules_file(&self) -> PathBuf {
        self.dir.path().join("rules")
    }

    /// Replaces the rules; empty text takes all away. Calls are counted anew.
    ///
    /// # Panics
    /// If a line is no rule.
    pub fn rules(&self, text: &str) {
        if let Err(line) = rules::check(text) {
            panic!("not a rule: {line}");
        }
        crate::replace_file(&self.rules_file(), text);
    }

    /// How many commands of this name came, `*` of all.
    pub fn seen(&self, command: &str) -> u64 {
        self.shared.tally(|tally| &tally.seen, scope(command))
    }

    /// How many of them were spoilt, or at least delayed: the evidence that a fault was there.
    pub fn fired(&self, command: &str) -> u64 {
        self.shared.tally(|tally| &tally.fired, scope(command))
    }

    /// Waits until so many commands of this name have been spoilt since the start.
    #[track_caller]
    pub fn wait_fired(&self, command: &str, times: u64) {
        let fired = wait_until(DEADLINE, || self.fired(command) >= times);
        let count = self.fired(command);
        assert!(fired, "{command}: a rule fired {count} times, not {times}");
    }

    /// Whether these bytes were in a command, as somebody with a probe on the bus sees it.
    pub fn has_seen(&self, bytes: &[u8]) -> bool {
        self.shared.has_seen(bytes)
    }
}

impl Drop for TpmProxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for (acceptor, port) in self.acceptors.drain(..).zip(self.port..) {
            let _woken = TcpStream::connect((self.host, port)); // to see that it is to end
            let _ = acceptor.join();
        }
    }
}

fn scope(command: &str) -> Scope {
    Scope::parse(command).unwrap_or_else(|| panic!("{command}: no command that rules can name"))
}

/// Two ports one after the other, on an address that is ours alone.
fn listeners(host: IpAddr) -> (TcpListener, TcpListener) {
    PORTS
        .step_by(2)
        .find_map(|port| {
            let data = TcpListener::bind((host, port)).ok()?;
            Some((data, TcpListener::bind((host, port + 1)).ok()?))
        })
        .expect("of a thousand ports two are free")
}

#[cfg(test)]
mod tests;
