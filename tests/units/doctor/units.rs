//! The users and units: missing, masked, switched off, changed by drop-ins, older than the programs.
//! Each is planted, found with its remedy, and gone once the remedy is done.

use super::fault::{Fault, Mend};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "the keystore's user is not in the group",
        plant: "gpasswd --delete assertd-pkcs11 assertd >/dev/null",
        id: "D11",
        severity: "warn",
        phrase: "usermod -aG assertd assertd-pkcs11",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "a user is missing",
        plant: "cp -p /etc/passwd /tmp/passwd; cp -p /etc/shadow /tmp/shadow
                sed -i '/^assertd-pkcs11:/d' /etc/passwd /etc/shadow",
        id: "D10",
        severity: "fail",
        phrase: "systemd-sysusers assertd.conf",
        mend: Mend::Remedy,
        restore: "cp -p /tmp/passwd /etc/passwd; cp -p /tmp/shadow /etc/shadow",
    },
    Fault {
        name: "a unit is not installed",
        plant: "mv /usr/lib/systemd/system/assertd-admin.socket /tmp; systemctl daemon-reload",
        id: "D31",
        severity: "fail",
        phrase: "install assertd's package again",
        mend: Mend::Person(
            "mv /tmp/assertd-admin.socket /usr/lib/systemd/system; systemctl daemon-reload",
        ),
        restore: "",
    },
    Fault {
        name: "a socket's unit is masked",
        plant: "systemctl --quiet mask --now assertd-admin.socket",
        id: "D32",
        severity: "fail",
        phrase: "systemctl unmask assertd-admin.socket && systemctl enable --now",
        mend: Mend::Remedy,
        restore: "systemctl start assertd",
    },
    Fault {
        name: "a keystore's socket is not enabled",
        plant: "systemctl --quiet disable assertd-keystore-pkcs11@hsm.socket",
        id: "D33",
        severity: "fail",
        phrase: "systemctl enable --now assertd-keystore-pkcs11@hsm.socket",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "a socket's unit does not listen",
        plant: "systemctl stop assertd.socket",
        id: "D34",
        severity: "fail",
        phrase: "systemctl restart assertd.socket",
        mend: Mend::Remedy,
        restore: "systemctl start assertd",
    },
    Fault {
        name: "a drop-in hides from assertd who is calling",
        plant: "mkdir -p /etc/systemd/system/assertd.service.d
                printf '[Service]\\nPrivateUsers=yes\\n' \
                  > /etc/systemd/system/assertd.service.d/doctor.conf
                systemctl daemon-reload",
        id: "D35",
        severity: "fail",
        phrase: "remove `PrivateUsers=yes` from /etc/systemd/system/assertd.service.d/doctor.conf",
        mend: Mend::Person(
            "sed -i /PrivateUsers=yes/d /etc/systemd/system/assertd.service.d/doctor.conf
             systemctl daemon-reload; systemctl restart assertd",
        ),
        restore: "rm /etc/systemd/system/assertd.service.d/doctor.conf; systemctl daemon-reload",
    },
    Fault {
        name: "a drop-in takes protection away",
        plant: "mkdir -p /etc/systemd/system/assertd-keystore-pkcs11@.service.d
                printf '[Service]\\nNoNewPrivileges=no\\n' \
                  > /etc/systemd/system/assertd-keystore-pkcs11@.service.d/doctor.conf
                systemctl daemon-reload",
        id: "D36",
        severity: "fail",
        phrase: "remove `NoNewPrivileges=no` from \
                 /etc/systemd/system/assertd-keystore-pkcs11@.service.d/doctor.conf",
        mend: Mend::Person(
            "sed -i /NoNew/d /etc/systemd/system/assertd-keystore-pkcs11@.service.d/doctor.conf
             systemctl daemon-reload; systemctl restart assertd-keystore-pkcs11@hsm",
        ),
        restore: "rm /etc/systemd/system/assertd-keystore-pkcs11@.service.d/doctor.conf
                  systemctl daemon-reload",
    },
    Fault {
        name: "a drop-in was written and not read",
        plant: "mkdir -p /etc/systemd/system/assertd.service.d
                printf '[Service]\\nNice=1\\n' > /etc/systemd/system/assertd.service.d/doctor.conf",
        id: "D37",
        severity: "warn",
        phrase: "systemctl daemon-reload",
        mend: Mend::Remedy,
        restore: "rm /etc/systemd/system/assertd.service.d/doctor.conf; systemctl daemon-reload",
    },
    Fault {
        name: "a keystore has no unit of its own",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                sed -i '/^socket = /d' /etc/assertd/assertd.toml",
        id: "D38",
        severity: "warn",
        phrase: "write `socket = \"/run/assertd/keystore-hsm.sock\"` in [keystore.hsm]",
        mend: Mend::Person("cp -p /tmp/good.toml /etc/assertd/assertd.toml"),
        restore: "",
    },
    Fault {
        name: "assertd looks for a keystore where its unit does not listen",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                sed -i 's|^socket = .*|socket = \"/run/assertd/typo.sock\"|' /etc/assertd/assertd.toml",
        id: "D39",
        severity: "fail",
        phrase: "write `socket = \"/run/assertd/keystore-hsm.sock\"` in [keystore.hsm]",
        mend: Mend::Person("cp -p /tmp/good.toml /etc/assertd/assertd.toml"),
        restore: "",
    },
    Fault {
        name: "assertd does not run",
        plant: "systemctl stop assertd",
        id: "D60",
        severity: "warn",
        phrase: "systemctl start assertd",
        mend: Mend::Person("systemctl start assertd"),
        restore: "",
    },
    Fault {
        name: "an older program runs than is installed",
        plant: "cp -p /usr/bin/assertd /usr/bin/assertd.new
                mv /usr/bin/assertd.new /usr/bin/assertd",
        id: "D62",
        severity: "warn",
        phrase: "systemctl restart assertd",
        mend: Mend::Remedy,
        restore: "",
    },
];
