//! The maker of a swtpm, with a certification authority of its own (swtpm_setup, swtpm_localca): it gives
//! a new TPM certificates of its endorsement keys.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A maker; its keys are in a directory of the test.
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// A new one, whose keys are made with its first TPM.
    pub fn new(dir: &Path) -> Authority {
        let dir = dir.join("authority");
        std::fs::create_dir_all(&dir).unwrap();
        let at = |name: &str| dir.join(name).display().to_string();
        let authority = format!(
            "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
            dir.display(),
            at("signkey.pem"),
            at("issuercert.pem"),
            at("certserial")
        );
        std::fs::write(dir.join("localca.conf"), authority).unwrap();
        let setup = format!(
            "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\n\
             create_certs_tool_options = {}\n",
            at("localca.conf"),
            at("localca.options")
        );
        std::fs::write(dir.join("setup.conf"), setup).unwrap();
        let options = "--platform-manufacturer assertd\n--platform-version 1\n\
                       --platform-model tests\n";
        std::fs::write(dir.join("localca.options"), options).unwrap();
        Authority { dir }
    }

    /// The root that verifiers trust, PEM.
    pub fn root(&self) -> PathBuf {
        self.dir.join("swtpm-localca-rootca-cert.pem")
    }

    /// The certificate that signs those of TPMs, PEM.
    pub fn issuer(&self) -> PathBuf {
        self.dir.join("issuercert.pem")
    }

    /// Makes a TPM in this directory, with a certificate of its RSA key in NV.
    pub(super) fn manufacture(&self, state: &Path) {
        let output = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--pcr-banks", "sha256,sha384"])
            .arg("--tpmstate")
            .arg(format!("dir://{}", state.display()))
            .arg("--config")
            .arg(self.dir.join("setup.conf"))
            .stdin(Stdio::null())
            .output()
            .expect("swtpm_setup is installed by `make setup`");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "swtpm_setup: {said}");
    }
}
