//! The broker's state and its audit log.
//! Each is planted, found with its remedy, and gone once the remedy is done.

use super::fault::{Fault, Mend};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "the state can be read by others",
        plant: "chmod 0755 /var/lib/assertd",
        id: "D50",
        severity: "fail",
        phrase: "chown -R assertd: /var/lib/assertd && chmod 0700 /var/lib/assertd",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the audit log's disk is nearly full",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                systemctl stop assertd
                install -d -m 0700 -o assertd -g assertd /srv/audit
                mount -t tmpfs -o size=2m,mode=0700,uid=$(id -u assertd) tmpfs /srv/audit
                printf '[audit]\\ndir = \"/srv/audit\"\\nsegment_bytes = 65536\\n' \
                  >> /etc/assertd/assertd.toml
                head -c 2064384 /dev/zero > /srv/audit/other",
        id: "D51",
        severity: "fail",
        phrase: "df -h /srv/audit",
        mend: Mend::Person("rm /srv/audit/other"),
        restore: "umount /srv/audit; cp -p /tmp/good.toml /etc/assertd/assertd.toml
                  systemctl start assertd",
    },
    Fault {
        name: "a record of the audit log was changed",
        plant: "systemctl stop assertd
                log=$(ls /var/lib/assertd/audit/audit-*.log | tail -n 1)
                sed -i '0,/opened/s//opemed/' $log",
        id: "D91",
        severity: "fail",
        phrase: "run `mv /var/lib/assertd/audit /var/lib/assertd/audit.evidence`",
        mend: Mend::Person(
            "mv /var/lib/assertd/audit /var/lib/assertd/audit.evidence; systemctl start assertd",
        ),
        restore: "systemctl start assertd",
    },
];
