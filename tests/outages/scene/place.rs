//! One assertd with a token of SoftHSM behind the shim and a TPM of swtpm behind the proxy, and a
//! target in each, whose name is the keystore's.

use harness::fault::{Proxied, Shimmed};
use harness::{Config, Daemon, process};

/// The keystores' names.
pub const HSM: &str = "hsm";
pub const TPM: &str = "tpm";

/// A rate that is never reached.
const NO_LIMIT: &str = "rate = 100000\nburst = 100000";

/// The tokens outlive the daemon that uses them.
pub struct Place {
    pub daemon: Daemon,
    pub hsm: Shimmed,
    pub tpm: Proxied,
    pid: u32,
}

impl Place {
    /// With keys, and both keystores in service.
    pub fn new() -> Place {
        let (hsm, tpm) = (Shimmed::new(), Proxied::new());
        let uid = nix::unistd::geteuid().as_raw();
        let mut config = Config::default()
            .keystore(HSM, &hsm, "")
            .keystore(TPM, &tpm, "")
            .workload("client", uid, NO_LIMIT);
        for name in [HSM, TPM] {
            config = config.target("client", name, &format!("keystore = \"{name}\""));
        }
        let daemon = Daemon::with_keys(config);
        for name in [HSM, TPM] {
            daemon.wait_served(name);
        }
        let pid = daemon.pid();
        Place {
            daemon,
            hsm,
            tpm,
            pid,
        }
    }

    /// How often assertd had to be started again: nobody does it here, so that it either still runs
    /// or is gone.
    pub fn assertd_restarts(&self) -> u64 {
        let same = process::runs(self.pid) && self.daemon.status().pid == self.pid;
        u64::from(!same)
    }

    /// How often a keystore's process was started again so far.
    pub fn keystore_restarts(&self, name: &str) -> u64 {
        let keystore = self.daemon.keystore(name);
        keystore.expect("it is configured").restarts
    }
}
