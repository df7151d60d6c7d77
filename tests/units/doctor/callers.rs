//! What assertd needs to see who is calling, and who gets nothing: /proc, the witness, deny lists.
//! Each is planted, found with its remedy, and gone once the remedy is done.

use super::fault::{Fault, Mend};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "/proc hides callers",
        plant: "mount -o remount,hidepid=invisible /proc",
        id: "D07",
        severity: "fail",
        phrase: "mount -o remount,hidepid=0 /proc",
        mend: Mend::Remedy,
        restore: "mount -o remount,hidepid=0 /proc",
    },
    Fault {
        name: "a deny list has a line that is no entry",
        plant: "echo mallory.service > /etc/assertd/denied
                printf '[deny]\\nunits = \"/etc/assertd/denied\"\\n' >> /etc/assertd/assertd.toml
                assertctl reload
                echo '*' > /etc/assertd/denied",
        id: "D63",
        severity: "fail",
        phrase: "mend the line",
        mend: Mend::Person("echo mallory.service > /etc/assertd/denied"),
        restore: "cp -p /tmp/good.toml /etc/assertd/assertd.toml; assertctl reload
                  rm /etc/assertd/denied",
    },
    Fault {
        name: "the witness is away, and a deny list asks what workloads run",
        plant: "systemctl --quiet enable --now assertd-witness.socket
                sha256sum /usr/bin/false | cut -c 1-64 > /etc/assertd/denied
                printf '[deny]\\nexecutables = \"/etc/assertd/denied\"\\n' \
                  >> /etc/assertd/assertd.toml
                assertctl reload
                systemctl --quiet disable --now assertd-witness.socket
                systemctl stop assertd-witness.service",
        id: "D64",
        severity: "fail",
        phrase: "systemctl enable --now assertd-witness.socket",
        mend: Mend::Remedy,
        restore: "cp -p /tmp/good.toml /etc/assertd/assertd.toml; assertctl reload
                  rm /etc/assertd/denied
                  systemctl --quiet disable --now assertd-witness.socket
                  systemctl stop assertd-witness.service",
    },
];
