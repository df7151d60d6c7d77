//! The maker of a swtpm, with a certification authority of its own (swtpm_setup, swtpm_localca): it gives
//! a new TPM certificates of its endorsement keys.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a certificate of a P-256 endorsement key is in NV.
const CERTIFICATE_P256: &str = "0x1c0000a";

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
    /// Gives this TPM a certificate of its P-256 endorsement key as well, in NV where the TCG EK Credential
    /// Profile 2.5 §2.2.1.4 has it: as most chips have, and as swtpm_setup does not know how to.
    pub fn certify_p256(&self, tcti: &str) {
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program)
                .args(arguments)
                .current_dir(&self.dir)
                .env("TPM2TOOLS_TCTI", tcti)
                .stdin(Stdio::null())
                .output()
                .expect("tpm2-tools and swtpm are installed by `make setup`");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments:?}: {said}");
        };
        let key = "-G ecc -c ek.ctx -f pem -u ek.pem";
        run("tpm2_createek", &key.split(' ').collect::<Vec<_>>());
        let certificate = "--tpm2 --pubkey ek.pem --signkey signkey.pem --issuercert issuercert.pem --days 3650 \
                           --tpm-manufacturer id:00001014 --tpm-model swtpm --tpm-version id:20191023 \
                           --tpm-spec-family 2.0 --tpm-spec-level 0 --tpm-spec-revision 164 \
                           --subject CN=p256 --serial 256 --decryption --out-cert ek.der";
        let words: Vec<_> = certificate.split_whitespace().collect();
        run("swtpm_cert", &words);
        let size = std::fs::metadata(self.dir.join("ek.der")).unwrap().len();
        let place =
            format!("-C o -s {size} -a ownerread|ownerwrite|authread|no_da {CERTIFICATE_P256}");
        run("tpm2_nvdefine", &place.split(' ').collect::<Vec<_>>());
        let written = format!("-C o -i ek.der {CERTIFICATE_P256}");
        run("tpm2_nvwrite", &written.split(' ').collect::<Vec<_>>());
    }
}
