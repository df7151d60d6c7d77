//! The PIN: missing, of another name, wrong, for everybody to read.
//! Each is planted, found with its remedy, and gone once the remedy is done.

use super::fault::{Fault, Mend};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "the PIN's credential is missing",
        plant: "rm /etc/credstore.encrypted/assertd.hsm.pin
                systemctl restart assertd-keystore-pkcs11@hsm",
        id: "D20",
        severity: "fail",
        phrase: "--name=hsm.pin - /etc/credstore.encrypted/assertd.hsm.pin",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the keystore has no PIN",
        plant: "rm /etc/credstore.encrypted/assertd.hsm.pin
                systemctl restart assertd-keystore-pkcs11@hsm",
        id: "D71",
        severity: "fail",
        phrase: "systemctl restart assertd-keystore-pkcs11@hsm",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the PIN's credential was made for another name",
        plant: "rm /etc/credstore.encrypted/assertd.hsm.pin
                printf 1 | systemd-creds encrypt --name=pin - \
                  /etc/credstore.encrypted/assertd.hsm.pin",
        id: "D21",
        severity: "fail",
        phrase: "--name=hsm.pin - /etc/credstore.encrypted/assertd.hsm.pin",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the PIN is wrong",
        plant: "printf 1111 | systemd-creds encrypt --name=hsm.pin - \
                  /etc/credstore.encrypted/assertd.hsm.pin
                systemctl restart assertd-keystore-pkcs11@hsm",
        id: "D72",
        severity: "fail",
        phrase: "with the right PIN, then run `systemctl restart assertd-keystore-pkcs11@hsm`",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "a PIN file can be read by others",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                sed -i 's|^pin = .*|pin = { file = \"/etc/assertd/pin\" }|' /etc/assertd/assertd.toml
                echo 1 > /etc/assertd/pin; chmod 0644 /etc/assertd/pin",
        id: "D23",
        severity: "fail",
        phrase: "chown assertd-pkcs11 /etc/assertd/pin && chmod 0400 /etc/assertd/pin",
        mend: Mend::Remedy,
        restore: "rm /etc/assertd/pin; cp -p /tmp/good.toml /etc/assertd/assertd.toml",
    },
];
