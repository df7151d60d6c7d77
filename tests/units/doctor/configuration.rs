//! Who may write the configuration and who must read it, its mistakes, and that it is in force.
//! Each is planted, found with its remedy, and gone once the remedy is done.

use super::fault::{Fault, Mend};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "the configuration can be written by others",
        plant: "chmod 0666 /etc/assertd/assertd.toml",
        id: "D14",
        severity: "fail",
        phrase: "chmod go-w /etc/assertd/assertd.toml",
        mend: Mend::Remedy,
        restore: "chmod 0644 /etc/assertd/assertd.toml",
    },
    Fault {
        name: "the drop-ins belong to assertd",
        plant: "chown assertd /etc/assertd/conf.d",
        id: "D14",
        severity: "fail",
        phrase: "chown root /etc/assertd/conf.d",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the configuration cannot be read by assertd",
        plant: "chmod 0600 /etc/assertd/assertd.toml",
        id: "D15",
        severity: "fail",
        phrase: "chown root:assertd /etc/assertd/assertd.toml && chmod 0640",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the configuration has a mistake",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                echo 'modul = \"/m.so\"' >> /etc/assertd/assertd.toml",
        id: "D12",
        severity: "fail",
        phrase: "assertctl config check",
        mend: Mend::Person("cp -p /tmp/good.toml /etc/assertd/assertd.toml"),
        restore: "",
    },
    Fault {
        name: "a changed configuration was not reloaded",
        plant: "echo '# changed' >> /etc/assertd/conf.d/payments.toml",
        id: "D61",
        severity: "warn",
        phrase: "assertctl reload",
        mend: Mend::Person("assertctl reload"),
        restore: "sed -i '/^# changed/d' /etc/assertd/conf.d/payments.toml; assertctl reload",
    },
];
