//! Keystores with a fault tool in between: a SoftHSM token behind the shim, a TPM behind the proxy.
//! Both are told what to do by rules that may be replaced at any time, and both say how often a rule
//! really fired, without which a test of a fault proves nothing.

use crate::token::{Keystore, pkcs11_section, tpm_section};
use crate::tpmproxy::TpmProxy;
use crate::user::give_to;
use crate::{DEADLINE, SoftHsm, Tpm, public_dir, wait_until};
use pkcs11_shim::counts::Counts;
pub use pkcs11_shim::functions::Function;
use pkcs11_shim::rules;
use std::path::PathBuf;
use tempfile::TempDir;

/// A SoftHSM token whose module is the shim; must outlive the daemon that uses it.
pub struct Shimmed {
    token: SoftHsm,
    dir: TempDir,
    counts: Counts,
}

impl Shimmed {
    /// A fresh token, and no rules.
    pub fn new() -> Shimmed {
        Shimmed::before(SoftHsm::new())
    }

    /// A fresh one that belongs to `uid`.
    pub fn of_user(uid: u32) -> Shimmed {
        let shimmed = Shimmed::before(SoftHsm::of_user(uid));
        give_to(shimmed.dir.path(), uid);
        shimmed
    }

    /// In front of a token that is there.
    pub fn before(token: SoftHsm) -> Shimmed {
        let dir = public_dir();
        let counts = Counts::open(&dir.path().join("counts")).unwrap();
        Shimmed { token, dir, counts }
    }

    /// The token behind the shim, which other programs use without it.
    pub fn token(&self) -> &SoftHsm {
        &self.token
    }

    /// The file of rules ([`pkcs11_shim::rules`] has its lines).
    pub fn rules_file(&self) -> PathBuf {
        self.dir.path().join("rules")
    }

    /// Replaces the rules; empty text takes all away. Calls are counted anew.
    ///
    /// # Panics
    /// If a line is no rule.
    #[track_caller]
    pub fn rules(&self, text: &str) {
        if let Err(line) = rules::check(text) {
            panic!("not a rule: {line}");
        }
        crate::replace_file(&self.rules_file(), text);
    }

    /// Calls of this function so far, of all processes.
    pub fn calls(&self, function: Function) -> u64 {
        self.counts.of(function)
    }

    /// Those of them that a rule spoilt: the evidence that a fault was there.
    pub fn fired(&self, function: Function) -> u64 {
        self.counts.fired(function)
    }

    /// Calls of all functions that a rule spoilt.
    pub fn fired_any(&self) -> u64 {
        self.counts.fired_any()
    }

    /// Calls so far that make, change or destroy something.
    pub fn changes(&self) -> u64 {
        self.counts.changes()
    }

    /// Waits until so many calls of this function have been spoilt since the start.
    #[track_caller]
    pub fn wait_fired(&self, function: Function, times: u64) {
        let fired = wait_until(DEADLINE, || self.fired(function) >= times);
        let (name, count) = (function.name(), self.fired(function));
        assert!(fired, "{name}: a rule fired {count} times, not {times}");
    }

    /// What the module is told by its environment.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("SOFTHSM2_CONF", self.token.conf()),
            ("P11SHIM_REAL", self.token.module().to_owned()),
            ("P11SHIM_RULES", self.rules_file()),
            ("P11SHIM_COUNTS", self.dir.path().join("counts")),
        ]
    }
}

impl Default for Shimmed {
    fn default() -> Shimmed {
        Shimmed::new()
    }
}

impl Keystore for Shimmed {
    fn section(&self) -> String {
        // The keystore's sandbox lets the module use what `module_state` names, and nothing else.
        let state = [self.token.state(), self.dir.path().to_owned()];
        let module = pkcs11_shim::module_path();
        pkcs11_section(&self.token, &module, &self.environment(), &state)
    }
}

/// A TPM that is reached through the proxy; must outlive the daemon that uses it.
pub struct Proxied {
    /// The faults.
    pub proxy: TpmProxy,
    /// The TPM behind it, to be ended, started and reset.
    pub tpm: Tpm,
}

impl Proxied {
    /// A new TPM, and no rules.
    pub fn new() -> Proxied {
        Proxied::before(Tpm::new())
    }

    /// In front of a TPM that is there.
    pub fn before(mut tpm: Tpm) -> Proxied {
        Proxied {
            proxy: TpmProxy::before(tpm.swtpm()),
            tpm,
        }
    }
}

impl Default for Proxied {
    fn default() -> Proxied {
        Proxied::new()
    }
}

impl Keystore for Proxied {
    fn section(&self) -> String {
        tpm_section(&self.proxy.tcti(), &self.tpm)
    }
}
