//! A keystore with a TPM: its node, its secret, what its unit lets in. None of it needs a TPM: the
//! doctor asks none, and in its place stands a node of another device. Each is planted, found with its
//! remedy, and gone once the remedy is done.

use super::fault::{Fault, Mend};

/// Begins every plant: the section, and a node that its user may open.
macro_rules! with_keystore {
    ($more:literal) => {
        concat!(
            "printf '\\n[keystore.tpm]\\nbackend = \"tpm\"\\nsocket = \
               \"/run/assertd/keystore-tpm.sock\"\\n' >> /etc/assertd/assertd.toml
             mknod /dev/tpmrm0 c 1 3; chown root:tss /dev/tpmrm0; chmod 660 /dev/tpmrm0
             head -c 32 /dev/urandom | systemd-creds encrypt --with-key=host --name=tpm.auth - \
               /etc/credstore.encrypted/assertd.tpm.auth\n",
            $more
        )
    };
}

/// What all of them leave.
const RESTORE: &str = "cp -p /tmp/good.toml /etc/assertd/assertd.toml
    rm -f /dev/tpmrm0 /dev/tpmrm7 /etc/credstore.encrypted/assertd.tpm.auth* /etc/assertd/tpm.auth
    rm -rf /etc/systemd/system/assertd-keystore-tpm@tpm.service.d /var/lib/assertd-keystore/tpm
    systemctl disable --now assertd-keystore-tpm@tpm.socket
    systemctl stop assertd-keystore-tpm@tpm.service; systemctl daemon-reload
    systemctl reset-failed";

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "the TPM's secret is missing, and no key depends on it",
        plant: with_keystore!("rm /etc/credstore.encrypted/assertd.tpm.auth"),
        id: "D20",
        severity: "fail",
        phrase: "run `assertctl init --yes --name tpm`",
        mend: Mend::Remedy,
        restore: RESTORE,
    },
    Fault {
        name: "the TPM's secret is missing, and keys depend on it",
        plant: with_keystore!(
            "mv /etc/credstore.encrypted/assertd.tpm.auth /root/
             mkdir -p /var/lib/assertd-keystore/tpm/keys
             touch /var/lib/assertd-keystore/tpm/keys/00112233445566778899aabbccddeeff.pem"
        ),
        id: "D20",
        severity: "fail",
        phrase: "bring /etc/credstore.encrypted/assertd.tpm.auth back from a backup of this host",
        mend: Mend::Person("mv /root/assertd.tpm.auth /etc/credstore.encrypted/"),
        restore: RESTORE,
    },
    Fault {
        name: "the TPM's secret was made for another name",
        plant: with_keystore!(
            "head -c 32 /dev/urandom | systemd-creds encrypt --name=auth - \
               /etc/credstore.encrypted/assertd.tpm.auth"
        ),
        id: "D21",
        severity: "fail",
        phrase: "mv /etc/credstore.encrypted/assertd.tpm.auth \
                 /etc/credstore.encrypted/assertd.tpm.auth.old",
        mend: Mend::Remedy,
        restore: RESTORE,
    },
    Fault {
        name: "the TPM's secret is a password of somebody's",
        plant: with_keystore!(
            "printf secret | systemd-creds encrypt --name=tpm.auth - \
               /etc/credstore.encrypted/assertd.tpm.auth"
        ),
        id: "D21",
        severity: "fail",
        phrase: "run `mv /etc/credstore.encrypted/assertd.tpm.auth",
        mend: Mend::Remedy,
        restore: RESTORE,
    },
    Fault {
        name: "the TPM's secret comes from a credential that no unit loads",
        plant: with_keystore!(
            "sed -i '$a auth = { credential = \"other\" }' /etc/assertd/assertd.toml"
        ),
        id: "D22",
        severity: "fail",
        phrase: "write `auth = { credential = \"tpm.auth\" }` in [keystore.tpm]",
        mend: Mend::WriteThenRemedy(
            "sed -i 's/^auth = .*/auth = { credential = \"tpm.auth\" }/' /etc/assertd/assertd.toml",
        ),
        restore: RESTORE,
    },
    Fault {
        name: "the TPM's secret is a file with another length",
        plant: with_keystore!(
            "sed -i '$a auth = { file = \"/etc/assertd/tpm.auth\" }' /etc/assertd/assertd.toml
             printf secret | install -m 0400 -o assertd-tpm /dev/stdin /etc/assertd/tpm.auth"
        ),
        id: "D23",
        severity: "fail",
        phrase: "head -c 32 /dev/urandom | install -m 0400 -o assertd-tpm",
        mend: Mend::Remedy,
        restore: RESTORE,
    },
    Fault {
        name: "there is no TPM",
        plant: with_keystore!("rm /dev/tpmrm0"),
        id: "D24",
        severity: "fail",
        phrase: "firmware's setup",
        mend: Mend::Person("cp -p /tmp/good.toml /etc/assertd/assertd.toml"),
        restore: RESTORE,
    },
    Fault {
        name: "the TPM is root's alone",
        plant: with_keystore!("chown root:root /dev/tpmrm0"),
        id: "D25",
        severity: "fail",
        phrase: ">/etc/udev/rules.d/60-assertd-tpm.rules",
        // As the rule has udev do, which does not run here.
        mend: Mend::Person("chown root:tss /dev/tpmrm0"),
        restore: RESTORE,
    },
    Fault {
        name: "the TPM is open to everybody",
        plant: with_keystore!("chmod 666 /dev/tpmrm0"),
        id: "D25",
        severity: "warn",
        phrase: "MODE=\"0660\"",
        mend: Mend::Person("chmod 660 /dev/tpmrm0"),
        restore: RESTORE,
    },
    Fault {
        name: "what stands in the TPM's place is none of the kernel's",
        plant: with_keystore!(""),
        id: "D27",
        severity: "warn",
        phrase: "leave `tcti` out of [keystore.tpm]",
        mend: Mend::Person("cp -p /tmp/good.toml /etc/assertd/assertd.toml"),
        restore: RESTORE,
    },
    Fault {
        name: "its unit does not let in another TPM, and init writes what does",
        plant: with_keystore!(
            "mv /dev/tpmrm0 /dev/tpmrm7
             sed -i '$a tcti = \"device:/dev/tpmrm7\"' /etc/assertd/assertd.toml"
        ),
        id: "D28",
        severity: "fail",
        phrase: "write `BindPaths=/dev/tpmrm7` and `DeviceAllow=/dev/tpmrm7 rw` below [Service]",
        mend: Mend::Person("assertctl init --yes --name tpm; systemctl daemon-reload"),
        restore: RESTORE,
    },
    Fault {
        name: "its program is not installed",
        plant: with_keystore!("mv /usr/bin/assertd-keystore-tpm /root/"),
        id: "D29",
        severity: "fail",
        phrase: "install assertd's package again",
        mend: Mend::Person("mv /root/assertd-keystore-tpm /usr/bin/"),
        restore: RESTORE,
    },
];
