//! What lies where a socket belongs, and who may connect to it.
//! Each is planted, found with its remedy, and gone once the remedy is done.

use super::fault::{Fault, Mend};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "a file is where the socket belongs",
        plant: "rm /run/assertd/assertd.sock; touch /run/assertd/assertd.sock",
        id: "D41",
        severity: "fail",
        phrase: "mv /run/assertd/assertd.sock /run/assertd/assertd.sock.aside",
        mend: Mend::Remedy,
        restore: "rm /run/assertd/assertd.sock.aside",
    },
    Fault {
        name: "another process listens where workloads ask",
        plant: "rm /run/assertd/assertd.sock
                systemd-run --quiet --collect --unit=thief \
                  systemd-socket-activate --listen=/run/assertd/assertd.sock /bin/cat
                until [ -S /run/assertd/assertd.sock ]; do sleep 0.02; done",
        id: "D41",
        severity: "fail",
        phrase: "and end it (`kill ",
        mend: Mend::Remedy,
        restore: "systemctl stop thief 2>/dev/null || true",
    },
    Fault {
        name: "a socket is gone",
        plant: "rm /run/assertd/admin.sock",
        id: "D40",
        severity: "fail",
        phrase: "systemctl restart assertd-admin.socket",
        mend: Mend::Remedy,
        restore: "systemctl start assertd",
    },
    Fault {
        name: "workloads may not connect",
        plant: "chmod 0600 /run/assertd/assertd.sock",
        id: "D42",
        severity: "fail",
        phrase: "chmod 0666 /run/assertd/assertd.sock",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "everybody may administer",
        plant: "chmod 0666 /run/assertd/admin.sock",
        id: "D42",
        severity: "fail",
        phrase: "chmod 0600 /run/assertd/admin.sock",
        mend: Mend::Remedy,
        restore: "",
    },
];
